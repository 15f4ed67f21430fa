"""One file for nested plain values and arrays: written atomically, checked when read, and nothing in it is executed.

It is a safetensors file. The arrays are its tensors; everything else is JSON in its header, with a checksum over all of
it. Pickle, which Stable-Baselines3's zips consist of, would run whatever code the file brings along.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from agents.saving.files import atomic_write

_FORMAT = "textgym-state-1"
_DTYPES = frozenset("float64 float32 float16 int64 uint64 int32 uint32 int16 uint16 int8 uint8 bool".split())


class StateFileError(ValueError):
    """A file that can't be read: damaged, cut short, or of another kind."""


def write_state(path: str | Path, value: Any) -> int:
    """Write a value so that the file appears complete or not at all, whatever happens meanwhile.

    Args:
        path: The file; its folder must exist.
        value: None, booleans, numbers, strings, NumPy arrays of numbers, torch tensors; and dictionaries, lists and
            tuples of these.

    Returns:
        The size of the file in bytes.

    Raises:
        TypeError: If the value holds anything else.
        OSError: If it can't be written; what was at ``path`` before is still there.
    """
    arrays: dict[str, NDArray[Any]] = {}
    tree = json.dumps(_pack(value, "", arrays), separators=(",", ":"))
    data = save(arrays, {"format": _FORMAT, "tree": tree, "sha256": _digest(tree, arrays)})
    write_synced(path, data)
    return len(data)


def read_state(path: str | Path) -> Any:
    """Read what :func:`write_state` wrote: equal values, arrays and tensors of their own.

    Raises:
        StateFileError: If the file is missing, unreadable, damaged, cut short, or of another kind.
    """
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise StateFileError(f"{path} must be a checkpoint of textgym, got {metadata.get('format')!r}")
            arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}
        if metadata.get("sha256") != _digest(metadata["tree"], arrays):
            raise StateFileError(f"{path} is damaged: its checksum is wrong")
        return _unpack(json.loads(metadata["tree"]), arrays)
    except OSError as error:
        raise StateFileError(f"can't read {path}: {error.strerror or error}") from None
    except (SafetensorError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise StateFileError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    except ValueError as error:  # JSON's own, too
        raise error if isinstance(error, StateFileError) else StateFileError(f"{path} is damaged: {error}") from None


def write_synced(path: str | Path, data: bytes) -> None:
    """Write bytes atomically and wait until they are on the disk: a crash of the machine leaves no empty file."""
    path = Path(path)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if hasattr(os, "O_DIRECTORY"):  # not on Windows, where the renaming is not to be waited for
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def differences(ours: Any, theirs: Any, place: str = "") -> list[str]:
    """Where two values differ: names of the places, in the order of ``ours``; arrays are compared bit for bit.

    Example:
        >>> differences({"a": [1, 2], "b": 0}, {"a": [1, 3], "b": 0})
        ['a/1']
    """
    if type(ours) is not type(theirs):
        return [place]
    if isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            return [place]
        return [found for key in ours for found in differences(ours[key], theirs[key], _join(place, key))]
    if isinstance(ours, (list, tuple)):
        if len(ours) != len(theirs):
            return [place]
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [found for index, (one, other) in pairs for found in differences(one, other, _join(place, index))]
    if isinstance(ours, (np.ndarray, torch.Tensor)):
        one, other = _array(ours), _array(theirs)
        equal = one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    else:
        equal = ours == theirs or (ours != ours and theirs != theirs)
    return [] if equal else [place]


def _pack(value: Any, place: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """A value as JSON, with its arrays put aside; every container is a list that begins with its kind."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, dict):
        pairs = ([_pack(key, place, arrays), _pack(item, _join(place, key), arrays)] for key, item in value.items())
        return ["dict", *pairs]
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return [kind, *(_pack(item, _join(place, index), arrays) for index, item in enumerate(value))]
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        array = _array(value)
        if array.dtype.name not in _DTYPES:
            raise TypeError(f"{place} must be an array of numbers, got {array.dtype}")
        name = place if place not in arrays else f"{place}#{len(arrays)}"
        arrays[name] = array
        if not isinstance(value, torch.Tensor):
            return ["array", name]
        return ["bfloat16" if value.dtype == torch.bfloat16 else "tensor", name]
    raise TypeError(f"{place} must be a plain value or an array, got {type(value).__name__}")


def _unpack(tree: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if not isinstance(tree, list):
        return tree
    kind, *items = tree
    if kind == "dict":
        return {_unpack(key, arrays): _unpack(item, arrays) for key, item in items}
    if kind == "list":
        return [_unpack(item, arrays) for item in items]
    if kind == "tuple":
        return tuple(_unpack(item, arrays) for item in items)
    if kind == "array":
        return arrays[items[0]]
    if kind == "tensor":
        return torch.from_numpy(arrays[items[0]])
    if kind == "bfloat16":  # which NumPy does not have
        return torch.from_numpy(arrays[items[0]]).view(torch.bfloat16)
    raise TypeError(f"unknown kind {kind!r}")


def _array(value: Any) -> NDArray[Any]:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.view(torch.int16) if value.dtype == torch.bfloat16 else value).numpy()
    return np.require(value, requirements="C")


def _join(place: str, key: Any) -> str:
    return f"{place}/{key}" if place else str(key)


def _digest(tree: str, arrays: dict[str, NDArray[Any]]) -> str:
    """A checksum of everything, names and shapes included."""
    digest = hashlib.sha256(tree.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
