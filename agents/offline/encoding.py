"""Text of a task as its token ids: with its tokenizer, or by the texts of its symbols."""

from __future__ import annotations

import re
import reprlib

from textgym.tasks.base import Task
from textgym.tokenizers import Tokenizer


class TaskEncoder:
    """Encodes prompts and completions as a task writes them.

    Args:
        task: The task.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        tokenizer = getattr(task, "tokenizer", None)
        self._tokenizer = tokenizer if isinstance(tokenizer, Tokenizer) else None
        self._separator: int | None = getattr(task, "sep_id", None)
        # The first of equal texts: actions come before ids that only prompts have.
        self._ids: dict[str, int] = {}
        for token in range(task.pad_id):
            self._ids.setdefault(task.token_text(token), token)
        symbols = sorted(filter(None, self._ids), key=len, reverse=True)
        self._symbols = re.compile("|".join(map(re.escape, symbols)))

    def encode(self, text: str) -> list[int]:
        """Ids of a text.

        Raises:
            ValueError: If the text holds something that has no id.
        """
        if self._tokenizer is not None:
            try:
                return self._tokenizer.encode(text)
            except ValueError:
                pass  # "<sep>" and the like are the task's own
        if rest := self._symbols.sub("", text).strip():
            raise ValueError(
                f"text must consist of the task's tokens, got {reprlib.repr(rest)} in {reprlib.repr(text)}"
            )
        return [self._ids[symbol] for symbol in self._symbols.findall(text)]

    def prompt(self, text: str) -> list[int]:
        """Ids of a prompt, its separator included where the task has one."""
        ids = self.encode(text)
        if self._separator is not None and ids[-1:] != [self._separator]:
            ids.append(self._separator)
        return ids
