"""The documentation that is made, never written: a table of all ids, and one page a task from its docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping

from textgym.registration import ENVIRONMENTS, references
from textgym.tasks import TASKS, make_task

_HEADER = ("id", "actions", "budget", "context", "random", "blind", "best")


def markdown_table(env_ids: Iterable[str] | None = None, link: str = "") -> str:
    """Ids with their sizes and reference scores, as a Markdown table.

    Args:
        env_ids: Which ids; None for all.
        link: Folder of the task pages, to make each id a link; empty for none.
    """
    wanted = None if env_ids is None else set(env_ids)
    lines = [f"| {' | '.join(_HEADER)} |", f"|---|{'---:|' * (len(_HEADER) - 1)}"]
    for row in ENVIRONMENTS:
        if wanted is None or row.id in wanted:
            name = f"[`{row.id}`]({link}/{row.task}.md)" if link else f"`{row.id}`"
            lines.append(f"| {name} | {' | '.join(_figures(row.id, row.task, row.kwargs))} |")
    return "\n".join(lines)


def task_pages() -> Mapping[str, str]:
    """One Markdown page for each task: file name → content, made from the class's docstring."""
    import importlib

    pages = {}
    for name, path in TASKS.items():
        module, _, class_name = path.partition(":")
        task_class = getattr(importlib.import_module(module), class_name)
        ids = [row.id for row in ENVIRONMENTS if row.task == name]
        text = _to_markdown(inspect.getdoc(task_class) or "")
        pages[f"{name}.md"] = f"# {class_name}\n\n{text}\n\n## Registered ids\n\n{markdown_table(ids)}\n"
    return pages


def task_summary(task: str, **kwargs: object) -> Mapping[str, object]:
    """What :meth:`textgym.Task.summary` says; None for each size where an optional package is missing."""
    try:
        return make_task(task, **kwargs).summary()
    except ModuleNotFoundError:  # a list of all ids must not depend on extras
        return dict.fromkeys(("vocabulary", "budget", "context"))


def _figures(env_id: str, task_name: str, kwargs: Mapping[str, object]) -> list[str]:
    sizes = ["–" if size is None else f"{size:,}" for size in task_summary(task_name, **kwargs).values()]
    scores = references(env_id)
    if scores is None:
        return [*sizes, "–", "–", "–"]
    return [*sizes, *(f"{s:.3f}" for s in (scores.random, scores.blind, scores.best))]


def _to_markdown(docstring: str) -> str:
    """Sphinx roles and double backticks become plain code; the headings lie one level below the page's title."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", docstring)
    return text.replace("``", "`")
