"""Texts as actions, for agents that choose one of a few."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from textgym.checks import check_texts


class StringActions(gym.ActionWrapper[Any, np.int64, Any], gym.utils.RecordConstructorArgs):
    """An environment that is written to in text, as one with as many actions as there are texts: ``Discrete(n)``.

    Action k sends the k-th text.

    Args:
        env: An environment whose action is a text: its action space is a :class:`gymnasium.spaces.Text`.
        actions: The texts, at least one, no two alike.

    Attributes:
        actions: The texts, in order.

    Raises:
        ValueError: If ``env`` takes no texts, or ``actions`` are none.

    Example:
        >>> class Echo(gym.Env):
        ...     observation_space = action_space = spaces.Text(9)
        ...
        ...     def reset(self, seed=None, options=None):
        ...         return "?", {}
        ...
        ...     def step(self, action):
        ...         return action, 0.0, True, False, {}
        >>> env = StringActions(Echo(), ["left", "right"])
        >>> env.action_space, env.reset()[0], env.step(1)[0]
        (Discrete(2), '?', 'right')
    """

    def __init__(self, env: gym.Env[Any, str], actions: Iterable[str]) -> None:
        self.actions = tuple(check_texts("actions", actions))
        gym.utils.RecordConstructorArgs.__init__(self, actions=self.actions)
        super().__init__(env)
        if not isinstance(env.action_space, spaces.Text):
            raise ValueError(f"env must take a Text as its action, got {env.action_space}")
        if not self.actions or len(set(self.actions)) < len(self.actions):
            raise ValueError(f"actions must be at least one text, no two alike, got {list(self.actions)!r:.80}")
        self.action_space = spaces.Discrete(len(self.actions))

    def action(self, action: np.int64) -> str:
        """The text of an action."""
        return self.actions[int(action)]
