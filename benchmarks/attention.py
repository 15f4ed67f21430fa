"""Speed of causal linear attention and of one acting step. What is compared takes turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from performer_pytorch.performer_pytorch import causal_linear_attention_noncuda
from torch import Tensor, nn

from agents.encoders import Performer, causal_linear_attention
from agents.encoders.linear_attention import EPS

LENGTHS = (32, 512, 2048)
CONTEXTS = (64, 4096)
STEP_BATCH = 64
ACTIONS = 32


def fastest(contestants: dict[Any, Callable[[], object]], repeats: int) -> dict[Any, float]:
    """Return the fastest of ``repeats`` runs of each contestant in seconds; they take turns, after one to warm up."""
    best: dict[Any, float] = {}
    for repeat in range(repeats + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            seconds = time.perf_counter() - start
            if repeat:
                best[name] = min(best.get(name, seconds), seconds)
    return best


def attention_figures(length: int, repeats: int) -> dict[str, float]:
    """Compare forward and backward of ours and of performer-pytorch's fallback: batch 4, 4 heads, M = 32, E = 16."""
    generator = torch.Generator().manual_seed(length)
    q, k = ((torch.randn(4, 4, length, 32, generator=generator).relu() + 0.01).requires_grad_() for _ in range(2))
    v = torch.randn(4, 4, length, 16, generator=generator, requires_grad=True)
    weight = torch.randn(4, 4, length, 16, generator=generator)

    def run(attention: Callable[..., Tensor]) -> list[Tensor]:
        out = attention(q, k, v)
        return [out, *torch.autograd.grad(out, (q, k, v), weight)]

    seconds = fastest(
        {"ours": lambda: run(causal_linear_attention), "theirs": lambda: run(causal_linear_attention_noncuda)}, repeats
    )
    pairs = zip(run(causal_linear_attention), run(causal_linear_attention_noncuda), strict=True)
    return {
        "length": length,
        "ours_ms": 1e3 * seconds["ours"],
        "performer_pytorch_ms": 1e3 * seconds["theirs"],
        "speedup": seconds["theirs"] / seconds["ours"],
        "max_abs_difference": max(float((ours - theirs).detach().abs().max()) for ours, theirs in pairs),
    }


def flash_linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """:func:`agents.encoders.causal_linear_attention` by the kernels of flash-linear-attention, the extra ``gpu``.

    Args:
        q: Query features, positive, (B, H, N, M), on a GPU.
        k: Key features, positive, (B, H, N, M).
        v: Values, (B, H, N, E).
    """
    from fla.ops.linear_attn import chunk_linear_attn

    heads_last = [tensor.transpose(1, 2).contiguous() for tensor in (q, k, v)]  # (B, N, H, ·)
    attended, _ = chunk_linear_attn(*heads_last, scale=1.0, normalize=False)
    # The quotient is ours: fla's adds its epsilon elsewhere.
    normaliser = (q * (k.cumsum(dim=2) + EPS)).sum(dim=-1, keepdim=True)  # (B, H, N, 1)
    return attended.transpose(1, 2) / normaliser


def step_figures(repeats: int) -> list[dict[str, float]]:
    """Time the choice of one token for 64 rows, the default encoder with a linear head, at the end of each context."""
    runs: dict[int, Callable[[], object]] = {}
    for context in CONTEXTS:
        encoder = Performer(vocab_size=ACTIONS + 2, context_length=context, pad_id=ACTIONS + 1)
        head = nn.Linear(encoder.features_dim, ACTIONS)
        with torch.no_grad():
            tokens = torch.randint(0, ACTIONS, (STEP_BATCH, context - 1), generator=torch.Generator().manual_seed(0))
            lengths = torch.full((STEP_BATCH,), context - 1)
            state = encoder.initial_state(STEP_BATCH)
            for start in range(0, context - 1, 512):  # a long prompt in pieces: less memory
                piece = tokens[:, start : start + 512]
                _, state = encoder.prefill(piece, torch.full_like(lengths, piece.shape[1]), state)

        def act(
            encoder: Performer = encoder, head: nn.Linear = head, tokens: Tensor = tokens, state: Any = state
        ) -> None:
            with torch.no_grad():
                features, _ = encoder.step(tokens[:, -1], state)
                head(features).argmax(dim=1)

        runs[context] = act
    seconds = fastest(runs, repeats)
    return [
        {"context": context, "step_ms": 1e3 * seconds[context], "ratio": seconds[context] / seconds[CONTEXTS[0]]}
        for context in CONTEXTS
    ]
