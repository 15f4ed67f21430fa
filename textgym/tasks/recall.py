"""Recall: find the value of one key among many."""

from __future__ import annotations

import numpy as np

from textgym.checks import check_at_least
from textgym.random import RowStreams
from textgym.tasks.base import Prompts
from textgym.tasks.exact_answer import ExactAnswer


class Recall(ExactAnswer):
    """Write the value that the prompt gives for the key it asks for.

    ## Description
    The prompt is a list of pairs, each a key and its value, then a question mark and one of the keys. For the prompt
    ``k2 a d k0 b b k1 d a ? k0`` the answer is ``b b``. It is associative recall (arXiv:2312.04927), whose difficulty
    is the length of the context: the memory of a model of constant size fills up as ``pairs`` grows.

    ## Action Space
    ``Discrete(vocab_size + 1)``: the symbols that values are made of, then EOS. Every action is legal in every state.

    ## Observation Space
    ``TokenSequence(pairs * (1 + value_length) + 2 + value_length)``: the prompt and the tokens written so far. The ids
    after EOS occur in prompts only: ``keys`` keys, then the question mark; the padding id is the next one. With values
    of two symbols the context is ``3 * pairs + 4``: 16 tokens for 4 pairs, 28 for 8, 1,024 for 340, 8,191 for 2,729.

    ## Rewards
    Dense: ``1 / value_length`` for each symbol of the value that stands where it belongs. Sparse: 1 for the whole
    value, else 0. Returns lie in [0, 1].

    ## Starting State
    ``pairs`` different keys out of ``keys``, in random order; the symbols of their values, drawn uniformly and
    independently; the key in question, drawn uniformly.

    ## Episode End
    After ``value_length`` actions; EOS terminates earlier.

    ## Arguments
    ``pairs=8``, ``value_length=2``, ``vocab_size=8``, ``keys=None``, ``dense=True``; see below.

    ## Version History
    * v0: first version.

    Args:
        pairs: Key-value pairs in the prompt (≥ 1).
        value_length: Symbols in a value (≥ 1).
        vocab_size: Number of symbols that values are made of (≥ 1).
        keys: Number of different keys (≥ ``pairs``); None for ``pairs``. A fixed number keeps the meaning of the ids,
            so that a model can be tried on longer contexts than it was trained on.
        dense: Which rewards are paid, see above.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        pairs: int = 8,
        value_length: int = 2,
        vocab_size: int = 8,
        keys: int | None = None,
        dense: bool = True,
    ) -> None:
        self.pairs = check_at_least("pairs", pairs, 1)
        self.value_length = check_at_least("value_length", value_length, 1)
        self.n_symbols = check_at_least("vocab_size", vocab_size, 1)
        self.keys = self.pairs if keys is None else check_at_least("keys", keys, self.pairs)
        super().__init__(dense)
        self.vocab_size = self.n_symbols + 1
        self.eos_id = self.n_symbols
        self.question_id = self.vocab_size + self.keys
        self.pad_id = self.question_id + 1
        self.max_new_tokens = self.value_length
        self.context_length = self.pairs * (1 + self.value_length) + 2 + self.value_length
        # The first value may be the right one, and any symbol is right by chance.
        by_chance = 1 / self.n_symbols if self.dense else 1 / self.n_symbols ** ((self.value_length + 1) // 2)
        self.cheat_bound = 1 / self.pairs + (1 - 1 / self.pairs) * by_chance

    def prompts(self, random: RowStreams) -> Prompts:
        """Pairs, a question mark and a key."""
        n, stride, end = len(random), 1 + self.value_length, self.pairs * (1 + self.value_length)
        keys = random.permutation(self.keys)[:, : self.pairs] + self.vocab_size
        values = random.integers(self.n_symbols, (self.pairs, self.value_length))
        rows, asked = np.arange(n), random.integers(self.pairs)
        tokens = np.empty((n, end + 2), np.int32)
        tokens[:, 0:end:stride] = keys
        for place in range(self.value_length):
            tokens[:, 1 + place : end : stride] = values[:, :, place]
        tokens[:, end] = self.question_id
        tokens[:, end + 1] = keys[rows, asked]
        columns = self.answer_columns(values[rows, asked], self.value_length)
        return Prompts(tokens, np.full(n, end + 2), columns)

    def token_text(self, token: int) -> str:
        """Symbols are letters where the alphabet suffices, else ``v0``, ``v1`` …; keys are ``k0``, ``k1`` …."""
        if token < self.eos_id:
            return chr(ord("a") + token) if self.n_symbols <= 26 else f"v{token}"
        if token == self.eos_id:
            return "<eos>"
        if token < self.question_id:
            return f"k{token - self.vocab_size}"
        return "?" if token == self.question_id else "<pad>"
