"""``python -m benchmarks.steering_figure``: reward against divergence, as :mod:`benchmarks.steering` measured them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agents.saving.files import atomic_write
from agents.saving.json_lines import read
from agents.tuning.plot_style import PLOT_STYLE
from benchmarks.steering import RESULTS

app = typer.Typer(add_completion=False)
LABELS = {
    "plain": "best of n plain samples",
    "ours": "DoubleDQN, one sample",
    "reward-look-ahead": "the reward asked for every candidate, nothing learned",
    "temperature": "the model at lower temperatures",
    "look-ahead": "every candidate read and valued (as RAD)",
    "cloning": "cloning of the best samples (LoRA)",
    "grpo": "GRPO (LoRA)",
}
"""Method → what the legend calls it, in the order in which they are drawn."""
Frontier = dict[str, list[dict[str, Any]]]


@app.command()
def main(
    results: Annotated[Path, typer.Option(help="Results of benchmarks.steering, JSON lines.")] = RESULTS,
    out: Annotated[Path, typer.Option(help="The picture, .png or .svg.")] = Path("docs/steering.png"),
) -> None:
    """Draw a panel for each reward that has been measured: means over seeds, and every seed as a dot."""
    found = frontiers(read(results))
    if not found:
        raise typer.BadParameter(f"results must hold cells of benchmarks.steering, got none in {results}")
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(5.6 * len(found), 4.6), layout="constrained")
        handles: dict[str, Any] = {}
        for axes, (reward, methods) in zip(
            figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
        ):
            _draw(axes, reward, methods)
            handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=min(2, len(found)), frameon=False
        )
        with atomic_write(out) as temporary:
            figure.savefig(temporary, dpi=150, facecolor="white")


def frontiers(rows: list[dict[str, Any]]) -> dict[str, dict[str, Frontier]]:
    """Reward → method → point → its measurements, one for each seed."""
    found: dict[str, dict[str, Frontier]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in rows:
        method, reward, *_ = row["cell"].split("_")
        for point in row["points"]:
            found[reward][method][point["point"]].append(point)
    return found


def _draw(axes: Axes, reward: str, methods: dict[str, Frontier]) -> None:
    for number, (method, label) in enumerate(LABELS.items()):
        points = list(methods.get(method, {}).values())
        if not points:
            continue
        nats = np.array([np.mean([one["nats"] for one in seeds]) for seeds in points])
        rewards = np.array([np.mean([one["reward"] for one in seeds]) for seeds in points])
        order, colour = nats.argsort(), "black" if method == "plain" else f"C{number - 1}"
        axes.plot(nats[order], rewards[order], "o-", ms=5, color=colour, label=label)
        if method == "plain":
            for point, x, y in zip(methods[method], nats, rewards, strict=True):
                axes.annotate(point.removeprefix("best of "), (x, y), (4, -10), textcoords="offset points", fontsize=8)
            continue
        for one in (one for seeds in points for one in seeds):
            axes.plot(one["nats"], one["reward"], "o", ms=3, color=colour, alpha=0.4)
    axes.set(title=reward, xlabel="KL divergence from the model, nats a text", ylabel="mean reward", xlim=(0, None))


if __name__ == "__main__":
    app()
