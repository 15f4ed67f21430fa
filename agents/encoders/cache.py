"""A cache of keys and values that grows with the text and is not copied for every token."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from agents.encoders.base import EncoderState, Rows

MIN_CAPACITY = 32
"""Tokens for which room is made at first."""


@dataclass
class Appends:
    """How often tokens were appended to tensors that several states share.

    Attributes:
        count: Number of appends so far.
    """

    count: int = 0


@dataclass
class CacheState(EncoderState):
    """Keys and values of every token of each row, in tensors of shape (B, 2, H, capacity, E), one for each layer.

    What follows a state never changes it, yet the next state does not copy its tensors: both share them, and the new
    token is written beyond the ``lengths`` of the older one, where that never looks. What lies there is meaningless.
    Only the newest of the states that share tensors may write so. An older one that is continued in a second way gets
    a copy first; so does every state while gradients are recorded, and one that is changed by ``put`` or ``reset``.

    The capacity doubles when it is used up, so that a text is copied a constant number of times for each of its tokens.

    Attributes:
        appends: Shared by the states that share tensors.
        version: The number of appends when this state was made: the newest state's is ``appends.count``.
    """

    appends: Appends = field(default_factory=Appends)
    version: int = 0

    @property
    def capacity(self) -> int:
        """Tokens for which there is room."""
        return self.tensors[0].shape[3]

    def extended(self, lengths: Tensor, end: int, context_length: int) -> CacheState:
        """Return the state after appending tokens, with room for their keys and values, which the caller writes.

        Args:
            lengths: Number of new tokens of each row, (B,).
            end: The longest row after that.
            context_length: The most for which there will ever have to be room.
        """
        if end > self.capacity:
            capacity = min(context_length, max(end, 2 * self.capacity, MIN_CAPACITY))
            tensors, appends = _copied(self.tensors, capacity), Appends()
        elif self.version < self.appends.count or torch.is_grad_enabled():
            tensors, appends = _copied(self.tensors, self.capacity), Appends()
        else:
            tensors, appends = self.tensors, self.appends
            appends.count += 1
        return CacheState(self.lengths + lengths, tensors, self.recent, appends, appends.count)

    def take(self, rows: Rows) -> CacheState:
        """Return a copy of these rows, in the order given."""
        taken = super().take(rows)
        return CacheState(taken.lengths, taken.tensors, taken.recent)

    def put(self, rows: Rows, other: EncoderState) -> None:
        """Overwrite these rows, in place, with all the rows of ``other`` in their order."""
        assert isinstance(other, CacheState)
        self._own(max(self.capacity, other.capacity))
        super().put(rows, CacheState(other.lengths, _copied(other.tensors, self.capacity), other.recent))

    def reset(self, rows: Rows) -> None:
        """Return these rows to the empty prefix, in place."""
        self._own(self.capacity)
        super().reset(rows)

    def _own(self, capacity: int) -> None:
        """Stop sharing tensors with other states, and have room for ``capacity`` tokens."""
        if self.appends.count or capacity > self.capacity:
            self.tensors, self.appends, self.version = _copied(self.tensors, capacity), Appends(), 0


def _copied(tensors: tuple[Tensor, ...], capacity: int) -> tuple[Tensor, ...]:
    """Return copies with room for at least as many tokens as before, zeros in the new room."""
    copies = tuple(t.new_zeros((*t.shape[:3], capacity, t.shape[4])) for t in tensors)
    for copy, tensor in zip(copies, tensors, strict=True):
        copy[:, :, :, : tensor.shape[3]] = tensor
    return copies
