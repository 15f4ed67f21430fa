"""Causal linear attention in time and memory linear in the sequence: chunk by chunk, and one token at a time.

With positive features φ of queries and keys (here already applied), position i attends to every position j ≤ i:

    out_i = Σ_{j≤i} (q_i·k_j) v_j / q_i·(ε + Σ_{j≤i} k_j)

Katharopoulos et al. 2020 (arXiv:2006.16236) read that sum as a recurrent state S_i = Σ_{j≤i} k_j [v_j, 1]ᵀ, whose
column of ones accumulates the normaliser. A scan over tokens is slow and remembering S_i for every token needs N·M·E
memory, so the sequence is cut into chunks, as Hua et al. 2022 do (arXiv:2202.10447): a masked matrix product inside
each, and S for what came before it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_SIZE = 32
"""Tokens per chunk: the fastest of 16, 32, 64 and 128 on CPU at N = 32 to 2048."""
EPS = 1e-6
"""Added to every feature of the summed keys, as performer-pytorch does; it keeps the quotient finite."""


def causal_linear_attention(
    q: Tensor, k: Tensor, v: Tensor, *, chunk_size: int = CHUNK_SIZE, eps: float = EPS
) -> Tensor:
    """Attend causally over whole sequences that start from nothing.

    A drop-in value of performer-pytorch's ``FastAttention.causal_linear_fn``, differentiable once.

    Args:
        q: Query features, positive, (B, H, N, M).
        k: Key features, positive, (B, H, N, M).
        v: Values, (B, H, N, E).
        chunk_size: Most tokens in a chunk, at least 1. It trades speed against memory and leaves the result alone.
        eps: What is added to every feature of the summed keys.

    Returns:
        The attended values, (B, H, N, E).

    Raises:
        ValueError: If ``chunk_size`` is below 1 or the shapes do not fit each other.
    """
    _check(q, k, v, chunk_size)
    out: Tensor = _CausalLinearAttention.apply(q, k, v, chunk_size, eps)
    return out


def linear_attention_at(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, *, eps: float = EPS) -> Tensor:
    """Attend from a few positions of whole sequences, with a score for each pair of query and key.

    Args:
        q: Query features of S positions, positive, (B, H, S, M).
        k: Key features, positive, (B, H, N, M).
        v: Values, (B, H, N, E).
        visible: Which keys each query sees, bool, (B, 1, S, N).
        eps: What is added to every feature of the summed keys.

    Returns:
        The attended values, (B, H, S, E).
    """
    scores = (q @ k.mT) * visible
    return (scores @ v) / (scores.sum(-1, keepdim=True) + eps * q.sum(-1, keepdim=True))


def linear_attention_prefill(
    q: Tensor, k: Tensor, v: Tensor, state: Tensor, *, chunk_size: int = CHUNK_SIZE, eps: float = EPS
) -> tuple[Tensor, Tensor]:
    """Attend causally over tokens that follow those ``state`` has summed up.

    A token whose key features are all zero leaves the state as it is: that is how padding is skipped.

    Args:
        q: Query features, (B, H, N, M).
        k: Key features, (B, H, N, M).
        v: Values, (B, H, N, E).
        state: Σ k [v, 1]ᵀ of the tokens before, (B, H, M, E + 1); zeros at the start of a sequence.
        chunk_size: Most tokens in a chunk, at least 1.
        eps: What is added to every feature of the summed keys.

    Returns:
        The attended values, (B, H, N, E), and the state after the last token, a new tensor.

    Raises:
        ValueError: If ``chunk_size`` is below 1 or the shapes do not fit each other.
    """
    _check(q, k, v, chunk_size)
    batch, heads, length, features = q.shape
    if state.shape != (batch, heads, features, v.shape[-1] + 1):
        expected = (batch, heads, features, v.shape[-1] + 1)
        raise ValueError(f"state must have the shape {expected} of these q and v, got {tuple(state.shape)}")
    q, k, v1 = _split(q, k, v, chunk_size)
    summed = _chunk_sums(k, v1)  # (G, C, M, E + 1)
    before, after = _running_sums(state.flatten(0, 1).unsqueeze(1), summed)
    attended, _ = _attend(q, k, v1, before)
    out = attended[..., :-1] / (attended[..., -1:] + eps * q.sum(-1, keepdim=True))
    return out.view(batch, heads, -1, v.shape[-1])[:, :, :length], after.view(state.shape)


def linear_attention_step(q: Tensor, k: Tensor, v: Tensor, state: Tensor, *, eps: float = EPS) -> tuple[Tensor, Tensor]:
    """Attend from one new token to itself and to all before it, at a cost that does not depend on how many there are.

    Args:
        q: Query features, (B, H, M).
        k: Key features, (B, H, M).
        v: Values, (B, H, E).
        state: Σ k [v, 1]ᵀ of the tokens before, (B, H, M, E + 1).
        eps: What is added to every feature of the summed keys.

    Returns:
        The attended values, (B, H, E), and the state with this token in it, a new tensor.
    """
    v1 = F.pad(v, (0, 1), value=1.0)  # (B, H, E + 1)
    state = torch.addcmul(state, k.unsqueeze(-1), v1.unsqueeze(-2))  # (B, H, M, E + 1)
    attended = (q.unsqueeze(-2) @ state).squeeze(-2)  # (B, H, E + 1)
    return attended[..., :-1] / (attended[..., -1:] + eps * q.sum(-1, keepdim=True)), state


class _CausalLinearAttention(torch.autograd.Function):
    """The chunked form with its backward written out: at N = 512 half the time of autograd's.

    G = B·H sequences of C chunks of S tokens.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, chunk_size: int, eps: float) -> Tensor:
        batch, heads, length, _ = q.shape
        q, k, v1 = _split(q, k, v, chunk_size)
        before = _exclusive(_chunk_sums(k, v1)) if q.shape[1] > 1 else None
        attended, scores = _attend(q, k, v1, before)
        normaliser = attended[..., -1:] + eps * q.sum(-1, keepdim=True)
        out = attended[..., :-1] / normaliser  # (G, C, S, E)
        ctx.save_for_backward(q, k, v1, scores, out, normaliser, *(() if before is None else (before,)))
        ctx.shape, ctx.eps = (batch, heads, length), eps
        return out.view(batch, heads, -1, out.shape[-1])[:, :, :length]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v1, scores, out, normaliser, *before = ctx.saved_tensors
        batch, heads, length = ctx.shape
        chunks, size = q.shape[1:3]
        grad = F.pad(grad, (0, 0, 0, chunks * size - length)).reshape(out.shape)
        # The quotient rule: the numerator's gradient, and beside it the normaliser's.
        numerator = grad / normaliser
        attended = torch.cat([numerator, -(numerator * out).sum(-1, keepdim=True)], dim=-1)  # (G, C, S, E + 1)
        d_scores = (attended @ v1.mT).tril_()  # (G, C, S, S)
        d_q = (d_scores @ k).add_(attended[..., -1:], alpha=ctx.eps)
        d_k = d_scores.mT @ q
        d_v = scores.mT @ attended
        if before:
            # Every later chunk read this one through the state: the same exclusive sum, backwards in time.
            after = _exclusive((q.mT @ attended).flip(1)).flip(1)  # (G, C, M, E + 1)
            _add_product(d_q, attended, before[0].mT)
            _add_product(d_k, v1, after.mT)
            _add_product(d_v, k, after)
        d_q, d_k, d_v = (t.view(batch, heads, chunks * size, -1)[:, :, :length] for t in (d_q, d_k, d_v))
        return d_q, d_k, d_v[..., :-1], None, None


def _check(q: Tensor, k: Tensor, v: Tensor, chunk_size: int) -> None:
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    if q.ndim != 4 or q.shape != k.shape or v.shape[:-1] != k.shape[:-1]:
        raise ValueError(
            "q, k, v must have shapes (B, H, N, M), (B, H, N, M), (B, H, N, E), "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )


def _split(q: Tensor, k: Tensor, v: Tensor, chunk_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut into equal chunks, (G = B·H, C, S, ·), keys of zeros after the end, and put the column of ones beside v."""
    batch, heads, length, _ = q.shape
    chunks = max(1, -(-length // chunk_size))
    size = -(-length // chunks)  # as few padded tokens as that many chunks allow
    padding = chunks * size - length
    v1 = F.pad(v, (0, 1), value=1.0)
    if padding:
        q = F.pad(q, (0, 0, 0, padding), value=1.0)  # a query of zeros would divide by zero
        k, v1 = (F.pad(t, (0, 0, 0, padding)) for t in (k, v1))
    q, k, v1 = (t.reshape(batch * heads, chunks, size, t.shape[-1]) for t in (q, k, v1))
    return q, k, v1


def _attend(q: Tensor, k: Tensor, v1: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return numerator and normaliser of every token, (G, C, S, E + 1), and the scores inside chunks, (G, C, S, S)."""
    scores = (q @ k.mT).tril_()
    attended = scores @ v1
    if before is not None:
        attended = _add_product(attended, q, before)
    return attended, scores


def _chunk_sums(k: Tensor, v1: Tensor) -> Tensor:
    return k.mT @ v1  # (G, C, M, E + 1)


def _running_sums(first: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """What stands before each chunk, (G, C, M, E + 1), and after the last, given what stands before the first."""
    if sums.shape[1] == 1:  # short prompts and single tokens: the same sum, and torch takes its time for running ones
        return first, first + sums
    running = torch.cat([first, sums], dim=1).cumsum(dim=1)  # (G, C + 1, M, E + 1)
    return running[:, :-1], running[:, -1]


def _exclusive(sums: Tensor) -> Tensor:
    """Sum over the chunks before each, (G, C, M, E + 1)."""
    before = torch.zeros_like(sums)
    torch.cumsum(sums[:, :-1], dim=1, out=before[:, 1:])
    return before


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Add ``left @ right`` to the contiguous ``total`` in place, without the product as a tensor of its own."""
    total.flatten(0, 1).baddbmm_(left.flatten(0, 1), right.flatten(0, 1))
    return total
