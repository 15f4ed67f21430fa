"""Checks of arguments: numbers in a range, lists of things."""

from __future__ import annotations

import io
import math
import reprlib
from collections.abc import Iterable, Mapping, Set
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


def check_at_least(name: str, value: int, minimum: int) -> int:
    """Return ``value`` if it is an integer of at least ``minimum``, else raise a ValueError that names it."""
    check_range(name, value, minimum, math.inf, integer=True)
    return int(value)


def check_positive(name: str, value: float) -> float:
    """Return ``value`` if it is a finite number above 0, else raise a ValueError that names it."""
    kind: Any = Real
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return float(value)


def check_list(name: str, value: Any, of: str) -> list[Any]:
    """The items of a list, another iterable or a table's rows, else raise a ValueError that names it.

    Tables are ``datasets.Dataset``, and data frames of pandas, Polars and Arrow, which as iterables are their columns.
    A single string or mapping is refused, though it is iterable: it stands for a forgotten pair of brackets. So are a
    set, whose order changes from run to run, and an open file.
    """
    for method in ("to_list", "to_dicts", "to_pylist"):
        if callable(getattr(value, method, None)):
            return list(getattr(value, method)())
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return list(value.to_dict("records"))
    refused = (str, bytes, bytearray, Mapping, Set, io.IOBase)
    if isinstance(value, refused) or not isinstance(value, Iterable):
        raise ValueError(f"{name} must be a list of {of}, got a single {type(value).__name__}: {reprlib.repr(value)}")
    return list(value)


def check_texts(name: str, value: Any, of: str = "texts") -> list[str]:
    """:func:`check_list` of strings."""
    items = check_list(name, value, of)
    for item in items:
        if not isinstance(item, str):
            raise ValueError(f"{name} must be a list of {of}, got one that holds {reprlib.repr(item)}")
    return items
