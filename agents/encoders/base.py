"""The one protocol of causal encoders: whole sequences for training, one token at a time for acting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Rows: TypeAlias = "Tensor | NDArray[np.integer] | NDArray[np.bool_] | Sequence[int]"
"""Which rows of a batch: indices or a boolean mask."""


@dataclass
class EncoderState:
    """What a causal encoder remembers of each row of a batch.

    Every tensor is batch-first, and all zeros stand for the empty prefix, so that rows can be taken, put and reset
    without knowing which encoder wrote them. An encoder whose memory grows with the text has a subclass of its own.

    Attributes:
        lengths: Tokens that each row has consumed, (B,), int64.
        tensors: The encoder's own memory, each tensor (B, ...).
        recent: Last tokens of each row, the newest last, each plus one and 0 where there is none yet, (B, K), int64;
            None for encoders that do not look back at them.
    """

    lengths: Tensor
    tensors: tuple[Tensor, ...]
    recent: Tensor | None = None

    @property
    def parts(self) -> list[Tensor]:
        """Every tensor of the state, ``lengths`` first."""
        return [self.lengths, *self.tensors, *([] if self.recent is None else [self.recent])]

    def with_parts(self, parts: Sequence[Tensor]) -> EncoderState:
        """Return a state with these tensors in place of :attr:`parts`, in their order."""
        end = 1 + len(self.tensors)
        return EncoderState(parts[0], tuple(parts[1:end]), None if self.recent is None else parts[end])

    def take(self, rows: Rows) -> EncoderState:
        """Return a copy of these rows, in the order given."""
        index = self._index(rows)
        recent = None if self.recent is None else self.recent[index]
        return EncoderState(self.lengths[index], tuple(tensor[index] for tensor in self.tensors), recent)

    def put(self, rows: Rows, other: EncoderState) -> None:
        """Overwrite these rows, in place, with all the rows of ``other`` in their order."""
        index = self._index(rows)
        self.lengths[index] = other.lengths
        for mine, theirs in zip(self.tensors, other.tensors, strict=True):
            mine[index] = theirs
        if self.recent is not None and other.recent is not None:
            self.recent[index] = other.recent

    def reset(self, rows: Rows) -> None:
        """Return these rows to the empty prefix, in place."""
        index = self._index(rows)
        for tensor in self.parts:
            tensor[index] = 0

    def _index(self, rows: Rows) -> Tensor:
        index = torch.as_tensor(rows, device=self.lengths.device)
        return index if index.dtype == torch.bool else index.long()  # an empty list arrives as floats


class CausalEncoder(nn.Module, ABC):
    """Turns token ids into features of every prefix; position i depends on the tokens up to and including i.

    ``forward``, ``prefill`` and ``step`` are three ways to the same features, equal to about 1e-5: over a whole batch
    of sequences (training), over the new tokens of ragged rows (prompts, replies), and over one token (acting).
    Because padding is on the right it never reaches an earlier position, and no padding mask is needed.

    Args:
        vocab_size: Number of embeddings, the padding id included (≥ 1).
        context_length: Most tokens in a sequence (≥ 1).
        pad_id: The padding id, in ``[0, vocab_size)``.
        features_dim: Number of features D of a position (≥ 1).

    Attributes:
        capturable: Whether a plain :class:`EncoderState` holds all that :meth:`step` needs, in tensors whose shapes do
            not change with the text, and nothing in it waits for the device: then a CUDA graph can repeat it.

    Raises:
        ValueError: If an argument is out of range.
    """

    capturable: ClassVar[bool] = False

    @property
    def token_directions(self) -> Tensor | None:
        """What a token looks like in the features before anything is learned, (V, D); None where that is not known."""
        return None

    def __init__(self, vocab_size: int, context_length: int, pad_id: int, features_dim: int) -> None:
        super().__init__()
        require_positive(vocab_size=vocab_size, context_length=context_length, features_dim=features_dim)
        if not 0 <= pad_id < vocab_size:
            raise ValueError(f"pad_id must be in [0, vocab_size = {vocab_size}), got {pad_id}")
        self.vocab_size = vocab_size
        self.context_length = context_length
        self.pad_id = pad_id
        self.features_dim = features_dim

    @abstractmethod
    def forward(self, tokens: Tensor) -> Tensor:
        """Return the features of every prefix.

        Args:
            tokens: Token ids, integers, (B, L), with 1 ≤ L ≤ ``context_length``.

        Returns:
            Features, (B, L, D); those at padding are meaningless.

        Raises:
            ValueError: If L is out of range.
        """

    def forward_at(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return the features of some prefixes: what the last block does at other positions need not be computed.

        Args:
            tokens: Token ids, integers, (B, L), as for :meth:`forward`.
            positions: Last token of each prefix, integers in [0, L), (B, S).

        Returns:
            Features, (B, S, D), those of :meth:`forward` to about 1e-5.

        Raises:
            ValueError: If L is out of range.
        """
        return take_positions(self(tokens), positions)

    @abstractmethod
    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> EncoderState:
        """Return the state of ``batch_size`` empty prefixes, by default on the device of the weights."""

    @abstractmethod
    def step(self, tokens: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Append one token to every row.

        Args:
            tokens: Token ids, integers, (B,).
            state: The rows so far; it is not modified.

        Returns:
            The features of each new prefix, (B, D), and the new state.

        Raises:
            ValueError: If a row already holds ``context_length`` tokens.
        """

    @abstractmethod
    def prefill(self, tokens: Tensor, lengths: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Append several tokens to every row, as many as each row has.

        Args:
            tokens: Right-padded new token ids, integers, (B, P).
            lengths: Number of new tokens in each row, integers in [1, P], (B,).
            state: The rows so far, of any lengths; it is not modified.

        Returns:
            The features of each row's last new token, (B, D), and the new state.

        Raises:
            ValueError: If a length is out of range or a row would exceed ``context_length``.
        """

    def check_tokens(self, tokens: Tensor) -> None:
        """Raise ``ValueError`` unless ``tokens`` is (B, L) with 1 ≤ L ≤ ``context_length``."""
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= self.context_length:
            raise ValueError(
                f"tokens must have shape (B, L) with 1 <= L <= context_length = {self.context_length}, "
                f"got {tuple(tokens.shape)}"
            )

    def check_step(self, state: EncoderState) -> None:
        """Raise ``ValueError`` if a row already holds ``context_length`` tokens."""
        if state.lengths.device.type == "cpu" and bool((state.lengths >= self.context_length).any()):
            # On an accelerator this would wait for the device at every token.
            raise ValueError(f"state must hold fewer than context_length = {self.context_length} tokens in every row")

    def check_prefill(self, tokens: Tensor, lengths: Tensor, state: EncoderState) -> None:
        """Raise ``ValueError`` unless the arguments of :meth:`prefill` fit each other and ``context_length``."""
        self.check_tokens(tokens)
        if lengths.device.type != "cpu":  # as in check_step
            return
        if not bool(((lengths >= 1) & (lengths <= tokens.shape[1])).all()):
            raise ValueError(f"lengths must be in [1, P = {tokens.shape[1]}], got {lengths.tolist()}")
        longest = int((state.lengths + lengths).max())
        if longest > self.context_length:
            raise ValueError(f"tokens must end within context_length = {self.context_length}, got a row of {longest}")


def require_positive(**arguments: int) -> None:
    """Raise ``ValueError``, naming the argument, unless every argument is at least 1."""
    for name, value in arguments.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def init_embedding(embedding: nn.Embedding, std: float) -> None:
    """Draw an embedding table anew from a normal distribution.

    Raises:
        ValueError: If the standard deviation is not positive.
    """
    if std <= 0:
        raise ValueError(f"embedding_std must be positive, got {std}")
    nn.init.normal_(embedding.weight, std=std)


def take_positions(x: Tensor, positions: Tensor) -> Tensor:
    """Pick several positions of each row: (B, L, D) at (B, S) gives (B, S, D)."""
    return x[torch.arange(len(x), device=x.device).unsqueeze(1), positions]


MOST_SCORES = 2**15
"""Most scores, S · L, of a head for which :meth:`CausalEncoder.forward_at` holds a row for every prefix."""


def visible_at(positions: Tensor, length: int) -> Tensor | None:
    """Which of the L tokens each of S prefixes sees, (B, 1, S, L); None where a pass over all L costs less.

    Args:
        positions: Last token of each prefix, (B, S).
        length: L.
    """
    n_prefixes = positions.shape[1]
    if n_prefixes >= length or n_prefixes * length > MOST_SCORES:
        return None
    columns = torch.arange(length, device=positions.device)
    return (columns <= positions.unsqueeze(-1)).unsqueeze(1)


def features_at(features: Tensor, positions: Tensor) -> Tensor:
    """Pick one position of each row: (B, L, D) at (B,) gives (B, D)."""
    return features[torch.arange(len(features), device=features.device), positions]
