"""``python -m benchmarks tune-agents``: the same tuner, trials, budget and tasks for every agent of the table.

A trial trains an agent on each of :data:`benchmarks.sweep.TUNING_TASKS`, none of which is in the table, for the same
seconds; its score is the mean normalised score. The first trial is the agent's default arguments, so that tuning can't
make it worse than it was. The best arguments go to ``benchmarks/hyperparams/<agent>.yaml``, which the sweep reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from agents.hyperparam_opt import Report, Study
from agents.runs import versions, write_text
from agents.tuning.objective import as_yaml
from agents.tuning.parallel import run_parallel
from benchmarks.baselines import AGENTS
from benchmarks.learning import run_cell
from benchmarks.run import ENGINES
from benchmarks.spaces import TABLE_SPACES
from benchmarks.sweep import TUNING_SECONDS, TUNING_TASKS, Cell
from textgym import references

TUNING_SEED = 700_000
"""Seed of all trials: one that no table has."""
N_INITIAL = 5


@dataclass(frozen=True)
class TableObjective:
    """Mean normalised score of an agent over tasks, for :class:`agents.hyperparam_opt.Study`.

    Attributes:
        agent: A name of :data:`benchmarks.baselines.AGENTS`.
        tasks: Ids with references.
        seconds: Of training on each.
        eval_episodes: Episodes of the evaluation at the end.
    """

    agent: str
    tasks: tuple[str, ...] = TUNING_TASKS
    seconds: float = TUNING_SECONDS
    eval_episodes: int = 256

    def __call__(self, arguments: dict[str, Any], seed: int, report: Report) -> float:
        """Train on every task, and evaluate."""
        torch.set_num_threads(1)
        scores = []
        for task in self.tasks:
            cell = Cell(
                self.agent,
                task,
                TUNING_SEED + seed,
                agent_kwargs=arguments,
                budget_seconds=self.seconds,
                evaluations=1,
                eval_episodes=self.eval_episodes,
            )
            known = references(task)
            if known is None:
                raise ValueError(f"tasks must have references, got {task!r}")
            scores.append(known.normalise(run_cell(cell)["score"]))
        return fmean(scores)


@dataclass(frozen=True)
class Tuned:
    """What a study found for an agent.

    Attributes:
        objective: What was tuned.
        arguments: Its best arguments; none where no trial was better than the defaults.
        score: Mean normalised score of these.
        default_score: That of the default arguments.
        trials: Trials, that of the defaults included.
        failed: Trials that failed.
        seconds: What all trials took.
    """

    objective: TableObjective
    arguments: dict[str, Any]
    score: float
    default_score: float
    trials: int
    failed: int
    seconds: float

    @property
    def agent(self) -> str:
        """Name of the agent."""
        return self.objective.agent


def tune_agent(objective: TableObjective, trials: int, folder: Path) -> Tuned:
    """Run, or finish, the study of an agent: a Gaussian process after the defaults and five random points.

    Args:
        objective: What is tuned.
        trials: Trials, that of the defaults included (≥ 2).
        folder: Where the study files are.

    Raises:
        ValueError: If ``trials`` is below 2, or the defaults of the agent fail.
    """
    if trials < 2:
        raise ValueError(f"trials must be at least 2, got {trials}")
    folder.mkdir(parents=True, exist_ok=True)
    first = Study({"seed": [0, 1]}, _Defaults(objective), folder / f"{objective.agent}_defaults.jsonl")
    first.run(1)
    (default,) = first.trials[:1]
    if default.score is None:
        raise ValueError(f"agent {objective.agent!r} must learn with its defaults: {default.error}")
    path = folder / f"{objective.agent}.jsonl"
    study = Study(TABLE_SPACES[objective.agent], objective, path, n_initial=N_INITIAL)
    study.run(trials - 1)
    best = study.best
    better = best is not None and best.score is not None and best.score > default.score
    arguments = study.space.arguments(best.params) if best is not None and better else {}
    return Tuned(
        objective,
        arguments,
        best.score if best is not None and best.score is not None and better else default.score,
        default.score,
        trials,
        sum(trial.error is not None for trial in study.trials),
        sum(run.seconds for run in [*first.runs, *study.runs]),
    )


@dataclass(frozen=True)
class _Defaults:
    """An objective that takes the default arguments, whatever it is given."""

    objective: TableObjective

    def __call__(self, arguments: dict[str, Any], seed: int, report: Report) -> float:
        return self.objective({}, seed, report)


def tune_agents(
    objectives: Sequence[TableObjective],
    trials: int,
    folder: Path,
    out: Path,
    jobs: int = 1,
    engine: str = "local",
    address: str | None = None,
    on_agent: Callable[[Tuned], None] = lambda tuned: None,
) -> list[Tuned]:
    """Tune several agents, ``jobs`` at a time, and write ``<agent>.yaml`` for each.

    Args:
        objectives: What is tuned.
        trials: Trials of each.
        folder: Where the study files are; what has run is not run again.
        out: Where the best arguments go.
        jobs: Agents at a time, each on one thread (≥ 1).
        engine: See :func:`benchmarks.run.run_cells`. With Ray, ``folder`` must be one that all machines see.
        address: Likewise.
        on_agent: Called for every agent that is tuned.

    Raises:
        ValueError: If an argument is out of range, an agent is unknown, or a worker died.
    """
    for objective in objectives:
        if objective.agent not in AGENTS:
            raise ValueError(f"agent must be one of {', '.join(AGENTS)}, got {objective.agent!r}")
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    out.mkdir(parents=True, exist_ok=True)
    found = []
    work = _Work(trials, folder.resolve())
    for _, tuned in run_parallel(work, objectives, jobs, ENGINES[engine], address):
        if not isinstance(tuned, Tuned):
            raise ValueError(f"a worker of tune-agents died; the same command goes on: {tuned.message}")
        write_text(out / f"{tuned.agent}.yaml", as_yaml(_content(tuned), *_comments(tuned)))
        on_agent(tuned)
        found.append(tuned)
    return found


@dataclass(frozen=True)
class _Work:
    trials: int
    folder: Path

    def __call__(self, objective: TableObjective) -> Tuned:
        return tune_agent(objective, self.trials, self.folder)


def _content(tuned: Tuned) -> dict[str, Any]:
    return {
        "agent": tuned.agent,
        "agent_kwargs": tuned.arguments,
        "tasks": list(tuned.objective.tasks),
        "seconds": tuned.objective.seconds,
        "score": round(tuned.score, 4),
        "default_score": round(tuned.default_score, 4),
        "trials": tuned.trials,
        "failed": tuned.failed,
        "versions": versions(),
    }


def _comments(tuned: Tuned) -> tuple[str, ...]:
    return (
        f"python -m benchmarks tune-agents: the best of {tuned.trials} trials, the first with the agent's defaults.",
        "Scores are means over tasks of normalised scores after so many seconds of training on each.",
    )
