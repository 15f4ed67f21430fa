"""Search spaces as plain data: names, ranges and choices."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from numbers import Integral, Real
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from skopt.space import Dimension

Params = dict[str, Any]
"""A point of a space: dotted name → value."""
_SIGNIFICANT_DIGITS = 4
"""Of a sampled float, so that people can read and copy it; far finer than any agent's scores can tell apart."""
_RANGE_KEYS = ("low", "high", "log", "type")


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds, both included.

    Attributes:
        low: Lower bound.
        high: Upper bound, above ``low``.
        log: Whether orders of magnitude are searched evenly, rather than values; ``low`` is above 0 then.
        integer: Whether only whole numbers count.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def sample(self, random: np.random.Generator) -> float | int:
        """A value drawn evenly, on the logarithmic scale if ``log``."""
        # Every integer gets the whole interval that rounds to it.
        margin = 0.5 if self.integer else 0.0
        low, high = self.low - margin, self.high + margin
        if self.log:
            return self.rounded(math.exp(random.uniform(math.log(low), math.log(high))))
        return self.rounded(random.uniform(low, high))

    def rounded(self, value: float) -> float | int:
        """The value that is tried in its place: a whole number, or a float of few digits, within the bounds."""
        if self.integer:
            return int(min(max(round(float(value)), self.low), self.high))
        return float(min(max(float(f"{float(value):.{_SIGNIFICANT_DIGITS}g}"), self.low), self.high))

    def contains(self, value: Any) -> bool:
        """Whether the value is a number of this range."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and (not self.integer or float(value).is_integer())

    def __str__(self) -> str:
        kind = "an integer" if self.integer else "a number"
        return f"{kind} in [{self.low:g}, {self.high:g}]"

    def as_data(self) -> dict[str, Any]:
        """The range as it is written in a file."""
        return {"low": self.low, "high": self.high, "log": self.log, "type": "int" if self.integer else "float"}


@dataclass(frozen=True)
class Choice:
    """One of several values, in no order: plain ones, tuples, NumPy's, paths, enum members, classes and functions.

    Attributes:
        options: The values; at least two, all different.
    """

    options: tuple[Any, ...]

    def sample(self, random: np.random.Generator) -> Any:
        """A value drawn evenly."""
        return self.options[int(random.integers(len(self.options)))]

    def index(self, value: Any) -> int:
        """Place of a value, or of what a file holds for it, among the options, or -1; True is not 1, nor is 1.0."""
        try:
            return self._keys.index(_key(value))
        except ValueError:
            return -1

    @property
    def _keys(self) -> list[str]:
        return [_key(option) for option in self.options]

    def contains(self, value: Any) -> bool:
        """Whether the value is one of the options."""
        return self.index(value) >= 0

    def __str__(self) -> str:
        return f"one of {', '.join(map(repr, self.options))}"

    def as_data(self) -> list[Any]:
        """The choices as they are written in a file: lists for tuples, names for classes."""
        return [as_json_value(option) for option in self.options]


class Space:
    """What a study searches.

    Args:
        data: Name → ``{low, high, log, type}`` for a range (``log`` is false and ``type`` is ``float`` if left out; it
            is ``int`` where both bounds are whole numbers written without a point), or a list of choices. A dotted name
            reaches inside a dictionary: ``policy_kwargs.n_layers``.

    Attributes:
        dimensions: Name → :class:`Range` or :class:`Choice`, in the order given.

    Raises:
        ValueError: If the data say something else; the message names the argument, the value and what is accepted.

    Example:
        >>> space = Space({"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "policy_kwargs.n_layers": [1, 2]})
        >>> space.arguments({"learning_rate": 1e-3, "policy_kwargs.n_layers": 2})
        {'learning_rate': 0.001, 'policy_kwargs': {'n_layers': 2}}
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        if not isinstance(data, Mapping) or not data:
            raise ValueError(f"space must be a mapping of argument names to ranges or lists of choices, got {data!r}")
        self.dimensions = {name: _dimension(name, value) for name, value in data.items()}
        for name in self.dimensions:
            parents = [other for other in self.dimensions if name.startswith(f"{other}.")]
            if parents:
                raise ValueError(f"space must not have both {parents[0]!r} and {name!r}: one is inside the other")

    @property
    def names(self) -> list[str]:
        """Names of the dimensions."""
        return list(self.dimensions)

    def as_data(self) -> dict[str, Any]:
        """The space as plain data."""
        return {name: dimension.as_data() for name, dimension in self.dimensions.items()}

    def sample(self, random: np.random.Generator) -> Params:
        """A random point."""
        return {name: dimension.sample(random) for name, dimension in self.dimensions.items()}

    def check(self, params: Mapping[str, Any]) -> None:
        """Check a point.

        Raises:
            ValueError: If a name is missing or unknown, or a value is outside its dimension.
        """
        if set(params) != set(self.dimensions):
            raise ValueError(f"params must have the names {', '.join(self.names)}, got {', '.join(params) or 'none'}")
        for name, dimension in self.dimensions.items():
            if not dimension.contains(params[name]):
                raise ValueError(f"{name} must be {dimension}, got {params[name]!r}")

    def as_values(self, params: Mapping[str, Any]) -> Params:
        """A point as it is written in a file."""
        return {name: as_json_value(value) for name, value in params.items()}

    def from_values(self, values: Mapping[str, Any]) -> Params:
        """The opposite of :meth:`as_values`: the very choices that the space was given.

        Raises:
            ValueError: See :meth:`check`.
        """
        self.check(values)
        return {
            name: dimension.options[dimension.index(values[name])] if isinstance(dimension, Choice) else values[name]
            for name, dimension in self.dimensions.items()
        }

    def arguments(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A point as nested dictionaries, the way a constructor takes it."""
        nested: dict[str, Any] = {}
        for name, value in params.items():
            *parents, last = name.split(".")
            place = nested
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        return nested

    def skopt_dimensions(self) -> list[Dimension]:
        """The dimensions for scikit-optimize; choices are labels ``"0"``, ``"1"`` …, because it compares them."""
        from skopt.space import Categorical, Integer, Real

        made = []
        for dimension in self.dimensions.values():
            if isinstance(dimension, Choice):
                made.append(Categorical([str(index) for index in range(len(dimension.options))]))
            else:
                prior = "log-uniform" if dimension.log else "uniform"
                made.append((Integer if dimension.integer else Real)(dimension.low, dimension.high, prior=prior))
        return made

    def to_skopt(self, params: Mapping[str, Any]) -> list[Any]:
        """A point in the terms of :meth:`skopt_dimensions`."""
        return [
            str(dimension.index(params[name])) if isinstance(dimension, Choice) else params[name]
            for name, dimension in self.dimensions.items()
        ]

    def from_skopt(self, values: list[Any]) -> Params:
        """The opposite of :meth:`to_skopt`, as plain Python values."""
        return {
            name: dimension.options[int(value)] if isinstance(dimension, Choice) else dimension.rounded(value)
            for (name, dimension), value in zip(self.dimensions.items(), values, strict=True)
        }


def as_json_value(value: Any) -> Any:
    """What a file holds for a value.

    Raises:
        ValueError: If nothing could tell it from others: an object that is none of the kinds that a choice may be.
    """
    if isinstance(value, Enum):
        return f"{type(value).__module__}.{type(value).__qualname__}.{value.name}"
    if isinstance(value, (np.generic, np.ndarray)):
        return as_json_value(value.tolist())
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, (list, tuple)):
        return [as_json_value(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: as_json_value(item) for key, item in value.items()}
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "__qualname__") and hasattr(value, "__module__"):  # classes and functions
        return f"{value.__module__}.{value.__qualname__}"
    raise ValueError(
        "must be None, a finite number, a string, a path, a class, a function, or a list or mapping of these, "
        f"got {value!r}"
    )


def _key(value: Any) -> str:
    return json.dumps(as_json_value(value), sort_keys=True)


def _dimension(name: Any, value: Any) -> Range | Choice:
    if not isinstance(name, str) or not all(name.split(".")):
        raise ValueError(f"space must have argument names as keys, got {name!r}")
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        choice = Choice(tuple(value))
        for option in value:
            try:
                as_json_value(option)
            except ValueError as error:
                raise ValueError(f"choices of {name} {error}") from None
        if len(value) < 2 or any(choice.index(option) != i for i, option in enumerate(value)):
            raise ValueError(f"{name} must list at least two choices, all different, got {list(value)!r}")
        return choice
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a list of choices or a mapping with low and high, got {value!r}")
    for key in value:
        if key not in _RANGE_KEYS:
            raise ValueError(f"{name} must have keys among {', '.join(_RANGE_KEYS)}, got {key!r}")
    bounds: list[Any] = [value.get("low"), value.get("high")]
    bounds = [bound.item() if isinstance(bound, np.generic) else bound for bound in bounds]
    for key, bound in zip(("low", "high"), bounds, strict=True):
        if isinstance(bound, bool) or not isinstance(bound, Real) or not math.isfinite(bound):
            raise ValueError(f"{name}.{key} must be a finite number, got {bound!r}")
    log = value.get("log", False)
    if not isinstance(log, (bool, np.bool_)):
        raise ValueError(f"{name}.log must be true or false, got {log!r}")
    kind = value.get("type", "int" if all(isinstance(bound, Integral) for bound in bounds) else "float")
    if kind not in ("int", "float"):
        raise ValueError(f"{name}.type must be int or float, got {kind!r}")
    low, high = bounds
    if not low < high:
        raise ValueError(f"{name}.high must be above low, {low}, got {high}")
    if log and low <= 0:
        raise ValueError(f"{name}.low must be above 0 where log is true, got {low}")
    if kind == "float":
        return Range(float(low), float(high), bool(log))
    if not (float(low).is_integer() and float(high).is_integer()):
        raise ValueError(f"{name} must have whole numbers as low and high where type is int, got {low} and {high}")
    return Range(int(low), int(high), bool(log), integer=True)
