"""Charts as inline SVG: colours are CSS variables, so that they follow the page into the dark, and text stays text."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from agents.application.report.charts import (
    Chart,
    DotChart,
    Line,
    LineChart,
    Row,
    Style,
    linear_ticks,
    log_ticks,
    number,
    short,
)

_WIDTH, _HEIGHT = 460, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 14, 10, 46
_ROW, _TEXT_LINE, _DOT_LEFT, _DOT_RIGHT = 41, 16, 12, 14
_LETTER = 7.6
"""Width of a letter at the size of a phone, on the generous side."""
_LINEAR_BELOW = 1_000.0
Scale = Callable[[float], float]


def draw(chart: Chart) -> str:
    """The chart as an ``<svg>`` element; its title and legend are the page's business."""
    return _line_chart(chart) if isinstance(chart, LineChart) else _dot_chart(chart)


def swatch(style: Style) -> str:
    """A short piece of a line, for legends."""
    return (
        f'<svg class="swatch" viewBox="0 0 34 12" aria-hidden="true"><line x1="1" x2="33" y1="6" y2="6" '
        f'class="line c{style.slot}"{_dashes(style)}/></svg>'
    )


def _line_chart(chart: LineChart) -> str:
    x_all = np.concatenate([line.x for line in chart.lines])
    x_low, x_high = float(min(0.0, x_all.min())), float(x_all.max()) or 1.0
    y_low, y_high = _y_range(chart)
    warp = _symlog if chart.x_scale == "symlog" else _identity
    x = _scale(warp(x_low), warp(x_high), _LEFT, _WIDTH - _RIGHT)
    y = _scale(y_low, y_high, _HEIGHT - _BOTTOM, _TOP)

    def place(value: float) -> float:
        return x(warp(value))

    parts = []
    for tick in linear_ticks(y_low, y_high):
        parts.append(_line("grid", _LEFT, _WIDTH - _RIGHT, y(tick), y(tick)))
        parts.append(_text(_LEFT - 7, y(tick) + 4, short(tick), "end"))
    ticks = _symlog_ticks(x_high) if chart.x_scale == "symlog" else linear_ticks(x_low, x_high)
    for tick in ticks:
        parts.append(_line("tick", place(tick), place(tick), _HEIGHT - _BOTTOM, _HEIGHT - _BOTTOM + 4))
        parts.append(_text(place(tick), _HEIGHT - _BOTTOM + 17, short(tick)))
    parts.append(_line("axis", _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, _HEIGHT - _BOTTOM))
    for height, _ in chart.guides:
        parts.append(_line("guide", _LEFT, _WIDTH - _RIGHT, y(height), y(height)))
    for line in reversed(chart.lines):  # the first one, ours, on top
        parts.append(_curve(line, place, y, chart.ends))
    drawn = [(place(at), y(value)) for line in chart.lines for at, value in zip(line.x, line.y, strict=True)]
    parts += [_guide_name(name, y(height), drawn) for height, name in chart.guides]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, chart.x_label, css="label"))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text class="label" text-anchor="middle" transform="translate(12 {middle:g}) rotate(-90)">'
        f"{escape(chart.y_label)}</text>"
    )
    parts.append(f'<line class="cursor" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" x1="0" x2="0"/><g class="cursors"></g>')
    points = [_points(line, place, y) for line in chart.lines]
    names = ", ".join(line.style.label for line in chart.lines)
    about = f"{chart.title}: {chart.y_label} against {chart.x_label}; {names}. Arrow keys read the values."
    return (
        f'<svg class="chart lines" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" tabindex="0" '
        f'aria-label="{escape(about)}" data-points="{escape(json.dumps(points, separators=(",", ":")))}" '
        f'data-unit="{escape(chart.x_label.split(",")[0])}">{"".join(parts)}</svg>'
    )


def _guide_name(name: str, height: float, drawn: list[tuple[float, float]]) -> str:
    """The name of a horizontal line, at the end and on the side of it where it hides the least of the curves."""
    width = len(name) * 6.5

    def hidden(place: tuple[float, float, str]) -> int:
        x, y, anchor = place
        left = x - width if anchor == "end" else x
        return sum(left <= at <= left + width and y - 12 <= value <= y + 4 for at, value in drawn)

    ends = ((_WIDTH - _RIGHT - 2, "end"), (_LEFT + 4, "start"))
    places = [(x, height + shift, anchor) for shift in (-4.0, 13.0) for x, anchor in ends]
    x, y, anchor = min(places, key=hidden)
    return _text(x, y, name, anchor, "note")


def _curve(line: Line, x: Scale, y: Scale, end_dot: bool) -> str:
    xs = [x(value) for value in line.x]
    path = _path(xs, [y(value) for value in line.y])
    band = ""
    if line.low is not None and line.high is not None:
        upper, lower = _path(xs, [y(v) for v in line.high]), _path(xs[::-1], [y(v) for v in line.low[::-1]])
        band = f'<path class="band c{line.style.slot}" d="{upper}L{lower[1:]}Z"/>'
    end = f'<circle class="dot c{line.style.slot}" r="3.5" cx="{xs[-1]:.1f}" cy="{y(line.y[-1]):.1f}"/>' * end_dot
    return (
        f'<g class="series s{line.style.slot}">{band}<path class="line c{line.style.slot}" d="{path}"'
        f"{_dashes(line.style)}/>{end}</g>"
    )


def _points(line: Line, x: Scale, y: Scale) -> dict[str, object]:
    """What the page's script shows where the pointer is: place, and the values in words."""
    rows = []
    for index, (at, value) in enumerate(zip(line.x, line.y, strict=True)):
        words = f"{value:.3f}"
        if line.low is not None and line.high is not None:
            words += f" ({line.low[index]:.3f}–{line.high[index]:.3f})"
        rows.append([round(x(at), 1), round(y(value), 1), number(round(float(at), 3)), words])
    return {"name": line.style.label, "slot": line.style.slot, "points": rows}


def _dot_chart(chart: DotChart) -> str:
    values = [
        value
        for row in chart.rows
        for value in (row.value, row.low, row.high, *(mark for mark, _ in row.marks))
        if value is not None
    ]
    values += [*(chart.x_range or ()), *([chart.guide[0]] if chart.guide else [])]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if chart.scale == "log":
        low, high = low / 1.15, high * 1.3
        ticks = log_ticks(low, high)
        if not chart.bars and ticks:  # round ends, where they are near
            low, high = min(low, ticks[0]), max(high, ticks[-1])
    else:
        margin = 0.02 * ((high - low) or 1.0)
        low, high = low - margin, high + margin
        ticks = linear_ticks(low, high)
    warp = _log if chart.scale == "log" else _identity
    scale = _scale(warp(low), warp(high), _DOT_LEFT, _WIDTH - _DOT_RIGHT)

    def x(value: float) -> float:
        return scale(warp(value))

    room = _WIDTH - _DOT_LEFT - _DOT_RIGHT
    below = any((len(row.label) + len(row.text) + 2) * _LETTER > room for row in chart.rows)
    row_height = _ROW + _TEXT_LINE * below
    bottom = row_height * len(chart.rows) + 12
    parts = []
    for tick in ticks:
        parts.append(_line("grid", x(tick), x(tick), 8, bottom))
        parts.append(_text(x(tick), bottom + 15, short(tick)))
    if chart.guide and not chart.bars:  # bars begin there, which is line enough
        parts.append(_line("zero", x(chart.guide[0]), x(chart.guide[0]), 4, bottom))
    for index, row in enumerate(chart.rows):
        parts.append(_dot_row(row, x, 14 + row_height * index, chart, below))
    parts.append(_line("axis", _DOT_LEFT, _WIDTH - _DOT_RIGHT, bottom, bottom))
    parts.append(_text(_WIDTH / 2, bottom + 34, chart.x_label, css="label"))
    about = f"{chart.title}. " + "; ".join(f"{row.label}: {row.text}" for row in chart.rows)
    return (
        f'<svg class="chart dots" viewBox="0 0 {_WIDTH} {bottom + 42}" role="img" aria-label="{escape(about)}">'
        f"{''.join(parts)}</svg>"
    )


def _dot_row(row: Row, x: Scale, top: float, chart: DotChart, below: bool) -> str:
    """A row: its words, beside or ``below`` one another, and what they are about under them."""
    slot, middle = row.style.slot, top + 15 + _TEXT_LINE * below
    most = int((_WIDTH - _DOT_LEFT - _DOT_RIGHT) / _LETTER)
    name = row.label if len(row.label) <= most else row.label[: most - 1] + "…"
    parts = [_text(_DOT_LEFT, top, name, "start", "name")]
    if below:
        parts.append(_text(_DOT_LEFT, top + _TEXT_LINE, row.text, "start", "value"))
    else:
        parts.append(_text(_WIDTH - _DOT_RIGHT, top, row.text, "end", "value"))
    if chart.bars and row.value is not None and chart.guide is not None:
        start, end = sorted((x(chart.guide[0]), x(row.value)))
        parts.append(
            f'<rect class="bar c{slot}" x="{start:.1f}" y="{middle - 6:g}" width="{end - start:.1f}" height="11"/>'
        )
    if row.low is not None and row.high is not None:
        parts.append(_line(f"whisker c{slot}", x(row.low), x(row.high), middle, middle))
    for value, exact in row.marks:
        if exact:
            parts.append(f'<circle class="mark c{slot}" cx="{x(value):.1f}" cy="{middle:g}" r="4"/>')
        else:  # an arrow: at least so long
            parts.append(
                f'<path class="censored c{slot}" d="M{x(value):.1f} {middle:g}h9m-4 -4l4 4l-4 4"/>'
                f'<circle class="censored c{slot}" cx="{x(value):.1f}" cy="{middle:g}" r="3.5"/>'
            )
    if row.value is not None and not chart.bars:
        if row.marks:  # the median among its runs
            parts.append(_line(f"median c{slot}", x(row.value), x(row.value), middle - 8, middle + 8))
        else:
            parts.append(f'<circle class="dot c{slot}" cx="{x(row.value):.1f}" cy="{middle:g}" r="5"/>')
    label = escape(f"{row.label}: {row.text}")
    return f'<g class="row s{slot}"><title>{label}</title>{"".join(parts)}</g>'


def _y_range(chart: LineChart) -> tuple[float, float]:
    values = [line.y for line in chart.lines]
    values += [edge for line in chart.lines for edge in (line.low, line.high) if edge is not None]
    values.append(np.array([height for height, _ in chart.guides] + [0.0]))
    low = float(min(part.min() for part in values))
    high = float(max(part.max() for part in values))
    margin = 0.05 * ((high - low) or 1.0)
    return (low - margin if low < 0 else 0.0), high + margin


def _symlog_ticks(high: float) -> list[float]:
    if high <= 3 * _LINEAR_BELOW:
        return linear_ticks(0.0, high)
    ticks = [0.0, *(10.0**exponent for exponent in range(3, 13) if 10.0**exponent <= high)]
    return ticks if len(ticks) > 3 else sorted({*ticks, *(3 * tick for tick in ticks if 0 < 3 * tick <= high)})


def _symlog(value: float) -> float:
    """Linear up to a thousand, which takes the place of half a power of ten, then logarithmic."""
    if value <= _LINEAR_BELOW:
        return 0.5 * value / _LINEAR_BELOW
    return 0.5 + float(np.log10(value / _LINEAR_BELOW))


def _identity(value: float) -> float:
    return value


def _log(value: float) -> float:
    return float(np.log10(value))


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _path(xs: list[float], ys: list[float] | NDArray[np.float64]) -> str:
    points = [(round(float(x), 1), round(float(y), 1)) for x, y in zip(xs, ys, strict=True)]
    kept = points[:1] + [after for before, after in pairwise(points) if before != after]
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in kept)


def _line(css: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle", css: str = "number") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _dashes(style: Style) -> str:
    return f' stroke-dasharray="{" ".join(f"{length:g}" for length in style.dash)}"' if style.dash else ""
