"""Gymnasium's spaces as JSON, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from textgym import TokenSequence


def space_as_json(space: spaces.Space[Any]) -> dict[str, Any]:
    """A space as JSON values.

    Raises:
        ValueError: If it is of a kind that Stable-Baselines3 does not learn from.
    """
    if isinstance(space, TokenSequence):
        sizes = {"context_length": space.context_length, "vocab_size": space.vocab_size, "pad_id": space.pad_id}
        return {"type": "TokenSequence", **sizes}
    if isinstance(space, spaces.Box):
        bounds = {"low": _bounds(space.low), "high": _bounds(space.high)}
        return {"type": "Box", "shape": list(space.shape), "dtype": space.dtype.name, **bounds}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"type": "MultiDiscrete", "nvec": space.nvec.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else [int(n) for n in space.n]}
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "spaces": {name: space_as_json(item) for name, item in space.spaces.items()}}
    raise ValueError(f"a space must be one that Stable-Baselines3 learns from to be exported, got {space}")


def space_from_json(value: Any) -> Any:
    """What :func:`space_as_json` has written.

    Raises:
        ValueError: If it is of another kind.
        KeyError: If something is missing.
        TypeError: If a value is of a wrong type.
    """
    kind = value["type"]
    if kind == "TokenSequence":
        return TokenSequence(value["context_length"], value["vocab_size"], value["pad_id"])
    if kind == "Box":
        shape, dtype = tuple(value["shape"]), np.dtype(value["dtype"])
        low, high = (_array(value[name], shape, dtype) for name in ("low", "high"))
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(value["n"], start=value["start"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(np.array(value["nvec"]))
    if kind == "MultiBinary":
        return spaces.MultiBinary(value["n"])
    if kind == "Dict":
        return spaces.Dict({name: space_from_json(item) for name, item in value["spaces"].items()})
    raise ValueError(f"a space must be a TokenSequence, Box, Discrete …, got {kind!r}")


def _bounds(values: NDArray[Any]) -> Any:
    """One number where all are equal; JSON has no infinity, so that is a string."""
    flat = [number if math.isfinite(number) else str(number) for number in values.ravel().tolist()]
    return flat[0] if flat and len(set(flat)) == 1 else flat


def _array(values: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if not isinstance(values, list):
        return np.full(shape, float(values) if isinstance(values, str) else values, dtype)
    return np.array([float(item) if isinstance(item, str) else item for item in values], dtype).reshape(shape)
