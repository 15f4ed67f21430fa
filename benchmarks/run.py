"""Runs the cells of a sweep, each in a fresh process, and keeps one JSON file for each that has finished.

Nothing here imports PyTorch: the processes that only wait for cells, here and in workers, are small.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents.saving.files import write_json, write_text
from agents.tuning.parallel import WorkerDied, run_parallel
from benchmarks.sweep import Cell

EVALUATION_SEED = 1_000_000
"""First seed of the evaluation's rows: far from those of training, the same for every agent."""
ENGINES = {"local": "loky", "ray": "ray"}
"""Engine of ``python -m benchmarks run`` → that of :func:`agents.tuning.parallel.run_parallel`."""
_STALE_SECONDS = 60
_LOG_LENGTH = 100_000

Result = dict[str, Any]
"""What :func:`benchmarks.learning.run_cell` returns, and a result file holds."""


def read_result(path: Path) -> Result | None:
    """The result in a file, or None where there is no whole one."""
    try:
        result = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) and {"cell", "curve", "score"} <= result.keys() else None


def load_results(folder: Path) -> list[Result]:
    """Every whole result below a folder, in the order of the file names.

    Raises:
        ValueError: If there is none.
    """
    paths = [path for path in sorted(folder.rglob("*.json")) if not path.name.startswith(".")]  # or it is being written
    results = [result for path in paths if (result := read_result(path)) is not None]
    if not results:
        raise ValueError(f"folder must hold results of 'python -m benchmarks run', found none in {folder}")
    return results


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
    folder: Path,
    jobs: int = 1,
    on_finish: Callable[[Cell, Result | None], None] = lambda cell, result: None,
    engine: str = "local",
    address: str | None = None,
) -> list[Cell]:
    """Run the cells that have no result yet, ``jobs`` at a time, each in a fresh Python with one thread.

    Killed at any moment, even with SIGKILL, it takes its cells along; called again, it runs what has not finished.

    Args:
        cells: What to run, in this order.
        folder: Where the results are and come to be: ``<cell.name>.json``. A cell that fails leaves ``.log``.
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
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(".*.tmp.*"):  # a kill while one was written
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            path.unlink(missing_ok=True)
    waiting = [cell for cell in cells if read_result(folder / f"{cell.name}.json") is None]
    failed: list[Cell] = []
    if not waiting:
        return failed
    for index, outcome in run_parallel(execute, waiting, jobs, ENGINES[engine], address):
        cell = waiting[index]
        result, log = (None, outcome.message) if isinstance(outcome, WorkerDied) else (outcome.result, outcome.log)
        if result is None:
            failed.append(cell)
            write_text(folder / f"{cell.name}.log", log)
        else:
            write_json(folder / f"{cell.name}.json", result)
            (folder / f"{cell.name}.log").unlink(missing_ok=True)
        on_finish(cell, result)
    return failed


def execute(cell: Cell) -> Outcome:
    """Run a cell in a fresh Python with one thread, on this machine, and wait for it; see :mod:`benchmarks.cell`."""
    root = str(Path(__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    with tempfile.TemporaryDirectory(prefix="textgym-") as folder, tempfile.TemporaryFile() as log:
        path = Path(folder) / "result.json"
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
        return Outcome(read_result(path) if process.returncode == 0 else None, text or f"exit {process.returncode}")
