"""Explorers that look at the action values alone: ε-greedy and Boltzmann."""

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
        check_unit_interval(initial=initial, final=final, fraction=fraction)
        self.initial, self.final, self.fraction = initial, final, fraction

    def choose(  # noqa: D102
        self, scores: Scores, contexts: Keys, generator: np.random.Generator, progress: float
    ) -> NDArray[np.int64]:
        epsilon = linear_schedule(self.initial, self.final, self.fraction, progress)
        return mix_in_random(random_argmax(scores, generator), scores, epsilon, generator)


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
        check_unit_interval(fraction=fraction)
        self.initial_temperature, self.final_temperature = initial_temperature, final_temperature
        self.fraction = fraction

    def choose(  # noqa: D102
        self, scores: Scores, contexts: Keys, generator: np.random.Generator, progress: float
    ) -> NDArray[np.int64]:
        temperature = linear_schedule(self.initial_temperature, self.final_temperature, self.fraction, progress)
        # The Gumbel-max trick: with Gumbel noise (minus the log of an exponential variate) added to the logits, the
        # argmax is a sample of the softmax. Scaling the noise instead of the values avoids overflow when it is cold.
        # A float32 variate is exactly 0 once in 2^24 draws, far too often for infinite noise.
        noise = np.maximum(generator.standard_exponential(scores.shape, dtype=np.float32), np.float32(2**-24))
        return (scores - np.float32(temperature) * np.log(noise)).argmax(axis=1)
