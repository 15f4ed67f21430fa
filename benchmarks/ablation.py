"""What each part of :class:`agents.DoubleDQN` is worth: the sweep that changes one at a time, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agents.application.report.effects import Effect
from agents.saving.results import Ablation
from benchmarks.changes import ABLATION_TASKS, BASE, ablation

_ARROWS = {1: " ↑", 0: "", -1: " ↓"}


def described() -> Ablation:
    """What the sweep ``"ablate"`` compares, as its file says it."""
    return Ablation(
        "ablate",
        "What each part is worth",
        "One part or argument of the agent is taken away, exchanged or added at a time, at equal environment steps. "
        "The difference is in the mean normalised score over a run's evaluations, over pairs of runs with the same "
        "task and seed; to the right, the change is better than the agent as it is. Grey intervals hold 0.",
        True,
        {change: [cell.name for cell in cells] for change, cells in ablation().items()},
    )


def markdown(found: Sequence[Effect]) -> str:
    """A page with the table, for ``docs/ablation.md``."""
    lines = [
        "# What each part of the agent is worth",
        "",
        "Made by `python -m benchmarks ablate --page docs/ablation.md`, never by hand: one part or argument of",
        "`DoubleDQN` is taken away, exchanged or added at a time, at equal environment steps. A figure is the area",
        "under the learning curve: the mean greedy score of 20 evaluations over the run, normalised so that 0 is a",
        "random policy and 1 the best known, averaged over three seeds; with an arrow where every seed is on the same",
        "side of the base. The difference to the base is over pairs with the same task and seed, with its standard",
        "error; beyond two errors it is in bold.",
        "",
        *_table(found, [task for task, _ in ABLATION_TASKS]),
        "",
        "Tasks and their budgets:",
        "",
        *(f"* `{task}`: {steps:,} steps" for task, steps in ABLATION_TASKS),
        "",
        f"The base: {_arguments(BASE)}.",
        "",
    ]
    return "\n".join(lines)


def _table(found: Sequence[Effect], tasks: Sequence[str]) -> list[str]:
    def figure(effect: Effect, task: str) -> str:
        if task not in effect.by_task:
            return ""
        return f"{effect.by_task[task]:.3f}{_ARROWS[effect.agreed[task]]}"

    lines = [
        "| change | " + " | ".join(_short(task) for task in tasks) + " | difference |",
        "|---|" + "---:|" * (len(tasks) + 1),
    ]
    for effect in found:
        areas = " | ".join(figure(effect, task) for task in tasks)
        lines.append(f"| {effect.name} | {areas} | {f'**{effect}**' if effect.clear else effect} |")
    return lines


def _short(task: str) -> str:
    return f"`{task.removeprefix('TextGen/')}`"


def _arguments(kwargs: dict[str, Any]) -> str:
    return ", ".join(f"`{name}={value!r}`" for name, value in kwargs.items())
