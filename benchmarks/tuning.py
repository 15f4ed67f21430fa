"""``python -m benchmarks.tuning``: Gaussian process against random search, on the same budget and the same tasks.

Every study is an :class:`agents.hyperparam_opt.Study`, and its trials are cells of :mod:`benchmarks.sweep`, so any
agent of :mod:`benchmarks.baselines` can be tuned. With the same seed, both samplers begin with the same random points.
The best of many noisy scores is partly luck, so the best arguments of every study are trained again with fresh seeds.
Studies are files in a folder: what has run is not run again.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import joblib
import matplotlib
import numpy as np
import torch
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table

from agents.saving.files import atomic_write, versions
from agents.saving.json_lines import append
from agents.tuning import Report, Study
from agents.tuning.figures import best_so_far
from benchmarks.baselines import default_steps, make_agent
from benchmarks.cells import REVERSE, Cell
from benchmarks.learning import LearningCurve
from benchmarks.spaces import SPACES

SAMPLERS = ("gp", "random")
FRESH_SEEDS = (500_000, 501_000, 502_000)
"""Seeds with which the best arguments of a study are trained again: those of no trial."""
STYLES = {"gp": ("#D55E00", "Gaussian process"), "random": ("#0072B2", "random search")}


@dataclass(frozen=True)
class CellObjective:
    """Final score of a cell, for :class:`agents.hyperparam_opt.Study`; its learning curve is reported.

    Attributes:
        agent: A name of :data:`benchmarks.baselines.AGENTS`.
        task: Id of the environment.
        env_kwargs: Its arguments.
        budget_steps: Most environment steps.
        budget_seconds: Most seconds of training; with it, a trial can't be repeated exactly.
        evaluations: Evaluations spread over the budget.
        eval_episodes: Episodes in an evaluation.
    """

    agent: str
    task: str
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    budget_steps: int | None = None
    budget_seconds: float | None = None
    evaluations: int = 4
    eval_episodes: int = 256

    def cell(self, arguments: Mapping[str, Any], seed: int) -> Cell:
        """The cell of a run."""
        return Cell(
            self.agent,
            self.task,
            seed,
            self.env_kwargs,
            dict(arguments),
            self.budget_steps,
            self.budget_seconds,
            self.evaluations,
            self.eval_episodes,
        )

    def __call__(self, arguments: dict[str, Any], seed: int, report: Report) -> float:
        """Train and evaluate."""
        torch.set_num_threads(1)
        cell = self.cell(arguments, seed)
        curve = _ReportedCurve(cell, default_steps(cell), report)
        make_agent(cell).learn(curve.steps, callback=curve)
        return curve.points[-1][2]


class _ReportedCurve(LearningCurve):
    """A learning curve whose points between the first and the last are reported, by their numbers."""

    def __init__(self, cell: Cell, steps: int, report: Report) -> None:
        super().__init__(cell, steps)
        self.report = report

    def _on_step(self) -> bool:
        before = len(self.points)
        goes_on = super()._on_step()
        if len(self.points) > before:
            self.report(before, self.points[-1][2])
        return goes_on


_SHORT = {"length": 3, "vocab_size": 8}
TASKS: tuple[CellObjective, ...] = (
    CellObjective("ours", REVERSE, _SHORT, budget_steps=2_000),
    CellObjective("ours", "TextGen/Sort-v0", _SHORT, budget_steps=2_000),
)
"""What is tuned: budgets that leave room above the defaults; a trial takes some seconds on one core."""


def run_study(
    objective: CellObjective, sampler: str, seed: int, trials: int, confirm: int, folder: Path
) -> dict[str, Any]:
    """Run, or finish, one study, and train its best arguments again with fresh seeds.

    Args:
        objective: What is tuned.
        sampler: ``"gp"`` or ``"random"``.
        seed: Seed of the study.
        trials: Trials in total.
        confirm: Number of fresh seeds, at most ``len(FRESH_SEEDS)``.
        folder: Where the study file is.

    Returns:
        Plain values: what was tuned, scores by trial, the best so far, the best arguments and their fresh scores.
    """
    name = f"{objective.task.replace('/', '-')}_{objective.agent}_{sampler}_seed{seed}.jsonl"
    study = Study(SPACES[objective.agent], objective, folder / name, sampler=sampler, seed=seed)
    study.run(trials)
    done = study.trials[:trials]
    best = study.best
    arguments = {} if best is None else study.space.arguments(best.params)
    started = time.perf_counter()
    fresh = [] if best is None else [objective(arguments, s, lambda step, score: None) for s in FRESH_SEEDS[:confirm]]
    return {
        "agent": objective.agent,
        "task": objective.task,
        "env_kwargs": objective.env_kwargs,
        "budget_steps": objective.budget_steps,
        "budget_seconds": objective.budget_seconds,
        "sampler": sampler,
        "seed": seed,
        "scores": [trial.score for trial in done],
        "best_so_far": [None if np.isnan(value) else float(value) for value in best_so_far(done)],
        "failed": sum(trial.error is not None for trial in done),
        "best": arguments,
        "fresh_scores": fresh,
        "seconds": sum(run.seconds for run in study.runs),
        "fresh_seconds": time.perf_counter() - started,
    }


def measure(
    tasks: Sequence[CellObjective],
    folder: Path,
    *,
    trials: int = 20,
    seeds: Sequence[int] = (0, 1, 2),
    confirm: int = 2,
    jobs: int = 1,
    on_study: Callable[[dict[str, Any]], None] = lambda study: None,
) -> dict[str, Any]:
    """Run every task with every sampler and every seed, ``jobs`` studies at a time, each sequential.

    Returns:
        Plain values: the studies, a summary, versions and the machine.
    """
    specs = [(task, sampler, seed) for seed in seeds for task in tasks for sampler in SAMPLERS]
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        pool = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
        studies = []
        for study in pool(joblib.delayed(run_study)(*spec, trials, confirm, folder) for spec in specs):
            studies.append(study)
            on_study(study)
    studies.sort(key=lambda study: (study["task"], study["sampler"], study["seed"]))
    return {
        "name": "tuning",
        "trials": trials,
        "space": {agent: SPACES[agent] for agent in {task.agent for task in tasks}},
        "summary": summarise(studies),
        "studies": studies,
        "versions": versions() | {"scikit-optimize": version("scikit-optimize")},
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "jobs": jobs, "threads": 1},
    }


def summarise(studies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each task and sampler, means over seeds: the best score, its fresh score, and the mean best so far.

    The last, the mean over trials of the best score up to each, tells how early good arguments were found.
    """
    rows = []
    for task in sorted({study["task"] for study in studies}):
        for sampler in SAMPLERS:
            of = [study for study in studies if (study["task"], study["sampler"]) == (task, sampler)]
            curves = np.array([study["best_so_far"] for study in of], np.float64)  # (seeds, trials); None is NaN
            fresh = [score for study in of for score in study["fresh_scores"]]
            rows.append(
                {
                    "task": task,
                    "sampler": sampler,
                    "studies": len(of),
                    "best": float(np.nanmean(curves[:, -1])),
                    "best_range": [float(np.nanmin(curves[:, -1])), float(np.nanmax(curves[:, -1]))],
                    "mean_best_so_far": float(np.nanmean(curves)),
                    "fresh": float(np.mean(fresh)) if fresh else None,
                    "seconds_a_trial": sum(study["seconds"] for study in of) / curves.size,
                }
            )
    return rows


def draw(measured: dict[str, Any], path: Path) -> None:
    """Draw the best score so far against trials, a panel for each task: mean and range over seeds."""
    tasks = sorted({study["task"] for study in measured["studies"]})
    style: Any = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "textgym"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(5.2 * len(tasks), 4.2), layout="constrained")
        all_axes = figure.subplots(1, len(tasks), squeeze=False)[0]
        for axes, task in zip(all_axes, tasks, strict=True):
            _panel(axes, [study for study in measured["studies"] if study["task"] == task])
            axes.set_title(task, loc="left", fontweight="bold")
        all_axes[0].set_ylabel("mean return, best so far")
        handles, labels = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=150, facecolor="white")


def _panel(axes: Axes, studies: Sequence[dict[str, Any]]) -> None:
    for place, sampler in enumerate(SAMPLERS):
        colour, name = STYLES[sampler]
        of = [study for study in studies if study["sampler"] == sampler]
        curves = np.array([study["best_so_far"] for study in of], np.float64)  # (seeds, trials)
        trials = np.arange(1, curves.shape[1] + 1)
        axes.fill_between(trials, curves.min(0), curves.max(0), step="post", color=colour, alpha=0.15, linewidth=0)
        axes.step(trials, curves.mean(0), where="post", color=colour, linewidth=2, label=name)
        fresh = [score for study in of for score in study["fresh_scores"]]
        if fresh:
            at = trials[-1] + 1 + place * 0.6
            label = "the best, trained again with fresh seeds" if sampler == SAMPLERS[0] else None
            axes.plot([at] * len(fresh), fresh, "o", color=colour, markersize=4, alpha=0.5)
            axes.plot(at, np.mean(fresh), "D", color=colour, markersize=7, label=label)
    axes.set_xlabel("trial")
    n_trials = len(studies[0]["best_so_far"])
    ticks = MaxNLocator(integer=True).tick_values(1, n_trials)
    axes.set_xticks([tick for tick in ticks if 1 <= tick <= n_trials])
    axes.grid(color="#E6E6E6")
    axes.set_axisbelow(True)


def _text(scores: Sequence[float | None]) -> str:
    return " ".join("–" if score is None else f"{score:.3f}" for score in scores)


def main(
    trials: Annotated[int, typer.Option(min=2, help="Trials of a study.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, help="Studies of each task and sampler.")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Environment steps of a trial, in place of 2,000.")] = None,
    confirm: Annotated[int, typer.Option(min=0, max=len(FRESH_SEEDS), help="Fresh seeds for the best.")] = 2,
    jobs: Annotated[int, typer.Option(min=1, help="Studies at a time, one thread each.")] = 1,
    folder: Annotated[Path, typer.Option(help="Folder of the study files.")] = Path("results/tuning"),
    json_file: Annotated[Path, typer.Option("--json", help="The figures, a line of JSON.")] = Path(
        "results/tuning.jsonl"
    ),
    figure: Annotated[Path, typer.Option(help="The picture: .png, .svg or .pdf.")] = Path("docs/tuning.png"),
) -> None:
    """Compare Gaussian process and random search on two tasks."""
    tasks = [CellObjective(t.agent, t.task, t.env_kwargs, steps or t.budget_steps) for t in TASKS]
    console = Console()

    def on_study(study: dict[str, Any]) -> None:
        console.print(
            f"{study['task']}  {study['sampler']:6s}  seed {study['seed']}: best {_text([study['best_so_far'][-1]])}, "
            f"fresh {_text(study['fresh_scores'])}, {study['failed']} failed, {study['seconds']:.0f} s",
            highlight=False,
            soft_wrap=True,
        )

    measured = measure(tasks, folder, trials=trials, seeds=range(seeds), confirm=confirm, jobs=jobs, on_study=on_study)
    append(json_file, measured)
    draw(measured, figure)
    table = Table("task", "sampler", "best", "range", "mean best so far", "fresh", "s a trial")
    for row in measured["summary"]:
        shown = ([row["best"]], row["best_range"], [row["mean_best_so_far"]], [row["fresh"]])
        table.add_row(row["task"], row["sampler"], *map(_text, shown), f"{row['seconds_a_trial']:.1f}")
    console.print(table)
    console.print(f"wrote {json_file} and {figure}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
