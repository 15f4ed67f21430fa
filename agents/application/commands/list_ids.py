"""``textgym list``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from agents.saving.files import write_text, writing


def list_ids(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    pages: Annotated[Path | None, typer.Option(help="Write a Markdown page for every task to this folder.")] = None,
) -> None:
    """Show every environment: vocabulary, budget, context, reference scores."""
    if markdown or pages is not None:
        from textgym.documentation import markdown_table, task_pages

        if pages is not None:
            with writing("--pages", pages, "folder"):
                pages.mkdir(parents=True, exist_ok=True)
                for name, page in task_pages().items():
                    write_text(pages / name, page)
        if markdown:
            print(markdown_table())
        return
    rows = [_describe(env_id) for env_id in _env_ids()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("id", box=None, pad_edge=False)
    for name in ("vocabulary", "budget", "context", "random", "blind", "best"):
        table.add_column(name, justify="right", no_wrap=True)
    table.columns[0].no_wrap = True
    for row in rows:
        known = row["references"] or {}
        scores = (f"{known[name]:.3f}" if name in known else "–" for name in ("random", "blind", "best"))
        table.add_row(
            row["id"],
            *("–" if row[name] is None else str(row[name]) for name in ("vocabulary", "budget", "context")),
            *scores,
        )
    Console().print(table)


def _env_ids() -> list[str]:
    from textgym import env_ids

    return env_ids()


def _describe(env_id: str) -> dict[str, Any]:
    import gymnasium as gym

    from textgym import references
    from textgym.documentation import task_summary

    spec = gym.spec(env_id)
    known = references(env_id)
    return {
        "id": env_id,
        **task_summary(**spec.kwargs),
        "reward_threshold": spec.reward_threshold,
        "references": None
        if known is None
        else {"random": known.random, "blind": known.blind, "best": known.best, "sources": known.sources},
    }
