"""The sections of a report: figures with the words that say how to read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from agents.application.report import figures, html, tables
from agents.application.report.charts import OURS, Chart, Table, counted, number
from agents.application.report.data import THRESHOLDS, Comparison, machine_lines
from agents.application.report.run_data import Run
from agents.application.report.statistics import RESAMPLES
from agents.application.report.tokens import SLIP_PROBABILITY, as_plain
from agents.application.run_folder import SAMPLES
from agents.saving.results import Ablation, Result

_AXIS_CHOICES = {"seconds": "seconds", "steps": "environment steps"}
_FIRST = next(iter(_AXIS_CHOICES))
_SHORT = {column: short for column, short, _ in figures.AXES}


class Section(NamedTuple):
    """A section: id, title and HTML, and the charts in it."""

    html: tuple[str, str, str]
    charts: list[Chart]


def comparison_tiles(comparison: Comparison) -> list[tuple[str, str, str]]:
    """The figures at the top."""
    remark = f"{counted(len(comparison.tasks), 'task')}, {counted(len(comparison.styles), 'agent')}"
    tiles = [("runs", str(len(comparison.results)), remark)]
    best = comparison.aggregate(OURS, comparison.rated)
    if best is not None:
        remark = f"95 %: {best.low:.3f}–{best.high:.3f}; 1 is the best known"
        tiles.append(("ours, normalised IQM", f"{best.value:.3f}", remark))
    others = [
        (label.label, estimate)
        for agent, label in comparison.styles.items()
        if agent != OURS and (estimate := comparison.aggregate(agent, comparison.rated)) is not None
    ]
    if others:
        name, estimate = max(others, key=lambda other: other[1].value)
        tiles.append(("best other agent", f"{estimate.value:.3f}", name))
    odds = [found[0].value for agent in comparison.styles if agent != OURS and (found := comparison.improvement(agent))]
    if odds:
        tiles.append(("P(ours is better)", f"{min(odds):.2f}", "against the other agent that does best"))
    return tiles


def overview(comparison: Comparison) -> Section | None:
    """Aggregate scores and probability of improvement; None where no task has references."""
    charts: list[Chart] = []
    panels = []
    for column, name, reading in figures.READINGS:
        key = "aggregate" if column is None else f"aggregate-{name}"
        title = f"Everything, {reading}: {figures.names_of(comparison.rated)}"
        for chart in (
            figures.aggregate_chart(comparison, comparison.rated, key, title, column),
            figures.improvement_chart(comparison, column),
        ):
            if chart is not None:
                charts.append(chart)
                panels.append(html.figure(chart, panel=name, hidden=column is not None))
    if not charts:
        return None
    words = (
        "The interquartile mean of normalised scores, over all runs of all tasks that the agent played (0 is the "
        "random policy, 1 the best known); and how often a run of ours beats one of the other agent on the same task. "
        "Bars are 95 % intervals; with three runs a task they are rough. Equal wall-clock is read off the learning "
        "curves where the shortest run of any agent on a task ended, equal steps where our shortest run did; a slower "
        "agent that has not come as far in its time counts with its last score."
    )
    bar = html.switches(("reading", "Scores", {name: words for _, name, words in figures.READINGS}))
    content = html.paragraph(words, "note") + html.switched(bar, html.grid(panels))
    return Section(("overview", "At a glance", content), charts)


def curves(comparison: Comparison) -> Section:
    """Learning curves of every task, against seconds or environment steps."""
    charts: list[Chart] = []
    panels = []
    for task in comparison.tasks:
        for column, short in _SHORT.items():
            chart = figures.learning_curve(comparison, task, column)
            charts.append(chart)
            panels.append(html.figure(chart, panel=short, hidden=short != _FIRST))
    bar = html.switches(("axis", "Against", _AXIS_CHOICES)) + html.legend(comparison.styles.values())
    words = (
        "Greedy score on fresh prompts as training goes on: interquartile mean over runs (with up to three runs, their "
        "mean) and its 95 % bootstrap interval. A curve ends where the shortest run of the agent does."
    )
    content = html.paragraph(words, "note") + html.switched(bar, html.grid(panels))
    return Section(("curves", "Learning curves", content), charts)


def scores(comparison: Comparison) -> Section:
    """Scores by group and by task."""
    charts: list[Chart] = list(figures.group_charts(comparison))
    content = html.grid(html.figure(chart) for chart in charts)
    unrated = [task.name for task in comparison.tasks if task.references is None]
    if unrated:
        content += html.paragraph(f"Without reference scores, so in no average: {', '.join(unrated)}.", "note")
    content += html.table(
        tables.score_table(comparison), "Final greedy scores on fresh prompts, and their cost (median)"
    )
    return Section(("scores", "Scores by task and group", content), charts)


def profile(comparison: Comparison) -> Section | None:
    """Performance profile over the tasks that all agents share; None where there are none."""
    chart = figures.profile_chart(comparison)
    if chart is None:
        return None
    words = (
        f"Over the {counted(len(comparison.common), 'task')} that every agent played. The higher a line, the more runs "
        "reach at least the score τ; where lines cross, it depends on the score that one needs which agent is better."
    )
    content = html.paragraph(words, "note") + html.legend(comparison.styles.values()) + html.grid([html.figure(chart)])
    return Section(("profile", "Performance profile", content), [chart])


def reaching(comparison: Comparison) -> Section | None:
    """Time and steps to thresholds, runs that never got there included; None where no task has references."""
    if not comparison.rated:
        return None
    by_choice = figures.threshold_charts(comparison)
    panels = [
        html.figure(
            chart,
            panel=f"{threshold:g} {_SHORT[column]}",
            hidden=threshold != max(THRESHOLDS) or _SHORT[column] != _FIRST,
        )
        for (threshold, column), charts in by_choice.items()
        for chart in charts
    ]
    thresholds = {f"{threshold:g}": f"{threshold:g}" for threshold in reversed(THRESHOLDS)}
    bar = html.switches(("threshold", "Normalised score", thresholds), ("reach-axis", "In", _AXIS_CHOICES))
    words = (
        "Each dot is a run's first evaluation at or above the score, to the precision of its evaluations. A ring with "
        "an arrow is a run that was never seen there: it would take longer than it was given. The upright line is "
        "Kaplan and Meier's median, which counts those runs for as long as they were watched."
    )
    ratios = [chart for column in (1, 0) if (chart := figures.sooner_chart(comparison, column)) is not None]
    content = html.grid(html.figure(chart) for chart in ratios)
    if ratios:
        about = "“At least” counts tasks that the other never got to, with the time that it was watched for."
        table = html.table(tables.sooner_table(comparison), "Median time to 90 % of the best score of any agent")
        content += html.paragraph(about, "note") + html.details("By task", table)
    content += html.paragraph(words, "note") + html.switched(bar, html.grid(panels))
    every: list[Chart] = [*ratios, *(chart for charts in by_choice.values() for chart in charts)]
    return Section(("reaching", "Time to a score", content), every)


def ablation(found: Ablation, results: Sequence[Result]) -> Section:
    """The forest plot of a sweep that changes one thing at a time."""
    try:
        chart = figures.ablation_chart(results, found)
    except ValueError as error:
        return Section((found.name, found.title, html.paragraph(f"Not yet: {error}.", "note")), [])
    content = html.paragraph(found.about, "note") + str(html.figure(chart, css="wide"))
    content += html.details("By task", html.table(tables.ablation_table(results, found), "Mean score over a run"))
    return Section((found.name, found.title, content), [chart])


def throughput(measured: dict[str, Any]) -> Section:
    """Bars and table of the timings."""
    chart = figures.throughput_chart(measured)
    machine = measured["machine"]
    words = f"One run on {machine.get('platform', 'one machine')}, threads: {machine.get('threads', '?')}."
    content = html.paragraph(words, "note")
    if chart is not None:
        content += str(html.figure(chart, css="wide"))
    content += html.details("All timings", html.table(tables.throughput_table(measured), "Timings"))
    return Section(("throughput", "Speed and memory", content), [] if chart is None else [chart])


def run_tiles(run: Run) -> list[tuple[str, str, str]]:
    """Figures of a run."""
    result = run.result
    tiles = []
    if "mean" in result:
        low, high = result["mean_interval"]
        tiles.append(("mean return", f"{result['mean']:.3f}", f"95 %: {low:.3f}–{high:.3f}, fresh prompts"))
    if result.get("normalised") is not None:
        tiles.append(("normalised score", f"{result['normalised']:.3f}", "0 is random, 1 the best known"))
    if "steps" in result:
        tiles.append(("environment steps", number(result["steps"]), f"{number(result['updates'])} updates"))
        tiles.append(("training", f"{number(result['train_seconds'])} s", f"threads: {run.config.get('threads', '?')}"))
    return tiles


def run(of: Run, number_: int) -> Section:
    """A run: its training, and the token view."""
    key = f"run-{number_}"
    charts: list[Chart] = []
    panels = []
    for column, drawn in of.charts().items():
        for chart in drawn:
            charts.append(chart)
            panels.append(html.figure(chart, panel=_SHORT[column], hidden=_SHORT[column] != _FIRST))
    content = html.paragraph(f"Folder {of.folder.name}, seed {of.config.get('seed', '?')}.", "note")
    if panels:
        bar = html.switches((f"{key}-axis", "Against", _AXIS_CHOICES))
        content += html.switched(bar, html.grid(panels))
    words = (
        f"{len(of.episodes)} fresh episodes, played for this report; in every other one, a token is a random legal one"
        f" with probability {SLIP_PROBABILITY:g} (wavy line): how do values answer to a slip? V is the highest Q of "
        "a legal token, advantage = Q − V, margin = Q − the best other token's, TD error = reward + γ · next V − Q. "
        "Orange is above 0, blue below. Arrow keys: left and right move between tokens, up and down between episodes."
    )
    content += '<h3 class="part">Token by token</h3>' + html.paragraph(words, "note")
    content += html.token_view(key, as_plain(of.episodes))
    samples = of.folder / SAMPLES
    if samples.is_file():
        content += html.details(
            "What it wrote during training", html.preformatted(samples.read_text("utf-8", "replace"))
        )
    agent = {name: str(value) for name, value in (of.config.get("agent") or {}).items()}
    if agent:
        arguments = Table(("argument", "value"), tuple(agent.items()))
        content += html.details("Arguments of the agent", html.table(arguments, "Arguments of DoubleDQN"))
    return Section((key, f"Run: {of.title}", content), charts)


def methods(results: Sequence[Result]) -> tuple[str, str, str]:
    """How the statistics were obtained, and on which machines."""
    items = [
        "Normalised score = (return − random) / (best − random), with the reference scores of textgym.references().",
        "Interquartile mean, stratified bootstrap, performance profiles, probability of improvement: arXiv:2108.13264. "
        f"{RESAMPLES:,} bootstrap samples of runs within each task, seed 0, 95 % percentile intervals.",
        "The mean leaves out the lowest and the highest quarter, rounded down to whole runs.",
        "Budgets differ between agents: the table says what each run was given. Evaluation time is not in the seconds.",
    ]
    machines = html.details("Machines and versions", html.bullet_list(machine_lines(results)))
    return "methods", "Methods", html.bullet_list(items) + machines
