"""A sum tree: draw an index with probability proportional to its priority, in a few array operations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Children per node. A wide node makes the tree shallow (four levels at a million leaves), and depth is what costs:
# each level is a handful of NumPy calls, while summing 32 contiguous float64 is nearly free.
_FAN_OUT = 32


class SumTree:
    """Priorities of `capacity` items, with sums that make proportional sampling logarithmic.

    The sum tree of prioritized experience replay (arXiv:1511.05952, appendix B.2.1), with wide nodes and batched
    operations. Sums are recomputed from the children, never adjusted by differences, so rounding errors don't build up
    and repeated indices need no special care.

    Args:
        capacity: Number of items, any integer ≥ 1. Items are numbered from 0; every priority starts at 0.

    Raises:
        ValueError: If `capacity` is less than 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.capacity = int(capacity)
        # levels[0] holds the leaves in rows of siblings; row i of a level adds up to entry i of the next level.
        self._levels: list[NDArray[np.float64]] = []
        width = self.capacity
        while True:
            rows = -(-width // _FAN_OUT)
            self._levels.append(np.zeros((rows, _FAN_OUT)))
            if rows == 1:
                break
            width = rows

    @property
    def total(self) -> float:
        """Sum of all priorities."""
        return float(self._levels[-1].sum())

    @property
    def nbytes(self) -> int:
        """Bytes that the tree occupies."""
        return sum(level.nbytes for level in self._levels)

    def set(self, indices: ArrayLike, priorities: ArrayLike) -> None:
        """Set priorities; where an index is repeated, its last value counts.

        Args:
            indices: Item numbers, shape (n,), integers in [0, capacity).
            priorities: New priorities, shape (n,) or a scalar for all, finite and ≥ 0.

        Raises:
            IndexError: If an index is out of range.
            ValueError: If a priority is negative, NaN or infinite.
        """
        nodes = self._checked(indices)
        values = np.asarray(priorities, dtype=np.float64)
        if nodes.size == 0:
            return
        if not (values.min() >= 0 and values.max() < np.inf):  # written so that NaN fails too
            bad = values[~((values >= 0) & (values < np.inf))].flat[0]
            raise ValueError(f"priorities must be finite and at least 0, got {bad}")
        self._levels[0].ravel()[nodes] = values
        for level, parent in zip(self._levels, self._levels[1:], strict=False):
            nodes = nodes // _FAN_OUT
            parent.ravel()[nodes] = level[nodes].sum(axis=1)  # repeated nodes write equal sums

    def get(self, indices: ArrayLike) -> NDArray[np.float64]:
        """Return the priorities of `indices`, shape (n,).

        Raises:
            IndexError: If an index is out of range.
        """
        return self._levels[0].ravel()[self._checked(indices)]

    def find(self, prefix_sums: ArrayLike) -> NDArray[np.int64]:
        """Return, for each prefix sum, the first item at which the running sum of priorities exceeds it.

        Args:
            prefix_sums: Shape (n,), in [0, total). Rounding may leave a value at or above `total`: it is taken to mean
                the last item with a positive priority.

        Returns:
            Item numbers, shape (n,), int64. Never an item of priority 0.

        Raises:
            ValueError: If every priority is 0, or a prefix sum is negative or NaN.
        """
        remainder = np.array(prefix_sums, dtype=np.float64, ndmin=1)  # a copy: it is reduced in place
        if self.total <= 0:
            raise ValueError("cannot search an empty SumTree: every priority is 0")
        if remainder.size and not remainder.min() >= 0:
            raise ValueError(f"prefix_sums must be at least 0, got {remainder.min()}")
        nodes = np.zeros(len(remainder), dtype=np.int64)
        rows = np.arange(len(remainder))
        for level in reversed(self._levels):
            running = np.cumsum(level[nodes], axis=1)  # (n, fan-out)
            # Strictly below the last running sum, some child exceeds the remainder, and the first one that does has a
            # positive priority: its running sum is above its predecessor's.
            np.minimum(remainder, np.nextafter(running[:, -1], 0.0), out=remainder)
            child = (running > remainder[:, None]).argmax(axis=1)
            remainder -= np.where(child > 0, running[rows, child - 1], 0.0)
            nodes = nodes * _FAN_OUT + child
        return nodes

    def sample(self, n: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw `n` items in proportion to their priorities, one from each of `n` equal strata of the total.

        Args:
            n: Number of draws (with replacement).
            generator: Source of randomness; `n` uniform numbers are taken from it.

        Returns:
            Item numbers, shape (n,), int64, in increasing order.

        Raises:
            ValueError: If every priority is 0.
        """
        return self.find((np.arange(n) + generator.random(n)) * (self.total / max(n, 1)))

    def get_state(self) -> dict[str, Any]:
        """Every priority and every sum."""
        return {"capacity": self.capacity, "levels": [level.copy() for level in self._levels]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that :meth:`get_state` gave."""
        self.capacity, self._levels = state["capacity"], [level.copy() for level in state["levels"]]

    def _checked(self, indices: ArrayLike) -> NDArray[np.int64]:
        nodes = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        if nodes.size and (nodes.min() < 0 or nodes.max() >= self.capacity):
            bad = nodes[(nodes < 0) | (nodes >= self.capacity)][0]
            raise IndexError(f"indices must be in [0, {self.capacity}), got {bad}")
        return nodes
