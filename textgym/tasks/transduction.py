"""The shared machinery of tasks that map a prompt of symbols to exactly one answer."""

from __future__ import annotations

import string
from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.random import RowStreams
from textgym.tasks.base import Prompts
from textgym.tasks.exact_answer import ExactAnswer


class Transduction(ExactAnswer):
    """Write the one right answer to a prompt of ``length`` symbols, then EOS.

    Subclasses say what the answer is in :meth:`answer`. The prompt has a fixed length, so no separator closes it.

    Args:
        length: Symbols in the prompt and in the answer (≥ 1).
        vocab_size: Number of symbols (≥ 1); EOS comes on top, so the action space is ``Discrete(vocab_size + 1)``.
        dense: Pay ``1 / (length + 1)`` for each right position and for the closing EOS; otherwise pay 1 for an exact
            answer when EOS is written, and nothing else.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, length: int = 6, vocab_size: int = 15, dense: bool = True) -> None:
        self.length = check_at_least("length", length, 1)
        self.n_symbols = check_at_least("vocab_size", vocab_size, 1)
        super().__init__(dense)
        self.vocab_size = self.n_symbols + 1
        self.eos_id = self.n_symbols
        self.pad_id = self.vocab_size
        self.max_new_tokens = self.length + 2
        self.context_length = self.length + self.max_new_tokens
        # Copying the prompt, or the answer in another order: one position stands in its place on average, each of
        # the others is right by chance, and EOS is.
        dense_bound = (2 + (self.length - 1) / self.n_symbols) / (self.length + 1)
        self.cheat_bound = dense_bound if self.dense else self.sparse_cheat_bound()

    @abstractmethod
    def answer(self, prompts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The right answers, shape ``(n, length)``, to prompts of the same shape."""

    def prompts(self, random: RowStreams) -> Prompts:
        """Symbols drawn uniformly and independently."""
        tokens = random.integers(self.n_symbols, (self.length,))
        # The answer, its EOS, and -1 where nothing can be right: one column for each action of the budget.
        target = np.full((len(tokens), self.max_new_tokens), -1, np.int32)
        target[:, : self.length] = self.answer(tokens)
        target[:, self.length] = self.eos_id
        return Prompts(tokens, np.full(len(tokens), self.length), self.answer_columns(target, self.length + 1))

    def sparse_cheat_bound(self) -> float:
        """Chance that a cheat happens to be the answer: that the prompt is a palindrome, or one symbol repeated."""
        return float(self.n_symbols) ** -(self.length // 2)

    def token_text(self, token: int) -> str:
        """A letter where the alphabet is long enough for the vocabulary, else a number."""
        if token == self.eos_id:
            return "<eos>"
        if token == self.pad_id:
            return "<pad>"
        return string.ascii_lowercase[token] if self.n_symbols <= 26 else str(token)
