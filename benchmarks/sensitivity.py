"""What each part of :class:`agents.DoubleDQN` is worth: sweeps that change one of them at a time, as a table.

Two sweeps do: ``"defaults"`` chose the values of arguments on small tasks, ``"ablate"`` tests the project's claims.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from agents.saving.results import Result
from benchmarks.sweep import ABLATION_BASE, ABLATION_TASKS, FACTORS, SWEEPS, Cell, ablation
from textgym import references

BASE_NAME = "base"
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


@dataclass(frozen=True)
class Effect:
    """What one change does, over the pairs of runs with the same task and seed.

    Attributes:
        name: The change; ``"base"`` for none.
        by_task: Task → mean area under the learning curve (the mean return of its evaluations) over the seeds.
        difference: Mean over all pairs of the area with the change minus that of the base.
        error: Standard error of ``difference``; 0 for the base.
        pairs: Number of pairs.
        agreed: Task → 1 or −1 where the change is above, or below, the base in every seed; 0 elsewhere.
    """

    name: str
    by_task: dict[str, float]
    difference: float
    error: float
    pairs: int
    agreed: dict[str, int]

    @property
    def clear(self) -> bool:
        """Whether the difference is beyond two standard errors."""
        return abs(self.difference) > 2 * self.error > 0

    def __str__(self) -> str:
        """The difference and its standard error, if there is one; nothing for the base."""
        if self.name == BASE_NAME:
            return ""
        return f"{self.difference:+.3f}" + (f" ± {self.error:.3f}" if self.pairs > 1 else "")


def area(result: Result) -> float:
    """Mean return of a run's evaluations after the first, which precedes all learning."""
    return fmean(score for _, _, score in result["curve"][1:])


def normalised_area(result: Result) -> float:
    """The same between the random policy, 0, and the best, 1, so that tasks can be averaged over.

    Raises:
        ValueError: If the task has no references, or is not played with its default arguments.
    """
    cell = result["cell"]
    known = None if cell["env_kwargs"] else references(cell["task"])
    if known is None:
        raise ValueError(f"task must be an id with references and without arguments, got {cell['task']!r}")
    return known.normalise(area(result))


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


def effects(results: Sequence[Result], sweep: str = "defaults") -> list[Effect]:
    """The effect of every change, the base first.

    Args:
        results: Results of the sweep; changes whose cells are missing are left out.
        sweep: ``"defaults"``, in mean returns, or ``"ablate"``, in normalised scores, over whatever cells of the base
            have been run.

    Raises:
        ValueError: If the base is not among them.
    """
    score = normalised_area if sweep == "ablate" else area
    areas = {result["name"]: score(result) for result in results}
    (_, base), *_ = cells_of = list(variants(sweep).items())
    there = [cell.name in areas for cell in base]
    if not any(there) or (sweep == "defaults" and not all(there)):
        raise ValueError(f"results must hold the base of the sweep {sweep!r}, such as {base[0].name}")
    found = []
    for name, cells in cells_of:
        pairs = [(one, two) for one, two in zip(cells, base, strict=True) if one.name in areas and two.name in areas]
        if not pairs:
            continue
        differences = [areas[one.name] - areas[two.name] for one, two in pairs]
        error = stdev(differences) / len(pairs) ** 0.5 if len(pairs) > 1 else 0.0
        by_task = {
            task: fmean(areas[one.name] for one, _ in pairs if one.task == task)
            for task in dict.fromkeys(one.task for one, _ in pairs)
        }
        agreed = {}
        for task in by_task:
            of = [difference for (one, _), difference in zip(pairs, differences, strict=True) if one.task == task]
            agreed[task] = int(min(of) > 0) - int(max(of) < 0)
        found.append(Effect(name, by_task, fmean(differences), error, len(pairs), agreed))
    return found


def markdown(found: Sequence[Effect]) -> str:
    """A page with the table, for ``docs/defaults.md``."""
    base = next(effect for effect in found if effect.name == BASE_NAME)
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
    lines += ["", f"The base: {_arguments(SWEEPS['defaults'][0].agent_kwargs)}.", ""]
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
        f"The base: {_arguments(ABLATION_BASE)}.",
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
