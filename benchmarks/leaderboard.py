"""The table of agents × tasks as a page, from the results of ``python -m benchmarks run table``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from agents.application.report.charts import OURS
from agents.application.report.data import SHARE_OF_BEST, Comparison, TaskResults
from agents.application.report.statistics import Estimate, iqm
from agents.saving.results import Result
from benchmarks.sweep import HYPERPARAMETERS, TABLE_SECONDS, TUNING_SECONDS, TUNING_TRIALS

READINGS: dict[int, str] = {1: "equal time", 0: "equal steps"}
"""Column of the learning curves at which agents are compared → what it is called."""


def score_table(comparison: Comparison, column: int) -> str:
    """Mean normalised score of every agent on every task, and over all: Markdown, the best agent first.

    Args:
        comparison: The results.
        column: Of :data:`READINGS`.
    """
    tasks = comparison.common
    overall = {agent: comparison.aggregate(agent, tasks, column) for agent in comparison.styles}
    order = sorted(overall, key=lambda agent: -_value(overall[agent]))
    best = {task.name: max(_mean(task, agent, column) for agent in order) for task in tasks}
    lines = [_row("agent", "IQM, 95 %", *(_short(task) for task in tasks)), "|---|" + "---:|" * (len(tasks) + 1)]
    for agent in order:
        scores = []
        for task in tasks:
            text = f"{_mean(task, agent, column):.2f}"
            scores.append(f"**{text}**" if text == f"{best[task.name]:.2f}" else text)
        label = comparison.styles[agent].label
        lines.append(_row(f"**{label}**" if agent == OURS else label, _interval(overall[agent]), *scores))
    return "\n".join(lines)


def duel_table(comparison: Comparison) -> str:
    """Ours against every other agent: how often a run is better, and how much sooner it gets somewhere."""
    lines = [
        _row("against", *(f"P(ours is better), {name}" for name in READINGS.values()), "sooner in time", "in steps"),
        "|---|" + "---:|" * 4,
    ]
    for agent, style in comparison.styles.items():
        if agent == OURS:
            continue
        odds = [comparison.improvement(agent, column) for column in READINGS]
        ratios = [comparison.sooner(agent, column) for column in READINGS]
        cells = [_interval(found[0]) if found else "" for found in odds]
        for ratio in ratios:
            bound = "≥ " if ratio and ratio.at_least > ratio.at_most else ""
            cells.append(f"{bound}{ratio.ratio:.1f}×, {ratio.tasks} tasks" if ratio and ratio.tasks else "")
        lines.append(_row(style.label, *cells))
    return "\n".join(lines)


def speed_table(comparison: Comparison) -> str:
    """Environment steps a second of every agent on every task."""
    tasks = comparison.common
    lines = [_row("agent", *(_short(task) for task in tasks)), "|---|" + "---:|" * len(tasks)]
    for agent, style in comparison.styles.items():
        speeds = (_speed(task.runs[agent]) for task in tasks)
        lines.append(_row(style.label, *(f"{speed:,.0f}" for speed in speeds)))
    return "\n".join(lines)


def markdown(results: Sequence[Result]) -> str:
    """A page with all of it, for ``docs/table.md``.

    Raises:
        ValueError: If there are no results, or no task that all agents have played.
    """
    comparison = Comparison(results)
    if not comparison.common:
        raise ValueError("results must hold a task with reference scores that every agent has played")
    runs = {len(task.runs[agent]) for task in comparison.common for agent in comparison.styles}
    counted = f"{min(runs)}" if len(runs) == 1 else f"{min(runs)} to {max(runs)}"
    return "\n".join([*_page(comparison, counted), ""])


def _page(comparison: Comparison, runs: str) -> Iterator[str]:
    yield f"# {len(comparison.styles)} agents, {len(comparison.common)} tasks"
    yield _paragraph(
        "Made by `python -m benchmarks leaderboard`, never by hand, from the runs of `python -m benchmarks run table`. "
        f"Every agent trains for {TABLE_SECONDS:.0f} seconds of the processor on one thread, seeds: {runs}. All were "
        f"tuned alike before (`python -m benchmarks tune-agents`): {TUNING_TRIALS} trials of {TUNING_SECONDS:.0f} "
        "seconds on each of three other tasks, and a final of the best two and the default arguments at full length; "
        f"what it found is in `benchmarks/{HYPERPARAMETERS.name}/`. Scores are greedy on 128 fresh prompts and "
        "normalised: 0 is the random policy, 1 the best known. IQM is the interquartile mean over all runs "
        "(arXiv:2108.13264)."
    )
    for column, name in READINGS.items():
        yield f"\n## At {name}"
        if column == 0:
            yield _paragraph(
                "Read off the same curves where our shortest run of a task ended. An agent that did not come as far in "
                "its time counts with its last score."
            )
        yield f"\n{score_table(comparison, column)}"
    yield "\n## Ours against each other agent"
    yield _paragraph(
        f"“Sooner” is the geometric mean, over tasks, of the ratio of the median times to {SHARE_OF_BEST:.0%} of the "
        "best score of any agent. A run that never got there is censored, not dropped: Kaplan and Meier's median, and "
        "where there is none, the time that the agent was watched for, which makes the ratio a bound."
    )
    yield f"\n{duel_table(comparison)}"
    yield "\n## Environment steps a second"
    yield f"\n{speed_table(comparison)}"


def _paragraph(text: str) -> str:
    return "\n" + textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _mean(task: TaskResults, agent: str, column: int) -> float:
    return float(iqm(task.scores(agent, column)))


def _speed(runs: Sequence[Result]) -> float:
    return sum(run["curve"][-1][0] for run in runs) / sum(run["curve"][-1][1] for run in runs)


def _value(estimate: Estimate | None) -> float:
    return float("-inf") if estimate is None else estimate.value


def _interval(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:.2f} ({estimate.low:.2f}–{estimate.high:.2f})"


def _short(task: TaskResults) -> str:
    return f"`{task.name.removeprefix('TextGen/').removesuffix('-v0')}`"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
