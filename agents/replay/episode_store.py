"""Finished episodes in a handful of flat arrays, oldest out first.

Text only grows, so an episode's last row holds all of its observations: each token is stored once, where a store of
transitions keeps two whole contexts for every action. A token costs 4 bytes, a reward 4, an episode 33.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.replay.ring import Ring

_NO_MASKS = -1
_EPISODE = np.dtype(
    [
        ("first_token", np.int64),
        ("n_tokens", np.int32),
        ("first_step", np.int64),
        ("n_steps", np.int32),
        ("first_mask", np.int64),  # _NO_MASKS: everything was legal throughout
        ("terminated", np.bool_),
    ]
)
_GROWTH_MARGIN = 1.05


class FinishedEpisodes(NamedTuple):
    """Episodes on their way into the store: m of them, padded on the right to a common shape.

    Attributes:
        tokens: Token ids, shape (m, L).
        n_tokens: Tokens in each row, shape (m,).
        action_positions: Where in its row each action's token stands, increasing, shape (m, T).
        n_steps: Actions in each episode, shape (m,).
        rewards: Rewards, shape (m, T).
        terminated: Ended by its own rules, not cut off, bool, shape (m,).
        masks: Packed legal actions of the T+1 states, uint8, shape (m, T+1, ⌈V/8⌉), or None.
    """

    tokens: NDArray[np.integer]
    n_tokens: NDArray[np.int64]
    action_positions: NDArray[np.integer]
    n_steps: NDArray[np.integer]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    masks: NDArray[np.uint8] | None

    def rows(self, selection: slice | NDArray[np.int64]) -> FinishedEpisodes:
        """Some of the episodes."""
        masks = None if self.masks is None else self.masks[selection]
        return FinishedEpisodes(
            self.tokens[selection],
            self.n_tokens[selection],
            self.action_positions[selection],
            self.n_steps[selection],
            self.rewards[selection],
            self.terminated[selection],
            masks,
        )


class StoredEpisodes(NamedTuple):
    """Episodes read back, trimmed to the longest: as `FinishedEpisodes`, with masks only if one of them has any."""

    tokens: NDArray[np.int32]
    n_tokens: NDArray[np.int64]
    action_positions: NDArray[np.int64]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    valid: NDArray[np.bool_]
    terminated: NDArray[np.bool_]
    masks: NDArray[np.uint8] | None

    def finished(self) -> FinishedEpisodes:
        """The same, as they come into a store."""
        n_steps = self.valid.sum(axis=1)
        return FinishedEpisodes(
            self.tokens, self.n_tokens, self.action_positions, n_steps, self.rewards, self.terminated, self.masks
        )


class EpisodeStore:
    """First-in-first-out store of finished episodes, holding at most `max_steps` actions.

    Episodes are numbered from 0 in the order in which they came, and keep their number for life. An episode longer than
    `max_steps` is kept, alone.

    Args:
        max_steps: Actions to hold, ≥ 1.
        pad_id: Token id that fills rows on the right when episodes are read.
        n_actions: Size of the vocabulary, V.
    """

    _RINGS = ("tokens", "rewards", "masks", "episodes")

    def __init__(self, max_steps: int, pad_id: int, n_actions: int) -> None:
        self.max_steps, self.pad_id = max_steps, pad_id
        # An action's token is stored as its bitwise complement. That is negative, so it marks the actions for free.
        self._tokens = Ring(np.int32)
        self._rewards = Ring(np.float32)
        self._masks = Ring(np.uint8, row_shape=(-(-n_actions // 8),))
        self._episodes = Ring(_EPISODE)

    @property
    def n_steps(self) -> int:
        """Actions stored."""
        return len(self._rewards)

    @property
    def first_id(self) -> int:
        """Number of the oldest episode stored."""
        return self._episodes.start

    @property
    def end_id(self) -> int:
        """Number that the next episode will get."""
        return self._episodes.stop

    @property
    def n_slots(self) -> int:
        """Size of the table of episodes: one place for each, see `slots`."""
        return self._episodes.capacity

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return self._tokens.nbytes + self._rewards.nbytes + self._masks.nbytes + self._episodes.nbytes

    def slots(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Place of each episode in the table. It changes when `n_slots` does."""
        return self._episodes.slots(ids)

    def append(self, new: FinishedEpisodes) -> None:
        """Add episodes, dropping as many of the oldest as it takes."""
        new_steps = int(new.n_steps.sum())
        if new_steps > self.max_steps and len(new.n_steps) > 1:  # more than fits: the later half must survive
            half = len(new.n_steps) // 2
            self.append(new.rows(slice(None, half)))
            self.append(new.rows(slice(half, None)))
            return
        self._evict(self.max_steps - new_steps)

        is_token = np.arange(new.tokens.shape[1]) < new.n_tokens[:, None]  # (m, L)
        is_step = np.arange(new.rewards.shape[1]) < new.n_steps[:, None]  # (m, T)
        tokens = new.tokens.astype(np.int32)  # a copy, marked in place
        rows, steps = np.nonzero(is_step)
        tokens[rows, new.action_positions[rows, steps]] ^= -1

        episodes = np.empty(len(new.n_steps), _EPISODE)
        episodes["n_tokens"], episodes["n_steps"] = new.n_tokens, new.n_steps
        episodes["first_token"] = self._tokens.stop + np.cumsum(new.n_tokens) - new.n_tokens
        episodes["first_step"] = self._rewards.stop + np.cumsum(new.n_steps) - new.n_steps
        episodes["terminated"] = new.terminated
        episodes["first_mask"] = _NO_MASKS
        if new.masks is not None:
            n_masks = new.n_steps + 1
            episodes["first_mask"] = self._masks.stop + np.cumsum(n_masks) - n_masks
            self._append(self._masks, new.masks[np.arange(new.masks.shape[1]) < n_masks[:, None]], new_steps)
        self._append(self._tokens, tokens[is_token], new_steps)
        self._append(self._episodes, episodes, new_steps)
        self._append(self._rewards, new.rewards[is_step], new_steps)

    def read(self, ids: NDArray[np.int64]) -> StoredEpisodes:
        """Read episodes by number; the arrays are as wide as the longest of them needs."""
        table = self._episodes[ids]
        n_tokens, n_steps = table["n_tokens"].astype(np.int64), table["n_steps"]
        marked = self._tokens.gather(table["first_token"], int(n_tokens.max()))  # (B, L)
        is_token = np.arange(marked.shape[1]) < n_tokens[:, None]
        marked[~is_token] = self.pad_id
        tokens = marked ^ (marked >> 31)  # complements the negative entries
        valid = np.arange(int(n_steps.max())) < n_steps[:, None]  # (B, T)
        rows, positions = np.nonzero(marked < 0)  # in the order of `valid`'s True entries
        # Padding points at token 1, which always exists: a gather of the features before it stays in range.
        action_positions = np.ones(valid.shape, np.int64)
        action_positions[valid] = positions
        actions = np.zeros(valid.shape, np.int64)
        actions[valid] = tokens[rows, positions]
        rewards = np.where(valid, self._rewards.gather(table["first_step"], valid.shape[1]), np.float32(0))
        return StoredEpisodes(
            tokens, n_tokens, action_positions, actions, rewards, valid, table["terminated"], self._read_masks(table)
        )

    def get_state(self) -> dict[str, Any]:
        """All episodes stored, and where they lie."""
        return {name: getattr(self, f"_{name}").get_state() for name in self._RINGS}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that :meth:`get_state` gave."""
        for name in self._RINGS:
            getattr(self, f"_{name}").set_state(state[name])

    def _read_masks(self, table: NDArray[np.void]) -> NDArray[np.uint8] | None:
        masked = table["first_mask"] != _NO_MASKS
        if not masked.any():
            return None
        masks = self._masks.gather(np.maximum(table["first_mask"], 0), int(table["n_steps"].max()) + 1)
        exists = (np.arange(masks.shape[1]) <= table["n_steps"][:, None]) & masked[:, None]  # (B, T+1)
        masks[~exists] = 0xFF
        return masks

    def _evict(self, max_steps: int) -> None:
        """Drop the oldest episodes until at most `max_steps` actions (or, if that is negative, no episode) are left."""
        first = self.first_kept(max_steps)
        if first == self._episodes.start:
            return
        dropped = self._episodes[np.arange(self._episodes.start, first)]
        self._episodes.drop_before(first)
        self._tokens.drop_before(int(dropped["first_token"][-1] + dropped["n_tokens"][-1]))
        self._rewards.drop_before(int(dropped["first_step"][-1] + dropped["n_steps"][-1]))
        mask_ends = np.where(dropped["first_mask"] == _NO_MASKS, 0, dropped["first_mask"] + dropped["n_steps"] + 1)
        self._masks.drop_before(int(mask_ends.max()))

    def first_kept(self, max_steps: int) -> int:
        """Number of the oldest episode of those that may stay if at most `max_steps` actions may."""
        first = self._episodes.start
        while first < self._episodes.stop and self._rewards.stop - self._first_step(first) > max_steps:
            first += 1
        return first

    def n_steps_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Actions of each episode, shape (n,)."""
        return self._episodes[ids]["n_steps"].astype(np.int64)

    def _first_step(self, episode: int) -> int:
        return int(self._episodes[np.array([episode])]["first_step"][0])

    def _append(self, ring: Ring, rows: NDArray[np.generic], new_steps: int) -> None:
        """Append, foretelling the ring's final size from what the steps so far have needed."""
        per_step = (len(ring) + len(rows)) / max(self.n_steps + new_steps, 1)
        ring.append(rows, expected_rows=int(_GROWTH_MARGIN * per_step * self.max_steps) + 1)
