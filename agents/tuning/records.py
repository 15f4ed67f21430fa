"""The study file: JSON lines, a header and then one record for every finished run; it survives a kill at any moment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agents.saving.json_lines import append, read
from agents.tuning.space import Params

FORMAT = 1
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"


@dataclass(frozen=True)
class Run:
    """One point, tried with one seed.

    Attributes:
        trial: Number of the trial, from 0.
        seed: Seed of the run.
        params: The point.
        state: ``"finished"``, ``"stopped"`` early, or ``"failed"``.
        score: What the objective returned, or the last intermediate score of a stopped run; None if it failed.
        reports: Intermediate scores, ``(step, score)``.
        seconds: How long it took.
        error: What went wrong; None unless it failed.
    """

    trial: int
    seed: int
    params: Params
    state: str
    score: float | None
    reports: tuple[tuple[float, float], ...] = ()
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True)
class Trial:
    """One point with the runs of all its seeds.

    Attributes:
        number: Its number, from 0.
        params: The point.
        runs: Its runs, by seed.
    """

    number: int
    params: Params
    runs: tuple[Run, ...] = field(repr=False)

    @property
    def state(self) -> str:
        """Failed if a run failed, finished if at least one run used its whole budget, else stopped."""
        states = {run.state for run in self.runs}
        return next(state for state in (FAILED, FINISHED, STOPPED) if state in states)

    @property
    def score(self) -> float | None:
        """Mean score over the seeds; None if a run failed. A run that was stopped counts with its last score."""
        scores = [run.score for run in self.runs]
        return None if None in scores else float(np.mean([score for score in scores if score is not None]))

    @property
    def error(self) -> str | None:
        """The first error of its runs."""
        return next((run.error for run in self.runs if run.error is not None), None)


class StudyFile:
    """Reads and writes a study file; see :mod:`agents.saving.json_lines`.

    Args:
        path: The file; its folder must exist when something is written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(self) -> tuple[dict[str, Any] | None, list[Run]]:
        """The header and the records; None and nothing where there is no file, or none with a whole header.

        Raises:
            ValueError: If a line before the last one is damaged, or the file is no study.
        """
        lines = read(self.path, warn=True)
        if not lines:
            return None, []
        header = lines[0]
        if not isinstance(header, dict) or header.get("study") != FORMAT:
            raise ValueError(f"{self.path} must be a study file of format {FORMAT}, got {str(header)[:80]!r} in line 1")
        return header, [_run(line, number, self.path) for number, line in enumerate(lines[1:], start=2)]

    def write_header(self, header: Mapping[str, Any]) -> None:
        """Begin the file."""
        append(self.path, {"study": FORMAT, **header})

    def append(self, run: Run) -> None:
        """Add a record."""
        append(self.path, asdict(run))


def _run(line: Any, number: int, path: Path) -> Run:
    try:
        run = Run(**{**line, "reports": tuple((step, score) for step, score in line["reports"])})
        if run.state not in (FINISHED, STOPPED, FAILED) or (run.score is None) != (run.state == FAILED):
            raise ValueError
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"{path} must hold records of runs, got {str(line)[:80]!r} in line {number}") from None
    return run


def trials_of(runs: list[Run], seeds: list[int]) -> dict[int, Trial]:
    """Complete trials by number: those of which every seed has a record.

    Args:
        runs: Records in any order.
        seeds: The seeds of a trial.
    """
    by_trial: dict[int, dict[int, Run]] = {}
    for run in runs:
        by_trial.setdefault(run.trial, {})[run.seed] = run
    return {
        number: Trial(number, done[seeds[0]].params, tuple(done[seed] for seed in seeds))
        for number, done in sorted(by_trial.items())
        if all(seed in done for seed in seeds)
    }


def finite(score: Any) -> float:
    """A score as a finite float.

    Raises:
        ValueError: If it is something else.
    """
    try:
        value = float(score)
    except (TypeError, ValueError):
        raise ValueError(f"the score must be a number, got {score!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"the score must be finite, got {value}")
    return value
