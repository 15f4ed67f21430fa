"""The way in: games of GEM and TextArena as Gymnasium environments, to train any agent on."""

from __future__ import annotations

import contextlib
import random
import re
import string
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from textgym.checks import check_at_least
from textgym.rewards.base import require
from textgym.wrappers.string_actions import StringActions
from textgym.wrappers.tokenized import TokenizeObservation

_LONGEST = 65_536
_CHARACTERS = frozenset(string.printable)
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def from_gem(
    game: str,
    actions: Iterable[str],
    tokenizer: Any = None,
    context_length: int = 128,
    history: int | None = 1,
    **kwargs: Any,
) -> gym.Env[Any, Any]:
    """A game of GEM as a Gymnasium environment of token ids and a few actions.

    Games keep their random numbers in the global streams; here every environment has streams of its own, which a seed
    starts, and the global ones stay as they are. What GEM puts after an observation, ``info["suffix"]``, is part of it.

    Args:
        game: GEM's id, as ``"game:GuessTheNumber-v0-easy"``.
        actions: The texts that may be sent; see :class:`textgym.wrappers.StringActions`.
        tokenizer: See :class:`textgym.wrappers.TokenizeObservation`; None for characters.
        context_length: Tokens of an observation (≥ 1), the last ones of a longer text.
        history: How many of the game's replies are shown (≥ 1), the newest last; None for all.
        **kwargs: Arguments of ``gem.make``.

    Returns:
        The environment. As ``entry_point`` of ``gymnasium.register``, this function gives the game an id.

    Raises:
        ModuleNotFoundError: If GEM is not installed.
        ValueError: If GEM can't make the game here, or an argument is out of range.
    """
    return _tokenized(GEMGame(game, history, **kwargs), actions, tokenizer, context_length)


def from_textarena(
    game: str,
    actions: Iterable[str],
    tokenizer: Any = None,
    context_length: int = 128,
    history: int | None = 1,
    **kwargs: Any,
) -> gym.Env[Any, Any]:
    """A one-player game of TextArena, as :func:`from_gem`; its reward comes at the end.

    Args:
        game: TextArena's id, as ``"FrozenLake-v0"``.
        actions: See :func:`from_gem`, as ``["[up]", "[down]"]``.
        tokenizer: See :func:`from_gem`.
        context_length: See :func:`from_gem`.
        history: See :func:`from_gem`.
        **kwargs: Arguments of ``textarena.make``.

    Raises:
        ModuleNotFoundError: If TextArena is not installed.
        ValueError: If TextArena can't make the game here, it has more players, or an argument is out of range.
    """
    return _tokenized(TextArenaGame(game, history, **kwargs), actions, tokenizer, context_length)


def _tokenized(env: TextGame, actions: Iterable[str], tokenizer: Any, context_length: int) -> gym.Env[Any, Any]:
    return TokenizeObservation(StringActions(env, actions), tokenizer, context_length)


class TextGame(gym.Env[str, str]):
    """A game of strings whose library draws from the global random streams; :func:`from_gem` says what becomes of them.

    Observations and actions are texts of printable characters; others are shown as U+FFFD.

    Args:
        history: How many of the game's replies are shown (≥ 1); None for all.
    """

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012 # as Gymnasium declares it
    render_mode = "ansi"

    def __init__(self, history: int | None = 1) -> None:
        self.history = None if history is None else check_at_least("history", history, 1)
        charset = _CHARACTERS | {_REPLACEMENT}
        self.observation_space = spaces.Text(_LONGEST, min_length=0, charset=charset)
        self.action_space = spaces.Text(_LONGEST, min_length=0, charset=charset)
        self._replies: list[str] = []
        self._streams: tuple[Any, Any] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start a new game, which the seed fixes; without one, the random stream goes on."""
        super().reset(seed=seed)
        with self._own_streams():
            self._replies = [self.begin(int(self.np_random.integers(2**31)))]
        return self.render(), {}

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        """Send one text."""
        with self._own_streams():
            reply, reward, terminated, truncated = self.send(action)
        self._replies.append(reply)
        return self.render(), reward, terminated, truncated, {}

    def render(self) -> str:
        """The observation."""
        shown = "\n".join(self._replies if self.history is None else self._replies[-self.history :])[-_LONGEST:]
        if _CHARACTERS.issuperset(shown):
            return shown
        return "".join(character if character in _CHARACTERS else _REPLACEMENT for character in shown)

    @abstractmethod
    def begin(self, seed: int) -> str:
        """Start a game and return its first text."""

    @abstractmethod
    def send(self, action: str) -> tuple[str, float, bool, bool]:
        """One move: the reply, the reward, terminated, truncated."""

    @contextlib.contextmanager
    def _own_streams(self) -> Iterator[None]:
        """The global random streams are this game's inside, and as before outside."""
        before = _global_streams()
        if self._streams is not None:
            _set_global_streams(self._streams)
        try:
            yield
        finally:
            self._streams = _global_streams()
            _set_global_streams(before)


def _global_streams() -> tuple[Any, Any]:
    return random.getstate(), np.random.get_state()  # noqa: NPY002 # these are what the games draw from


def _set_global_streams(streams: tuple[Any, Any]) -> None:
    random.setstate(streams[0])
    np.random.set_state(streams[1])  # noqa: NPY002


class GEMGame(TextGame):
    """A game of GEM; see :func:`from_gem` for the arguments."""

    def __init__(self, game: str, history: int | None = 1, **kwargs: Any) -> None:
        super().__init__(history)
        gem = require("gem", "gem-llm", "from_gem()")
        with self._own_streams(), _named(game, "GEM"):
            self._game = gem.make(game, **kwargs)
            self._game.reset(seed=0)  # some find only here that a file is missing

    def begin(self, seed: int) -> str:
        """Start a game and return its first text."""
        return _with_suffix(*self._game.reset(seed=seed))

    def send(self, action: str) -> tuple[str, float, bool, bool]:
        """One move: the reply, the reward, terminated, truncated."""
        reply, reward, terminated, truncated, info = self._game.step(action)
        return _with_suffix(reply, info), float(reward), bool(terminated), bool(truncated)


class TextArenaGame(TextGame):
    """A one-player game of TextArena; see :func:`from_textarena` for the arguments."""

    def __init__(self, game: str, history: int | None = 1, **kwargs: Any) -> None:
        super().__init__(history)
        textarena = require("textarena", "textarena", "from_textarena()")
        with self._own_streams(), _named(game, "TextArena"):
            self._game = textarena.make(f"{game.removesuffix('-raw')}-raw", **kwargs)
            self._game.reset(num_players=1, seed=0)

    def begin(self, seed: int) -> str:
        """Start a game and return its first text."""
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        self._game.reset(num_players=1, seed=seed)
        return self._heard()

    def send(self, action: str) -> tuple[str, float, bool, bool]:
        """One move: the reply, the reward, terminated, truncated."""
        done, _ = self._game.step(action)
        reply = self._heard()
        rewards = self._game.close()[0] if done else None
        return reply, float((rewards or {}).get(0, 0.0)), bool(done), False

    def _heard(self) -> str:
        """What came since the last time: messages of the game and of the player."""
        return "\n".join(str(message) for _, message, *_ in self._game.get_observation()[1])


def _with_suffix(text: str, info: dict[str, Any]) -> str:
    return "\n".join(filter(None, [str(text), str(info.get("suffix") or "")]))


@contextlib.contextmanager
def _named(game: str, library: str) -> Iterator[None]:
    """Whatever a library raises where it makes a game becomes one line."""
    try:
        yield
    except Exception as error:
        words = " ".join(re.sub(r"\x1b\[\d*m|\*{3,}", "", str(error)).split())  # some are coloured and framed
        raise ValueError(
            f"game must be one that {library} can make here for one player, got {game!r} "
            f"({type(error).__name__}: {words:.120})"
        ) from error
