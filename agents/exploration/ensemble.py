"""Exploration by disagreement: UCB over an ensemble of value estimates."""

from __future__ import annotations

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


class EnsembleUCB(Exploration):
    """Optimism where estimates differ: argmax of mean_k Q_k(s, a) + c·std_k Q_k(s, a) (arXiv:1706.01502).

    The K estimates come from heads with weights of their own, each trained towards its own target. They agree about
    what they were trained on, so their deviation (with divisor K) tells how little is known about an action, in the
    unit of the value and without counting: what one text taught carries over to similar ones.

    Its scale is that of the initial weights: with :class:`agents.double_dqn.heads.QHead` 0.01 times the norm of the
    features, about 0.08 for 64 features of unit variance. Much larger differences of value drown the bonus, and
    estimates that are equal from the start give none at all.

    Args:
        coefficient: c, a pure number, ≥ 0.
        initial_epsilon: Probability of a uniformly random action on top, at the start, in [0, 1].
        final_epsilon: The same once `fraction` of the training is over.
        fraction: Part of the training over which it falls linearly, in [0, 1].

    Raises:
        ValueError: If an argument is out of range.
    """

    ensemble = True

    def __init__(
        self,
        coefficient: float = 1.0,
        initial_epsilon: float = 0.0,
        final_epsilon: float = 0.0,
        fraction: float = 0.5,
    ) -> None:
        if not coefficient >= 0:
            raise ValueError(f"coefficient must be at least 0, got {coefficient}")
        check_unit_interval(initial_epsilon=initial_epsilon, final_epsilon=final_epsilon, fraction=fraction)
        self.coefficient = coefficient
        self.initial_epsilon, self.final_epsilon, self.fraction = initial_epsilon, final_epsilon, fraction

    def scores(self, q_values: Scores) -> Scores:
        """Optimistic values, shape (n, V), of the estimates (n, K, V).

        Raises:
            ValueError: If there are not at least two estimates.
        """
        if q_values.ndim != 3 or q_values.shape[1] < 2:
            raise ValueError(f"q_values must have shape (n, K, V) with K at least 2, got {q_values.shape}")
        return q_values.mean(axis=1) + np.float32(self.coefficient) * q_values.std(axis=1)

    def choose(  # noqa: D102
        self, scores: Scores, contexts: Keys, generator: np.random.Generator, progress: float
    ) -> NDArray[np.int64]:
        epsilon = linear_schedule(self.initial_epsilon, self.final_epsilon, self.fraction, progress)
        return mix_in_random(random_argmax(scores, generator), scores, epsilon, generator)
