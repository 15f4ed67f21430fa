"""The tables of a report: the numbers behind its charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agents.application.report.charts import Table, number
from agents.application.report.data import SHARE_OF_BEST, Comparison
from agents.application.report.effects import Effect, effects
from agents.application.report.figures import in_words, named_figures
from agents.application.report.statistics import median_time
from agents.saving.results import Ablation, Result


def score_table(comparison: Comparison) -> Table:
    """Final scores of every agent on every task, and what they cost."""
    rows = []
    for task in comparison.tasks:
        if task.references is not None:
            for name in ("random", "blind", "best"):
                raw = getattr(task.references, name)
                share = f"{task.references.normalise(raw):.3f}"
                rows.append((task.name, f"reference: {name}", "–", f"{raw:.3f}", share, "–", "–"))
        for agent, runs in task.runs.items():
            raw = np.array([run["score"] for run in runs])
            estimate = comparison.aggregate(agent, [task])
            rows.append(
                (
                    task.name,
                    comparison.styles[agent].label,
                    str(len(runs)),
                    f"{raw.mean():.3f} ({raw.min():.3f}–{raw.max():.3f})",
                    "–" if task.references is None or estimate is None else in_words(estimate),
                    f"{np.median([run['env_steps'] for run in runs]):,.0f}",
                    f"{np.median([run['seconds'] for run in runs]):,.0f}",
                )
            )
    header = ("task", "agent", "runs", "return: mean (range)", "normalised: IQM (95 %)", "steps", "seconds")
    return Table(header, tuple(rows), frozenset({2, 3, 4, 5, 6}))


def sooner_table(comparison: Comparison) -> Table:
    """When each agent reached :data:`SHARE_OF_BEST` of the best score on each task: Kaplan and Meier's medians."""
    rows = []
    for task in comparison.rated:
        threshold = SHARE_OF_BEST * task.best
        for agent in task.runs if task.best > 0 else ():
            cells = []
            for column in (1, 0):
                reached = task.reached(agent, threshold, column)
                median = median_time(reached)
                cells.append(f"> {number(max(run.at for run in reached))}" if median is None else number(median))
            solved = f"{sum(run.solved for run in reached)} of {len(reached)}"
            rows.append((task.name, f"{threshold:.3f}", comparison.styles[agent].label, *cells, solved))
    header = ("task", "normalised score", "agent", "seconds", "steps", "runs that did")
    return Table(header, tuple(rows), frozenset({1, 3, 4, 5}))


def ablation_rows(found: Sequence[Effect]) -> list[dict[str, str]]:
    """Every change with its difference to the base, and by task the mean over seeds of the area under the curve."""
    tasks = dict.fromkeys(task for effect in found for task in effect.by_task)
    return [
        {
            "change": effect.name,
            "difference": str(effect),
            "pairs": str(effect.pairs),
            **{
                task.removeprefix("TextGen/"): f"{effect.by_task[task]:.3f}" if task in effect.by_task else "–"
                for task in tasks
            },
        }
        for effect in found
    ]


def ablation_table(results: Sequence[Result], ablation: Ablation) -> Table:
    """:func:`ablation_rows` of a sweep's results; see :func:`agents.application.report.effects.effects`."""
    rows = ablation_rows(effects(results, ablation))
    return Table(tuple(rows[0]), tuple(tuple(row.values()) for row in rows), frozenset(range(1, len(rows[0]))))


def throughput_table(measured: dict[str, Any]) -> Table:
    """Every figure that was timed."""
    rows = []
    for name, figure in named_figures(measured["figures"]):
        other = "–" if figure["other"] is None else f"{number(figure['other'])} ({figure['against']})"
        ratio = "–" if figure["ratio"] is None else f"{number(figure['ratio'])}×"
        sign = "≤" if figure["at_most"] else "≥"
        bar = "–" if figure["bar"] is None else f"{sign} {number(figure['bar'])}"
        met = {None: "–", True: "met", False: "missed"}[figure["met"]]
        rows.append((name, f"{number(figure['value'])} {figure['unit']}".strip(), other, ratio, bar, met))
    return Table(("what", "ours", "beside it", "ratio", "bar", ""), tuple(rows), frozenset({1, 2, 3, 4}))
