"""Episodes of a task's oracle, as text and token ids: data to learn from before (or without) any exploration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.random import RowStreams, row_key
from textgym.spaces import sequence_lengths
from textgym.vector_env import TextGenVectorEnv

if TYPE_CHECKING:
    from datasets import Dataset

_BATCH = 256
# The noise's streams have the prompts' keys; no environment starts so many episodes.
_NOISE_EPISODE = 2**40


@dataclass(frozen=True, eq=False)
class Demonstration:
    """One episode; it unpacks into ``prompt, completion, reward``.

    Attributes:
        prompt: Text of the prompt.
        completion: Text of what follows it, the environment's replies in multi-turn tasks included.
        reward: Return of the episode.
        prompt_tokens: Token ids of the prompt, shape ``(P,)``, int32.
        completion_tokens: Token ids of what follows, EOS included where it was written, shape ``(C,)``, int32.
        is_action: Which of ``completion_tokens`` the oracle wrote (the others are replies), shape ``(C,)``, bool.
    """

    prompt: str
    completion: str
    reward: float
    prompt_tokens: NDArray[np.int32]
    completion_tokens: NDArray[np.int32]
    is_action: NDArray[np.bool_]

    def __iter__(self) -> Iterator[Any]:
        return iter((self.prompt, self.completion, self.reward))


class Demonstrations:
    """``n`` demonstrations, played while they are iterated over; every pass yields the same ones.

    Made by :func:`demonstrations`, which explains the arguments.
    """

    def __init__(self, env_id: str, n: int, seed: int, error_rate: float, env_kwargs: dict[str, Any]) -> None:
        self.env_id, self.seed, self.env_kwargs = env_id, int(seed), env_kwargs
        self.n = check_at_least("n", n, 1)
        if not 0 <= error_rate <= 1:
            raise ValueError(f"error_rate must lie in [0, 1], got {error_rate!r}")
        self.error_rate = float(error_rate)
        envs = self._make(1)
        envs.reset(seed=self.seed)
        if envs.task.oracle(envs.episodes) is None:
            raise ValueError(
                f"{env_id} has no oracle to take demonstrations from: pick a task that has one, implement oracle() in "
                f"a task of your own, or write down the episodes of a trained agent"
            )

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Demonstration]:
        for start in range(0, self.n, _BATCH):
            yield from self._play(range(self.seed + start, self.seed + min(start + _BATCH, self.n)))

    def to_dataset(self) -> Dataset:
        """A ``datasets.Dataset`` with the attributes of :class:`Demonstration` as its columns.

        Raises:
            ModuleNotFoundError: If the package ``datasets`` is not installed.
        """
        try:
            from datasets import Dataset
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("to_dataset() needs the package datasets: pip install datasets") from error
        rows = [
            {
                "prompt": one.prompt,
                "completion": one.completion,
                "reward": one.reward,
                "prompt_tokens": one.prompt_tokens.tolist(),
                "completion_tokens": one.completion_tokens.tolist(),
                "is_action": one.is_action.tolist(),
            }
            for one in self
        ]
        return Dataset.from_list(rows)

    def _make(self, num_envs: int) -> TextGenVectorEnv:
        envs = gym.make_vec(self.env_id, num_envs=num_envs, **self.env_kwargs).unwrapped
        if not isinstance(envs, TextGenVectorEnv):
            raise ValueError(f"id must be one of textgym.env_ids(), got {self.env_id!r}")
        return envs

    def _play(self, seeds: range) -> list[Demonstration]:
        """One episode a seed, all at once."""
        n = len(seeds)
        envs = self._make(n)
        task, rows = envs.task, np.arange(n)
        tokens, _ = envs.reset(seed=list(seeds))
        prompt_lengths = envs.episodes.prompt_lengths.copy()
        is_action = np.zeros(tokens.shape, np.bool_)
        returns, running = np.zeros(n), np.ones(n, np.bool_)
        noise = RowStreams(np.array([row_key(seed) for seed in seeds]), np.full(n, _NOISE_EPISODE))
        while running.any():
            actions = self._actions(envs, noise)
            is_action[rows[running], envs.episodes.lengths[running]] = True
            observations, rewards, terminated, truncated, infos = envs.step(actions)
            ended = terminated | truncated
            last = infos["final_obs"] if ended.any() else observations
            tokens[running] = last[running]
            returns += rewards * running
            running &= ~ended
        lengths = sequence_lengths(tokens, task.pad_id)
        result = []
        for row in range(n):
            prompt = tokens[row, : prompt_lengths[row]]
            completion = tokens[row, prompt_lengths[row] : lengths[row]]
            result.append(
                Demonstration(
                    task.decode(prompt),
                    task.decode(completion),
                    float(returns[row]),
                    prompt.copy(),
                    completion.copy(),
                    is_action[row, prompt_lengths[row] : lengths[row]].copy(),
                )
            )
        return result

    def _actions(self, envs: TextGenVectorEnv, noise: RowStreams) -> NDArray[np.int64]:
        """The oracle's actions, some of them replaced."""
        actions = envs.task.oracle(envs.episodes)
        assert actions is not None  # checked at construction
        if self.error_rate == 0.0:
            return actions
        draws = noise.random((2,))  # (n, 2): whether to err, and which token to write then
        masks = envs.action_masks()
        counts = masks.cumsum(axis=1)  # (n, V)
        wanted = (draws[:, 1] * counts[:, -1]).astype(np.int64) + 1
        random_tokens = (counts >= wanted[:, None]).argmax(axis=1)
        # After an error the oracle is on its own, and may want what is not legal any more.
        legal = masks[np.arange(len(actions)), actions]
        return np.where((draws[:, 0] < self.error_rate) | ~legal, random_tokens, actions)


def demonstrations(id: str, n: int, seed: int = 0, error_rate: float = 0.0, **env_kwargs: Any) -> Demonstrations:
    """Episodes of a task's oracle.

    Demonstration ``i`` is an episode of the prompt that ``gymnasium.make(id)`` shows after ``reset(seed=seed + i)``, so
    it does not depend on ``n``.

    Args:
        id: A registered id whose task has an oracle.
        n: Number of episodes (≥ 1).
        seed: Seed of the first one.
        error_rate: Probability with which each token is replaced by one drawn uniformly from the legal ones, EOS and
            the replaced token among them. The oracle goes on from there, as well as it can: it need not find the best
            return any more, and where it wants an illegal token, a legal one is drawn as well.
        **env_kwargs: Arguments of the environment.

    Returns:
        An iterable of :class:`Demonstration`, each of which unpacks into ``prompt, completion, reward``; its
        ``to_dataset()`` makes a ``datasets.Dataset``.

    Raises:
        ValueError: If an argument is out of range, or the task has no oracle.

    Example:
        >>> for prompt, completion, reward in demonstrations("TextGen/Reverse-v0", n=2, length=3, vocab_size=4):
        ...     print(prompt, "→", completion, reward)
        d b d → d b d 1.0
        d d a → a d d 1.0
    """
    return Demonstrations(id, n, seed, error_rate, env_kwargs)
