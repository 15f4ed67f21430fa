"""The shared machinery of tasks that map a prompt of symbols to exactly one answer."""

from __future__ import annotations

import string
from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from textgym.random import RowStreams
from textgym.tasks.base import Episodes, Prompts, Task, check_at_least


class Transduction(Task):
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
        self.dense = bool(dense)
        self.vocab_size = self.n_symbols + 1
        self.eos_id = self.n_symbols
        self.pad_id = self.vocab_size
        self.max_new_tokens = self.length + 2
        self.context_length = self.length + self.max_new_tokens

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
        return Prompts(tokens, np.full(len(tokens), self.length), {"target": target})

    def step_reward(self, episodes: Episodes, actions: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """``1 / (length + 1)`` for each token that stands where it belongs (dense variant)."""
        if not self.dense:
            return None
        expected = episodes.columns["target"][np.arange(len(actions)), episodes.steps - 1]
        return (expected == actions) * (1.0 / (self.length + 1))

    def final_reward(self, episodes: Episodes) -> NDArray[np.float64] | None:
        """1 for the exact answer, closed by EOS (sparse variant)."""
        if self.dense:
            return None
        written = episodes.tokens[:, self.length : 2 * self.length + 1]
        return np.all(written == episodes.columns["target"][:, : self.length + 1], axis=1).astype(np.float64)

    def oracle(self, episodes: Episodes) -> NDArray[np.int64]:
        """The answer and its EOS, token by token."""
        return episodes.columns["target"][np.arange(len(episodes)), episodes.steps].astype(np.int64)

    def token_text(self, token: int) -> str:
        """A letter where the alphabet is long enough for the vocabulary, else a number."""
        if token == self.eos_id:
            return "<eos>"
        if token == self.pad_id:
            return "<pad>"
        return string.ascii_lowercase[token] if self.n_symbols <= 26 else str(token)
