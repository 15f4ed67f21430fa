"""``python -m benchmarks tune-agents``: the same tuner, trials, budget and tasks for every agent of the table.

A trial trains an agent on each of :data:`benchmarks.sweep.TUNING_TASKS`, none of which is in the table, for the same
few seconds; its score is the mean normalised score. What is best after few seconds need not be later, and the best of
many noisy scores is partly luck: so the best two of an agent's trials and its default arguments meet in a final, with a
fresh seed and as much time as the table gives. The winner goes to ``benchmarks/hyperparams/<agent>.yaml``, which the
sweep reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from agents.saving.files import versions, write_text
from agents.saving.json_lines import append, read
from agents.tuning import Report, Study
from agents.tuning.objective import as_yaml
from agents.tuning.parallel import run_parallel
from benchmarks.baselines import AGENTS
from benchmarks.cells import Cell
from benchmarks.learning import run_cell
from benchmarks.run import ENGINES
from benchmarks.spaces import TABLE_SPACES
from benchmarks.sweep import TABLE_SECONDS, TUNING_SECONDS, TUNING_TASKS
from textgym import references

TUNING_SEED = 700_000
"""Seed of all trials, one that no table has; the final has the next one."""
N_INITIAL = 5
N_FINALISTS = 2
"""Trials in the final, beside the default arguments."""


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
                agent_kwargs=with_schedules(arguments),
                budget_seconds=self.seconds,
                evaluations=1,
                eval_episodes=self.eval_episodes,
            )
            known = references(task)
            if known is None:
                raise ValueError(f"tasks must have references, got {task!r}")
            scores.append(known.normalise(run_cell(cell)["score"]))
        return fmean(scores)


def with_schedules(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments as a search names them, with a λ that falls to 0 in place of the constant that it starts from."""
    if "q_lambda" not in arguments:
        return arguments
    return {**arguments, "q_lambda": {"start": arguments["q_lambda"], "end": 0.0}}


@dataclass(frozen=True)
class Finalist:
    """Arguments in the final.

    Attributes:
        arguments: The agent's; none are its defaults.
        trial_score: Mean normalised score of their trial; None for the defaults, which had none.
        score: That in the final.
    """

    arguments: dict[str, Any]
    trial_score: float | None
    score: float


@dataclass(frozen=True)
class Tuned:
    """What was found for an agent.

    Attributes:
        objective: What was tuned.
        finalists: The defaults, and the best trials in their order.
        trials: Trials before the final.
        failed: Trials that failed.
    """

    objective: TableObjective
    finalists: tuple[Finalist, ...]
    trials: int
    failed: int

    @property
    def agent(self) -> str:
        """Name of the agent."""
        return self.objective.agent

    @property
    def best(self) -> Finalist:
        """The winner; the defaults where none is better."""
        return max(self.finalists, key=lambda finalist: finalist.score)


def tune_agent(
    objective: TableObjective,
    trials: int,
    folder: Path,
    final_seconds: float = TABLE_SECONDS,
    space: dict[str, Any] | None = None,
) -> Tuned:
    """Run, or finish, the study of an agent, a Gaussian process after five random points, and its final.

    Args:
        objective: What is tuned.
        trials: Trials before the final (≥ 1).
        folder: Where the study files are.
        final_seconds: Of training on each task, in the final.
        space: What is searched; None for what the table's agents have.

    Raises:
        ValueError: If ``trials`` is below 1, or the defaults of the agent fail.
    """
    folder.mkdir(parents=True, exist_ok=True)
    space = TABLE_SPACES[objective.agent] if space is None else space
    study = Study(space, objective, folder / f"{objective.agent}.jsonl", n_initial=N_INITIAL)
    study.run(trials)
    scored = [trial for trial in study.trials if trial.score is not None]
    best = sorted(scored, key=lambda trial: trial.score or 0.0, reverse=True)[:N_FINALISTS]
    candidates: list[tuple[dict[str, Any], float | None]] = [
        ({}, None),
        *((study.space.arguments(trial.params), trial.score) for trial in best),
    ]
    path = folder / f"{objective.agent}_final.jsonl"
    finalists = [Finalist(**record) for record in read(path)]
    final = replace(objective, seconds=final_seconds)
    for arguments, score in candidates[len(finalists) :]:
        finalists.append(Finalist(arguments, score, final(arguments, 1, lambda step, value: None)))
        append(path, asdict(finalists[-1]))
    return Tuned(objective, tuple(finalists), trials, sum(trial.error is not None for trial in study.trials))


def tune_agents(
    objectives: Sequence[TableObjective],
    trials: int,
    folder: Path,
    out: Path,
    final_seconds: float = TABLE_SECONDS,
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
        final_seconds: See :func:`tune_agent`.
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
    work = _Work(trials, folder.resolve(), final_seconds)
    for _, tuned in run_parallel(work, objectives, jobs, ENGINES[engine], address):
        if not isinstance(tuned, Tuned):
            raise ValueError(f"a worker of tune-agents died; the same command goes on: {tuned.message}")
        write_text(out / f"{tuned.agent}.yaml", as_yaml(_content(tuned, final_seconds), *_comments(tuned)))
        on_agent(tuned)
        found.append(tuned)
    return found


@dataclass(frozen=True)
class _Work:
    trials: int
    folder: Path
    final_seconds: float

    def __call__(self, objective: TableObjective) -> Tuned:
        return tune_agent(objective, self.trials, self.folder, self.final_seconds)


def _content(tuned: Tuned, final_seconds: float) -> dict[str, Any]:
    return {
        "agent": tuned.agent,
        "agent_kwargs": dict(tuned.best.arguments),
        "tasks": list(tuned.objective.tasks),
        "seconds": tuned.objective.seconds,
        "final_seconds": final_seconds,
        "final": [
            {
                "agent_kwargs": finalist.arguments,
                "trial": _rounded(finalist.trial_score),
                "score": _rounded(finalist.score),
            }
            for finalist in tuned.finalists
        ],
        "trials": tuned.trials,
        "failed": tuned.failed,
        "versions": versions(),
    }


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)


def _comments(tuned: Tuned) -> tuple[str, ...]:
    return (
        f"python -m benchmarks tune-agents: the best of {tuned.trials} trials and of the agent's defaults, in a final.",
        "Scores are means over tasks of normalised scores after so many seconds of training on each.",
    )
