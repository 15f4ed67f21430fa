"""Any environment that observes text, as an environment that observes token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.tokenizers import CharacterTokenizer, Tokenizer, as_tokenizer


class TokenizeObservation(gym.ObservationWrapper[NDArray[np.int32], Any, Any], gym.utils.RecordConstructorArgs):
    """Text observations of any Gymnasium environment as right-padded token ids, to train on with any agent.

    The observation becomes a Box of int32, shape ``(context_length,)``: what Stable-Baselines3's agents take, and what
    :class:`agents.PerformerExtractor` reads as text. Ids below ``tokenizer.n_ids`` are the tokenizer's;
    three follow: the separator that ends each entry of a Dict, unknown words, and padding, the highest id.

    It is not a :class:`~textgym.spaces.TokenSequence`. That space promises that actions are tokens and that a row only
    grows within an episode, and :class:`agents.DoubleDQN`'s sequence path relies on both; here neither holds.

    Args:
        env: An environment whose observation is a :class:`gymnasium.spaces.Text`, or a Dict that holds one.
        tokenizer: See :func:`textgym.tokenizers.as_tokenizer`; None for the characters that the observed spaces allow.
        context_length: Tokens of an observation (≥ 1).
        keys: Entries of a Dict to observe, in that order; None for all that are Text. Entries of other kinds are
            written out: numbers with blanks between them.
        keep: Which part of a text that is too long is kept: its ``"end"`` or its ``"start"``.

    Attributes:
        tokenizer: The tokenizer.
        separator_id: The id that ends each entry of a Dict.
        unknown_id: The id of words that the tokenizer does not know.
        pad_id: The padding id.

    Raises:
        ValueError: If the observation space holds no text, or an argument is out of range.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        tokenizer: Any = None,
        context_length: int = 128,
        keys: Sequence[str] | None = None,
        keep: str = "end",
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self, tokenizer=tokenizer, context_length=context_length, keys=keys, keep=keep
        )
        super().__init__(env)
        if keep not in ("end", "start"):
            raise ValueError(f"keep must be 'end' or 'start', got {keep!r}")
        self.keep = keep
        self.context_length = check_at_least("context_length", context_length, 1)
        self.keys = _observed_keys(env.observation_space, keys)
        self.tokenizer: Tokenizer = (
            _characters(env.observation_space, self.keys) if tokenizer is None else (as_tokenizer(tokenizer))
        )
        self.separator_id = self.tokenizer.n_ids
        self.unknown_id = self.separator_id + 1
        self.pad_id = self.separator_id + 2
        self.observation_space = spaces.Box(0, self.pad_id, (self.context_length,), np.int32)

    def observation(self, observation: Any) -> NDArray[np.int32]:
        """The token ids of an observation, shape ``(context_length,)``."""
        if self.keys is None:
            ids = self._encode(observation)
        else:
            ids = []
            for key in self.keys:
                ids += [*self._encode(_written(observation[key])), self.separator_id]
        ids = ids[-self.context_length :] if self.keep == "end" else ids[: self.context_length]
        row = np.full(self.context_length, self.pad_id, np.int32)
        row[: len(ids)] = ids
        return row

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode_known(text, self.unknown_id)


def _observed_keys(space: spaces.Space[Any], keys: Sequence[str] | None) -> tuple[str, ...] | None:
    """The keys of a Dict to observe; None for a Text."""
    if isinstance(space, spaces.Text):
        if keys is not None:
            raise ValueError(f"keys must be None for a Text observation, got {list(keys)}")
        return None
    if not isinstance(space, spaces.Dict):
        raise ValueError(f"env must observe a Text, or a Dict that holds one, got {space}")
    if keys is None:
        keys = [key for key, entry in space.spaces.items() if isinstance(entry, spaces.Text)]
        if not keys:
            raise ValueError(f"env must observe a Text, or a Dict that holds one (or name keys), got {space}")
    missing = [key for key in keys if key not in space.spaces]
    if missing or isinstance(keys, str) or not keys:
        raise ValueError(f"keys must be some of {list(space.spaces)}, got {keys!r}")
    return tuple(keys)


def _characters(space: spaces.Space[Any], keys: tuple[str, ...] | None) -> CharacterTokenizer:
    entries = [space] if keys is None else [space[key] for key in keys]  # type: ignore[index]  # a Dict has keys
    characters = {character for entry in entries if isinstance(entry, spaces.Text) for character in entry.character_set}
    if not all(isinstance(entry, spaces.Text) for entry in entries):
        characters |= set("0123456789.-+e ")
    return CharacterTokenizer(sorted(characters))


def _written(value: Any) -> str:
    """A text as it is; numbers with blanks between them."""
    if isinstance(value, str):
        return value
    return " ".join(f"{number:g}" for number in np.asarray(value, np.float64).ravel().tolist())
