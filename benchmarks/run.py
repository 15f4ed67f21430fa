"""Runs the cells of a sweep, each in a fresh process, and keeps one JSON file for each that has finished."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from agents import make_vec_env, validate
from benchmarks.baselines import default_steps, make_agent, n_updates
from benchmarks.sweep import Cell

EVALUATION_SEED = 1_000_000
"""First seed of the evaluation's rows: far from those of training, the same for every agent."""
PACKAGES = ("gymnasium", "numpy", "performer-pytorch", "stable-baselines3", "torch")
_POLL_SECONDS = 0.05

Result = dict[str, Any]
"""What :func:`run_cell` returns, and a result file holds."""


def evaluate(model: BaseAlgorithm, cell: Cell) -> float:
    """Mean return of the greedy policy over ``cell.eval_episodes`` fresh episodes, the same ones at every call."""
    env = make_vec_env(cell.task, n_envs=cell.eval_episodes, env_kwargs=cell.env_kwargs)
    result = validate.evaluate(model, env, cell.eval_episodes, seed=EVALUATION_SEED)
    env.close()
    return float(result.returns.mean())


class LearningCurve(BaseCallback):
    """Evaluates as the budget is used up, and stops the training when its seconds are over.

    Args:
        cell: The cell, with its budget.
        steps: Its environment steps.

    Attributes:
        points: ``[environment steps, seconds of training, mean return]`` of each evaluation.
        evaluation_seconds: Time spent on evaluations; it is not in the seconds of training.
    """

    def __init__(self, cell: Cell, steps: int) -> None:
        super().__init__()
        self.cell, self.steps = cell, steps
        self.points: list[tuple[int, float, float]] = []
        self.evaluation_seconds = 0.0
        self._started = 0.0

    def seconds(self) -> float:
        """Seconds of training so far."""
        return time.perf_counter() - self._started - self.evaluation_seconds

    def record(self) -> None:
        """Evaluate now."""
        seconds, started = self.seconds(), time.perf_counter()
        self.points.append((self.model.num_timesteps, seconds, evaluate(self.model, self.cell)))
        self.evaluation_seconds += time.perf_counter() - started

    def _on_training_start(self) -> None:
        self._started = time.perf_counter()
        self.record()

    def _on_step(self) -> bool:
        limit = self.cell.budget_seconds
        time_share = 0.0 if limit is None else self.seconds() / limit
        share = max(time_share, self.num_timesteps / self.steps)
        if share < 1 and share * self.cell.evaluations >= len(self.points):
            self.record()
        return time_share < 1

    def _on_training_end(self) -> None:
        self.record()


def run_cell(cell: Cell) -> Result:
    """Train and evaluate one cell in this process.

    Returns:
        Plain JSON values: the cell, versions, machine, environment steps, updates, seconds and the learning curve.

    Raises:
        ValueError: If the agent is unknown, or the cell has no budget.
    """
    steps = default_steps(cell)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    model = make_agent(cell)
    curve = LearningCurve(cell, steps)
    model.learn(steps, callback=curve)
    final_steps, seconds, score = curve.points[-1]
    return {
        "cell": asdict(cell),
        "score": score,
        "env_steps": final_steps,
        "updates": n_updates(model),
        "seconds": seconds,
        "evaluation_seconds": curve.evaluation_seconds,
        "curve": [list(point) for point in curve.points],
        "started": started,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": {
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "threads": torch.get_num_threads(),
        },
    }


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
    results = [result for path in sorted(folder.rglob("*.json")) if (result := read_result(path)) is not None]
    if not results:
        raise ValueError(f"folder must hold results of 'python -m benchmarks run', found none in {folder}")
    return results


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    jobs: int = 1,
    on_finish: Callable[[Cell, Result | None], None] = lambda cell, result: None,
) -> list[Cell]:
    """Run the cells that have no result yet, ``jobs`` at a time, each in a fresh Python with one thread.

    Args:
        cells: What to run, in this order.
        folder: Where the results are and come to be: ``<cell.name>.json``. A cell that fails leaves ``.log``.
        jobs: Processes at a time (≥ 1).
        on_finish: Called for each cell that has finished, with None in place of the result if it failed.

    Returns:
        The cells that failed.

    Raises:
        ValueError: If ``jobs`` is below 1.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    folder.mkdir(parents=True, exist_ok=True)
    waiting = [cell for cell in cells if read_result(folder / f"{cell.name}.json") is None]
    running: list[tuple[Cell, subprocess.Popen[bytes]]] = []
    failed: list[Cell] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                running.append((cell, _start(cell, folder)))
            time.sleep(_POLL_SECONDS)
            for cell, process in [pair for pair in running if pair[1].poll() is not None]:
                running.remove((cell, process))
                result = read_result(folder / f"{cell.name}.json") if process.returncode == 0 else None
                if result is None:
                    failed.append(cell)
                else:
                    (folder / f"{cell.name}.log").unlink()
                on_finish(cell, result)
    finally:
        for _, process in running:
            process.terminate()
    return failed


def _start(cell: Cell, folder: Path) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    with (folder / f"{cell.name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks", "cell", json.dumps(asdict(cell)), str(folder / f"{cell.name}.json")],
            env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
