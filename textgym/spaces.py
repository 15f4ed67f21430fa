"""The observation space of every TextGym environment: a right-padded row of token ids."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray


class TokenSequence(spaces.Box):
    """Right-padded token ids, shape ``(context_length,)``, dtype int32.

    Being a :class:`gymnasium.spaces.Box`, it works in Stable-Baselines3 unmodified. Ids below ``vocab_size`` are the
    actions; ids from ``vocab_size`` to ``pad_id - 1`` occur in prompts and replies only (separators, control words);
    ``pad_id`` is the highest id and fills the row to the right of the text.

    Args:
        context_length: Length of the row, prompt, completion and replies together (≥ 1).
        vocab_size: Number of actions: the size of the environment's ``Discrete`` action space (≥ 1).
        pad_id: The padding id (≥ ``vocab_size``).
        seed: Seed of the space's own sampler.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> space = TokenSequence(context_length=8, vocab_size=4, pad_id=5)
        >>> space.shape, space.n_tokens
        ((8,), 6)
    """

    def __init__(self, context_length: int, vocab_size: int, pad_id: int, seed: int | None = None) -> None:
        if context_length < 1:
            raise ValueError(f"context_length must be at least 1, got {context_length}")
        if vocab_size < 1:
            raise ValueError(f"vocab_size must be at least 1, got {vocab_size}")
        if pad_id < vocab_size:
            raise ValueError(f"pad_id must be at least vocab_size ({vocab_size}), got {pad_id}")
        super().__init__(low=0, high=pad_id, shape=(context_length,), dtype=np.int32, seed=seed)
        self.vocab_size = int(vocab_size)
        self.pad_id = int(pad_id)

    @property
    def context_length(self) -> int:
        """Length of the row in tokens."""
        return int(self.shape[0])

    @property
    def n_tokens(self) -> int:
        """Number of distinct ids in an observation, padding included: the size of an embedding table."""
        return self.pad_id + 1

    def __repr__(self) -> str:
        return f"TokenSequence({self.context_length}, vocab_size={self.vocab_size}, pad_id={self.pad_id})"

    def __eq__(self, other: Any) -> bool:
        if isinstance(other, TokenSequence):
            return (self.shape, self.vocab_size, self.pad_id) == (other.shape, other.vocab_size, other.pad_id)
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # as Box


def batch_of_rows(space: spaces.Space[Any], n: int) -> spaces.Space[Any]:
    """Gymnasium's ``batch_space``, its bounds being read-only views of a single row.

    In full, the bounds of ``n`` observations take 2.5 times as much memory as the observations.

    Args:
        space: A ``Box`` or a ``Discrete``.
        n: Number of rows (≥ 1).
    """
    batch = batch_space(space, n)
    for name in ("low", "high", "bounded_below", "bounded_above", "nvec", "start"):
        bounds = getattr(batch, name, None)
        if isinstance(bounds, np.ndarray):
            setattr(batch, name, np.broadcast_to(bounds[:1].copy(), bounds.shape))
    return batch


def sequence_lengths(observations: NDArray[np.integer], pad_id: int) -> NDArray[np.int64]:
    """Number of tokens before the padding in each right-padded row.

    A binary search over all rows at once: ``O(n log L)`` reads, so a long context is never scanned.

    Args:
        observations: Token ids, shape ``(n, L)``; within a row, padding stands only to the right.
        pad_id: The padding id.

    Returns:
        Lengths, shape ``(n,)``, int64, each between 0 and ``L``.
    """
    n, context_length = observations.shape
    rows = np.arange(n)
    low, high = np.zeros(n, np.int64), np.full(n, context_length, np.int64)
    for _ in range(context_length.bit_length()):
        middle = (low + high) >> 1
        # At middle == L (a full row) low == high == L already: read the last column, the update changes nothing.
        is_text = (observations[rows, np.minimum(middle, context_length - 1)] != pad_id) & (middle < high)
        low = np.where(is_text, middle + 1, low)
        high = np.where(is_text, high, middle)
    return low
