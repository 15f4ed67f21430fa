"""Checks of arguments that the agent, its explorers and its replay share."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


def check_range(name: str, value: Any, low: float, high: float, integer: bool = False) -> None:
    """Raise ``ValueError``, naming the argument, unless a value is a finite number in a closed range.

    Args:
        name: The argument.
        value: What was given for it.
        low: Least value.
        high: Largest value; ``math.inf`` for no upper end.
        integer: Whether it must be an integer.
    """
    kind: Any = Integral if integer else Real
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        if high == math.inf:
            accepted = f"an integer of at least {low}" if integer else f"at least {low}"
        else:
            accepted = f"an integer in [{low}, {high}]" if integer else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be {accepted}, got {value!r}")
    if value == math.inf:
        raise ValueError(f"{name} must be finite, got {value!r}")


def check_ranges(**ranges: tuple[float, float, float]) -> None:
    """:func:`check_range` of several numbers: name → value, least and largest value."""
    for name, (value, low, high) in ranges.items():
        check_range(name, value, low, high)
