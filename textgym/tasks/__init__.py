"""The tasks, one a file, found by name and imported when first used."""

from __future__ import annotations

import importlib
from typing import Any

from textgym.tasks.base import Episodes, Prompts, Replies, Task

__all__ = ["TASKS", "Episodes", "Prompts", "Replies", "Task", "make_task"]

TASKS: dict[str, str] = {
    "copy": "textgym.tasks.copy:Copy",
    "reverse": "textgym.tasks.reverse:Reverse",
    "sort": "textgym.tasks.sort:Sort",
    "text_generation": "textgym.tasks.text_generation:TextGeneration",
    "addition": "textgym.tasks.addition:Addition",
    "brackets": "textgym.tasks.brackets:Brackets",
    "passkey": "textgym.tasks.passkey:Passkey",
    "recall": "textgym.tasks.recall:Recall",
    "spelling": "textgym.tasks.spelling:Spelling",
    "arithmetic": "textgym.tasks.arithmetic:Arithmetic",
    "guess_number": "textgym.tasks.guess_number:GuessNumber",
    "hangman": "textgym.tasks.hangman:Hangman",
    "json": "textgym.tasks.json_schema:Json",
    "sql": "textgym.tasks.sql:Sql",
    "classify": "textgym.tasks.classify:Classify",
    "keywords": "textgym.tasks.keywords:Keywords",
    "reasoning": "textgym.tasks.reasoning:Reasoning",
    "summary": "textgym.tasks.summary:Summary",
    "random_walks": "textgym.tasks.random_walks:RandomWalks",
    "star_graph": "textgym.tasks.star_graph:StarGraph",
    "wordle": "textgym.tasks.wordle:Wordle",
}
"""Task name → ``module:Class``."""


def make_task(task: str | type[Task] | Task, **kwargs: Any) -> Task:
    """Build a task from its name or class, or pass one through.

    Args:
        task: A name of :data:`TASKS`, a ``module:Class`` of your own, a subclass of :class:`Task`, or an instance.
        **kwargs: Constructor arguments of the task.

    Raises:
        ValueError: If the name is unknown, or arguments come with an instance.
        TypeError: If the task does not take one of the arguments; the message lists those it takes.
    """
    if isinstance(task, Task):
        if kwargs:
            raise ValueError(f"task is an instance already; it takes no further arguments, got {sorted(kwargs)}")
        return task
    if isinstance(task, str):
        path = TASKS.get(task, task)
        module_name, separator, class_name = path.partition(":")
        if not separator:
            raise ValueError(f"task must be one of {sorted(TASKS)} or a 'module:Class' path, got {task!r}")
        task = getattr(importlib.import_module(module_name), class_name)
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise ValueError(f"task must be a name, a Task subclass or a Task instance, got {task!r}")
    try:
        return task(**kwargs)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        import inspect

        accepted = [name for name in inspect.signature(task).parameters if name != "self"]
        raise TypeError(
            f"{task.__name__} does not take {sorted(set(kwargs) - set(accepted))}; it takes {accepted}"
        ) from None
