"""``textgym report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agents.application.options import TrustReward


def report(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RUN_OR_RESULTS...", help="Run folders, results of benchmarks, timings.")
    ],
    out: Annotated[Path, typer.Option(help="The page, one file that opens without a network.")] = Path("report.html"),
    figures: Annotated[
        Path | None, typer.Option(help="Write its figures as PNG and SVG into this folder too (needs matplotlib).")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Fresh episodes to look into, for each run.")] = 36,
    trust: TrustReward = False,
) -> None:
    """Write a page about training runs and benchmark results: curves, statistics, every token's values."""
    from agents.application.report import report as write

    print(f"wrote {write(paths, out, figures, episodes, trust)}")
