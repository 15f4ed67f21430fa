"""Speed of causal linear attention and of one acting step: ``python -m benchmarks.attention [--json FILE]``.

Everything is timed in one process on a stated number of threads. What is compared takes turns, and of each the fastest
repeat counts, so that a busy machine slows both alike.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from performer_pytorch.performer_pytorch import causal_linear_attention_noncuda
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from agents.encoders import Performer, causal_linear_attention
from agents.saving.files import write_json

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


def print_table(title: str, rows: Sequence[Mapping[str, float | str]]) -> None:
    """Print figures as a table with one column for each key."""
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and, if asked, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1, help="PyTorch threads (default 1)")
    parser.add_argument(
        "--repeats", type=int, default=10, help="timed repeats, of which the fastest counts (default 10)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    figures: dict[str, Any] = {
        "machine": {"platform": platform.platform(), "torch": torch.__version__, "threads": options.threads},
        "attention": [attention_figures(length, options.repeats) for length in LENGTHS],
        "step": step_figures(10 * options.repeats),
    }
    print_table(f"Causal linear attention, forward and backward, {options.threads} thread(s)", figures["attention"])
    print_table(f"One acting step, {STEP_BATCH} rows, {options.threads} thread(s)", figures["step"])
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
