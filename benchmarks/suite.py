"""Speed and memory of every registered id: batched, and as single environments in SB3's ``DummyVecEnv``.

Both take turns with the same task and uniformly random legal actions, whose drawing is not timed, and of each the
fastest block of steps counts, so that a busy machine slows both alike. The single environments share one task and go
without Gymnasium's and SB3's usual wrappers, which would only slow them.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.vec_env import DummyVecEnv

from textgym import Task, TextGenEnv, TextGenVectorEnv, make_task
from textgym.registration import ENVIRONMENTS, EnvRow

ROWS, SINGLE_ROWS = 1_024, 64
BLOCK = 16
"""Least number of steps in a timed block; a longer episode makes the block longer."""
TEXT_SCORED = frozenset({"text_generation", "keywords", "summary", "json", "sql", "arithmetic", "reasoning"})
"""Tasks that decode or parse a finished text to score it; all others compare token ids."""
RATE_BARS, RATIO_BARS, MEMORY_BAR = {"symbolic": 5e6, "text": 5e4}, {"symbolic": 50.0, "text": 3.0}, 4.0


@dataclass(frozen=True)
class SuiteRow:
    """What was measured of one id.

    Attributes:
        id: Gymnasium id.
        kind: ``"symbolic"`` or ``"text"``, which decides the bars.
        rate: Token-steps a second of the batched environment, everything included.
        single_rate: Token-steps a second of single environments in a ``DummyVecEnv``.
        memory: Bytes of the batched environment as a multiple of those of its observations; without masks and what
            the task shares among rows.
        mask_bytes: Bytes of the masks that it holds; one where every action is legal.
    """

    id: str
    kind: str
    rate: float
    single_rate: float
    memory: float
    mask_bytes: int

    @property
    def ratio(self) -> float:
        """How many times as fast the batched environment is."""
        return self.rate / self.single_rate

    @property
    def missed(self) -> list[str]:
        """Names of the bars that were not reached."""
        met = {
            "rate": self.rate >= RATE_BARS[self.kind],
            "ratio": self.ratio >= RATIO_BARS[self.kind],
            "memory": self.memory <= MEMORY_BAR,
        }
        return [name for name, is_met in met.items() if not is_met]


def measure_suite(
    ids: Iterable[str] | None = None,
    rows: int = ROWS,
    seconds: float = 1.0,
    progress: Callable[[str], None] = lambda name: None,
) -> list[SuiteRow]:
    """Measure ids of this package.

    Args:
        ids: Registered ids; None for all.
        rows: Rows of the batched environment (≥ 1).
        seconds: Time for an id, from which on no further block begins; two blocks of each run in any case.
        progress: Called with each id before it is measured.

    Raises:
        ValueError: If an id is unknown.
    """
    table = {row.id: row for row in ENVIRONMENTS}
    chosen = list(table if ids is None else ids)
    for name in chosen:
        if name not in table:
            raise ValueError(f"ids must be registered ids such as {next(iter(table))!r}, got {name!r}")
    measured = []
    for name in chosen:
        progress(name)
        measured.append(_measure(table[name], rows, seconds))
    return measured


def _measure(row: EnvRow, rows: int, seconds: float) -> SuiteRow:
    task = make_task(row.task, **row.kwargs)
    generator = np.random.default_rng(0)
    envs = TextGenVectorEnv(rows, task)
    envs.reset(seed=0)
    singles = [TextGenEnv(task) for _ in range(SINGLE_ROWS)]
    dummy = DummyVecEnv([lambda env=env: env for env in singles])  # type: ignore[misc]  # each bound at once
    dummy.reset()
    steps = max(BLOCK, task.max_new_tokens)  # every row ends an episode in each block

    def batched_block() -> float:
        return _block_rate(envs.step, lambda: _draw(task, envs.action_masks(), generator), steps)

    def single_block() -> float:
        masks = lambda: np.stack([env.action_masks() for env in singles])  # noqa: E731
        return _block_rate(dummy.step, lambda: _draw(task, masks(), generator), steps)

    batched_block(), single_block()  # warm up
    rate, single_rate = batched_block(), single_block()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        rate, single_rate = max(rate, batched_block()), max(single_rate, single_block())
    memory, mask_bytes = _memory(task, rows, generator)
    return SuiteRow(row.id, "text" if row.task in TEXT_SCORED else "symbolic", rate, single_rate, memory, mask_bytes)


def _block_rate(step: Callable[[Any], object], draw: Callable[[], NDArray[np.int64]], steps: int) -> float:
    """Token-steps a second, the drawing of actions not timed."""
    spent, count = 0.0, 0
    for _ in range(steps):
        actions = draw()
        start = time.perf_counter()
        step(actions)
        spent += time.perf_counter() - start
        count += len(actions)
    return count / spent


def _draw(task: Task, masks: NDArray[np.bool_], generator: np.random.Generator) -> NDArray[np.int64]:
    """A uniformly random legal action a row."""
    if not task.masked:
        return generator.integers(task.vocab_size, size=len(masks))
    return np.where(masks, generator.random(masks.shape), -1.0).argmax(axis=1)


def _memory(task: Task, rows: int, generator: np.random.Generator) -> tuple[float, int]:
    """What a further environment of a task in use keeps, over its observations; and the bytes of its masks."""
    gc.collect()
    tracemalloc.start()
    try:
        envs = TextGenVectorEnv(rows, task)
        envs.reset(seed=1)
        for _ in range(2):
            envs.step(_draw(task, envs.action_masks(), generator))
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    mask_bytes = envs.action_masks().nbytes if task.masked else 1
    if task.masked and not any(envs.action_masks().strides[:1]):  # one row, broadcast
        mask_bytes //= rows
    return (used - mask_bytes) / envs.episodes.tokens.nbytes, mask_bytes


def print_suite(measured: list[SuiteRow]) -> None:
    """Print the figures as a table, with the bars that were missed."""
    table = Table(title="One thread")
    for header in ("id", "kind", "steps/s", "single", "ratio", "memory", "missed"):
        table.add_column(header, no_wrap=header == "id")
    for row in measured:
        name = row.id.removeprefix("TextGen/")
        missed = f"[red]{', '.join(row.missed)}[/]" if row.missed else "[green]-[/]"
        figures = (f"{row.rate:,.0f}", f"{row.single_rate:,.0f}", f"{row.ratio:.3g}×", f"{row.memory:.2f}×")
        table.add_row(name, row.kind, *figures, missed)
    Console().print(table)


def as_plain(measured: list[SuiteRow]) -> list[dict[str, Any]]:
    """The figures for JSON, with what follows from them."""
    return [asdict(row) | {"ratio": row.ratio, "missed": row.missed} for row in measured]
