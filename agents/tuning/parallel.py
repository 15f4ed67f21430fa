"""Runs the objective, or any other function: in this process, or in parallel workers through joblib."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

from agents.tuning.records import FAILED, FINISHED, STOPPED, Run, finite
from agents.tuning.space import Params
from agents.tuning.stopping import StoppedEarly, Stopping

Report = Callable[[float, float], None]
"""``report(step, score)``: tells an intermediate score, and ends the run if it is a bad one."""
Objective = Callable[[dict[str, Any], int, Report], float]
"""``objective(arguments, seed, report)``: the score of a point, larger is better."""

ENGINES = ("loky", "ray")
ROUNDS = 2
"""How often what has not finished is run in parallel, where a worker dies, before it is run one by one."""
_MESSAGE_LENGTH = 500
_WATCH_SECONDS = 0.5


Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class WorkerDied:
    """What comes in place of an outcome whose worker died, the last time with nothing beside it.

    Attributes:
        message: What is known of it.
    """

    message: str


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
    """Run tasks, ``n_jobs`` at a time, and yield their records as they finish; see :func:`run_parallel`.

    What kills its worker is recorded as failed.

    Raises:
        ValueError: If the engine is unknown, or Ray is not installed.
    """
    for index, run in run_parallel(_Objective(objective), tasks, n_jobs, engine):
        if isinstance(run, WorkerDied):
            task = tasks[index]
            run = Run(task.trial, task.seed, task.params, FAILED, None, error=run.message)
        yield run


@dataclass(frozen=True)
class _Objective:
    """:func:`run_task` of one objective, in a form that can be sent to a worker."""

    objective: Objective

    def __call__(self, task: Task) -> Run:
        return run_task(self.objective, task)


def run_parallel(
    function: Callable[[Item], Outcome], items: Sequence[Item], n_jobs: int, engine: str, address: str | None = None
) -> Iterator[tuple[int, Outcome | WorkerDied]]:
    """Run a function on every item, ``n_jobs`` at a time and begun in their order, and yield outcomes as they come.

    With one job and the engine ``"loky"``, everything happens in this process. In a worker that dies (out of memory, a
    crash in native code, a machine that is gone), what it did is not known to the others: all that has not finished is
    run again, at last one at a time.

    Args:
        function: What to run; it must be picklable (cloudpickle: lambdas are) and should not raise.
        items: Its arguments, picklable.
        n_jobs: Items at a time (≥ 1).
        engine: ``"loky"`` for processes on this machine, ``"ray"`` for Ray.
        address: Of a Ray cluster whose machines have this package; None for that of the environment variable
            ``RAY_ADDRESS``, or else for a local Ray, started here and ended with the last item.

    Yields:
        Place of the item, and its outcome.

    Raises:
        ValueError: If the engine is unknown, or Ray is not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if n_jobs == 1 and engine == "loky":
        for index, item in enumerate(items):
            yield index, function(item)
        return
    with _ray(n_jobs, address) if engine == "ray" else contextlib.nullcontext((BrokenProcessPool,)) as deaths:
        waiting = dict(enumerate(items))
        for _ in range(ROUNDS):
            try:
                for index, outcome in _pool(function, waiting, n_jobs, engine):
                    del waiting[index]
                    yield index, outcome
            except deaths:
                continue
            break
        for index, item in list(waiting.items()):
            try:
                yield from _pool(function, {index: item}, n_jobs, engine)
            except deaths as error:
                message = f"the worker process died: {' '.join(str(error).split())}"
                yield index, WorkerDied(message[:_MESSAGE_LENGTH])


def _pool(
    function: Callable[[Item], Outcome], items: dict[int, Item], n_jobs: int, engine: str
) -> Iterator[tuple[int, Outcome]]:
    import joblib

    own = {"initializer": _watch_parent, "initargs": (os.getpid(),)} if engine == "loky" else {}
    with joblib.parallel_config(backend=engine, **own):
        # At least two jobs: one would stay in this process.
        pool = joblib.Parallel(
            n_jobs=max(2, min(n_jobs, len(items))),
            return_as="generator_unordered",
            batch_size=1,
            pre_dispatch="all" if engine == "ray" else "2 * n_jobs",
        )
        # A copy, because the caller removes what has finished.
        yield from pool(joblib.delayed(_in_worker)(function, index, item) for index, item in [*items.items()])


def _in_worker(function: Callable[[Item], Outcome], index: int, item: Item) -> tuple[int, Outcome]:
    # Ctrl-C goes to all processes of a terminal: the one that started the workers ends them.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return index, function(item)


def _watch_parent(parent: int) -> None:
    """End this worker soon after its parent, which may be killed before the worker has anything to do."""

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=wait, name="exit-with-parent", daemon=True).start()


@contextlib.contextmanager
def _ray(n_jobs: int, address: str | None) -> Iterator[tuple[type[Exception], ...]]:
    """Have Ray and its joblib backend ready, and end the Ray that was started for it.

    Yields:
        The exceptions that say that a worker is gone.
    """
    from agents.distributed.ray import import_ray, start_ray

    ray = import_ray("loky")
    import joblib
    from ray.util.joblib import register_ray
    from ray.util.joblib.ray_backend import RayBackend

    class Streaming(RayBackend):
        """Ray's backend, handing over each result when it is there: what a killed worker's pool has done is kept."""

        supports_return_generator = True

    register_ray()
    joblib.register_parallel_backend("ray", Streaming)
    started = not ray.is_initialized()
    if started:
        start_ray(ray, address, max(2, n_jobs))
    try:
        yield (ray.exceptions.RayError,)
    finally:
        if started:
            ray.shutdown()
