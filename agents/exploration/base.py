"""What every explorer is, and what several of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_ranges

ILLEGAL = np.float32(-np.inf)
"""Score of an action that must not be taken."""

Scores: TypeAlias = NDArray[np.float32]
Keys: TypeAlias = NDArray[np.uint64]


def linear_schedule(initial: float, final: float, fraction: float, progress: float) -> float:
    """Go from `initial` to `final` over the first `fraction` of training; `progress` is in [0, 1]."""
    done = min(progress / fraction, 1.0) if fraction > 0 else 1.0
    return initial * (1 - done) + final * done


class Exploration(ABC):
    """Chooses actions during training.

    Attributes:
        context: Number of last tokens that make up a context; 0 if the explorer ignores contexts.
        ensemble: Whether it needs several estimates of the values, shape (n, K, V).
    """

    context: int = 0
    ensemble: bool = False

    def select(
        self,
        q_values: Scores,
        action_masks: NDArray[np.bool_] | None,
        contexts: Keys,
        generator: np.random.Generator,
        progress: float,
    ) -> NDArray[np.int64]:
        """Choose an action for each row.

        Args:
            q_values: Action values, float32, shape (n, V), or (n, K, V) for an explorer with `ensemble`.
            action_masks: Legal actions, bool, shape (n, V); all of them if None.
            contexts: Key of each row's context (see `context_keys`), shape (n,), uint64.
            generator: Source of randomness.
            progress: How much of the training is over, in [0, 1].

        Returns:
            Action ids, shape (n,), int64, always legal ones. Equal scores are decided at random.

        Raises:
            ValueError: If a shape is wrong, or a row has no legal action.
        """
        scores = self.scores(q_values)
        if action_masks is None:
            return self.choose(scores, contexts, generator, progress)
        if action_masks.shape != scores.shape:
            raise ValueError(f"action_masks must have shape {scores.shape}, got {action_masks.shape}")
        legal = action_masks.any(axis=1)
        if not legal.all():
            raise ValueError(f"action_masks must allow an action in every row, got none in row {int(legal.argmin())}")
        return self.choose(np.where(action_masks, scores, ILLEGAL), contexts, generator, progress)

    def scores(self, q_values: Scores) -> Scores:
        """One number for each action, shape (n, V), to start from: the value itself, unless there are several."""
        return q_values

    @abstractmethod
    def choose(
        self, scores: Scores, contexts: Keys, generator: np.random.Generator, progress: float
    ) -> NDArray[np.int64]:
        """What `select` does once illegal actions have the score -inf; this is what an explorer implements."""

    def observe(self, contexts: NDArray[np.uint64], actions: NDArray[np.integer]) -> None:  # noqa: B027
        """Learn that `actions` (n,) were taken in `contexts` (n,). Explorers that don't count ignore it."""

    def get_state(self) -> dict[str, Any]:
        """What it has learned, as arrays and plain values; explorers that learn nothing have none."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Return to a state that :meth:`get_state` gave, of an explorer with the same arguments."""


def random_argmax(scores: Scores, generator: np.random.Generator) -> NDArray[np.int64]:
    """Argmax of each row, with a fair choice among equals: a plain argmax would favour low token ids."""
    best = scores.argmax(axis=1)
    is_best = scores == scores[np.arange(len(scores)), best][:, None]
    tied = np.flatnonzero(np.count_nonzero(is_best, axis=1) > 1)
    if tied.size:
        best[tied] = random_true(is_best[tied], generator)
    return best


def random_true(allowed: NDArray[np.bool_], generator: np.random.Generator) -> NDArray[np.int64]:
    """A uniformly random column that is True, for each row (n, V)."""
    choice = generator.integers(np.count_nonzero(allowed, axis=1))  # which of the row's True entries
    return (np.cumsum(allowed, axis=1, dtype=np.int32) > choice[:, None]).argmax(axis=1)


def mix_in_random(
    actions: NDArray[np.int64], scores: Scores, epsilon: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Replace each action, with probability `epsilon`, by a uniformly random legal one."""
    if epsilon > 0:
        rows = np.flatnonzero(generator.random(len(actions)) < epsilon)
        if rows.size:
            actions[rows] = random_true(scores[rows] != ILLEGAL, generator)
    return actions


def check_unit_interval(**values: float) -> None:
    """Raise a ValueError that names the first argument outside [0, 1]."""
    check_ranges(**{name: (value, 0, 1) for name, value in values.items()})
