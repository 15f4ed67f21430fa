"""What one change to an agent does: differences over pairs of runs with the same task and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from agents.saving.results import Ablation, Result
from textgym import references


@dataclass(frozen=True)
class Effect:
    """What one change does, over the pairs of runs with the same task and seed.

    Attributes:
        name: The change.
        by_task: Task → mean area under the learning curve (the mean return of its evaluations) over the seeds.
        difference: Mean over all pairs of the area with the change minus that of the base.
        error: Standard error of ``difference``; 0 for the base.
        pairs: Number of pairs.
        agreed: Task → 1 or −1 where the change is above, or below, the base in every seed; 0 elsewhere.
        is_base: Whether this is the base itself.
    """

    name: str
    by_task: dict[str, float]
    difference: float
    error: float
    pairs: int
    agreed: dict[str, int]
    is_base: bool = False

    @property
    def clear(self) -> bool:
        """Whether the difference is beyond two standard errors."""
        return abs(self.difference) > 2 * self.error > 0

    def __str__(self) -> str:
        """The difference and its standard error, if there is one; nothing for the base."""
        if self.is_base:
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


def effects(results: Sequence[Result], ablation: Ablation) -> list[Effect]:
    """The effect of every change, the base first.

    Args:
        results: Results of the sweep. A change is compared over the pairs whose runs are both there, and left out if
            there is none.
        ablation: What the sweep compares.

    Raises:
        ValueError: If no run of the base is among them.
    """
    score = normalised_area if ablation.normalised else area
    there = {result["name"]: result for result in results}
    base = ablation.cells[ablation.base]
    if not there.keys() & set(base):
        raise ValueError(f"results must hold the base of the sweep {ablation.name!r}, such as {base[0]}")
    areas = {name: score(there[name]) for names in ablation.cells.values() for name in names if name in there}
    found = []
    for change, names in ablation.cells.items():
        pairs = [(one, two) for one, two in zip(names, base, strict=True) if one in areas and two in areas]
        if not pairs:
            continue
        by_task: dict[str, list[tuple[float, float]]] = {}
        for one, two in pairs:
            by_task.setdefault(there[one]["cell"]["task"], []).append((areas[one], areas[one] - areas[two]))
        differences = [areas[one] - areas[two] for one, two in pairs]
        found.append(
            Effect(
                change,
                {task: fmean(of for of, _ in values) for task, values in by_task.items()},
                fmean(differences),
                stdev(differences) / len(pairs) ** 0.5 if len(pairs) > 1 else 0.0,
                len(pairs),
                {
                    task: int(min(of for _, of in values) > 0) - int(max(of for _, of in values) < 0)
                    for task, values in by_task.items()
                },
                change == ablation.base,
            )
        )
    return found
