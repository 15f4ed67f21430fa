"""Observations as text, for agents that are language models."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from textgym.env import TextGenEnv

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class StringObservation(gym.ObservationWrapper[str, np.int64, NDArray[np.int32]], gym.utils.RecordConstructorArgs):
    """The observation of a TextGym environment as a string, in a :class:`gymnasium.spaces.Text` space.

    The string is what the task decodes the whole row to: prompt, completion and replies up to EOS, without padding.
    Actions stay token ids.

    Args:
        env: A single TextGym environment, wrapped or not.
        max_length: Longest string, of which the end is kept; None for a length that no text of the task exceeds.

    Raises:
        ValueError: If ``env`` is not one of TextGym, or ``max_length`` is below 1.

    Example:
        >>> env = StringObservation(gym.make("TextGen/Reverse-v0", length=3, vocab_size=4))
        >>> env.reset(seed=0)[0]
        'd b d'
    """

    def __init__(self, env: gym.Env[NDArray[np.int32], np.int64], max_length: int | None = None) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, max_length=max_length)
        super().__init__(env)
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1 or None, got {max_length}")
        self._task = textgym_env(env).task
        texts = [self._task.token_text(token) for token in range(self._task.pad_id)]
        # Some tokenizers decode several tokens to one character that none of them holds: it becomes U+FFFD.
        self._charset = frozenset("".join(texts) + self._task.join(["", ""]) + _REPLACEMENT + " ")
        longest = max(map(len, texts)) + len(self._task.join(["", ""]))
        self.max_length = longest * self._task.context_length if max_length is None else int(max_length)
        self.observation_space = gym.spaces.Text(self.max_length, min_length=0, charset=self._charset)

    def observation(self, observation: NDArray[np.int32]) -> str:
        """The text of a row of token ids."""
        text = self._task.decode(observation)[-self.max_length :]
        if self._charset.issuperset(text):
            return text
        return "".join(character if character in self._charset else _REPLACEMENT for character in text)


def textgym_env(env: gym.Env[Any, Any]) -> TextGenEnv:
    """The innermost environment, or a ValueError if it is not one of TextGym."""
    if not isinstance(env.unwrapped, TextGenEnv):
        raise ValueError(f"env must be a TextGym environment, got {env}")
    return env.unwrapped
