"""Invisible characters, made visible."""

from __future__ import annotations

_NAMES = {" ": "␣", "\n": "⏎", "\t": "⇥"}


def shown(text: str) -> str:
    """A text with its invisible characters made visible, where it consists of nothing else.

    Example:
        >>> shown(" "), shown(" a")
        ('␣', ' a')
    """
    return text if text.strip() else "".join(_NAMES.get(letter, letter) for letter in text)
