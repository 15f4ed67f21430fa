"""Explorers that look at the action values alone: ε-greedy, Boltzmann and odds matching."""

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
        noise = generator.standard_exponential(scores.shape, dtype=np.float32)  # and then all in its place
        np.log(np.maximum(noise, np.float32(2**-24), out=noise), out=noise)
        noise *= np.float32(temperature)
        return np.subtract(scores, noise, out=noise).argmax(axis=1)


class OddsMatching(Boltzmann):
    """Draws in proportion to the odds p/(1 − p) of a value's place p between two bounds.

    If a value is the probability of success, an action that succeeds twice as often is taken about twice as often: a
    bonus, or a temperature in the unit of the reward, drowns values that are all close to the bound. What is closest to
    it is noise, so all p below 1/4V, with V actions, count alike: where nothing is known the choice is uniform, and
    where one action is sure the others together are taken hardly ever.

    Args:
        value_range: Lowest and highest value.
        initial_epsilon: Probability of a uniformly random action on top, at the start, in [0, 1].
        final_epsilon: The same once `fraction` of the training is over.
        fraction: Part of the training over which it falls linearly, in [0, 1].

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        value_range: tuple[float, float] = (0.0, 1.0),
        initial_epsilon: float = 0.0,
        final_epsilon: float = 0.0,
        fraction: float = 0.5,
    ) -> None:
        super().__init__(initial_temperature=1.0, final_temperature=1.0, fraction=fraction)
        if not value_range[0] < value_range[1]:
            raise ValueError(f"value_range must have its lower bound first, got {value_range}")
        check_unit_interval(initial_epsilon=initial_epsilon, final_epsilon=final_epsilon)
        self.value_range = value_range
        self.initial_epsilon, self.final_epsilon = initial_epsilon, final_epsilon

    def scores(self, q_values: Scores) -> Scores:  # noqa: D102
        low, high = self.value_range
        shares = np.clip((q_values - low) / (high - low), 0.25 / q_values.shape[1], 1 - 1e-6)
        return np.log(shares / (1 - shares)).astype(np.float32)

    def choose(  # noqa: D102
        self, scores: Scores, contexts: Keys, generator: np.random.Generator, progress: float
    ) -> NDArray[np.int64]:
        actions = super().choose(scores, contexts, generator, progress)
        epsilon = linear_schedule(self.initial_epsilon, self.final_epsilon, self.fraction, progress)
        return mix_in_random(actions, scores, epsilon, generator)
