"""The same charts for papers, as PNG and SVG. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agents.application.report.charts import COLOURS, Chart, DotChart, LineChart, short
from agents.saving.files import atomic_write
from agents.tuning.plot_style import PLOT_STYLE

FORMATS = ("png", "svg")
_STYLE: Any = PLOT_STYLE | {
    "font.size": 10,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar in a text is a dollar
}


def save(charts: Iterable[Chart], folder: Path) -> list[Path]:
    """Draw every chart into ``folder``, which is made, as ``<key>.png`` and ``<key>.svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context(_STYLE):
        for chart in charts:
            figure = _line_figure(chart) if isinstance(chart, LineChart) else _dot_figure(chart)
            for suffix in FORMATS:
                path = folder / f"{chart.key}.{suffix}"
                with atomic_write(path) as temporary:
                    metadata: Any = {"Date": None} if suffix == "svg" else None  # the same file every time
                    figure.savefig(temporary, dpi=150, facecolor="white", metadata=metadata)
                written.append(path)
    return written


def save_grid(rows: Sequence[Sequence[LineChart]], path: Path) -> None:
    """Draw charts of lines in rows and columns of one picture, under one legend.

    Args:
        rows: The charts, the same number in every row.
        path: The picture, ``.png``, ``.svg`` or ``.pdf``; it is replaced in one go.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.2 * len(rows[0]), 0.9 + 3.6 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), len(rows[0]), squeeze=False, sharey="row")
        handles: dict[str, Any] = {}
        for row, charts in zip(grid, rows, strict=True):
            for axes, chart in zip(row, charts, strict=True):
                _draw_lines(axes, chart)
                for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                    handles.setdefault(label, handle)
        labels = list(reversed(handles))
        columns = min(len(labels), 4)
        figure.legend(
            [handles[label] for label in labels], labels, loc="outside lower center", ncols=columns, frameon=False
        )
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=150, facecolor="white")


def _line_figure(chart: LineChart) -> Figure:
    figure = Figure(figsize=(5.2, 4.0), layout="constrained")
    axes = figure.subplots()
    _draw_lines(axes, chart)
    if len(chart.lines) > 1:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _draw_lines(axes: Axes, chart: LineChart) -> None:
    for order, line in enumerate(reversed(chart.lines)):
        colour = COLOURS[line.style.slot][0]
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0, zorder=2 + order)
        dashes: Any = (0, line.style.dash) if line.style.dash else "-"
        axes.plot(
            line.x, line.y, color=colour, linestyle=dashes, label=line.style.label, zorder=3 + order, linewidth=1.8
        )
    for height, name in chart.guides:
        axes.axhline(height, color="#777777", linewidth=1, linestyle=":")
        place = axes.get_yaxis_transform()
        axes.text(1.0, height, name, fontsize=8, color="#666666", ha="right", va="bottom", transform=place)
    if chart.x_scale == "symlog":
        axes.set_xscale("symlog", linthresh=1_000, linscale=0.5)
        most = max(float(line.x.max()) for line in chart.lines)
        ticks = [0.0, *(10.0**power for power in range(3, 10) if 10**power <= most)]
        axes.set_xticks(ticks, [short(tick) for tick in ticks])
        axes.minorticks_off()
    axes.set_xlim(left=min(0.0, *(float(line.x.min()) for line in chart.lines)))
    _labels(axes, chart)
    axes.set_ylabel(chart.y_label)


def _dot_figure(chart: DotChart) -> Figure:
    figure = Figure(figsize=(7.2, 1.2 + 0.36 * len(chart.rows)), layout="constrained")
    axes = figure.subplots()
    if chart.scale == "log":
        axes.set_xscale("log")
    for place, row in enumerate(chart.rows):
        colour = COLOURS[row.style.slot][0]
        if chart.bars and row.value is not None and chart.guide is not None:
            axes.barh(place, row.value - chart.guide[0], left=chart.guide[0], color=colour, height=0.55)
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=3, alpha=0.5)
        for value, exact in row.marks:
            marker, face = ("o", colour) if exact else (">", "none")
            axes.plot(value, place, marker, color=colour, markerfacecolor=face, markersize=6, alpha=0.8)
        if row.value is not None and not chart.bars:
            axes.plot(row.value, place, "|" if row.marks else "o", color=colour, markersize=14 if row.marks else 7)
    if chart.guide is not None:
        axes.axvline(chart.guide[0], color="#333333", linewidth=1, linestyle="--")
    if chart.x_range is not None:
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, chart.x_range[0]), max(high, chart.x_range[1]))
    axes.set_yticks(range(len(chart.rows)), [row.label for row in chart.rows])
    axes.set_ylim(len(chart.rows) - 0.4, -0.6)
    _labels(axes, chart)
    return figure


def _labels(axes: Axes, chart: Chart) -> None:
    axes.set_title(chart.title, loc="left", fontsize=10, fontweight="bold", wrap=True)
    axes.set_xlabel(chart.x_label)
