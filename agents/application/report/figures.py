"""The charts and tables of a comparison, an ablation and the timings: what is shown, not how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agents.application.report.charts import GREY, OURS, DotChart, Line, LineChart, Row, Style, counted, number, short
from agents.application.report.data import GROUPS, SHARE_OF_BEST, THRESHOLDS, Comparison, TaskResults
from agents.application.report.effects import effects
from agents.application.report.statistics import Estimate, curve_iqm, median_time, performance_profile
from agents.saving.results import Ablation, Result

AXES = ((1, "seconds", "seconds of training, one thread"), (0, "steps", "environment steps"))
"""Column of a learning curve, its short name, and the axis's title."""
_UNIT_RANGE = (0.0, 1.0)
_MOST_NAMES = 4
_OURS_STYLE = Style("ours", 0)
READINGS: tuple[tuple[int | None, str, str], ...] = (
    (None, "final", "at the end of each run"),
    (1, "seconds", "at equal wall-clock"),
    (0, "steps", "at equal environment steps"),
)
"""Where scores are read off: column of the learning curve, short name, and in words."""


def file_key(*parts: str) -> str:
    """A file name, and an id in the page, from names."""
    text = "-".join(parts).lower()
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text).strip("-")


def learning_curve(comparison: Comparison, task: TaskResults, column: int) -> LineChart:
    """Score of every agent on one task, against steps (0) or seconds (1): IQM over runs, with intervals."""
    _, name, label = next(axis for axis in AXES if axis[0] == column)
    lines = []
    for agent in task.runs:
        axis, scores = task.curves(agent, column)
        lines.append(Line(comparison.styles[agent], axis, *curve_iqm(scores, comparison.random())))
    guides: list[tuple[float, str]] = []
    if task.references is not None:
        guides = [(1.0, "best known"), (task.references.normalise(task.references.blind), "best without the prompt")]
    return LineChart(
        file_key("curve", task.name, name),
        task.name,
        label,
        task.unit,
        tuple(lines),
        "symlog" if column == 0 else "linear",
        tuple(guides),
    )


def aggregate_chart(
    comparison: Comparison, tasks: Sequence[TaskResults], key: str, title: str, column: int | None = None
) -> DotChart | None:
    """IQM of the normalised scores over ``tasks``, one row an agent; None where there is nothing to show.

    ``column`` as in :meth:`agents.application.report.data.TaskResults.scores`.
    """
    rows = []
    for agent, style in comparison.styles.items():
        estimate = comparison.aggregate(agent, tasks, column)
        if estimate is not None:
            of = sum(len(task.runs[agent]) for task in tasks if agent in task.runs)
            rows.append(Row(style.label, f"{in_words(estimate)}, {counted(of, 'run')}", style, *estimate))
    blind = comparison.blind(tasks)
    if rows and blind is not None:
        rows.append(Row("best without the prompt", f"{blind:.3f}, reference", Style("", GREY), blind))
    return DotChart(key, title, "normalised score, IQM", tuple(rows), x_range=_UNIT_RANGE) if rows else None


def names_of(tasks: Sequence[TaskResults]) -> str:
    """The names of a few tasks, or the number of many."""
    if len(tasks) > _MOST_NAMES:
        return counted(len(tasks), "task")
    return ", ".join(task.name.removeprefix("TextGen/") for task in tasks)


def group_charts(comparison: Comparison) -> list[DotChart]:
    """The same for each task group."""
    charts = []
    for group in (*GROUPS, "other"):
        tasks = [task for task in comparison.rated if task.group == group]
        title = f"{group.capitalize()}: {names_of(tasks)}"
        chart = aggregate_chart(comparison, tasks, file_key("group", group), title)
        if chart is not None:
            charts.append(chart)
    return charts


def improvement_chart(comparison: Comparison, column: int | None = None) -> DotChart | None:
    """Probability that ours is better than each other agent; None without ours or without another."""
    rows = []
    for agent, style in comparison.styles.items():
        found = None if agent == OURS else comparison.improvement(agent, column)
        if found is not None:
            estimate, n_tasks = found
            text = f"{in_words(estimate)}, {counted(n_tasks, 'task')}"
            rows.append(Row(f"ours > {style.label}", text, style, *estimate))
    if not rows:
        return None
    name, words = next((name, words) for at, name, words in READINGS if at == column)
    return DotChart(
        file_key("improvement", name) if column is not None else "improvement",
        f"How likely is a run of ours to beat a run of another agent, {words}?",
        "probability of improvement",
        tuple(rows),
        guide=(0.5, "even"),
        x_range=_UNIT_RANGE,
    )


def sooner_chart(comparison: Comparison, column: int) -> DotChart | None:
    """How many times sooner than each other agent ours is near a task's best score; None without such a task."""
    _, axis_name, label = next(axis for axis in AXES if axis[0] == column)
    rows = []
    for agent, style in comparison.styles.items():
        found = None if agent == OURS else comparison.sooner(agent, column)
        if found is None:
            continue
        bounds = [f"{n} {name}" for n, name in ((found.at_least, "at least"), (found.at_most, "at most")) if n]
        text = ", of which ".join([counted(found.tasks, "task"), *([", ".join(bounds)] if bounds else [])])
        text += f", {found.neither} without either" if found.neither else ""
        if found.tasks:
            rows.append(Row(f"before {style.label}", f"{number(found.ratio)}×, {text}", style, found.ratio))
    if not rows:
        return None
    cost = label.split(",")[0]
    title = f"How many times sooner, in {cost}, is ours at {SHARE_OF_BEST:.0%} of the best score of any agent?"
    x_label = f"ratio of {cost}, geometric mean over tasks, logarithmic"
    return DotChart(file_key("sooner", axis_name), title, x_label, tuple(rows), "log", (1.0, "equal"), bars=True)


def profile_chart(comparison: Comparison) -> LineChart | None:
    """Performance profile over the tasks that all agents have results of; None where there are none."""
    if not comparison.common:
        return None
    strata = {agent: [task.scores(agent) for task in comparison.common] for agent in comparison.styles}
    lowest = min(0.0, *(float(scores.min()) for group in strata.values() for scores in group))
    thresholds = np.linspace(max(lowest, -0.5), 1.05, 125)
    lines = tuple(
        Line(style, thresholds, *performance_profile(strata[agent], thresholds, comparison.random()))
        for agent, style in comparison.styles.items()
    )
    title = "Performance profile: how many runs reach which score?"
    return LineChart("profile", title, "normalised score τ", "share of runs ≥ τ", lines, ends=False)


def threshold_chart(comparison: Comparison, task: TaskResults, threshold: float, column: int) -> DotChart:
    """When each run of a task reached a score; runs that never did are shown for as long as they were watched."""
    _, axis_name, label = next(axis for axis in AXES if axis[0] == column)
    rows = []
    floor, unit = (1.0, "steps") if column == 0 else (0.1, "s")  # a logarithmic axis has no 0
    for agent in task.runs:
        reached = task.reached(agent, threshold, column)
        solved = sum(run.solved for run in reached)
        median = median_time(reached)
        longest = number(max(run.at for run in reached))
        text = f"not within {longest} {unit}" if median is None else f"median {number(median)} {unit}"
        marks = tuple((max(run.at, floor), run.solved) for run in reached)
        rows.append(
            Row(
                comparison.styles[agent].label,
                f"{text}, {solved} of {len(reached)} runs",
                comparison.styles[agent],
                None if median is None else max(median, floor),
                marks=marks,
            )
        )
    title = f"{task.name}: {label.split(',')[0]} to {threshold:g}"
    return DotChart(file_key("reach", task.name, f"{threshold:g}", axis_name), title, label, tuple(rows), "log")


def threshold_charts(comparison: Comparison) -> dict[tuple[float, int], list[DotChart]]:
    """Threshold and column → a chart for each rated task."""
    return {
        (threshold, column): [threshold_chart(comparison, task, threshold, column) for task in comparison.rated]
        for threshold in THRESHOLDS
        for column, _, _ in AXES
    }


def ablation_chart(results: Sequence[Result], ablation: Ablation) -> DotChart:
    """What one change does to the area under the learning curve, the best change first.

    Args:
        results: Results of the sweep.
        ablation: What it compares.

    Raises:
        ValueError: If its base is not among them.
    """
    found = [effect for effect in effects(results, ablation) if not effect.is_base]
    rows = []
    for effect in sorted(found, key=lambda effect: -effect.difference):
        error = 2 * effect.error
        low, high = (effect.difference - error, effect.difference + error) if error else (None, None)
        text = f"{effect}, {counted(effect.pairs, 'pair')}"
        style = Style("", (2 if effect.difference > 0 else 0) if effect.clear else GREY)
        rows.append(Row(effect.name, text, style, effect.difference, low, high))
    title = "What one change to the base does"
    what = "normalised score" if ablation.normalised else "return"
    label = f"difference in mean {what} over the run, with two standard errors"
    return DotChart(f"ablation-{ablation.name}", title, label, tuple(rows), guide=(0.0, "base"))


def throughput_chart(measured: dict[str, Any]) -> DotChart | None:
    """How many times as good each timed figure is as its alternative; None where nothing is compared."""
    rows = []
    for name, figure in named_figures(measured["figures"]):
        if figure["ratio"] is not None and not figure["at_most"]:
            ours, other = (short(float(f"{figure[key]:.3g}")) for key in ("value", "other"))
            text = f"{number(figure['ratio'])}×: {ours} against {other} {figure['unit']}, {figure['against']}"
            rows.append(Row(name, text, _OURS_STYLE, figure["ratio"]))
    if not rows:
        return None
    title = "How many times as fast, or as small, as the alternative"
    return DotChart("throughput", title, "ratio, logarithmic", tuple(rows), "log", (1.0, "equal"), bars=True)


def named_figures(figures: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Figures with names that stand alone: "the same" takes the place of the name before it."""
    named: list[tuple[str, dict[str, Any]]] = []
    last = ""
    for figure in figures:
        name = figure["name"]
        if name.startswith("the same"):
            name = last + name.removeprefix("the same")
        else:
            last = name
        named.append((name, figure))
    return named


def in_words(estimate: Estimate) -> str:
    """A value with its interval."""
    return f"{estimate.value:.3f} ({estimate.low:.3f}–{estimate.high:.3f})"
