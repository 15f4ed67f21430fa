"""``textgym demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agents.application.options import Trust


def demo(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN_OR_MODEL]...", help="A run folder or a model to watch; two to compare."),
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, show_default="the first free from 7860")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    trust: Trust = False,
) -> None:
    """Open a local page: play tasks token by token, watch an agent write, put two side by side, steer a model."""
    from agents.application.demo.page import open_page

    open_page(paths or [], port, browser, trust)
