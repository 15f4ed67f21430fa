"""Episodes under way, one for each environment: only what the last observation won't tell."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.replay.episode_store import FinishedEpisodes


class PartialEpisodes:
    """Positions of the actions, rewards and restrictive masks of the episodes that aren't finished yet.

    Args:
        n_envs: Number of environments.
        n_actions: Size of the vocabulary, V.
    """

    _STATE = ("_n_steps", "_last_actions", "_positions", "_rewards", "_masks")

    def __init__(self, n_envs: int, n_actions: int) -> None:
        self._rows = np.arange(n_envs)
        self._n_steps = np.zeros(n_envs, np.int64)
        self._last_actions = np.zeros(n_envs, np.int64)
        self._positions = np.zeros((n_envs, 16), np.int64)
        self._rewards = np.zeros((n_envs, 16), np.float32)
        self._mask_width = -(-n_actions // 8)
        self._masks: NDArray[np.uint8] | None = None  # (n_envs, steps, ⌈V/8⌉), once a mask forbids anything

    def add(
        self,
        obs: NDArray[np.integer],
        positions: NDArray[np.int64],
        actions: NDArray[np.integer],
        rewards: NDArray[np.floating],
        action_masks: NDArray[np.bool_] | None,
    ) -> None:
        """Record one step of every environment; `positions` (n_envs,) are the lengths of the observations acted in."""
        if len(obs) != len(self._rows):
            raise ValueError(f"obs must have {len(self._rows)} rows, one for each environment, got {len(obs)}")
        if positions.min() == 0:
            raise ValueError(
                f"obs must hold at least one token in every row, got none in row {int(positions.argmin())}"
            )
        # The last action's token must be in this observation; if not, the environment was reset behind our back.
        last_positions = self._positions[self._rows, np.maximum(self._n_steps - 1, 0)]
        goes_on = (obs[self._rows, last_positions] == self._last_actions) & (last_positions < positions)
        if self._masks is not None:
            self._masks[~goes_on & (self._n_steps > 0)] = 0xFF
        self._n_steps *= goes_on
        step = self._n_steps
        if step.max() + 1 >= self._positions.shape[1]:  # one place more than steps: the last state has a mask too
            self._grow()
        self._positions[self._rows, step] = positions
        self._rewards[self._rows, step] = rewards
        if action_masks is not None and (self._masks is not None or not action_masks.all()):
            self._all_masks()[self._rows, step] = np.packbits(action_masks, axis=-1)
        self._last_actions[:] = actions
        self._n_steps += 1

    def finish(
        self,
        ended: NDArray[np.int64],
        tokens: NDArray[np.integer],
        lengths: NDArray[np.int64],
        terminated: NDArray[np.bool_],
        final_masks: list[NDArray[np.bool_] | None],
    ) -> FinishedEpisodes:
        """Take out the episodes of the rows `ended` (m,), given their last rows of `tokens` (m, L)."""
        n_steps = self._n_steps[ended]
        last_positions = self._positions[ended, n_steps - 1]
        inside = np.minimum(last_positions, tokens.shape[1] - 1)
        is_there = (tokens[np.arange(len(ended)), inside] == self._last_actions[ended]) & (last_positions < lengths)
        if not is_there.all():
            row = int(ended[is_there.argmin()])
            raise ValueError(
                f"observations must only grow: the last row of environment {row}'s episode lacks its last action"
            )
        longest = int(n_steps.max())
        masks = None
        if self._masks is not None or any(mask is not None and not np.all(mask) for mask in final_masks):
            table = self._all_masks()
            for row, step, mask in zip(ended, n_steps, final_masks, strict=True):
                if mask is not None:
                    table[row, step] = np.packbits(np.asarray(mask, np.bool_))
            masks = table[ended, : longest + 1]
            table[ended] = 0xFF
        self._n_steps[ended] = 0
        return FinishedEpisodes(
            tokens,
            lengths,
            self._positions[ended, :longest],
            n_steps,
            self._rewards[ended, :longest],
            terminated,
            masks,
        )

    def get_state(self) -> dict[str, Any]:
        """Everything about the episodes under way."""
        return {name: None if (value := getattr(self, name)) is None else value.copy() for name in self._STATE}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that :meth:`get_state` gave."""
        for name in self._STATE:
            setattr(self, name, None if state[name] is None else state[name].copy())

    def _all_masks(self) -> NDArray[np.uint8]:
        if self._masks is None:
            self._masks = np.full((*self._positions.shape, self._mask_width), 0xFF, np.uint8)
        return self._masks

    def _grow(self) -> None:
        self._positions = np.concatenate([self._positions, np.zeros_like(self._positions)], axis=1)
        self._rewards = np.concatenate([self._rewards, np.zeros_like(self._rewards)], axis=1)
        if self._masks is not None:
            self._masks = np.concatenate([self._masks, np.full_like(self._masks, 0xFF)], axis=1)
