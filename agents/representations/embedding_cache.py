"""A cache of state vectors, bounded in size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class EmbeddingCache:
    """The vectors of the states that were asked for last.

    Args:
        features_dim: Size D of a vector.
        capacity: Most vectors that are kept (≥ 0); of 384 floats, 32,768 take 50 MB.

    Attributes:
        hits: States that were found.
        misses: States that had to be computed; one that occurs twice in a batch counts once.
    """

    def __init__(self, features_dim: int, capacity: int) -> None:
        if capacity < 0:
            raise ValueError(f"cache_size must be at least 0, got {capacity}")
        self.features_dim, self.capacity = features_dim, capacity
        self.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return EmbeddingCache, (self.features_dim, self.capacity)  # what it holds is found again when needed

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """Memory of the vectors in bytes, keys left out."""
        return self._vectors.nbytes

    def clear(self) -> None:
        """Forget everything."""
        self._slots: OrderedDict[Hashable, int] = OrderedDict()
        self._vectors = np.empty((0, self.features_dim), np.float32)
        self.hits = self.misses = 0

    def get_state(self) -> dict[str, Any]:
        """What is kept, in the order in which it will be forgotten, where keys are rows of token ids."""
        keys = [key for key in self._slots if isinstance(key, bytes)]
        vectors = self._vectors[[self._slots[key] for key in keys]]
        return {"keys": np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1), "vectors": vectors}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to what :meth:`get_state` gave."""
        self.clear()
        for key, vector in zip(state["keys"], state["vectors"], strict=True):
            slot = self._slot_for(key.tobytes())
            self._vectors[slot] = vector

    def get(self, keys: Sequence[Hashable], compute: Callable[[list[int]], NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the vectors of all keys, (B, D).

        Args:
            keys: What states are known by.
            compute: Computes the vectors of the keys at these positions, (n, D), where they are not known.
        """
        vectors = np.empty((len(keys), self.features_dim), np.float32)
        found: list[int] = []
        slots: list[int] = []
        missing: dict[Hashable, list[int]] = {}
        for position, key in enumerate(keys):
            slot = self._slots.get(key)
            if slot is None:
                missing.setdefault(key, []).append(position)
            else:
                self._slots.move_to_end(key)
                found.append(position)
                slots.append(slot)
        vectors[found] = self._vectors[slots]
        self.hits += len(found)
        if missing:
            self.misses += len(missing)
            computed = compute([positions[0] for positions in missing.values()])
            for (key, positions), vector in zip(missing.items(), computed, strict=True):
                vectors[positions] = vector
                if self.capacity:
                    slot = self._slot_for(key)  # first: it may put a larger array in place
                    self._vectors[slot] = vector
        return vectors

    def _slot_for(self, key: Hashable) -> int:
        slot = len(self._slots)
        if slot == self.capacity:
            _, slot = self._slots.popitem(last=False)
        elif slot == len(self._vectors):
            grown = np.empty((min(self.capacity, max(256, 2 * slot)), self.features_dim), np.float32)
            grown[:slot] = self._vectors
            self._vectors = grown
        self._slots[key] = slot
        return slot
