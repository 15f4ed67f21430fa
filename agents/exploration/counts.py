"""Exploration by visit counts: UCB over contexts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.exploration.base import (
    Exploration,
    Keys,
    Scores,
    check_unit_interval,
    linear_schedule,
    mix_in_random,
    random_argmax,
)

_HALF = np.uint64(32)


class ContextUCB(Exploration):
    """Optimism in the face of uncertainty: argmax of Q(s, a) + c·√(log(N(s) + 1) / (N(s, a) + 1)).

    The bonus is UCB1's (Auer, Cesa-Bianchi and Fischer 2002, without its factor 2); as in arXiv:1611.04717, visits are
    counted in a hash table, here keyed by the last tokens of the text, so that contexts met in different prompts share
    their counts. In a context that was never seen N(s) is 0 and with it every bonus: the choice is greedy. From then on
    an untried action's bonus c·√log(N(s) + 1) grows slowly, and with a large vocabulary the actions are tried roughly
    in order of their values, as long as the values differ by less than the bonus does.

    Rows of the same batch that stand in the same context choose one after the other, each counting the choices before
    it. Otherwise 64 parallel environments would all try the same action at the same time.

    Args:
        coefficient: c, in units of the reward, ≥ 0.
        context: Number of last tokens that make up a context, ≥ 0.
        table_size: Counters for pairs of context and action. Contexts whose hashes lie close share some counters, which
            makes an action look tried too early; it takes far more pairs than counters for that to matter.
        initial_epsilon: Probability of a uniformly random action on top, at the start, in [0, 1].
        final_epsilon: The same once `fraction` of the training is over.
        fraction: Part of the training over which it falls linearly, in [0, 1].

    Raises:
        ValueError: If an argument is out of range.
    """

    # Rows in the same context take turns in at most so many rounds; each round costs some 25 µs.
    _MAX_ROUNDS = 16
    _TABLES = ("_pair_counts", "_visit_counts")

    def __init__(
        self,
        coefficient: float = 0.3,
        context: int = 3,
        table_size: int = 2**22,
        initial_epsilon: float = 0.0,
        final_epsilon: float = 0.0,
        fraction: float = 0.5,
    ) -> None:
        for name, value, least in (
            ("coefficient", coefficient, 0),
            ("context", context, 0),
            ("table_size", table_size, 1),
        ):
            if not value >= least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        check_unit_interval(initial_epsilon=initial_epsilon, final_epsilon=final_epsilon, fraction=fraction)
        self.coefficient, self.context, self.table_size = coefficient, context, table_size
        self.initial_epsilon, self.final_epsilon, self.fraction = initial_epsilon, final_epsilon, fraction
        # A context's counters lie side by side, so that reading a row of them is one contiguous copy. The last contexts
        # need room past the end, as many counters as there are actions: see `_reserve`.
        self._pair_counts = np.zeros(table_size, np.uint32)
        self._visit_counts = np.zeros(max(1, table_size // 8), np.uint32)

    def choose(  # noqa: D102
        self, scores: Scores, contexts: Keys, generator: np.random.Generator, progress: float
    ) -> NDArray[np.int64]:
        _, first, group = np.unique(contexts, return_index=True, return_inverse=True)
        pairs, visits = self.counts(contexts[first], scores.shape[1])  # (groups, V), (groups,)
        actions = np.empty(len(scores), np.int64)
        for rows in _rounds(group, self._MAX_ROUNDS):
            groups = group[rows]
            bonus = pairs[groups]  # (rows, V), a copy
            bonus += np.float32(1)
            np.divide(np.log1p(visits[groups])[:, None], bonus, out=bonus)
            np.sqrt(bonus, out=bonus)
            bonus *= np.float32(self.coefficient)
            bonus += scores[rows]
            actions[rows] = random_argmax(bonus, generator)
            np.add.at(pairs, (groups, actions[rows]), np.float32(1))
            np.add.at(visits, groups, np.float32(1))
        epsilon = linear_schedule(self.initial_epsilon, self.final_epsilon, self.fraction, progress)
        return mix_in_random(actions, scores, epsilon, generator)

    def observe(self, contexts: NDArray[np.uint64], actions: NDArray[np.integer]) -> None:
        """Count one visit for each pair of context (n,) and action (n,), as often as the pair occurs."""
        if len(contexts) == 0:
            return
        self._reserve(int(actions.max()) + 1)
        np.add.at(self._pair_counts, self._pair_starts(contexts) + actions, np.uint32(1))
        np.add.at(self._visit_counts, self._visit_slots(contexts), np.uint32(1))

    def counts(self, contexts: NDArray[np.uint64], n_actions: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Visits so far: N(s, a), shape (n, n_actions), and N(s), shape (n,), both float32 copies."""
        self._reserve(n_actions)
        windows = np.lib.stride_tricks.sliding_window_view(self._pair_counts, n_actions)
        pairs = windows[self._pair_starts(contexts)].astype(np.float32)
        return pairs, self._visit_counts[self._visit_slots(contexts)].astype(np.float32)

    def _pair_starts(self, contexts: NDArray[np.uint64]) -> NDArray[np.int64]:
        return (contexts % np.uint64(self.table_size)).astype(np.int64)

    def _visit_slots(self, contexts: NDArray[np.uint64]) -> NDArray[np.int64]:
        # Other bits of the key than above: contexts that collide there should not collide here too.
        return ((contexts >> _HALF) % np.uint64(len(self._visit_counts))).astype(np.int64)

    def _reserve(self, n_actions: int) -> None:
        missing = self.table_size + n_actions - len(self._pair_counts)
        if missing > 0:
            self._pair_counts = np.concatenate([self._pair_counts, np.zeros(missing, np.uint32)])

    def get_state(self) -> dict[str, Any]:
        """Counters that are not 0: most are, most of the time."""
        state: dict[str, Any] = {}
        for name in self._TABLES:
            table = self.__dict__[name]
            occupied = np.flatnonzero(table)
            state[name] = (len(table), occupied, table[occupied])
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that :meth:`get_state` gave."""
        for name in self._TABLES:
            size, occupied, values = state[name]
            table = np.zeros(size, np.uint32)
            table[occupied] = values
            self.__dict__[name] = table

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | self.get_state()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.set_state(state)


def _rounds(group: NDArray[np.int64], limit: int) -> list[NDArray[np.int64]]:
    """Split row numbers into at most `limit` rounds, in which no group occurs twice as long as the limit allows it."""
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    rank = np.empty(len(group), np.int64)  # how many rows of the same group come first
    rank[order] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rank %= limit
    return [np.flatnonzero(rank == turn) for turn in range(int(rank.max()) + 1)]
