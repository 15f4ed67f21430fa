"""Where a row stands, as one number, for explorers that count: of token observations, and of any others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.random import mix64

_TOKEN_SALT = np.uint64(0x9E3779B97F4A7C15)
_POSITION_SALT = np.uint64(0xD1342543DE82EF95)


def context_keys(observations: NDArray[np.integer], lengths: NDArray[np.integer], k: int) -> NDArray[np.uint64]:
    """Hash the last `k` tokens of each row: where the row stands, for an explorer that counts.

    Only `k` tokens of a row are read, however long it is. A row with fewer than `k` tokens gets a key of its own.

    Args:
        observations: Right-padded token ids, shape (n, L).
        lengths: Tokens in each row, shape (n,).
        k: Tokens to hash, ≥ 0; with 0 every row gets the same key.

    Returns:
        Keys, shape (n,), uint64.
    """
    rows = np.arange(len(observations))
    keys = np.zeros(len(observations), np.uint64)
    for back in range(min(k, observations.shape[1]), 0, -1):
        position = np.asarray(lengths) - back
        token = np.where(position >= 0, observations[rows, np.maximum(position, 0)].astype(np.int64) + 1, 0)
        keys = mix64(keys * _POSITION_SALT + (token.astype(np.uint64) + np.uint64(1)) * _TOKEN_SALT)
    return keys


class SimHash:
    """Keys of observations that are no text: observations in similar directions get the same one (arXiv:1611.04717).

    The key holds the signs of ``n_bits`` Gaussian projections of the flattened observation. Two observations at an
    angle of θ have each bit in common with probability 1 − θ/π, so more bits tell more of them apart, and counts are
    shared by fewer. Integers without further dimensions, as those of a ``Discrete`` space, name states rather than
    measure anything: each gets a key of its own.

    Args:
        n_bits: Number of projections, in [1, 64].
        seed: Seed of the projections. Keys depend on it, on the number of bits and on the observation's size alone.

    Raises:
        ValueError: If ``n_bits`` is out of range.

    Example:
        >>> keys = SimHash(n_bits=16).keys(np.array([[1.0, 2.0], [1.01, 2.0], [-1.0, 0.0]]))
        >>> bool(keys[0] == keys[1]), bool(keys[0] == keys[2])
        (True, False)
    """

    def __init__(self, n_bits: int = 32, seed: int = 0) -> None:
        if not 1 <= n_bits <= 64:
            raise ValueError(f"n_bits must be in [1, 64], got {n_bits}")
        self.n_bits, self.seed = n_bits, seed
        self._projection = np.zeros((0, n_bits), np.float32)

    def keys(self, observations: NDArray[Any] | Mapping[str, NDArray[Any]]) -> NDArray[np.uint64]:
        """Hash a batch of observations.

        Args:
            observations: Numbers of any shape (n, ...), or several such arrays by name (a ``Dict`` space), which are
                read as one, in the order of their names.

        Returns:
            Keys, shape (n,), uint64.
        """
        if isinstance(observations, Mapping):
            parts = [np.asarray(observations[name]) for name in sorted(observations)]
            rows = np.concatenate([part.reshape(len(part), -1).astype(np.float32) for part in parts], axis=1)
        else:
            observations = np.asarray(observations)
            if observations.ndim == 1 and np.issubdtype(observations.dtype, np.integer):
                return mix64(observations.astype(np.uint64) * _TOKEN_SALT + _POSITION_SALT)
            rows = observations.reshape(len(observations), -1).astype(np.float32)
        if len(self._projection) != rows.shape[1]:
            generator = np.random.default_rng([self.seed, rows.shape[1]])
            self._projection = generator.standard_normal((rows.shape[1], self.n_bits), dtype=np.float32)
        bits = (rows @ self._projection >= 0).astype(np.uint64)  # (n, n_bits)
        # Tables take the key modulo their size: mixing spreads keys that differ in a few bits only.
        return mix64((bits << np.arange(self.n_bits, dtype=np.uint64)).sum(axis=1, dtype=np.uint64))

    def __getstate__(self) -> dict[str, Any]:
        # The projection of an image has megabytes, and follows from the seed.
        return {**self.__dict__, "_projection": np.zeros((0, self.n_bits), np.float32)}
