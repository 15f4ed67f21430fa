"""Runs the cells of a sweep, each in a fresh process, and keeps a line of the sweep's file for each that has finished.

Nothing here imports PyTorch: the processes that only wait for cells, here and in workers, are small.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from agents.saving.json_lines import append
from agents.saving.results import Result, read_results
from agents.tuning.parallel import WorkerDied, run_parallel
from benchmarks.cells import Cell

EVALUATION_SEED = 1_000_000
"""First seed of the evaluation's rows: far from those of training, the same for every agent."""
ENGINES = {"local": "loky", "ray": "ray"}
"""Engine of ``python -m benchmarks run`` → that of :func:`agents.tuning.parallel.run_parallel`."""
_LOG_LENGTH = 100_000


@dataclass(frozen=True)
class Outcome:
    """What came of a cell.

    Attributes:
        result: Its result; None if it failed.
        log: What it printed.
    """

    result: Result | None
    log: str


def run_cells(
    cells: Sequence[Cell],
    file: Path,
    jobs: int = 1,
    on_finish: Callable[[Cell, Result | None], None] = lambda cell, result: None,
    engine: str = "local",
    address: str | None = None,
) -> list[Cell]:
    """Run the cells that have no result yet, ``jobs`` at a time, each in a fresh Python with one thread.

    Killed at any moment, even with SIGKILL, it takes its cells along; called again, it runs what has not finished.

    Args:
        cells: What to run, in this order.
        file: Where the results are and come to be, JSON lines. A cell that fails leaves ``<cell.name>.log`` beside it.
        jobs: Processes at a time (≥ 1).
        on_finish: Called for each cell that has finished, with None in place of the result if it failed.
        engine: ``"local"`` for this machine, ``"ray"`` for Ray.
        address: Of a Ray cluster; see :func:`agents.tuning.parallel.run_parallel`.

    Returns:
        The cells that failed.

    Raises:
        ValueError: If ``jobs`` is below 1, the engine is unknown or Ray is missing.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    file.parent.mkdir(parents=True, exist_ok=True)
    done = read_results(file)
    waiting = [cell for cell in cells if cell.name not in done]
    failed: list[Cell] = []
    if not waiting:
        return failed
    for index, outcome in run_parallel(execute, waiting, jobs, ENGINES[engine], address):
        cell = waiting[index]
        result, log = (None, outcome.message) if isinstance(outcome, WorkerDied) else (outcome.result, outcome.log)
        log_file = file.with_name(f"{cell.name}.log")
        if result is None:
            failed.append(cell)
            log_file.write_text(log, "utf-8")
        else:
            append(file, result)
            log_file.unlink(missing_ok=True)
        on_finish(cell, result)
    return failed


def execute(cell: Cell) -> Outcome:
    """Run a cell in a fresh Python with one thread, on this machine, and wait for it; see :mod:`benchmarks.cell`."""
    root = str(Path(__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    with tempfile.TemporaryDirectory(prefix="textgym-") as folder, tempfile.TemporaryFile() as log:
        path = Path(folder) / "result.jsonl"
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.cell", json.dumps(asdict(cell)), str(path)],
            env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                process.wait()
            finally:
                process.kill()
        log.seek(0, os.SEEK_END)
        log.seek(max(0, log.tell() - _LOG_LENGTH))
        text = log.read().decode("utf-8", "replace")
        result = read_results(path).get(cell.name) if process.returncode == 0 else None
        return Outcome(result, text or f"exit {process.returncode}")
