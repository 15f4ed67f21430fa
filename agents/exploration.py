"""How the agent chooses while it learns: ε-greedy, Boltzmann and UCB, each for a whole batch of rows at once.

An explorer sees action values and, if it counts visits, a key of the context in which each row stands. All randomness
comes from the generator that is passed in; counts are plain attributes, so they are pickled along with the agent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textgym.random import mix64

_TOKEN_SALT = np.uint64(0x9E3779B97F4A7C15)
_POSITION_SALT = np.uint64(0xD1342543DE82EF95)
_HALF = np.uint64(32)
_ILLEGAL = np.float32(-np.inf)

_Scores: TypeAlias = NDArray[np.float32]
_Keys: TypeAlias = NDArray[np.uint64]


def context_keys(observations: NDArray[np.integer], lengths: NDArray[np.integer], k: int) -> NDArray[np.uint64]:
    """Hash the last `k` tokens of each row: where the row stands, for an explorer that counts.

    Only `k` tokens of a row are read, however long it is. A row with fewer than `k` tokens gets a key of its own.

    Args:
        observations: Right-padded token ids, shape (n, L).
        lengths: Tokens in each row, shape (n,).
        k: Tokens to hash, ≥ 0; with 0 every row gets the same key.

    Returns:
        Keys, shape (n,), uint64.
    """
    rows = np.arange(len(observations))
    keys = np.zeros(len(observations), np.uint64)
    for back in range(min(k, observations.shape[1]), 0, -1):
        position = np.asarray(lengths) - back
        token = np.where(position >= 0, observations[rows, np.maximum(position, 0)].astype(np.int64) + 1, 0)
        keys = mix64(keys * _POSITION_SALT + (token.astype(np.uint64) + np.uint64(1)) * _TOKEN_SALT)
    return keys


def linear_schedule(initial: float, final: float, fraction: float, progress: float) -> float:
    """Go from `initial` to `final` over the first `fraction` of training; `progress` is in [0, 1]."""
    done = min(progress / fraction, 1.0) if fraction > 0 else 1.0
    return initial * (1 - done) + final * done


class Exploration(ABC):
    """Chooses actions during training.

    Attributes:
        context: Number of last tokens that make up a context; 0 if the explorer ignores contexts.
    """

    context: int = 0

    def select(
        self,
        q_values: _Scores,
        action_masks: NDArray[np.bool_] | None,
        contexts: _Keys,
        generator: np.random.Generator,
        progress: float,
    ) -> NDArray[np.int64]:
        """Choose an action for each row.

        Args:
            q_values: Action values, shape (n, V), float32.
            action_masks: Legal actions, bool, shape (n, V); all of them if None.
            contexts: Key of each row's context (see `context_keys`), shape (n,), uint64.
            generator: Source of randomness.
            progress: How much of the training is over, in [0, 1].

        Returns:
            Action ids, shape (n,), int64, always legal ones. Equal scores are decided at random.

        Raises:
            ValueError: If the masks' shape differs from that of the values, or a row has no legal action.
        """
        if action_masks is None:
            return self.choose(q_values, contexts, generator, progress)
        if action_masks.shape != q_values.shape:
            raise ValueError(f"action_masks must have shape {q_values.shape}, got {action_masks.shape}")
        legal = action_masks.any(axis=1)
        if not legal.all():
            raise ValueError(f"action_masks must allow an action in every row, got none in row {int(legal.argmin())}")
        return self.choose(np.where(action_masks, q_values, _ILLEGAL), contexts, generator, progress)

    @abstractmethod
    def choose(
        self, scores: _Scores, contexts: _Keys, generator: np.random.Generator, progress: float
    ) -> NDArray[np.int64]:
        """What `select` does once illegal actions have the score -inf; this is what an explorer implements."""

    def observe(self, contexts: NDArray[np.uint64], actions: NDArray[np.integer]) -> None:  # noqa: B027
        """Learn that `actions` (n,) were taken in `contexts` (n,). Explorers that don't count ignore it."""


class EpsilonGreedy(Exploration):
    """With probability ε a uniformly random legal action, else the best one; each row has a coin of its own.

    Args:
        initial: ε at the start, in [0, 1].
        final: ε once `fraction` of the training is over, in [0, 1].
        fraction: Part of the training over which ε falls linearly, in [0, 1].

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, initial: float = 1.0, final: float = 0.05, fraction: float = 0.1) -> None:
        _check_unit_interval(initial=initial, final=final, fraction=fraction)
        self.initial, self.final, self.fraction = initial, final, fraction

    def choose(  # noqa: D102
        self, scores: _Scores, contexts: _Keys, generator: np.random.Generator, progress: float
    ) -> NDArray[np.int64]:
        epsilon = linear_schedule(self.initial, self.final, self.fraction, progress)
        return _mix_in_random(_random_argmax(scores, generator), scores, epsilon, generator)


class Boltzmann(Exploration):
    """Draws from softmax(Q / temperature): near-best actions are tried often, hopeless ones hardly ever.

    Temperatures have the unit of the action values, that is of the reward.

    Args:
        initial_temperature: Temperature at the start, > 0.
        final_temperature: Temperature once `fraction` of the training is over, > 0.
        fraction: Part of the training over which it falls linearly, in [0, 1].

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self, initial_temperature: float = 0.1, final_temperature: float = 0.01, fraction: float = 0.5
    ) -> None:
        for name, value in (("initial_temperature", initial_temperature), ("final_temperature", final_temperature)):
            if not value > 0:
                raise ValueError(f"{name} must be greater than 0, got {value}")
        _check_unit_interval(fraction=fraction)
        self.initial_temperature, self.final_temperature = initial_temperature, final_temperature
        self.fraction = fraction

    def choose(  # noqa: D102
        self, scores: _Scores, contexts: _Keys, generator: np.random.Generator, progress: float
    ) -> NDArray[np.int64]:
        temperature = linear_schedule(self.initial_temperature, self.final_temperature, self.fraction, progress)
        # The Gumbel-max trick: with Gumbel noise (minus the log of an exponential variate) added to the logits, the
        # argmax is a sample of the softmax. Scaling the noise instead of the values avoids overflow when it is cold.
        # A float32 variate is exactly 0 once in 2^24 draws, far too often for infinite noise.
        noise = np.maximum(generator.standard_exponential(scores.shape, dtype=np.float32), np.float32(2**-24))
        return (scores - np.float32(temperature) * np.log(noise)).argmax(axis=1)


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
        _check_unit_interval(initial_epsilon=initial_epsilon, final_epsilon=final_epsilon, fraction=fraction)
        self.coefficient, self.context, self.table_size = coefficient, context, table_size
        self.initial_epsilon, self.final_epsilon, self.fraction = initial_epsilon, final_epsilon, fraction
        # A context's counters lie side by side, so that reading a row of them is one contiguous copy. The last contexts
        # need room past the end, as many counters as there are actions: see `_reserve`.
        self._pair_counts = np.zeros(table_size, np.uint32)
        self._visit_counts = np.zeros(max(1, table_size // 8), np.uint32)

    def choose(  # noqa: D102
        self, scores: _Scores, contexts: _Keys, generator: np.random.Generator, progress: float
    ) -> NDArray[np.int64]:
        _, first, group = np.unique(contexts, return_index=True, return_inverse=True)
        pairs, visits = self.counts(contexts[first], scores.shape[1])  # (groups, V), (groups,)
        actions = np.empty(len(scores), np.int64)
        for rows in _rounds(group, self._MAX_ROUNDS):
            groups = group[rows]
            bonus = pairs[groups] + np.float32(1)  # (rows, V)
            np.divide(np.log1p(visits[groups])[:, None], bonus, out=bonus)
            np.sqrt(bonus, out=bonus)
            bonus *= np.float32(self.coefficient)
            bonus += scores[rows]
            actions[rows] = _random_argmax(bonus, generator)
            np.add.at(pairs, (groups, actions[rows]), np.float32(1))
            np.add.at(visits, groups, np.float32(1))
        epsilon = linear_schedule(self.initial_epsilon, self.final_epsilon, self.fraction, progress)
        return _mix_in_random(actions, scores, epsilon, generator)

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

    def __getstate__(self) -> dict[str, Any]:
        # Most counters are 0 most of the time: a saved agent holds the others only.
        state = self.__dict__.copy()
        for name in ("_pair_counts", "_visit_counts"):
            occupied = np.flatnonzero(state[name])
            state[name] = (len(state[name]), occupied, state[name][occupied])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name in ("_pair_counts", "_visit_counts"):
            size, occupied, values = state[name]
            table = np.zeros(size, np.uint32)
            table[occupied] = values
            self.__dict__[name] = table


EXPLORATIONS: dict[str, type[Exploration]] = {"epsilon": EpsilonGreedy, "boltzmann": Boltzmann, "ucb": ContextUCB}


def make_exploration(exploration: str | Exploration, **kwargs: Any) -> Exploration:
    """Build an explorer from its name, or pass one through.

    Args:
        exploration: `"epsilon"`, `"boltzmann"`, `"ucb"`, or an `Exploration`.
        **kwargs: Arguments of the named explorer's constructor.

    Raises:
        ValueError: If the name is unknown, or arguments come with an explorer that is built already.
    """
    if isinstance(exploration, Exploration):
        if kwargs:
            raise ValueError(f"arguments {sorted(kwargs)} need exploration to be a name, got {exploration!r}")
        return exploration
    if exploration not in EXPLORATIONS:
        raise ValueError(f"exploration must be one of {sorted(EXPLORATIONS)} or an Exploration, got {exploration!r}")
    return EXPLORATIONS[exploration](**kwargs)


def _random_argmax(scores: _Scores, generator: np.random.Generator) -> NDArray[np.int64]:
    """Argmax of each row, with a fair choice among equals: a plain argmax would favour low token ids."""
    best = scores.argmax(axis=1)
    is_best = scores == scores[np.arange(len(scores)), best][:, None]
    tied = np.flatnonzero(np.count_nonzero(is_best, axis=1) > 1)
    if tied.size:
        best[tied] = _random_true(is_best[tied], generator)
    return best


def _random_true(allowed: NDArray[np.bool_], generator: np.random.Generator) -> NDArray[np.int64]:
    """A uniformly random column that is True, for each row (n, V)."""
    choice = generator.integers(np.count_nonzero(allowed, axis=1))  # which of the row's True entries
    return (np.cumsum(allowed, axis=1, dtype=np.int32) > choice[:, None]).argmax(axis=1)


def _mix_in_random(
    actions: NDArray[np.int64], scores: _Scores, epsilon: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Replace each action, with probability `epsilon`, by a uniformly random legal one."""
    if epsilon > 0:
        rows = np.flatnonzero(generator.random(len(actions)) < epsilon)
        if rows.size:
            actions[rows] = _random_true(scores[rows] != _ILLEGAL, generator)
    return actions


def _rounds(group: NDArray[np.int64], limit: int) -> list[NDArray[np.int64]]:
    """Split row numbers into at most `limit` rounds, in which no group occurs twice as long as the limit allows it."""
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    rank = np.empty(len(group), np.int64)  # how many rows of the same group come first
    rank[order] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rank %= limit
    return [np.flatnonzero(rank == turn) for turn in range(int(rank.max()) + 1)]


def _check_unit_interval(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
