"""The study: ask for points, run the objective on them, keep every result, go on after any interruption."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

from agents.saving.files import plain
from agents.tuning.parallel import ENGINES, Objective, Task, run_tasks
from agents.tuning.records import FINISHED, Run, StudyFile, Trial, trials_of
from agents.tuning.samplers import SAMPLERS, gp_point, random_point
from agents.tuning.space import Params, Space
from agents.tuning.stopping import STOPPING, Stopping

SEED_STRIDE = 1_000
"""Seeds of a trial's runs are so far apart, because parallel environments are seeded ``seed``, ``seed + 1`` …"""
STUDY = "study.jsonl"


class Study:
    """Bayesian optimisation, or random search, of a function of hyperparameters.

    The study asks for trials in batches. The points of a batch depend on the seed and on the trials of the batches
    before it, on nothing else: not on which worker was faster, nor on how often the study was interrupted. So a study
    that was killed and resumed tries the very points that it would have tried, provided that the objective repeats.

    Args:
        space: What to search: a :class:`Space` or its data.
        objective: ``objective(arguments, seed, report) -> score``, larger is better. ``arguments`` are nested
            dictionaries, as a constructor takes them. It may call ``report(step, score)`` with intermediate scores; if
            ``stopping`` has a rule, that call may end the run by raising
            :class:`agents.tuning.stopping.StoppedEarly`. Whatever else it raises, and a score that is not finite, makes
            the trial a failed one. With several jobs it must be picklable (cloudpickle: lambdas are).
        path: The study file, ``*.jsonl``; resumed where it exists. Its folder is made. None keeps nothing.
        seeds: Runs of a trial, each with its own seed; the score of a trial is their mean (≥ 1).
        seed: Seed of the study; run ``i`` of every trial has the seed ``seed + 1000 · i``.
        sampler: ``"gp"`` or ``"random"``.
        n_initial: Random trials before the Gaussian process is asked (≥ 1). They are those of random search.
        batch: Trials asked for at a time (≥ 1); as many as there are jobs is a good choice.
        stopping: ``"median"``, ``"halving"`` or None: how bad runs are stopped early, see
            :class:`agents.tuning.stopping.Stopping`.

    Attributes:
        path: The study file, or None.
        header: What decides the study's points, and the first line of its file.

    Raises:
        ValueError: If an argument is out of range, or the file holds a study of something else.

    Example:
        >>> study = Study({"x": {"low": -2.0, "high": 2.0}}, lambda arguments, seed, report: -arguments["x"] ** 2)
        >>> study.run(trials=6)
        >>> abs(study.best.params["x"]) < 1.0
        True
    """

    def __init__(
        self,
        space: Space | Mapping[str, Any],
        objective: Objective,
        path: str | Path | None = None,
        *,
        seeds: int = 1,
        seed: int = 0,
        sampler: str = "gp",
        n_initial: int = 5,
        batch: int = 1,
        stopping: str | None = None,
    ) -> None:
        for name, value, least in (
            ("seeds", seeds, 1),
            ("seed", seed, 0),
            ("n_initial", n_initial, 1),
            ("batch", batch, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}")
        if stopping is not None and stopping not in STOPPING:
            raise ValueError(f"stopping must be one of {', '.join(STOPPING)} or None, got {stopping!r}")
        self.space = space if isinstance(space, Space) else Space(space)
        self.objective = objective
        self.seed, self.sampler, self.n_initial, self.batch, self.stopping = seed, sampler, n_initial, batch, stopping
        self.seeds = [seed + SEED_STRIDE * index for index in range(seeds)]
        self.header: dict[str, Any] = plain(
            {
                "space": self.space.as_data(),
                "objective": describe(objective),
                "seeds": seeds,
                "seed": seed,
                "sampler": sampler,
                "n_initial": n_initial,
                "batch": batch,
                "stopping": stopping,
            }
        )
        self.path = None if path is None else Path(path)
        self._file = None if path is None else StudyFile(path)
        self._runs: dict[tuple[int, int], Run] = {}
        if self._file is not None:
            self._open(self._file)

    def _open(self, file: StudyFile) -> None:
        header, runs = file.read()
        if header is None:
            return
        for name, value in self.header.items():
            if header.get(name) != value:
                raise ValueError(f"{name} must be {header.get(name)!r}, as in the study {file.path}, got {value!r}")
        for run in runs:
            self._runs[run.trial, run.seed] = replace(run, params=self.space.from_values(run.params))

    # ------------------------------------------------------------------ results

    @property
    def runs(self) -> list[Run]:
        """Every finished run, by trial and seed."""
        return [self._runs[key] for key in sorted(self._runs)]

    @property
    def trials(self) -> list[Trial]:
        """Every trial of which all runs have finished, by number."""
        return list(trials_of(self.runs, self.seeds).values())

    @property
    def best(self) -> Trial | None:
        """The trial with the highest score; the first of equals. Stopped trials count only if there are no others.

        Where some seeds of a trial were stopped, its score is a cautious one: scores mostly rise with training.
        """
        scored = [trial for trial in self.trials if trial.score is not None]
        whole = [trial for trial in scored if trial.state == FINISHED]
        return max(whole or scored, key=lambda trial: trial.score, default=None)  # type: ignore[arg-type, return-value]

    # ------------------------------------------------------------------ the loop

    def ask(self, number: int) -> Params:
        """The point of a trial; those of the batches before its own must be finished.

        Raises:
            ValueError: If they are not.
        """
        start = number - number % self.batch
        return self._points(range(start, number + 1))[-1]

    def _points(self, numbers: range) -> list[Params]:
        """Points of a batch, from its start on."""
        trials = trials_of(self.runs, self.seeds)
        missing = [earlier for earlier in range(numbers.start) if earlier not in trials]
        if missing:
            raise ValueError(f"number must be in the batch of trial {missing[0]}, the next one, got {numbers[-1]}")
        told = [trials[earlier] for earlier in range(numbers.start)]
        recorded = {run.trial: run.params for run in self.runs}
        points: list[Params] = []
        for number in numbers:
            points.append(recorded[number] if number in recorded else self._propose(number, told, points))
        return points

    def _propose(self, number: int, told: list[Trial], pending: list[Params]) -> Params:
        if self.sampler == "random" or number < self.n_initial or not told:
            return random_point(self.space, number, self.seed)
        return gp_point(self.space, number, self.seed, told, pending)

    def run(
        self,
        trials: int,
        n_jobs: int = 1,
        engine: str = "loky",
        on_run: Callable[[Run], None] = lambda run: None,
    ) -> None:
        """Go on until there are so many trials.

        Args:
            trials: Trials in total, those of earlier calls and of the file included (≥ 1): running a finished study
                does nothing.
            n_jobs: Runs at a time, each in a process of its own if more than one (≥ 1). It does not decide what is
                tried; ``batch`` does.
            engine: ``"loky"`` for processes on this machine, ``"ray"`` for a Ray cluster through joblib.
            on_run: Called with every finished run, once it is in the file.

        Raises:
            ValueError: If an argument is out of range, or Ray is missing.
        """
        for name, value in (("trials", trials), ("n_jobs", n_jobs)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if engine not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
        if self._file is not None and self._file.read()[0] is None:
            self._file.path.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_header(self.header)
        for start in range(0, trials, self.batch):
            tasks = self._tasks(range(start, min(start + self.batch, trials)))
            if not tasks:
                continue
            for run in run_tasks(self.objective, tasks, n_jobs, engine):
                if self._file is not None:
                    self._file.append(replace(run, params=self.space.as_values(run.params)))
                self._runs[run.trial, run.seed] = run
                on_run(run)

    def _tasks(self, numbers: range) -> list[Task]:
        missing = [(number, seed) for number in numbers for seed in self.seeds if (number, seed) not in self._runs]
        points = dict(zip(numbers, self._points(numbers), strict=True)) if missing else {}
        # Runs of this batch are left out, so that a resumed batch is judged as it would have been.
        others = tuple(run.reports for run in self.runs if run.trial < numbers.start)
        stopping = Stopping(self.stopping, others if self.stopping else ())
        return [
            Task(number, seed, points[number], self.space.arguments(points[number]), stopping)
            for number, seed in missing
        ]


def describe(objective: Objective) -> Any:
    """What a study file says about its objective: the fields of a dataclass, the name of anything else."""
    kind = type(objective)
    if is_dataclass(objective):
        return {"type": f"{kind.__module__}.{kind.__qualname__}", **asdict(objective)}
    return (
        f"{getattr(objective, '__module__', kind.__module__)}.{getattr(objective, '__qualname__', kind.__qualname__)}"
    )
