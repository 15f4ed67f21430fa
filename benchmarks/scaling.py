"""How the cost of an encoder grows with the context: ``python -m benchmarks.scaling [--json FILE] [--draw FIGURE]``.

Every update (forward and backward of a scalar loss) reads the same number of tokens, in fewer and longer rows as the
context grows, so that a cost that is linear in the context is a flat line. All encoders and contexts take turns, and of
each the fastest repeat counts, in seconds of processor time, so that what else runs on the machine matters little (on
one thread, processor time is what an idle machine would take). Memory is the peak resident set of a process
that makes one such update, less what the process held before it.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from agents.encoders import GRU, CausalEncoder, Performer, Transformer
from agents.saving.files import atomic_write
from agents.saving.json_lines import append, read

ENCODERS: dict[str, Callable[..., CausalEncoder]] = {"Performer": Performer, "Transformer": Transformer, "GRU": GRU}
CONTEXTS = (128, 256, 512, 1024, 2048, 4096, 8192)
TOKENS = 8192
"""Tokens of one update."""
Key: TypeAlias = tuple[str, int]
"""An encoder's name and a context."""
STEP_CONTEXTS = (64, 4096)
STEP_BATCH = 64
VOCAB_SIZE = 34
BAR = 1.3
"""Most that the Performer's time and memory for a token may grow from the shortest context to the longest."""
RESULTS = Path("results/scaling.jsonl")


def make_encoder(name: str, context: int) -> CausalEncoder:
    """Return an encoder in its default size."""
    return ENCODERS[name](vocab_size=VOCAB_SIZE, context_length=context, pad_id=VOCAB_SIZE - 1)


def make_update(name: str, context: int, tokens: int) -> Callable[[], object]:
    """Return a function that makes one forward and backward pass over ``tokens`` tokens."""
    encoder = make_encoder(name, context)
    batch = random_tokens(max(1, tokens // context), context)

    def update() -> None:
        encoder.zero_grad(set_to_none=True)
        encoder(batch).square().mean().backward()

    return update


def fastest(contestants: dict[Key, Callable[[], object]], repeats: int) -> dict[Key, float]:
    """Return the fastest of ``repeats`` runs of each in seconds of processor time; they take turns, after a warm-up."""
    best: dict[Key, float] = {}
    for repeat in range(repeats + 1):
        for key, run in contestants.items():
            start = time.process_time()
            run()
            seconds = time.process_time() - start
            if repeat:
                best[key] = min(best.get(key, seconds), seconds)
    return best


def random_tokens(batch: int, length: int) -> Tensor:
    """Return token ids without padding, (batch, length)."""
    return torch.randint(0, VOCAB_SIZE - 1, (batch, length), generator=torch.Generator().manual_seed(length))


def peak_bytes(name: str, context: int, tokens: int, threads: int) -> int:
    """Return by how much one update raises the peak memory of a process of its own, in bytes."""
    arguments = ["--probe", name, "--contexts", str(context), "--tokens", str(tokens), "--threads", str(threads)]
    # Freed blocks go back to the system at once, and glibc's thresholds do not adapt: otherwise the peak would measure
    # the allocator's history too.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "benchmarks.scaling", *arguments]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return int(output.split()[-1])


def probe(name: str, context: int, tokens: int) -> int:
    """Return by how much one update raises this process's peak memory, in bytes.

    A small update goes first: it loads PyTorch's kernels, which the update would otherwise be charged for.
    """
    make_update(name, 32, 32)()
    update = make_update(name, context, tokens)
    before = peak_resident()
    update()
    return peak_resident() - before


def peak_resident() -> int:
    """Return the largest resident set that this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where ru_maxrss starts at that of the process that started this one
        (line,) = (line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def update_figures(contexts: tuple[int, ...], tokens: int, repeats: int, threads: int) -> list[dict[str, Any]]:
    """Measure one update of every encoder at every context, in µs and bytes for each token."""
    names = [(name, context) for context in contexts for name in ENCODERS]
    seconds = fastest({key: make_update(*key, tokens) for key in names}, repeats)
    rows = []
    for name, context in names:
        read = max(1, tokens // context) * context
        rows.append(
            {
                "encoder": name,
                "context": context,
                "us_per_token": 1e6 * seconds[name, context] / read,
                "bytes_per_token": peak_bytes(name, context, tokens, threads) / read,
            }
        )
    return rows


def make_step(name: str, context: int, steps: int) -> Callable[[], object]:
    """Return a function that appends a token to each of ``STEP_BATCH`` rows, for the last ``steps`` of a context."""
    encoder = make_encoder(name, context)
    tokens = random_tokens(1, context)
    with torch.no_grad():
        state = encoder.initial_state(1)
        for piece in tokens[:, : context - steps].split(512, dim=1):  # less memory than in one
            _, state = encoder.prefill(piece, torch.tensor([piece.shape[1]]), state)
        state = state.take([0] * STEP_BATCH)

    def act() -> None:
        nonlocal state
        with torch.no_grad():
            _, state = encoder.step(tokens[0, state.lengths], state)

    return act


def step_figures(repeats: int) -> list[dict[str, Any]]:
    """Time the reading of one token at the end of each context, in ms for all rows."""
    names = [(name, context) for context in STEP_CONTEXTS for name in ENCODERS]
    seconds = fastest({key: make_step(*key, steps=repeats + 1) for key in names}, repeats)
    return [{"encoder": name, "context": context, "step_ms": 1e3 * seconds[name, context]} for name, context in names]


def crossing(rows: list[dict[str, Any]]) -> float | None:
    """Return the context at which the Transformer's update takes as long as the Performer's, between those measured.

    Both are taken to be straight lines in between, in the logarithm of the context. None if they do not cross.
    """
    times = {(row["encoder"], row["context"]): row["us_per_token"] for row in rows}
    contexts = sorted({row["context"] for row in rows})
    leads = [times["Transformer", context] - times["Performer", context] for context in contexts]
    for (context, lead), (later, later_lead) in pairwise(zip(contexts, leads, strict=True)):
        if lead <= 0 < later_lead:
            return float(context * (later / context) ** (lead / (lead - later_lead)))
    return None


def growth(rows: list[dict[str, Any]], encoder: str, figure: str) -> float:
    """Return the largest of an encoder's figures over all contexts as a multiple of that at the shortest."""
    figures = {row["context"]: row[figure] for row in rows if row["encoder"] == encoder}
    return float(max(figures.values()) / figures[min(figures)])


def print_table(title: str, rows: list[dict[str, Any]], figures: dict[str, float]) -> None:
    """Print one line for each context, with each encoder's figures beside each other, in the units of ``figures``."""
    columns = [f"{name}\n{figure.split('_')[0]}" for figure in figures for name in ENCODERS]
    table = Table("context", *columns, title=title)
    values = {(row["encoder"], row["context"]): row for row in rows}
    for context in sorted({row["context"] for row in rows}):
        cells = [values[name, context][figure] / unit for figure, unit in figures.items() for name in ENCODERS]
        table.add_row(f"{context:,}", *(f"{cell:.3g}" for cell in cells))
    Console().print(table)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the time of an update for each token against the context, one line for each encoder."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import StrMethodFormatter

    from agents.tuning.plot_style import PLOT_STYLE

    with plt.rc_context(PLOT_STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
        for name in ENCODERS:
            points = [(row["context"], row["us_per_token"]) for row in rows if row["encoder"] == name]
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel("tokens in a row")
        axes.set_ylabel("µs for each token of an update")
        axes.legend(frameon=False)
        with atomic_write(path) as partial:
            figure.savefig(partial, format=path.suffix[1:], dpi=200)
        plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--contexts", type=int, nargs="+", default=CONTEXTS, help="contexts of the updates")
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"tokens of an update (default {TOKENS})")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch threads (default 1)")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats, of which the fastest counts (default 5)")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="FILE", help=f"default {RESULTS}")
    parser.add_argument("--draw", type=Path, metavar="FIGURE", help="draw the last line of --json, and measure nothing")
    parser.add_argument("--probe", choices=ENCODERS, help=argparse.SUPPRESS)  # the process of peak_bytes
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.probe:
        print(probe(options.probe, options.contexts[0], options.tokens))
        return
    if options.draw:
        draw(read(options.json)[-1]["update"], options.draw)
        return
    rows = update_figures(tuple(options.contexts), options.tokens, options.repeats, options.threads)
    steps = step_figures(min(4 * options.repeats, 40))
    figures: dict[str, Any] = {
        "name": "scaling",
        "machine": {"platform": platform.platform(), "torch": torch.__version__, "threads": options.threads},
        "tokens": options.tokens,
        "update": rows,
        "step": steps,
        "crossing": crossing(rows),
        "growth": {figure: growth(rows, "Performer", figure) for figure in ("us_per_token", "bytes_per_token")},
        "bar": BAR,
    }
    title = f"One update of {options.tokens:,} tokens, {options.threads} thread(s): µs and kB for each token"
    print_table(title, rows, {"us_per_token": 1, "bytes_per_token": 1e3})
    print_table(f"One acting step of {STEP_BATCH} rows: ms", steps, {"step_ms": 1})
    for figure, ratio in figures["growth"].items():
        print(f"Performer, {figure}: at most {ratio:.2f} times that at the shortest context (bar {BAR})")
    where = figures["crossing"]
    print(
        "No crossing of Performer and Transformer." if where is None else f"The Performer wins from {where:.0f} tokens."
    )
    append(options.json, figures)


if __name__ == "__main__":
    main()
