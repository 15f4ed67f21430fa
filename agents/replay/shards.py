"""A replay in shards: one for each of several learners, dealt out of one replay and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.replay.episode_store import EpisodeStore, FinishedEpisodes
from agents.replay.episodes import EpisodeReplayBuffer
from agents.replay.sum_tree import SumTree

_BLOCK = 256  # episodes put into replay at once, so that the best of those that make room for them are seen


class Contents(NamedTuple):
    """Episodes of a replay, oldest first, and what they weigh in its draw (priority^alpha), shape (m,)."""

    episodes: FinishedEpisodes
    priorities: NDArray[np.float64]

    def rows(self, selection: slice | NDArray[np.int64]) -> Contents:
        """Some of them."""
        return Contents(self.episodes.rows(selection), self.priorities[selection])


def deal(replay: EpisodeReplayBuffer, n_shards: int) -> list[Contents]:
    """Take the episodes out of a replay and deal them out in turns; those under way stay.

    Args:
        replay: The replay; empty afterwards.
        n_shards: How many parts (≥ 1).

    Returns:
        A part for each; one may be empty.
    """
    contents = _contents(replay._store, replay._tree)
    _clear(replay, replay._max_priority)
    return [contents.rows(slice(first, None, n_shards)) for first in range(n_shards)]


def fill(replay: EpisodeReplayBuffer, contents: Contents) -> None:
    """Put episodes into a replay with the weight that they had in another one."""
    for first in range(0, len(contents.priorities), _BLOCK):
        block = contents.rows(slice(first, first + _BLOCK))
        replay._append(block.episodes)
        end = replay._store.end_id
        ids = np.arange(end - len(block.priorities), end)
        stored = ids >= replay._store.first_id
        replay._tree.set(replay._store.slots(ids[stored]), block.priorities[stored])


def join(replay: EpisodeReplayBuffer, states: Sequence[dict[str, Any]]) -> None:
    """Return to what the states of all shards hold, in one replay; with one state that is its ``set_state``.

    Args:
        replay: A replay of the same arguments, or a larger one; it takes over the random state of the first shard.
        states: What ``get_state`` of each shard gave, in the order in which episodes were dealt out.
    """
    replay.set_state(states[0])
    if len(states) == 1:
        return
    parts = []
    for state in states:
        store, tree = EpisodeStore(1, replay.pad_id, replay.n_actions), SumTree(1)
        store.set_state(state["store"])
        tree.set_state(state["tree"])
        parts.append(_contents(store, tree))
    turn = np.concatenate([np.arange(len(part.priorities)) for part in parts])
    order = np.argsort(turn, kind="stable")  # the oldest of each shard, then the next of each, …
    joined = Contents(
        _concatenate([part.episodes for part in parts]), np.concatenate([part.priorities for part in parts])
    )
    _clear(replay, max(state["max_priority"] for state in states))
    fill(replay, joined.rows(order))


def resize(replay: EpisodeReplayBuffer, buffer_size: int) -> None:
    """Let a replay hold so many actions from now on; where it holds more, the oldest go with the next new episode."""
    replay.buffer_size = replay._store.max_steps = buffer_size
    replay._best.max_steps = buffer_size // 4 if replay.keep_best else 0


def _clear(replay: EpisodeReplayBuffer, max_priority: float) -> None:
    under_way = replay._partial
    replay.reset()
    replay._partial, replay._max_priority = under_way, max_priority


def _contents(store: EpisodeStore, tree: SumTree) -> Contents:
    ids = np.arange(store.first_id, store.end_id)
    if len(ids) == 0:
        nothing = np.zeros((0, 1), np.int64)
        none = np.zeros(0, np.int64)
        rewards, terminated = np.zeros((0, 1), np.float32), np.zeros(0, np.bool_)
        return Contents(FinishedEpisodes(nothing, none, nothing, none, rewards, terminated, None), np.zeros(0))
    return Contents(store.read(ids).finished(), tree.get(store.slots(ids)))


def _concatenate(blocks: Sequence[FinishedEpisodes]) -> FinishedEpisodes:
    """Episodes of several blocks, padded to a common shape."""
    n_tokens = max(block.tokens.shape[1] for block in blocks)
    n_steps = max(block.rewards.shape[1] for block in blocks)

    def joined(arrays: Sequence[NDArray[Any]], width: int) -> NDArray[Any]:
        widths = [((0, 0), (0, width - array.shape[1]), *[(0, 0)] * (array.ndim - 2)) for array in arrays]
        return np.concatenate([np.pad(array, pad) for array, pad in zip(arrays, widths, strict=True)])

    masks = None
    masked = [block.masks.shape[2] for block in blocks if block.masks is not None]
    if masked:  # a block without masks: everything was legal
        full = [
            np.full((len(block.n_steps), block.rewards.shape[1] + 1, masked[0]), 0xFF, np.uint8) for block in blocks
        ]
        given = [free if block.masks is None else block.masks for block, free in zip(blocks, full, strict=True)]
        masks = joined(given, n_steps + 1)
    return FinishedEpisodes(
        joined([block.tokens for block in blocks], n_tokens),
        np.concatenate([block.n_tokens for block in blocks]),
        joined([block.action_positions for block in blocks], n_steps),
        np.concatenate([block.n_steps for block in blocks]),
        joined([block.rewards for block in blocks], n_steps),
        np.concatenate([block.terminated for block in blocks]),
        masks,
    )
