"""Neighbours of state vectors: what a code should keep of them, and batches that hold some."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.05
"""Of the distribution of neighbours: of sentences, neighbours have cosines of 0.4 to 0.9, others of 0.1."""

NEAREST, DRAWN = 20, 7
"""How many neighbours of a vector are known, and how many of them are drawn into a batch with it."""


def neighbour_divergence(codes: Tensor, vectors: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Mean divergence of the codes' distributions of neighbours from the vectors', in nats.

    Args:
        codes: Codes, (B, K) with B ≥ 2.
        vectors: What they stand for, (B, D).
        temperature: What the cosines are divided by (> 0); the smaller, the fewer neighbours count.
    """
    itself = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    log_p, log_q = (
        (F.normalize(x, dim=1) @ F.normalize(x, dim=1).T / temperature).masked_fill(itself, -1e9).log_softmax(dim=1)
        for x in (vectors, codes)
    )
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def nearest_vectors(vectors: Tensor, n: int = NEAREST, chunk: int = 1024) -> Tensor:
    """Indices of the ``n`` nearest other vectors of each by cosine, or of all others, (N, n)."""
    directions = F.normalize(vectors, dim=1)
    found = []
    for start in range(0, len(vectors), chunk):
        cosines = directions[start : start + chunk] @ directions.T
        cosines.diagonal(start).fill_(-torch.inf)
        found.append(cosines.topk(min(n, len(vectors) - 1), dim=1).indices)
    return torch.cat(found)


def batches(n: int, batch_size: int, nearest: Tensor | None, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of the batches of one epoch."""
    if nearest is None:
        yield from torch.randperm(n, generator=generator).split(batch_size)
        return
    for _ in range(-(-n // batch_size)):
        first = torch.randperm(n, generator=generator)[: max(1, batch_size // (DRAWN + 1))]
        drawn = torch.randperm(nearest.shape[1], generator=generator)[:DRAWN]
        yield torch.cat([first, nearest[first][:, drawn].flatten()]).unique()
