"""Runs the objective: in this process, or in parallel workers through joblib."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from agents.tuning.records import FAILED, FINISHED, STOPPED, Run, finite
from agents.tuning.space import Params
from agents.tuning.stopping import StoppedEarly, Stopping

Report = Callable[[float, float], None]
"""``report(step, score)``: tells an intermediate score, and ends the run if it is a bad one."""
Objective = Callable[[dict[str, Any], int, Report], float]
"""``objective(arguments, seed, report)``: the score of a point, larger is better."""

ENGINES = ("loky", "ray")
_MESSAGE_LENGTH = 500
_WATCH, _WATCH_SECONDS = "exit-with-parent", 0.5


@dataclass(frozen=True)
class Task:
    """One run to be made.

    Attributes:
        trial: Number of the trial.
        seed: Seed of the run.
        params: The point.
        arguments: The point as nested dictionaries.
        stopping: When to end it early.
    """

    trial: int
    seed: int
    params: Params
    arguments: dict[str, Any]
    stopping: Stopping


def run_task(objective: Objective, task: Task) -> Run:
    """Run the objective; whatever it raises becomes part of the record, except for a wish to exit."""
    reports: list[tuple[float, float]] = []
    started = time.perf_counter()

    def report(step: float, score: float) -> None:
        reports.append((float(step), finite(score)))
        if task.stopping.should_stop(reports):
            raise StoppedEarly

    def record(state: str, score: float | None, error: str | None = None) -> Run:
        seconds = round(time.perf_counter() - started, 3)
        return Run(task.trial, task.seed, task.params, state, score, tuple(reports), seconds, error)

    try:
        return record(FINISHED, finite(objective(task.arguments, task.seed, report)))
    except StoppedEarly:
        return record(STOPPED, reports[-1][1])
    except Exception as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        return record(FAILED, None, message[:_MESSAGE_LENGTH])


def run_tasks(objective: Objective, tasks: Sequence[Task], n_jobs: int, engine: str) -> Iterator[Run]:
    """Run tasks, ``n_jobs`` at a time, and yield their records as they finish.

    With one job and the engine ``"loky"``, everything happens in this process. In a worker that dies (out of memory, a
    crash in native code), what it did is not known to the others: all that has not finished is run again, one at a
    time, and what kills its worker once more is recorded as failed.

    Raises:
        ValueError: If the engine is unknown, or Ray is not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if n_jobs == 1 and engine == "loky":
        for task in tasks:
            yield run_task(objective, task)
        return
    if engine == "ray":
        _register_ray()
    waiting = {(task.trial, task.seed): task for task in tasks}
    try:
        for run in _parallel(objective, tasks, n_jobs, engine):
            del waiting[run.trial, run.seed]
            yield run
    except BrokenProcessPool:
        for task in waiting.values():
            try:
                yield from _parallel(objective, [task], n_jobs, engine)
            except BrokenProcessPool as error:
                message = f"the worker process died: {' '.join(str(error).split())}"[:_MESSAGE_LENGTH]
                yield Run(task.trial, task.seed, task.params, FAILED, None, error=message)


def _parallel(objective: Objective, tasks: Sequence[Task], n_jobs: int, engine: str) -> Iterator[Run]:
    import joblib

    # Ray's backend can't hand results over one by one: they come when the last one has finished.
    order = "generator_unordered" if engine == "loky" else "list"
    with joblib.parallel_config(backend=engine):
        # At least two jobs: one would stay in this process.
        pool = joblib.Parallel(
            n_jobs=max(2, min(n_jobs, len(tasks))), return_as=order, batch_size=1, pre_dispatch="all"
        )
        parent = os.getpid() if engine == "loky" else None
        yield from pool(joblib.delayed(_in_worker)(objective, task, parent) for task in tasks)


def _in_worker(objective: Objective, task: Task, parent: int | None) -> Run:
    # Ctrl-C goes to all processes of a terminal: the one that started the workers ends them.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if parent is not None and not any(thread.name == _WATCH for thread in threading.enumerate()):
        threading.Thread(target=_exit_with, args=(parent,), name=_WATCH, daemon=True).start()
    return run_task(objective, task)


def _exit_with(parent: int) -> None:
    """End this process soon after its parent, which may have been killed before it could end its workers."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


def _register_ray() -> None:
    try:
        from ray.util.joblib import register_ray
    except ImportError:
        raise ValueError("engine 'ray' needs Ray: pip install 'ray>=2', or take engine 'loky'") from None
    register_ray()
