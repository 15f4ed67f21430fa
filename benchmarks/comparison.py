"""A figure beside its alternative, and how both are timed: the shared part of the speed measurements."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One comparison.

    Attributes:
        name: What is measured.
        unit: Unit of ``value`` and ``other``.
        value: Ours.
        other: The alternative's, or None.
        against: What the alternative is.
        ratio: How many times as good ours is, or as costly where ``at_most``; None without an alternative.
        bar: What the ratio, or else the value, must reach; None for none.
        at_most: Whether the bar is an upper one.
    """

    name: str
    unit: str
    value: float
    other: float | None = None
    against: str = ""
    ratio: float | None = None
    bar: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; None where there is none."""
        if self.bar is None:
            return None
        measured = self.value if self.ratio is None else self.ratio
        return measured <= self.bar if self.at_most else measured >= self.bar


def best_rates(
    contestants: Mapping[str, Callable[[], int]], repeats: int, deadline: float = math.inf
) -> dict[str, float]:
    """Units a second of each contestant in its fastest repeat; they return their units, and take turns.

    A first turn of each warms up and does not count. After ``deadline``, on :func:`time.perf_counter`'s clock, no round
    begins but the first that counts.
    """
    best = dict.fromkeys(contestants, 0.0)
    for repeat in range(repeats + 1):
        if repeat > 1 and time.perf_counter() > deadline:
            break
        for name, work in contestants.items():
            start = time.perf_counter()
            units = work()
            rate = units / (time.perf_counter() - start)
            if repeat:
                best[name] = max(best[name], rate)
    return best


def print_table(title: str, rows: Sequence[Mapping[str, float | str]]) -> None:
    """Print figures as a table with one column for each key."""
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)


def print_figures(measured: dict[str, Any]) -> None:
    """Print what :func:`measure` returned as a table."""
    table = Table(
        "what", "ours", "other", "unit", "ratio", "bar", "", title=f"{measured['machine']['threads']} thread(s)"
    )
    for row in measured["figures"]:
        other = "" if row["other"] is None else f"{_number(row['other'])} ({row['against']})"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}×"
        bar = "" if row["bar"] is None else f"{'≤' if row['at_most'] else '≥'} {_number(row['bar'])}"
        mark = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[row["met"]]
        table.add_row(row["name"], _number(row["value"]), other, row["unit"], ratio, bar, mark)
    Console().print(table)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"
