"""A large vocabulary as a small action space: the tokens that a language model finds likeliest."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from textgym.checks import check_at_least
from textgym.language_models import LanguageModel
from textgym.spaces import sequence_lengths
from textgym.tasks.base import Task
from textgym.vector_env import TextGenVectorEnv
from textgym.wrappers.strings import textgym_env


class _Candidates:
    """What the wrappers of one and of many environments share: which tokens the actions stand for."""

    def __init__(self, task: Task, language_model: LanguageModel, k: int) -> None:
        self.k = check_at_least("k", k, 2)
        if self.k > task.vocab_size:
            raise ValueError(f"k must be at most the {task.vocab_size} actions of env, got {k}")
        if not isinstance(language_model, LanguageModel):
            raise ValueError(
                f"language_model must have vocab_size, log_probs and text_log_probs, got {language_model!r}"
            )
        self.task, self.language_model = task, language_model
        self.space = spaces.Discrete(self.k)
        self.observation_space = spaces.Box(0, task.pad_id, (task.context_length,), np.int32)

    def rank(self, tokens: NDArray[np.int32], legal: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The tokens of the actions in each row, and which of them are legal, both of shape ``(n, k)``."""
        n, eos = len(tokens), self.task.eos_id
        scores = np.full((n, self.task.vocab_size), -np.inf, np.float32)
        log_probs = self.language_model.log_probs(tokens, sequence_lengths(tokens, self.task.pad_id))
        shared = min(log_probs.shape[1], self.task.vocab_size)
        # Tokens that the model does not know come after all that it does, and illegal ones last of all.
        scores[:, :shared] = np.maximum(log_probs[:, :shared], -1e6)
        scores[~np.isfinite(scores)] = -2e6
        scores[~legal] -= 4e6
        scores[:, eos] = -np.inf  # it has an action of its own
        likeliest = np.argpartition(-scores, self.k - 2, axis=1)[:, : self.k - 1]
        # Likeliest first; of equally likely ones, the lower id.
        likeliest.sort(axis=1)
        order = np.argsort(-np.take_along_axis(scores, likeliest, axis=1), axis=1, kind="stable")
        candidates = np.empty((n, self.k), np.int64)
        candidates[:, :-1] = np.take_along_axis(likeliest, order, axis=1)
        candidates[:, -1] = eos
        return candidates, np.take_along_axis(legal, candidates, axis=1)


class TopKActions(
    gym.Wrapper[NDArray[np.int32], np.int64, NDArray[np.int32], np.int64], gym.utils.RecordConstructorArgs
):
    """The action is one of the ``k`` tokens that a language model finds likeliest next: ``Discrete(k)``.

    Action 0 is the likeliest legal token, action 1 the next, and so on; the last, ``k - 1``, is always EOS, which is
    not counted among the others. Where fewer tokens are legal, the mask leaves out the rest. ``info`` has
    ``action_mask``, shape ``(k,)``, and ``candidates``, the token ids behind the actions, shape ``(k,)``.

    The observation stays the row of token ids, as a plain Box: an action is not a token any more, which a
    :class:`~textgym.spaces.TokenSequence` would promise.

    Args:
        env: A single TextGym environment, wrapped or not.
        language_model: Ranks the tokens; its ids are those of the environment. Tokens that it does not know come last.
        k: Number of actions, from 2 to those of ``env``.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from textgym.language_models import bigram_model
        >>> env = TopKActions(gym.make("TextGen-v0"), bigram_model(), k=50)
        >>> observation, info = env.reset(seed=0)
        >>> env.action_space, env.unwrapped.task.token_text(info["candidates"][49])
        (Discrete(50), '<eos>')
    """

    def __init__(self, env: gym.Env[NDArray[np.int32], np.int64], language_model: LanguageModel, k: int) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, language_model=language_model, k=k)
        super().__init__(env)
        self._base = textgym_env(env)
        self._ranking = _Candidates(self._base.task, language_model, k)
        self.action_space = self._ranking.space
        self.observation_space = self._ranking.observation_space
        self._tokens: NDArray[np.int64] | None = None
        self._mask = np.ones(k, np.bool_)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int32], dict[str, Any]]:
        """Start a new episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, self._offer(observation, info)

    def step(self, action: int | np.integer) -> tuple[NDArray[np.int32], float, bool, bool, dict[str, Any]]:
        """Append the token that the action stands for.

        Raises:
            ValueError: If the action is not an integer in [0, k).
            gymnasium.error.ResetNeeded: If the episode has ended or not begun.
        """
        if self._tokens is None:
            raise gym.error.ResetNeeded("call reset() before step()")
        if not self.action_space.contains(np.int64(action)):
            raise ValueError(f"action must be one integer in [0, {self._ranking.k}), got {action!r}")
        observation, reward, terminated, truncated, info = self.env.step(self._tokens[action])
        return observation, float(reward), terminated, truncated, self._offer(observation, info)

    def action_masks(self) -> NDArray[np.bool_]:
        """Legal actions, shape ``(k,)``, bool."""
        return self._mask

    def _offer(self, observation: NDArray[np.int32], info: dict[str, Any]) -> dict[str, Any]:
        tokens, masks = self._ranking.rank(observation[None], self._base.action_masks()[None])
        self._tokens, self._mask = tokens[0], masks[0]
        return info | {"action_mask": self._mask.astype(np.int8), "candidates": self._tokens}


class VectorTopKActions(gym.vector.VectorWrapper):
    """:class:`TopKActions` for the batched environment: the language model reads all rows at once.

    Args:
        env: A :class:`textgym.TextGenVectorEnv`, wrapped or not.
        language_model: See :class:`TopKActions`.
        k: See :class:`TopKActions`.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], language_model: LanguageModel, k: int) -> None:
        super().__init__(env)
        if not isinstance(env.unwrapped, TextGenVectorEnv):
            raise ValueError(f"env must be a batched TextGym environment, got {env}")
        self._base = env.unwrapped
        self._ranking = _Candidates(self._base.task, language_model, k)
        self.single_action_space = self._ranking.space
        self.action_space = batch_space(self._ranking.space, self.num_envs)
        self.single_observation_space = self._ranking.observation_space
        self.observation_space = batch_space(self._ranking.observation_space, self.num_envs)
        self._tokens: NDArray[np.int64] | None = None
        self._masks = np.ones((self.num_envs, k), np.bool_)

    @property
    def task(self) -> Task:
        """The task of the environment inside."""
        return self._base.task

    @property
    def all_legal(self) -> bool:
        """Whether every action is legal in every state."""
        return self._base.all_legal

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int32], dict[str, Any]]:
        """Start a new episode in every row."""
        observations, infos = self.env.reset(seed=seed, options=options)
        return observations, self._offer(observations, infos)

    def step(
        self, actions: ArrayLike
    ) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Append to every row the token that its action stands for.

        Raises:
            ValueError: If the actions are not integers in [0, k), shape ``(num_envs,)``.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if self._tokens is None:
            raise gym.error.ResetNeeded("call reset() before step()")
        actions = np.asarray(actions)
        if (
            actions.shape != (self.num_envs,)
            or actions.dtype.kind not in "iu"
            or actions.min() < 0
            or (actions.max() >= self._ranking.k)
        ):
            raise ValueError(f"actions must be {self.num_envs} integers in [0, {self._ranking.k}), got {actions}")
        tokens = self._tokens[np.arange(self.num_envs), actions]
        observations, rewards, terminated, truncated, infos = self.env.step(tokens)
        if "final_info" in infos and truncated.any():
            # Values of the state that was cut off are bootstrapped from: it needs its own mask.
            ended = np.flatnonzero(truncated)
            masks = np.ones((self.num_envs, self._ranking.k), np.int8)
            legal = infos["final_info"]["action_mask"][ended].astype(np.bool_)
            masks[ended] = self._ranking.rank(infos["final_obs"][ended], legal)[1]
            infos["final_info"] = infos["final_info"] | {"action_mask": masks}
        elif "final_info" in infos:
            masks = np.broadcast_to(np.int8(1), (self.num_envs, self._ranking.k))
            infos["final_info"] = infos["final_info"] | {"action_mask": masks}
        return observations, rewards, terminated, truncated, self._offer(observations, infos)

    def action_masks(self) -> NDArray[np.bool_]:
        """Legal actions of each row, shape ``(num_envs, k)``, bool."""
        return self._masks

    def _offer(self, observations: NDArray[np.int32], infos: dict[str, Any]) -> dict[str, Any]:
        self._tokens, self._masks = self._ranking.rank(observations, self._base.action_masks())
        everyone = np.ones(self.num_envs, np.bool_)
        return infos | {
            "action_mask": self._masks.astype(np.int8),
            "_action_mask": everyone,
            "candidates": self._tokens,
            "_candidates": everyone,
        }
