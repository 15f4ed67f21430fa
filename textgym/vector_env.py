"""The environment: many rows of one task, advanced together in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from textgym.random import RowStreams, row_key
from textgym.rendering import check_render_mode, render_row
from textgym.spaces import TokenSequence, batch_of_rows
from textgym.tasks import make_task
from textgym.tasks.base import Episodes, Task


class TextGenVectorEnv(gym.vector.VectorEnv):
    """``num_envs`` rows of one task, with same-step autoreset.

    Row ``i``, reset with ``seed``, goes through exactly the episodes of a :class:`textgym.TextGenEnv` that is reset
    with ``seed + i``, whatever the other rows do: a prompt is a pure function of the row's seed and the number of its
    episode.

    Args:
        num_envs: Number of rows (≥ 1).
        task: A task's name, class or instance; see :func:`textgym.tasks.make_task`.
        max_episode_steps: Truncate episodes after so many actions (Gymnasium has no TimeLimit for vector
            environments); None for the task's own budget alone, which *terminates*.
        render_mode: ``"ansi"``, ``"rgb_array"``, ``"human"`` or None.
        **task_kwargs: Arguments of the task.

    Attributes:
        task: The task.
        all_legal: Whether every action is legal in every state, so that masks can be ignored.
        episodes: The running episodes: to read, not to write.
        returns: Sum of rewards of each running episode, shape ``(num_envs,)``.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> envs = TextGenVectorEnv(num_envs=2, task="reverse", length=3, vocab_size=4)
        >>> observations, infos = envs.reset(seed=0)
        >>> observations.shape
        (2, 8)
        >>> observations, rewards, terminated, truncated, infos = envs.step(np.array([0, 4]))
        >>> terminated
        array([False,  True])
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # declared so by Gymnasium
        "render_modes": ["ansi", "human", "rgb_array"],
        "render_fps": 4,
        "autoreset_mode": gym.vector.AutoresetMode.SAME_STEP,
    }
    _STATE = ("_keys", "_episode_numbers", "returns", "episodes")

    def __init__(
        self,
        num_envs: int = 1,
        task: str | type[Task] | Task = "text_generation",
        *,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        **task_kwargs: Any,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1 or None, got {max_episode_steps}")
        self.render_mode = check_render_mode(render_mode)
        self.num_envs = int(num_envs)
        self.task = make_task(task, **task_kwargs)
        self.max_episode_steps = max_episode_steps
        self.all_legal = not self.task.masked
        self.single_observation_space = TokenSequence(self.task.context_length, self.task.vocab_size, self.task.pad_id)
        self.single_action_space = gym.spaces.Discrete(self.task.vocab_size)
        self.observation_space = batch_of_rows(self.single_observation_space, self.num_envs)
        self.action_space = batch_of_rows(self.single_action_space, self.num_envs)

        n = self.num_envs
        self._rows = np.arange(n)
        self._everyone = np.ones(n, np.bool_)
        self._keys: NDArray[np.uint64] | None = None
        self._episode_numbers = np.zeros(n, np.int64)
        self.returns = np.zeros(n)
        self.episodes = Episodes(
            np.full((n, self.task.context_length), self.task.pad_id, np.int32),
            np.zeros(n, np.int64),
            np.zeros(n, np.int64),
            np.zeros(n, np.int64),
        )
        # All-legal masks are one element, broadcast: 1,024 rows of 50,000 tokens would be 51 MB.
        shape = (n, self.task.vocab_size)
        self._masks: NDArray[np.bool_] = np.broadcast_to(np.True_, shape)
        self._int8_masks: NDArray[np.int8] = np.broadcast_to(np.int8(1), shape)

    # ------------------------------------------------------------------ Gymnasium's interface

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int32], dict[str, Any]]:
        """Start a new episode in every row.

        Args:
            seed: Row ``i`` gets ``seed + i``; a sequence gives each row its own; None goes on with the random streams.
            options: ``{"reset_mask": bool array}`` resets the marked rows alone.

        Returns:
            Observations ``(num_envs, context_length)`` int32, and infos with ``action_mask`` ``(num_envs, V)`` int8.
        """
        rows = self._rows
        if options is not None and "reset_mask" in options:
            mask = np.asarray(options["reset_mask"])
            if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
                raise ValueError(f"options['reset_mask'] must be a bool array of shape ({self.num_envs},) with a True")
            rows = np.flatnonzero(mask)
        self._seed_rows(seed, rows)
        self._start(rows)
        return self.episodes.tokens.copy(), self._infos()

    def step(
        self, actions: ArrayLike
    ) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Append one token to every row; rows that end begin their next episode at once.

        Args:
            actions: Token ids below ``V``, shape ``(num_envs,)``, integers.

        Returns:
            Observations, rewards (float64), terminated, truncated, infos. Where an episode ended, the observation is
            the next episode's first one, and ``infos["final_obs"][i]`` and ``infos["final_info"]`` hold the last of
            the old one (rows marked in ``infos["_final_obs"]``), its return and its number of actions included.

        Raises:
            ValueError: If the shape is wrong, or an action is not an integer in [0, V).
        """
        rewards, terminated, truncated, illegal = self.advance(actions)
        ended = terminated | truncated
        if not ended.any():
            return self.episodes.tokens.copy(), rewards, terminated, truncated, self._infos()
        final_info: dict[str, Any] = {"action_mask": self._int8_masks, "_action_mask": ended}
        for name, values in (("episode_return", self.returns), ("episode_length", self.episodes.steps)):
            final_info |= {name: values.copy(), f"_{name}": ended}
        if illegal is not None:
            final_info |= {"illegal_action": illegal, "_illegal_action": illegal}
        final_obs = self.episodes.tokens.copy()
        self._start(np.flatnonzero(ended))
        infos = self._infos()
        infos |= {"final_obs": final_obs, "_final_obs": ended, "final_info": final_info, "_final_info": ended}
        return self.episodes.tokens.copy(), rewards, terminated, truncated, infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Legal actions of each row, shape ``(num_envs, V)``, bool; read-only where everything is legal."""
        return self._masks

    def render(self) -> tuple[Any, ...] | None:
        """One frame a row: text for ``"ansi"``, ``(height, width, 3)`` uint8 for ``"rgb_array"``."""
        if self.render_mode is None:
            return None
        return tuple(self.render_row(row) for row in range(self.num_envs))

    def render_row(self, row: int) -> Any:
        """The frame of one row."""
        return render_row(self.task, self.episodes, row, float(self.returns[row]), self.render_mode)

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what comes next: all rows and all randomness, as arrays and plain values."""
        state = {name: deepcopy(getattr(self, name)) for name in self._STATE}
        return state | {"np_random": self.np_random.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that :meth:`get_state` gave, of an environment with the same arguments.

        Raises:
            ValueError: If the state is of another shape.
        """
        shape = state["episodes"].tokens.shape
        if shape != self.episodes.tokens.shape:
            raise ValueError(f"state must have observations of shape {self.episodes.tokens.shape}, got {shape}")
        for name in self._STATE:
            setattr(self, name, deepcopy(state[name]))
        self.np_random.bit_generator.state = state["np_random"]
        if self.task.masked:
            self._update_masks(self._rows)

    # ------------------------------------------------------------------ the core, shared with the single environment

    def advance(
        self, actions: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_] | None]:
        """Append one token to every row, without autoreset.

        Returns:
            Rewards, terminated, truncated, and the rows that chose an illegal token (None if there are none).
        """
        task, episodes = self.task, self.episodes
        actions = self._check_actions(actions, (self.num_envs,))
        illegal = self._illegal(self._rows, actions)
        rewards, terminated, truncated = self._append(episodes, actions, illegal)
        self.returns += rewards

        replies = task.reply(episodes, actions)
        if replies is not None:
            episodes.append(replies, ~terminated)
        if task.masked:
            self._update_masks(self._rows)
        return rewards, terminated, truncated, illegal

    def rewards_of(self, actions: ArrayLike) -> NDArray[np.float64]:
        """What each of some actions would earn in its row now: rewards of what was not done. Nothing changes.

        Args:
            actions: Token ids below ``V``, shape ``(num_envs, k)``, integers.

        Returns:
            Rewards, shape ``(num_envs, k)``.

        Raises:
            ValueError: If the shape is wrong, or an action is not an integer in [0, V).
        """
        actions = np.asarray(actions)
        actions = self._check_actions(actions, (self.num_envs, actions.shape[-1] if actions.ndim else 0))
        rows = self._rows.repeat(actions.shape[1])
        flat = actions.ravel()
        return self._append(self.episodes.take(rows), flat, self._illegal(rows, flat))[0].reshape(actions.shape)

    def _illegal(self, rows: NDArray[np.int64], actions: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Which actions are illegal in their rows, shape ``(n,)``; None if none is."""
        if not self.task.masked:
            return None
        illegal = ~self._masks[rows, actions]
        return illegal if illegal.any() else None

    def _append(
        self, episodes: Episodes, actions: NDArray[np.int64], illegal: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Append an action to each of n episodes; returns rewards, terminated and truncated, without the replies."""
        task, n = self.task, len(episodes)
        episodes.tokens[np.arange(n), episodes.lengths] = actions
        episodes.lengths += 1
        episodes.steps += 1

        terminated = (actions == task.eos_id) | (episodes.steps >= task.max_new_tokens)
        rewards = task.step_reward(episodes, actions)
        if rewards is None:
            rewards = np.zeros(n)
        finished = task.finished(episodes, actions)
        if finished is not None:
            terminated |= finished
        truncated = np.zeros(n, np.bool_)
        if self.max_episode_steps is not None:
            truncated = ~terminated & (episodes.steps >= self.max_episode_steps)

        scored = terminated if illegal is None else terminated & ~illegal
        rows = scored.nonzero()[0]
        if rows.size and task.pays_at_end:
            final = task.final_reward(episodes if rows.size == n else episodes.take(rows))
            if final is not None:
                rewards[rows] += final
        if illegal is not None:
            forfeit = np.broadcast_to(task.forfeit_reward(episodes), rewards.shape)
            rewards[illegal] = forfeit[illegal]
            terminated |= illegal
            truncated &= ~illegal
        return rewards, terminated, truncated

    def _check_actions(self, actions: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.int64]:
        actions = np.asarray(actions)
        if actions.shape != shape or actions.dtype.kind not in "iu":
            raise ValueError(f"actions must be integers of shape {shape}, got {actions.dtype} of shape {actions.shape}")
        if self._keys is None:
            raise gym.error.ResetNeeded("call reset() before step()")
        # One comparison tests both ends: as unsigned numbers, negative ones are huge.
        if actions.astype(np.uint64).max() >= self.task.vocab_size:
            wrong = actions[(actions < 0) | (actions >= self.task.vocab_size)][0]
            raise ValueError(f"actions must lie in [0, {self.task.vocab_size}), got {wrong}")
        return actions

    def _seed_rows(self, seed: int | Sequence[int | None] | None, rows: NDArray[np.integer]) -> None:
        if seed is None:
            if self._keys is None:
                self._keys = self.np_random.integers(2**64, size=self.num_envs, dtype=np.uint64)
            return
        if self._keys is None:
            self._keys = np.zeros(self.num_envs, np.uint64)
        if isinstance(seed, (int, np.integer)):
            seeds: Sequence[int | None] = [int(seed) + row for row in range(self.num_envs)]
        else:
            seeds = list(seed)
            if len(seeds) != self.num_envs:
                raise ValueError(f"seed must be an integer or {self.num_envs} of them, got {len(seeds)}")
        if seeds[0] is not None:
            super().reset(seed=int(seeds[0]))
        for row in rows.tolist():
            self._keys[row] = row_key(seeds[row])
        self._episode_numbers[rows] = 0

    def _start(self, rows: NDArray[np.integer]) -> None:
        """Begin the next episode of the given rows."""
        assert self._keys is not None
        prompts = self.task.prompts(RowStreams(self._keys[rows], self._episode_numbers[rows]))
        self._episode_numbers[rows] += 1
        self.episodes.begin(rows, prompts, self.task.pad_id)
        self.returns[rows] = 0.0
        if self.task.masked:
            self._update_masks(rows)

    def _update_masks(self, rows: NDArray[np.integer]) -> None:
        everyone = len(rows) == self.num_envs
        allowed = self.task.allowed(self.episodes if everyone else self.episodes.take(rows))
        # New arrays each time: those of earlier steps are in the caller's hands. One row that is broadcast to all stays
        # so where it is still the same: a copy for 1,024 rows of 50,000 tokens would be 51 MB a step.
        if everyone:
            self._masks = allowed
        elif any((self._masks.strides[0], allowed.strides[0])) or not np.array_equal(self._masks[0], allowed[0]):
            self._masks = self._masks.copy()
            self._masks[rows] = allowed
        self._int8_masks = self._masks.view(np.int8)

    def _infos(self) -> dict[str, Any]:
        return {"action_mask": self._int8_masks, "_action_mask": self._everyone}
