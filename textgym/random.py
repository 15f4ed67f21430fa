"""One counter-based random stream per row, drawn for all rows at once.

A prompt has to be a pure function of (row seed, episode number), whatever the other rows do, and 1,024 rows have to
reset in microseconds. A ``numpy.random.Generator`` a row gives the first and misses the second by a factor of forty;
hashing the counter (row key, episode, draw) gives both.
"""

from __future__ import annotations

import math

import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_EPISODE = np.uint64(0xD1342543DE82EF95)
_S30, _S27, _S31, _S11, _S32 = (np.uint64(shift) for shift in (30, 27, 31, 11, 32))


def mix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection of 64-bit words that passes BigCrush."""
    x = x ^ (x >> _S30)  # a new array, the only one: what follows works in place
    x *= _MULTIPLIER_1
    x ^= x >> _S27
    x *= _MULTIPLIER_2
    x ^= x >> _S31
    return x


def row_key(seed: int | None) -> np.uint64:
    """Key of one row's stream, drawn from the generator that Gymnasium makes of ``seed``."""
    generator, _ = seeding.np_random(seed)
    return generator.integers(2**64, dtype=np.uint64)


class RowStreams:
    """Independent random streams, one a row, each keyed by (row key, episode number).

    Every method draws the same number of values for each row, so what a row gets does not depend on its neighbours.

    Args:
        keys: Row keys, shape ``(n,)``, uint64.
        episodes: Number of the episode that each row starts, shape ``(n,)``.

    Example:
        >>> streams = RowStreams(np.array([1, 2], np.uint64), np.array([0, 0]))
        >>> streams.integers(10, (3,)).shape
        (2, 3)
    """

    def __init__(self, keys: NDArray[np.uint64], episodes: NDArray[np.int64]) -> None:
        self._keys = mix64(keys ^ (episodes.astype(np.uint64) * _EPISODE))
        self._drawn = 0

    def __len__(self) -> int:
        return len(self._keys)

    def bits(self, shape: tuple[int, ...] = ()) -> NDArray[np.uint64]:
        """Random 64-bit words, shape ``(n, *shape)``."""
        count = math.prod(shape)
        counters = np.arange(self._drawn + 1, self._drawn + count + 1, dtype=np.uint64) * _GOLDEN
        self._drawn += count
        return mix64(self._keys[:, None] + counters).reshape(len(self._keys), *shape)

    def random(self, shape: tuple[int, ...] = ()) -> NDArray[np.float64]:
        """Uniform floats in [0, 1), shape ``(n, *shape)``."""
        return (self.bits(shape) >> _S11).astype(np.float64) * 2.0**-53

    def integers(self, high: int | NDArray[np.integer], shape: tuple[int, ...] = ()) -> NDArray[np.int64]:
        """Uniform integers in [0, high), shape ``(n, *shape)``; ``high`` ≤ 2³² broadcasts against that shape.

        The upper 32 bits are multiplied and shifted, so the bias is below ``high / 2**32``.
        """
        return (((self.bits(shape) >> _S32) * np.asarray(high, np.uint64)) >> _S32).astype(np.int64)

    def choice(self, cumulative: NDArray[np.float64], shape: tuple[int, ...] = ()) -> NDArray[np.int64]:
        """Indices drawn by cumulative probabilities (ascending, last one 1.0), shape ``(n, *shape)``."""
        return np.minimum(np.searchsorted(cumulative, self.random(shape), side="right"), len(cumulative) - 1)

    def permutation(self, length: int) -> NDArray[np.int64]:
        """A random permutation of ``range(length)`` for each row, shape ``(n, length)``."""
        # Sorting words whose low bits hold the index is several times as fast as an argsort of the words.
        low_bits = np.uint64(2 ** max(length - 1, 1).bit_length() - 1)
        words = self.bits((length,)) & ~low_bits | np.arange(length, dtype=np.uint64)
        return (np.sort(words, axis=1) & low_bits).astype(np.int64)
