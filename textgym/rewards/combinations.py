"""Rewards made of rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textgym.checks import check_list
from textgym.rewards.base import Reward, RewardFunction, call_reward, reward_name


class Product(Reward):
    """The product of several rewards in [0, 1]: high only where all of them are.

    Args:
        rewards: Reward functions, at least one; each has to stay in [0, 1].

    Raises:
        ValueError: If ``rewards`` is empty, or one of them states another range.
    """

    def __init__(self, rewards: Sequence[RewardFunction]) -> None:
        rewards = check_list("rewards", rewards, "reward functions")
        if not rewards:
            raise ValueError("rewards must hold at least one reward function, got none")
        for reward in rewards:
            if not callable(reward):
                raise ValueError(f"rewards must hold functions, got {reward!r}")
            low, high = getattr(reward, "range", (0.0, 1.0))
            if low < 0 or high > 1:
                raise ValueError(f"rewards of a Product must lie in [0, 1], {reward_name(reward)} has ({low}, {high})")
        self.rewards = tuple(rewards)

    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Products in [0, 1]."""
        scores = [call_reward(reward, prompts, completions, columns) for reward in self.rewards]
        return np.prod(scores, axis=0).tolist()


class WeightedSum(Reward):
    """A weighted sum of several rewards; its range is the weighted sum of theirs.

    Args:
        weights: Reward function → weight, at least one.

    Raises:
        ValueError: If ``weights`` is empty or a weight is not finite.
    """

    def __init__(self, weights: Mapping[RewardFunction, float]) -> None:
        if not isinstance(weights, Mapping):
            raise ValueError(f"weights must be a mapping of reward functions to numbers, got {weights!r}")
        if not weights:
            raise ValueError("weights must hold at least one reward function, got none")
        self.weights = dict(weights)
        low = high = 0.0
        for reward, weight in self.weights.items():
            if not np.isfinite(weight):
                raise ValueError(f"weights must be finite, got {weight!r} for {reward_name(reward)}")
            ends = [weight * end for end in getattr(reward, "range", (-np.inf, np.inf)) if weight]
            low, high = low + min(ends, default=0.0), high + max(ends, default=0.0)
        self.range = (low, high)

    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Weighted sums."""
        scores = [call_reward(reward, prompts, completions, columns) for reward in self.weights]
        return (np.array(list(self.weights.values())) @ np.array(scores)).tolist()
