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
        self._n_ids = task.pad_id if self._tokenizer is None else self._tokenizer.n_ids
        self._separator: int | None = getattr(task, "sep_id", None)
        # The first of equal texts: actions come before ids that only prompts have.
        self._ids: dict[str, int] = {}
        for token in range(task.pad_id):
            self._ids.setdefault(task.token_text(token), token)
        symbols = sorted(filter(None, self._ids), key=len, reverse=True)
        self._symbols = re.compile("|".join(map(re.escape, symbols)))
        special = [
            task.token_text(token) for token in range(task.pad_id) if token >= self._n_ids or token == task.eos_id
        ]
        self._special = re.compile(f"({'|'.join(map(re.escape, special))})")
        self._blanks = task.join(["a", "b"]) == "a b"  # between tokens

    def encode(self, text: str) -> list[int]:
        """Ids of a text.

        Raises:
            ValueError: If the text holds something that has no id.
        """
        if self._tokenizer is not None:
            try:
                return self._tokenizer.encode(text)
            except ValueError:
                ids: list[int] = []
                for place, piece in enumerate(self._special.split(text)):  # "<sep>" and the like are the task's own
                    ids += [self._ids[piece]] if place % 2 else self._tokenizer.encode(piece)
                return ids
        if rest := self._symbols.sub("", text).strip():
            raise ValueError(
                f"text must consist of the task's tokens, got {reprlib.repr(rest)} in {reprlib.repr(text)}"
            )
        end = 0
        for match in self._symbols.finditer(text):  # "foodmarket" is neither "food" nor "market"
            if self._blanks and 0 < end == match.start() and text[end - 1].isalnum() and match.group()[0].isalnum():
                raise ValueError(f"text must have blanks between its tokens, got {reprlib.repr(text)}")
            end = match.end()
        return [self._ids[symbol] for symbol in self._symbols.findall(text)]

    def prompt(self, text: str) -> list[int]:
        """Ids of a prompt, its separator included where the task has one."""
        ids = self.encode(text)
        if self._separator is not None and ids[-1:] != [self._separator]:
            ids.append(self._separator)
        return ids
