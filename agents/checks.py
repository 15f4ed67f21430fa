"""Checks of arguments that the agent and its replay share."""

from __future__ import annotations

import math
from numbers import Real


def check_ranges(**ranges: tuple[float, float, float]) -> None:
    """Raise ``ValueError``, naming the argument, unless each value is a number in its closed range.

    Args:
        **ranges: Name → value, least and largest value; ``math.inf`` for no upper end.
    """
    for name, (value, low, high) in ranges.items():
        if not isinstance(value, Real) or not low <= value <= high:
            accepted = f"at least {low}" if high == math.inf else f"in [{low}, {high}]"
            raise ValueError(f"{name} must be {accepted}, got {value!r}")
