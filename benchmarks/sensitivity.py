"""What each part of :class:`agents.DoubleDQN` is worth: sweeps that change one of them at a time, as a table.

Two sweeps do: ``"defaults"`` chose the values of arguments on small tasks, ``"ablate"`` tests the project's claims.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from agents.application.report.effects import Effect
from agents.saving.results import Ablation
from benchmarks.cells import Cell
from benchmarks.changes import ABLATION_TASKS, BASE, FACTORS, ablation
from benchmarks.sweep import SWEEPS

BASE_NAME = "base"
ABLATIONS = {
    "ablate": (
        "What each part is worth",
        "One part of the agent is taken away, exchanged or added at a time, at equal environment steps. The difference "
        "is in the mean normalised score over a run's evaluations, over pairs of runs with the same task and seed; to "
        "the right, the change is better than the agent as it is. Grey intervals hold 0.",
        True,
    ),
    "defaults": (
        "What each default is worth",
        "One argument is changed at a time. The difference is in the mean return over a run's evaluations, over pairs "
        "of runs with the same task and seed; to the right, the change is better than the base. Grey intervals hold 0.",
        False,
    ),
}
"""Sweep that changes one thing at a time → its title, how to read it, and whether scores are normalised."""
_ARROWS = {1: " ↑", 0: "", -1: " ↓"}
REASONS: tuple[tuple[str, str], ...] = (
    ("`learning_rate=1e-3`", "as good as 2e-3 ({learning rate 1e-3}); 4e-3 is worse ({learning rate 4e-3})"),
    (
        "`updates_per_step=0.04`",
        "half as many learn much less ({updates_per_step 0.02}); twice as many learn more from a step "
        "({updates_per_step 0.08}) and take twice the time",
    ),
    (
        '`exploration="ucb"`, coefficient 0.02',
        "no explorer is better beyond its error: ε-greedy {ε-greedy}, Boltzmann {Boltzmann}, "
        "coefficients 0.1 {UCB 0.1} and 0.3 {UCB 0.3}",
    ),
    ("`lower_bound=False`", "no gain on average ({lower bound}), and not every task allows it"),
    ("`n_steps=1`", "three steps help where rewards come late and harm Sort ({3-step})"),
    (
        "`q_lambda=None`",
        "0.7 gains most of all where rewards come late ({Q(λ) 0.7}; Watkins's {Watkins's Q(λ) 0.7}) and loses on "
        "the main job, which is in no sweep: 0.687 against 0.708 on seed 0",
    ),
    ("`prioritized_replay=True`", "uniform replay is worse where rewards are rare ({uniform replay})"),
    ("`priority_alpha=0.6`", "1.0 is as good ({α 1.0})"),
    ("`tau=0.01`", "0.003 is worse ({τ 0.003}), 0.03 as good ({τ 0.03})"),
    ("no weight decay", "0.1 is as good ({weight decay 0.1}), so is 1 ({weight decay 1})"),
    ("`n_layers=2`", "one is as good on tasks this small ({1 layer}), three no better ({3 layers})"),
    ("`features_dim=64`", "32: {width 32}; 128: {width 128}"),
    (
        '`feature_map="softmax"`',
        "ReLU is as good here ({feature map relu}), but slower on longer copies: see `results/copy.jsonl`",
    ),
)
"""Default → why it is what it is; names of changes in braces stand for their differences."""


def variants(sweep: str) -> dict[str, tuple[Cell, ...]]:
    """Name → cells of the base, first, and of every change to it; the cells of all are in the same order.

    Args:
        sweep: ``"defaults"`` or ``"ablate"``.
    """
    if sweep == "ablate":
        return ablation()
    cells = SWEEPS[sweep]
    size = len(cells) // (len(FACTORS) + 1)  # cells of one variant
    names = [BASE_NAME, *(name for name, _ in FACTORS)]
    return {name: cells[number * size : (number + 1) * size] for number, name in enumerate(names)}


def described(sweep: str) -> Ablation:
    """What a sweep compares, as its file says it.

    Args:
        sweep: One of :data:`ABLATIONS`.
    """
    title, about, normalised = ABLATIONS[sweep]
    cells = {change: [cell.name for cell in cells] for change, cells in variants(sweep).items()}
    return Ablation(sweep, title, about, normalised, cells)


def markdown(found: Sequence[Effect]) -> str:
    """A page with the table, for ``docs/defaults.md``."""
    base = next(effect for effect in found if effect.is_base)
    lines = [
        "# What each default is worth",
        "",
        "Made by `python -m benchmarks sensitivity`, never by hand, from the runs of `python -m benchmarks run",
        "defaults`: one argument is changed at a time. A figure is the area under the learning curve: the mean greedy",
        "return of 20 evaluations over the run, averaged over the seeds. The difference to the base is over pairs",
        "with the same task and seed, with its standard error; beyond two errors it is in bold.",
        "",
        *_table(found, list(base.by_task)),
    ]
    named = {effect.name: str(effect) for effect in found}
    lines += ["", "What follows:", "", "| default | because |", "|---|---|"]
    lines += [f"| {default} | {_explained(reason, named)} |" for default, reason in REASONS]
    lines += ["", "Tasks and their budgets:", ""]
    lines += [f"* {_describe(cell)}" for cell in dict.fromkeys(_anonymous(cell) for cell in SWEEPS["defaults"])]
    lines += ["", f"The base: {_arguments(BASE)}.", ""]
    return "\n".join(lines)


def ablation_markdown(found: Sequence[Effect]) -> str:
    """A page about what each part of the agent is worth, for ``docs/ablation.md``."""
    lines = [
        "# What each part of the agent is worth",
        "",
        "Made by `python -m benchmarks ablate --page docs/ablation.md`, never by hand: one part of `DoubleDQN` is",
        "taken away, exchanged or added at a time, at equal environment steps. A figure is the area under the",
        "learning curve: the mean greedy score of 20 evaluations over the run, normalised so that 0 is a random",
        "policy and 1 the best known, averaged over three seeds; with an arrow where every seed is on the same side",
        "of the base. The difference to the base is over pairs with the same task and seed, with its standard error;",
        "beyond two errors it is in bold.",
        "",
        *_table(found, [task for task, _ in ABLATION_TASKS], arrows=True),
        "",
        "Tasks and their budgets:",
        "",
        *(f"* `{task}`: {steps:,} steps" for task, steps in ABLATION_TASKS),
        "",
        f"The base: {_arguments(BASE)}.",
        "",
    ]
    return "\n".join(lines)


def _table(found: Sequence[Effect], tasks: Sequence[str], arrows: bool = False) -> list[str]:
    def figure(effect: Effect, task: str) -> str:
        if task not in effect.by_task:
            return ""
        return f"{effect.by_task[task]:.3f}" + (_ARROWS[effect.agreed[task]] if arrows else "")

    lines = [
        "| change | " + " | ".join(_short(task) for task in tasks) + " | difference |",
        "|---|" + "---:|" * (len(tasks) + 1),
    ]
    for effect in found:
        areas = " | ".join(figure(effect, task) for task in tasks)
        lines.append(f"| {effect.name} | {areas} | {f'**{effect}**' if effect.clear else effect} |")
    return lines


def _explained(reason: str, named: dict[str, str]) -> str:
    """Put the differences in the place of the names in braces."""

    def difference(match: re.Match[str]) -> str:
        if match[1] not in {name for name, _ in FACTORS}:
            raise ValueError(f"REASONS must name changes of the sweep, got {match[1]!r}")
        return named.get(match[1], "not measured")

    return re.sub(r"\{(.*?)\}", difference, reason)


def _short(task: str) -> str:
    return f"`{task.removeprefix('TextGen/')}`"


def _anonymous(cell: Cell) -> tuple[str, str, int | None]:
    return cell.task, _arguments(cell.env_kwargs), cell.budget_steps


def _describe(task: tuple[str, str, int | None]) -> str:
    return f"`{task[0]}` with {task[1]}: {task[2]:,} steps"


def _arguments(kwargs: dict[str, Any]) -> str:
    return ", ".join(f"`{name}={value!r}`" for name, value in kwargs.items())
