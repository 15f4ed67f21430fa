"""From result files to the numbers of a report: groups, normalised scores, curves on a common axis."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.application.report.charts import OURS, Style, styles
from agents.application.report.statistics import (
    Estimate,
    Reached,
    Sooner,
    aggregate_iqm,
    first_reached,
    iqm,
    probability_of_improvement,
    sooner,
)
from agents.saving.results import Ablation, Result
from textgym import References, references

GROUPS: dict[str, tuple[str, ...]] = {
    "manipulation": ("Copy", "Reverse", "Sort", "Spelling"),
    "long context": ("Recall", "Passkey"),
    "generation": ("TextGen", "Keywords", "Summary"),
    "structure": ("Brackets", "Json", "Sql"),
    "understanding": ("Addition", "Arithmetic", "Classify", "Reasoning"),
    "planning": ("StarGraph", "RandomWalks"),
    "games": ("GuessNumber", "Hangman", "Wordle"),
}
"""Task group → first words of the names of its ids; what is nowhere here is ``"other"``."""
THRESHOLDS = (0.5, 0.75, 0.9)
"""Normalised scores whose time is measured."""
SHARE_OF_BEST = 0.9
"""Of the best score that any agent reached on a task: its time is compared over tasks."""
_MOST_POINTS = 60


def group_of(env_id: str) -> str:
    """The task group of an id: ``"TextGen/Copy-Sparse-v0"`` belongs to ``"manipulation"``."""
    name = env_id.removeprefix("textgym:").removeprefix("TextGen/").split("-")[0]
    return next((group for group, names in GROUPS.items() if name in names), "other")


def split_ablations(
    results: Iterable[Result], ablations: Sequence[Ablation]
) -> tuple[list[Result], list[tuple[Ablation, list[Result]]]]:
    """Results of comparisons, and those of each ablation that has any."""
    comparison: list[Result] = []
    found: dict[str, list[Result]] = {ablation.name: [] for ablation in ablations}
    sweep_of = {cell: ablation.name for ablation in ablations for cells in ablation.cells.values() for cell in cells}
    for result in results:
        sweep = sweep_of.get(result["name"])
        (comparison if sweep is None else found[sweep]).append(result)
    return comparison, [(ablation, found[ablation.name]) for ablation in ablations if found[ablation.name]]


@dataclass(frozen=True)
class TaskResults:
    """Results of one task with its arguments.

    Attributes:
        name: Id and arguments.
        group: Its task group.
        references: Of the id; None where its arguments differ from the defaults, or none are known.
        runs: Agent → results, ours first.
    """

    name: str
    group: str
    references: References | None
    runs: dict[str, list[Result]]

    @property
    def unit(self) -> str:
        """What the scores of :meth:`scores` and :meth:`curves` are."""
        return "mean return" if self.references is None else "normalised score"

    def normalise(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores between the random policy, 0, and the best, 1; as they are where there are no references."""
        known = self.references
        return scores if known is None else (scores - known.random) / (known.best - known.random)

    def scores(self, agent: str, column: int | None = None) -> NDArray[np.float64]:
        """Scores ``(runs,)``: final ones, or at equal cost for all agents.

        Args:
            agent: The agent.
            column: None for final scores; 0 or 1 to read the learning curves, linear between evaluations, at the
                environment steps or the seconds of :meth:`common_end`.
        """
        if column is None:
            return self.normalise(np.array([run["score"] for run in self.runs[agent]], np.float64))
        curves = [np.array(run["curve"], np.float64) for run in self.runs[agent]]
        end = self.common_end(column)
        return self.normalise(np.array([np.interp(end, curve[:, column], curve[:, 2]) for curve in curves]))

    def common_end(self, column: int) -> float:
        """Where agents are compared: the seconds (1) after which the shortest run of any agent ended, or the steps (0).

        Steps are those of our shortest run, where there is one. A slow agent that has not come as far in the time that
        all were given counts with its last score: at the end of the slowest, nobody would have learned anything.
        """
        runs = (
            self.runs[OURS] if column == 0 and OURS in self.runs else [run for of in self.runs.values() for run in of]
        )
        return min(float(run["curve"][-1][column]) for run in runs)

    @property
    def best(self) -> float:
        """The highest interquartile mean over the runs of an agent, of final scores."""
        return max(float(iqm(self.scores(agent))) for agent in self.runs)

    def curves(self, agent: str, column: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scores of all runs on a common axis, which ends where the shortest run does.

        Args:
            agent: The agent.
            column: 0 for environment steps, 1 for seconds.

        Returns:
            The axis ``(N,)``, and scores ``(runs, N)``, linear between evaluations.
        """
        curves = [np.array(run["curve"], np.float64) for run in self.runs[agent]]
        axis = np.linspace(0.0, min(curve[-1, column] for curve in curves), _MOST_POINTS)
        same = all(np.array_equal(curve[:, column], curves[0][:, column]) for curve in curves)
        if same and len(curves[0]) <= _MOST_POINTS:
            axis = curves[0][:, column]  # the evaluations themselves
        scores = np.stack([np.interp(axis, curve[:, column], curve[:, 2]) for curve in curves])
        return axis, self.normalise(scores)

    def reached(self, agent: str, threshold: float, column: int) -> list[Reached]:
        """When each run first reached a normalised score; see ``statistics.first_reached``."""
        known = self.references
        raw = threshold if known is None else known.random + threshold * (known.best - known.random)
        return [first_reached(run["curve"], raw, column) for run in self.runs[agent]]


class Comparison:
    """Agents × tasks × runs.

    Args:
        results: Results of :func:`benchmarks.learning.run_cell`; agents with other arguments count as other agents.
        seed: Of the bootstrap.

    Raises:
        ValueError: If there are none.
    """

    def __init__(self, results: Sequence[Result], seed: int = 0) -> None:
        if not results:
            raise ValueError("results must not be empty")
        self.results, self.seed = list(results), seed
        self.names = agent_names(self.results)
        by_task: dict[str, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
        for result, agent in zip(self.results, self.names, strict=True):
            by_task[_task_name(result)][agent].append(result)
        order = list(self.styles)
        self.tasks: tuple[TaskResults, ...] = tuple(
            sorted(
                (
                    _task(name, {agent: runs[agent] for agent in order if agent in runs})
                    for name, runs in by_task.items()
                ),
                key=lambda task: [*GROUPS, "other"].index(task.group),
            )
        )

    @cached_property
    def styles(self) -> dict[str, Style]:
        """A style for each agent, ours first."""
        return styles(self.names)

    @property
    def rated(self) -> tuple[TaskResults, ...]:
        """Tasks whose scores can be normalised, and so be averaged over."""
        return tuple(task for task in self.tasks if task.references is not None)

    @property
    def common(self) -> tuple[TaskResults, ...]:
        """Rated tasks that every agent has results of: the only ones on which all can be compared at once."""
        return tuple(task for task in self.rated if set(task.runs) == set(self.styles))

    def random(self) -> np.random.Generator:
        """A generator in its first state, so that every figure is the same in every report."""
        return np.random.default_rng(self.seed)

    def aggregate(self, agent: str, tasks: Iterable[TaskResults], column: int | None = None) -> Estimate | None:
        """IQM over the runs of an agent on those of the tasks that it has results of; None for none.

        ``column`` as in :meth:`TaskResults.scores`.
        """
        strata = [task.scores(agent, column) for task in tasks if agent in task.runs]
        return aggregate_iqm(strata, self.random()) if strata else None

    def blind(self, tasks: Sequence[TaskResults]) -> float | None:
        """IQM over tasks of what the best policy without the prompt earns; None without references."""
        scores = [task.normalise(np.array(task.references.blind)) for task in tasks if task.references is not None]
        return float(iqm(np.array(scores))) if scores else None

    def improvement(self, other: str, column: int | None = None) -> tuple[Estimate, int] | None:
        """Probability that ours is better than another agent, and the number of tasks that both have results of."""
        shared = [task for task in self.tasks if OURS in task.runs and other in task.runs]
        if not shared:
            return None
        ours, theirs = ([task.scores(agent, column) for task in shared] for agent in (OURS, other))
        return probability_of_improvement(ours, theirs, self.random()), len(shared)

    def sooner(self, other: str, column: int) -> Sooner | None:
        """How many times sooner than another agent ours is at :data:`SHARE_OF_BEST` of each task's best score."""
        shared = [task for task in self.rated if OURS in task.runs and other in task.runs and task.best > 0]
        pairs = [
            (
                task.reached(OURS, SHARE_OF_BEST * task.best, column),
                task.reached(other, SHARE_OF_BEST * task.best, column),
            )
            for task in shared
        ]
        return sooner(pairs, floor=1.0 if column == 0 else 0.1) if pairs else None


def agent_names(results: Sequence[Result]) -> list[str]:
    """The agent's name for each result, with its arguments where the same agent was run with several."""
    texts = []
    for result in results:
        arguments = result["cell"].get("agent_kwargs", {})
        texts.append(", ".join(f"{name}={value}" for name, value in sorted(arguments.items())))
    known: dict[str, set[str]] = defaultdict(set)
    for result, text in zip(results, texts, strict=True):
        known[result["cell"]["agent"]].add(text)
    agents = [result["cell"]["agent"] for result in results]
    return [
        f"{agent} ({text})" if text and len(known[agent]) > 1 else agent
        for agent, text in zip(agents, texts, strict=True)
    ]


def _task(name: str, runs: dict[str, list[Result]]) -> TaskResults:
    cell = next(iter(runs.values()))[0]["cell"]
    known = None if cell["env_kwargs"] else references(cell["task"])
    return TaskResults(name, group_of(cell["task"]), known, runs)


def _task_name(result: Result) -> str:
    cell = result["cell"]
    arguments = ", ".join(f"{name}={value}" for name, value in sorted(cell["env_kwargs"].items()))
    return cell["task"] + (f" ({arguments})" if arguments else "")


def machine_lines(results: Sequence[dict[str, Any]]) -> list[str]:
    """Machines and versions of results, each once."""
    lines = []
    for result in results:
        machine = result.get("machine", {})
        versions = ", ".join(f"{name} {value}" for name, value in result.get("versions", {}).items())
        threads = machine.get("threads", "?")
        lines.append(f"{machine.get('platform', 'unknown machine')}, threads: {threads}; {versions}".rstrip("; "))
    return list(dict.fromkeys(lines))
