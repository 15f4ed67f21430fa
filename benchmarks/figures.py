"""Learning curves and the table beside them, from result files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from agents.saving.files import atomic_write
from agents.saving.results import Result
from agents.tuning.plot_style import PLOT_STYLE
from textgym import References, references

# A palette that stays apart for colour-blind readers (Okabe and Ito); ours has the strongest colour.
STYLES: dict[str, tuple[str, str]] = {
    "ours": ("#D55E00", "DoubleDQN (ours)"),
    "ppo-performer": ("#0072B2", "PPO + Performer"),
    "ppo-mlp": ("#56B4E9", "PPO + MLP"),
    "dqn-performer": ("#009E73", "DQN + Performer"),
    "dqn-mlp": ("#B8A500", "DQN + MLP"),
    "maskable-ppo-mlp": ("#CC79A7", "MaskablePPO + MLP"),
    "recurrent-ppo-mlp": ("#8C564B", "RecurrentPPO + MLP"),
    "a2c-mlp": ("#332288", "A2C + MLP"),
    "qrdqn-mlp": ("#6B8E23", "QR-DQN + MLP"),
}
"""Agent → colour and label; agents that are not here get a grey and their own name."""
_GRID_POINTS = 200
_BEST = "best known"
_BLIND = "best without the prompt"


def score_references(result: Result) -> References | None:
    """References of a result's task; None where there are none, or where its arguments differ from the defaults."""
    cell = result["cell"]
    return None if cell["env_kwargs"] else references(cell["task"])


def normalised(result: Result, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores between those of the random policy, 0, and of the best, 1; unchanged where there are no references."""
    known = score_references(result)
    return scores if known is None else (scores - known.random) / (known.best - known.random)


def by_agent(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results of each agent, in the order of :data:`STYLES`."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[result["cell"]["agent"]].append(result)
    order = list(STYLES)
    return dict(sorted(groups.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def by_task(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results of each task, arguments included, in their first order."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        cell = result["cell"]
        arguments = ", ".join(f"{name}={value}" for name, value in sorted(cell["env_kwargs"].items()))
        groups[cell["task"] + (f" ({arguments})" if arguments else "")].append(result)
    return dict(groups)


def summarise(results: Sequence[Result]) -> dict[str, list[dict[str, Any]]]:
    """Task → one row for each agent: scores over seeds, and the median cost of reaching them."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for task, of_task in by_task(results).items():
        tables[task] = rows = []
        for agent, runs in by_agent(of_task).items():
            scores = np.array([run["score"] for run in runs])
            row: dict[str, Any] = {"agent": agent, "seeds": len(runs), "return": float(scores.mean())}
            if score_references(runs[0]) is not None:
                row["normalised"] = float(normalised(runs[0], scores).mean())
            rows.append(
                row
                | {
                    "range": f"{scores.min():.3f}–{scores.max():.3f}",
                    "steps": f"{np.median([run['env_steps'] for run in runs]):,.0f}",
                    "seconds": f"{np.median([run['seconds'] for run in runs]):.1f}",
                }
            )
    return tables


def band(runs: Sequence[Result], column: int) -> tuple[NDArray[np.float64], ...]:
    """Mean, lowest and highest score over seeds, on a common axis.

    Args:
        runs: Results of one agent on one task.
        column: 0 for environment steps, 1 for seconds of training.

    Returns:
        The axis, mean, lowest and highest, each (N,). The axis ends where the shortest run does.
    """
    curves = [np.array(run["curve"], np.float64) for run in runs]
    end = min(curve[-1, column] for curve in curves)
    # The points of all runs, so that no corner of a curve is cut off, or an even grid where there are too many.
    axis = np.unique(np.concatenate([curve[:, column] for curve in curves]))
    axis = axis[axis <= end]
    if len(axis) > _GRID_POINTS:
        axis = np.linspace(0, end, _GRID_POINTS)
    scores = np.stack([np.interp(axis, curve[:, column], curve[:, 2]) for curve in curves])  # (runs, N)
    scores = normalised(runs[0], scores)
    return axis, scores.mean(axis=0), scores.min(axis=0), scores.max(axis=0)


def learning_curves(results: Sequence[Result], path: Path) -> None:
    """Draw scores against seconds of training and against environment steps, a row of two panels for each task.

    Args:
        results: Results of :func:`benchmarks.learning.run_cell`.
        path: The picture, ``.png``, ``.svg`` or ``.pdf``; it is replaced in one go.
    """
    tasks = by_task(results)
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(10.5, 0.9 + 3.6 * len(tasks)), layout="constrained")
        all_axes = figure.subplots(len(tasks), 2, squeeze=False, sharey="row")
        for axes, (task, runs) in zip(all_axes, tasks.items(), strict=True):
            _panel(axes[0], runs, 1, "seconds of training, one thread")
            _panel(axes[1], runs, 0, "environment steps")
            _logarithmic(axes[1])
            relative = score_references(runs[0]) is not None
            axes[0].set_ylabel("normalised score" if relative else "mean return")
            axes[0].set_title(task, loc="left", fontweight="bold")
        agents = by_agent(results)
        handles = [line for axes in all_axes.flat for line in axes.get_lines()]
        labels = {line.get_label(): line for line in handles}
        wanted = [_style(agent)[1] for agent in agents] + [name for name in (_BEST, _BLIND) if name in labels]
        legend = figure.legend(
            [labels[name] for name in wanted],
            wanted,
            loc="outside lower center",
            ncols=min(len(wanted), 4),
            frameon=False,
        )
        for line in legend.get_lines():
            line.set_linewidth(2.5)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=150, facecolor="white")


def _panel(axes: Axes, runs: Sequence[Result], column: int, label: str) -> None:
    for agent, of_agent in by_agent(runs).items():
        colour, name = _style(agent)
        axis, mean, lowest, highest = band(of_agent, column)
        front = 3 if agent == "ours" else 2
        axes.fill_between(axis, lowest, highest, color=colour, alpha=0.18, linewidth=0, zorder=front)
        axes.plot(axis, mean, color=colour, label=name, linewidth=2.4 if agent == "ours" else 1.6, zorder=front + 2)
        axes.plot(axis[-1], mean[-1], "o", color=colour, markersize=4, zorder=front + 2)
    known = score_references(runs[0])
    if known is not None:
        axes.axhline(1.0, color="#555555", linewidth=1, linestyle=":", label=_BEST)
        axes.axhline(known.normalise(known.blind), color="#999999", linewidth=1, linestyle="--", label=_BLIND)
    axes.set_xlabel(label)
    axes.set_xlim(left=0)


def _logarithmic(axes: Axes) -> None:
    """Thousands to millions of steps on one axis that still begins at 0."""
    right = axes.get_xlim()[1]
    axes.set_xscale("symlog", linthresh=1_000, linscale=0.3)
    ticks = [0, *(10**exponent for exponent in range(3, 10) if 10**exponent <= right)]
    axes.set_xticks(ticks, [_short(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(0, right)


def _short(number: int) -> str:
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number // size}{letter}"
    return str(number)


def _style(agent: str) -> tuple[str, str]:
    return STYLES.get(agent, ("#777777", agent))
