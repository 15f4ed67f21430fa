"""Texts in any of the forms in which data sets come, as one kind of row."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, default_collate

from textgym.adapters.minari import minari_rows, open_minari
from textgym.checks import check_list
from textgym.demonstrations import Demonstration, Demonstrations

_KNOWN = frozenset("prompt completion text reward seed prompt_tokens completion_tokens is_action terminated".split())


@dataclass(frozen=True)
class TextRow:
    """One text.

    Attributes:
        prompt: What it begins with; None where the text has no prompt of its own, so that its first tokens serve.
        completion: What follows, or the whole text.
        reward: What it earned in all, or what each action earned; None where that is not known.
        seed: Seed under which a single environment shows this prompt; None where that is not known.
        prompt_tokens: Token ids of the prompt, if known, shape ``(P,)``.
        completion_tokens: Token ids of the completion, with replies and EOS, if known, shape ``(C,)``.
        is_action: Which of ``completion_tokens`` were actions, bool, shape ``(C,)``; None for all of them.
        terminated: Whether the text is complete, if known; else its tokens and its task tell.
        columns: Further columns, for reward functions.
    """

    prompt: str | None
    completion: str
    reward: float | Sequence[float] | None = None
    seed: int | None = None
    prompt_tokens: NDArray[np.int32] | None = None
    completion_tokens: NDArray[np.int32] | None = None
    is_action: NDArray[np.bool_] | None = None
    terminated: bool | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


def read_rows(data: Any) -> list[TextRow]:
    """Rows of a data set.

    Args:
        data: A list (or other iterable) of texts, of ``(prompt, completion)`` or ``(prompt, completion, reward)``, or
            of mappings with a ``completion`` and a ``prompt``, or with a ``text``, and maybe ``reward``, ``seed``,
            ``prompt_tokens``, ``completion_tokens``, ``is_action`` and columns for a reward function; a
            ``datasets.Dataset`` or a data frame of such rows; a PyTorch ``DataLoader`` of any of these, with its
            default ``collate_fn`` or one that returns a list of rows; :func:`textgym.demonstrations`; a Minari data set
            of one of TextGym's environments, or its path or id; or the path of a UTF-8 text file, a text a line.

    Raises:
        ValueError: If a row is of another kind (the message names its number), or there is none.
    """
    recorded = open_minari(data)
    if recorded is not None:
        rows = [_row(number, item) for number, item in enumerate(minari_rows(recorded))]
    elif isinstance(data, (str, os.PathLike)):
        rows = [TextRow(None, line) for line in read_text(data).splitlines() if line.strip()]
    elif isinstance(data, Demonstrations):
        rows = [_demonstration(one, data.seed + number) for number, one in enumerate(data)]
    else:
        kinds = "texts or rows, a DataLoader, a datasets.Dataset, a data frame, demonstrations or a path"
        items = _unbatched(data) if isinstance(data, DataLoader) else check_list("data", data, kinds)
        rows = [_row(number, item) for number, item in enumerate(items)]
    if not rows:
        raise ValueError("data must hold at least one text, got none")
    return rows


def read_text(path: str | os.PathLike[str]) -> str:
    """A text file's content.

    Raises:
        ValueError: If it can't be read as UTF-8 text.
    """
    try:
        return Path(path).read_text("utf-8-sig")  # without the mark that some editors put in front
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"data must be the path of a UTF-8 text file, got {str(path)!r}: {reason}") from None


def _demonstration(one: Demonstration, seed: int | None = None) -> TextRow:
    return TextRow(
        one.prompt, one.completion, one.reward, seed, one.prompt_tokens, one.completion_tokens, one.is_action
    )


def _unbatched(loader: DataLoader[Any]) -> Iterator[Any]:
    """The rows of a loader's batches, undoing ``default_collate``."""
    with torch.random.fork_rng(devices=[]):  # a loader without a generator draws from the global one
        for batch in loader:
            if loader.batch_size is None:
                yield batch
            elif loader.collate_fn is not default_collate or _is_texts(batch):
                yield from batch
            elif isinstance(batch, Mapping):
                yield from (
                    dict(zip(batch, values, strict=True)) for values in zip(*map(_column, batch.values()), strict=True)
                )
            else:
                yield from zip(*map(_column, batch), strict=True)


def _is_texts(batch: Any) -> bool:
    return isinstance(batch, (list, tuple)) and all(isinstance(text, str) for text in batch)


def _column(values: Any) -> list[Any]:
    if isinstance(values, torch.Tensor):
        return values.tolist()
    # Rows that hold lists of equal length come back as one tensor a place.
    if values and all(isinstance(value, torch.Tensor) for value in values):
        return torch.stack(list(values), dim=1).tolist()
    return list(values)


def _row(number: int, item: Any) -> TextRow:
    if isinstance(item, TextRow):
        return item
    if isinstance(item, Demonstration):
        return _demonstration(item)
    if isinstance(item, str):
        return TextRow(None, item)
    if isinstance(item, Mapping):
        return _from_mapping(number, item)
    if isinstance(item, (tuple, list)) and 2 <= len(item) <= 3:
        return _from_mapping(number, dict(zip(("prompt", "completion", "reward"), item, strict=False)))
    raise ValueError(
        f"data[{number}] must be a text, (prompt, completion), (prompt, completion, reward) or a mapping, "
        f"got {reprlib.repr(item)}"
    )


def _from_mapping(number: int, item: Mapping[str, Any]) -> TextRow:
    if "text" in item and "completion" not in item:
        item = {**item, "completion": item["text"]}
    prompt, completion, reward, seed = (item.get(name) for name in ("prompt", "completion", "reward", "seed"))
    if not isinstance(completion, str) or not isinstance(prompt, str | None):
        raise ValueError(
            f"data[{number}] must have a string 'completion' (or 'text') and, if any, a string 'prompt', "
            f"got {reprlib.repr(dict(item))}"
        )
    if reward is not None:
        reward = _numbers(number, reward)
    return TextRow(
        prompt,
        completion,
        reward,
        None if seed is None else int(seed),
        _array(item.get("prompt_tokens"), np.int32),
        _array(item.get("completion_tokens"), np.int32),
        _array(item.get("is_action"), np.bool_),
        None if item.get("terminated") is None else bool(item["terminated"]),
        {name: value for name, value in item.items() if name not in _KNOWN},
    )


def _array(values: Any, dtype: type[Any]) -> NDArray[Any] | None:
    return None if values is None else np.asarray(values, dtype)


def _numbers(number: int, reward: Any) -> float | list[float]:
    try:
        values = np.asarray(reward, np.float64)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if values.ndim > 1 or not np.isfinite(values).all():
        raise ValueError(
            f"data[{number}] must have a finite 'reward', or one for each action, got {reprlib.repr(reward)}"
        )
    return float(values) if values.ndim == 0 else values.tolist()
