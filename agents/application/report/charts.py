"""What a figure shows, apart from how it is drawn: ``svg`` and ``paper`` draw the same objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Style:
    """How an agent looks, everywhere in a report.

    Attributes:
        label: Its name.
        slot: Its place in :data:`COLOURS`.
        dash: Lengths of dash and gap, so that lines differ without their colours; none for a whole line.
    """

    label: str
    slot: int
    dash: tuple[float, ...] = ()


COLOURS = (
    ("#C94F00", "#FF9350"),
    ("#0072B2", "#63B3FF"),
    ("#007E5B", "#2FCFA0"),
    ("#A8487F", "#F094C8"),
    ("#2E86B5", "#8AD5FF"),
    ("#8A6D00", "#E5C33B"),
    ("#6A5ACD", "#B3A6FF"),
    ("#5C6670", "#AEB9C4"),
    ("#9C2F2F", "#FF8A8A"),
    ("#3E7D1F", "#A5DB6B"),
)
"""Colours for a light and for a dark page: after Okabe and Ito, darkened or lightened to 3 : 1 against the page."""
GREY = 7
"""The place of grey, for what is no agent."""
_DASHES: tuple[tuple[float, ...], ...] = ((), (7, 3), (2, 3), (9, 3, 2, 3), (5, 2, 2, 2, 2, 2))
LABELS = {
    "ours": "DoubleDQN (ours)",
    "ppo-performer": "PPO + Performer",
    "dqn-performer": "DQN + Performer",
    "dqn-mlp": "DQN + MLP",
    "ppo-mlp": "PPO + MLP",
    "maskable-ppo-mlp": "MaskablePPO + MLP",
    "recurrent-ppo-mlp": "RecurrentPPO + MLP",
    "a2c-mlp": "A2C + MLP",
    "qrdqn-mlp": "QR-DQN + MLP",
}
OURS = "ours"


def styles(agents: Sequence[str]) -> dict[str, Style]:
    """A style for each agent, the known ones first and always alike.

    Args:
        agents: Names as in :attr:`benchmarks.cells.Cell.agent`, perhaps with arguments behind.
    """
    known = [agent for agent in LABELS if agent in agents]
    others = [agent for agent in dict.fromkeys(agents) if agent not in LABELS]
    places = {agent: place for place, agent in enumerate(LABELS)}
    slots = [slot for slot in range(len(COLOURS)) if slot != GREY]
    chosen = {
        agent: Style(LABELS[agent], slots[places[agent]], _DASHES[places[agent] % len(_DASHES)]) for agent in known
    }
    free = [slot for slot in slots if slot not in {style.slot for style in chosen.values()}]
    for number, agent in enumerate(others):
        name, _, arguments = agent.partition(" ")
        label = " ".join(filter(None, (LABELS.get(name, name), arguments)))
        slot = free[number % len(free)] if free else number % len(COLOURS)
        chosen[agent] = Style(label, slot, _DASHES[(number + 1) % len(_DASHES)])
    return chosen


@dataclass(frozen=True)
class Line:
    """One line, with a band where ``low`` and ``high`` are given; all of shape (N,)."""

    style: Style
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class LineChart:
    """Lines over a common axis.

    Attributes:
        key: Name of its file.
        title: What it shows.
        x_label: With the unit.
        y_label: With the unit.
        lines: At least one.
        x_scale: ``"symlog"`` is linear below a thousand and logarithmic beyond, so that it can begin at 0.
        guides: Heights of horizontal lines, with their names.
        ends: Whether to mark where each line ends.
    """

    key: str
    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    x_scale: Literal["linear", "symlog"] = "linear"
    guides: tuple[tuple[float, str], ...] = ()
    ends: bool = True


@dataclass(frozen=True)
class Row:
    """A row of a :class:`DotChart`.

    Attributes:
        label: What it is about.
        text: The value in words.
        style: Its look.
        value: Where the dot, or the bar's end, is; None for none.
        low: Where the interval begins; None for none.
        high: Where it ends.
        marks: Single runs, and whether each is exact; those that are not point to the right.
    """

    label: str
    text: str
    style: Style
    value: float | None = None
    low: float | None = None
    high: float | None = None
    marks: tuple[tuple[float, bool], ...] = ()


@dataclass(frozen=True)
class DotChart:
    """Values with intervals, one a row.

    Attributes:
        key: Name of its file.
        title: What it shows.
        x_label: With the unit.
        rows: At least one.
        scale: Of the axis.
        guide: Where to draw a vertical line, and its name; None for none.
        bars: Whether to draw bars from the guide instead of dots.
        x_range: What the axis shows at least.
    """

    key: str
    title: str
    x_label: str
    rows: tuple[Row, ...]
    scale: Literal["linear", "log"] = "linear"
    guide: tuple[float, str] | None = None
    bars: bool = False
    x_range: tuple[float, float] | None = None


Chart = LineChart | DotChart


@dataclass(frozen=True)
class Table:
    """Plain text in rows and columns; ``numeric`` are the indices of columns that are aligned to the right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = field(default_factory=frozenset)


def number(value: float) -> str:
    """A number for people: three significant digits, thousands with commas."""
    if value == 0:
        return "0"
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"


def counted(n: int, what: str) -> str:
    """A number of things in words: 1 run, 2 runs."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def short(value: float) -> str:
    """A number where there is little room: 20k, 1.5M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:g}"


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most about ``most``."""
    span = max(high - low, 1e-12)
    power = 10.0 ** np.floor(np.log10(span / most))
    step = next(size * power for size in (1, 2, 2.5, 5, 10, 20) if span / (size * power) <= most)
    return [round(float(tick), 12) + 0.0 for tick in np.arange(np.ceil(low / step - 1e-9), high / step + 1e-9) * step]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two positive numbers; with twos and fives where there are few."""
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        ticks = [factor * 10.0**e for e in exponents for factor in factors]
        ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(ticks) >= 3:
            break
    return ticks
