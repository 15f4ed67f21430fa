"""Learning curves and the table beside them, from results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.application.report.data import Comparison
from agents.application.report.figures import learning_curve
from agents.application.report.paper import save_grid
from agents.saving.results import Result


def summarise(results: Sequence[Result]) -> dict[str, list[dict[str, Any]]]:
    """Task → one row for each agent: scores over seeds, and the median cost of reaching them."""
    tables: dict[str, list[dict[str, Any]]] = {}
    alike = [result | {"cell": result["cell"] | {"agent_kwargs": {}}} for result in results]  # whatever the arguments
    for task in Comparison(alike).tasks if results else ():
        tables[task.name] = rows = []
        for agent, runs in task.runs.items():
            scores = np.array([run["score"] for run in runs])
            row: dict[str, Any] = {"agent": agent, "seeds": len(runs), "return": float(scores.mean())}
            if task.references is not None:
                row["normalised"] = float(task.scores(agent).mean())
            row["range"] = f"{scores.min():.3f}–{scores.max():.3f}"
            row["steps"] = f"{np.median([run['env_steps'] for run in runs]):,.0f}"
            row["seconds"] = f"{np.median([run['seconds'] for run in runs]):.1f}"
            rows.append(row)
    return tables


def learning_curves(results: Sequence[Result], path: Path) -> None:
    """Draw scores against seconds of training and against environment steps, a row of two panels for each task.

    Args:
        results: Results of :func:`benchmarks.learning.run_cell`.
        path: The picture, ``.png``, ``.svg`` or ``.pdf``; it is replaced in one go.
    """
    comparison = Comparison(results)
    save_grid([[learning_curve(comparison, task, column) for column in (1, 0)] for task in comparison.tasks], path)
