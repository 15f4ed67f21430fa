"""``textgym doctor``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show versions, threads, devices and optional extras, and what is missing; exit code 1 if TextGym cannot run."""
    from agents.application.doctor import diagnose

    found = diagnose()
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for name in ("python", "platform", "cpus", "torch_threads"):
            table.add_row(name.replace("_", " "), str(found[name]))
        table.add_row("devices", ", ".join(found["devices"]))
        table.add_row("packages", ", ".join(f"{name} {version}" for name, version in found["packages"].items()))
        for extra, lines in found["extras"].items():
            table.add_row(f"extra {extra}", "complete" if not lines else f"[yellow]{'; '.join(lines)}[/yellow]")
        for tool, where in found["tools"].items():
            table.add_row(tool, where)
        Console().print(table)
        for problem in found["problems"]:
            print(f"textgym: error: {problem}", file=sys.stderr)
        print("TextGym cannot run." if found["problems"] else "All that TextGym needs is there.")
    if found["problems"]:
        raise typer.Exit(1)
