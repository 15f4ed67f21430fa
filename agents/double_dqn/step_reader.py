"""Acting on a GPU: one captured graph for each number of rows reads a token and gives the values of the next.

A step of a small network is some hundred kernels, each shorter than the order that starts it. A CUDA graph is one order
for all of them. What it reads and writes stands in fixed places, and every row does the same work: one that has nothing
to read, or starts anew, is masked.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.encoders.base import CausalEncoder, EncoderState
from agents.replay.transfer import to_device

MOST_SIZES = 4
"""Numbers of rows for which a graph is kept, the last ones used: each has a state of its own on the device."""
MOST_TOKENS = 32
"""Tokens that are read one after another; longer prompts are read in one pass, outside the graph."""
NO_TOKEN = -1
_WARM_UPS = 3  # before a capture, as PyTorch asks: libraries set themselves up

Work = Callable[[], None]


@dataclass
class _Places:
    """What the graph of one number of rows B reads and writes.

    Attributes:
        tokens: The next token of each row, or ``NO_TOKEN``, (B,), int64.
        restart: Rows that forget what stood before it, (B,), bool.
        features: Those of each row's last token, (B, D).
        values: Those of every action after it, (B, V).
        state: The encoder's state.
    """

    tokens: Tensor
    restart: Tensor
    features: Tensor
    values: Tensor
    state: EncoderState


class StepReader:
    """Reads the next tokens of many rows, and gives the values of every action after them.

    States that it takes and gives are copies: none that was given out changes. A graph reads the weights where they
    stood when it was made, so they must be changed in place, as optimizers, ``load_state_dict`` and updates of the
    target network do.

    Args:
        encoder: An encoder that is :attr:`~agents.encoders.base.CausalEncoder.capturable`.
        head: Features (B, D) → values (B, V).
        record: Makes work into something that repeats it.
    """

    def __init__(self, encoder: CausalEncoder, head: nn.Module, record: Callable[[Work], Work] | None = None) -> None:
        self.encoder, self.head = encoder, head
        self._record = record or record_cuda_graph
        self._graphs: OrderedDict[int, tuple[_Places, Work]] = OrderedDict()

    @property
    def sizes(self) -> list[int]:
        """Numbers of rows for which there is a graph, the one used last at the end."""
        return list(self._graphs)

    @torch.no_grad()
    def read(
        self, tokens: NDArray[np.integer], restart: NDArray[np.bool_], features: Tensor, state: EncoderState
    ) -> tuple[Tensor, Tensor, EncoderState]:
        """Append up to P tokens to each row.

        Args:
            tokens: Token ids of each row from the top, ``NO_TOKEN`` below them, shape (P, B).
            restart: Rows that forget what stood before, shape (B,).
            features: Those of each row's last token so far, shape (B, D).
            state: The rows so far; it is not modified.

        Returns:
            Features (B, D) and values (B, V) of each row's last token, and the new state.
        """
        places, graph = self._of(features, state)
        for place, value in zip(places.state.parts, state.parts, strict=True):
            place.copy_(value)
        places.features.copy_(features)
        orders = to_device(np.concatenate([restart[None].astype(np.int64), tokens]), features.device)  # (1 + P, B)
        places.restart.copy_(orders[0])
        for number, column in enumerate(orders[1:]):
            if number == 1:
                places.restart.zero_()
            places.tokens.copy_(column)
            graph()
        new = places.state.with_parts([part.clone() for part in places.state.parts])
        return places.features.clone(), places.values.clone(), new

    def _of(self, features: Tensor, state: EncoderState) -> tuple[_Places, Work]:
        """Places and graph of so many rows, made at their first use."""
        n_rows = len(features)
        if n_rows not in self._graphs:
            self._graphs[n_rows] = self._made(features, state)
            if len(self._graphs) > MOST_SIZES:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(n_rows)
        return self._graphs[n_rows]

    def _made(self, features: Tensor, state: EncoderState) -> tuple[_Places, Work]:
        places = _Places(
            torch.full_like(state.lengths, NO_TOKEN),
            torch.zeros_like(state.lengths, dtype=torch.bool),
            torch.zeros_like(features),
            torch.zeros_like(self.head(features)),
            state.with_parts([torch.zeros_like(part) for part in state.parts]),
        )

        def work() -> None:
            self._step(places)

        try:
            with torch.cuda.device_of(features):
                return places, self._record(work)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            warnings.warn(f"acting can't be captured as a CUDA graph and goes on without: {reason}", stacklevel=2)
            self._record = _as_it_is
            return places, work

    def _step(self, places: _Places) -> None:
        """One token more for every row that has one: always the same kernels, from and to the same places."""
        reads = places.tokens >= 0
        kept = places.state.with_parts(
            [part.masked_fill(_beside(places.restart, part), 0) for part in places.state.parts]
        )
        lengths = kept.lengths.masked_fill(~reads, 0)  # a row that reads nothing may be full
        before = kept.with_parts([lengths, *kept.parts[1:]])
        features, after = self.encoder.step(places.tokens.clamp(min=0), before)
        for place, new, old in zip(places.state.parts, after.parts, kept.parts, strict=True):
            place.copy_(torch.where(_beside(reads, new), new, old))
        places.features.copy_(torch.where(reads.unsqueeze(1), features, places.features))
        places.values.copy_(self.head(places.features))


def record_cuda_graph(work: Work) -> Work:
    """Capture work on the current CUDA device, which must not wait for it, and return what repeats it."""
    current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
    aside.wait_stream(current)
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UPS):
            work()
    current.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # what other threads do is no part of it
        work()
    return graph.replay


def _as_it_is(work: Work) -> Work:
    return work


def _beside(rows: Tensor, other: Tensor) -> Tensor:
    """(B,) as (B, 1, …), with the dimensions of another tensor."""
    return rows.view(-1, *[1] * (other.ndim - 1))
