"""An array that forgets at one end and grows when it must, addressed by positions that never change."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Ring:
    """A first-in-first-out array of rows.

    Row `p` is the p-th ever appended and keeps that number for life; it lies at `p % capacity`. So references from one
    ring into another stay valid whatever is dropped or moved.

    Args:
        dtype: Type of an element.
        row_shape: Shape of a row; a scalar by default.
        capacity: Rows allocated at first.
    """

    def __init__(self, dtype: DTypeLike, row_shape: tuple[int, ...] = (), capacity: int = 64) -> None:
        self.start = 0  # position of the oldest row
        self.stop = 0  # one past the newest
        self._rows: NDArray[Any] = np.empty((capacity, *row_shape), dtype)

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def capacity(self) -> int:
        """Rows allocated."""
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return self._rows.nbytes

    def append(self, rows: NDArray[Any], expected_rows: int) -> None:
        """Add rows at the end, growing if there is no room.

        Args:
            rows: Shape (n, *row_shape).
            expected_rows: How many rows the ring is thought to hold in the end. Growth doubles the ring, but stops
                there, so that a full ring has no half that is never used.
        """
        needed = len(self) + len(rows)
        if needed > self.capacity:
            self._grow(max(needed, min(2 * self.capacity, expected_rows)))
        first = self.stop % self.capacity
        until_end = min(len(rows), self.capacity - first)
        self._rows[first : first + until_end] = rows[:until_end]
        self._rows[: len(rows) - until_end] = rows[until_end:]
        self.stop += len(rows)

    def drop_before(self, position: int) -> None:
        """Forget every row before `position`."""
        self.start = max(self.start, min(position, self.stop))

    def slots(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the rows at `positions` lie, each in [0, capacity)."""
        return positions % self.capacity

    def __getitem__(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        return self._rows[self.slots(positions)]

    def gather(self, starts: NDArray[np.int64], width: int) -> NDArray[Any]:
        """Read `width` consecutive rows from each of `starts`, shape (n, width, *row_shape).

        Whatever lies past the end of the caller's own range is read along with it; the caller masks it.
        """
        slots = self.slots(starts)[:, None] + np.arange(width)
        return np.take(self._rows, slots, axis=0, mode="wrap")  # far cheaper than a division for every element

    def get_state(self) -> dict[str, Any]:
        """The rows stored, and where they lie."""
        rows = self[np.arange(self.start, self.stop)]
        # Rows of several fields as bytes: files of arrays know numbers only.
        plain = rows if rows.dtype.names is None else rows.view(np.uint8).reshape(len(rows), rows.dtype.itemsize)
        return {"start": self.start, "stop": self.stop, "capacity": self.capacity, "rows": plain}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that :meth:`get_state` gave."""
        self.start, self.stop = state["start"], state["stop"]
        self._rows = np.empty((state["capacity"], *self._rows.shape[1:]), self._rows.dtype)
        rows = state["rows"]
        live = np.arange(self.start, self.stop) % len(self._rows)
        self._rows[live] = rows if self._rows.dtype.names is None else rows.view(self._rows.dtype).reshape(-1)

    def _grow(self, capacity: int) -> None:
        live = np.arange(self.start, self.stop)
        rows = np.empty((capacity, *self._rows.shape[1:]), self._rows.dtype)
        rows[live % capacity] = self[live]
        self._rows = rows
