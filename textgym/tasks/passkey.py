"""Passkey: find a number in a long English text."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.english import load_english
from textgym.random import RowStreams
from textgym.tasks.base import Prompts
from textgym.tasks.exact_answer import ExactAnswer

_N_WORDS, _N_DIGITS = 1000, 10
_BOOK_SECTIONS, _SECTION_LENGTH = 512, 256
_QUESTION = "what is the pass key"
_STATEMENTS = (
    "the pass key is",
    "the phone number is",
    "the house number is",
    "the order number is",
    "the post code is",
    "the room number is",
    "the price code is",
    "the page number is",
)
"""The key's, then those of the decoys; all of one length."""


class Passkey(ExactAnswer):
    """Write the digits of the pass key that is hidden in an English text.

    ## Description
    The prompt is a text, somewhere in which stands ``the pass key is 4 0 8 1 5``, and which ends with ``what is the
    pass key``; the answer is ``4 0 8 1 5``. It is passkey retrieval (arXiv:2305.16300), a standard probe of long
    contexts; the length of the context is the difficulty. Decoys such as ``the room number is 7 7 0 2 9`` make sure
    that the key has to be found by its name, not by being a number. The text around them is drawn from counts of
    English word pairs: it reads like English and says nothing.

    ## Action Space
    ``Discrete(11)``: the digits, then EOS. Every action is legal in every state.

    ## Observation Space
    ``TokenSequence(context_length)``: the prompt, one token a word, and the digits written so far. The ids from 11
    are words, which occur in prompts only; the padding id is the next one.

    ## Rewards
    Dense: ``1 / digits`` for each digit that stands where it belongs. Sparse: 1 for the whole key, else 0. Returns lie
    in [0, 1].

    ## Starting State
    A window of a text of 131,072 words that is always the same. It is divided into ``decoys + 1`` parts of one length;
    in each, a statement stands in for as many words, at a place drawn uniformly. Which part holds the key, and all
    digits, are drawn uniformly and independently.

    ## Episode End
    After ``digits`` actions; EOS terminates earlier.

    ## Arguments
    ``context_length=256``, ``digits=5``, ``decoys=3``, ``dense=True``; see below.

    ## Version History
    * v0: first version.

    Args:
        context_length: Length of an observation, statements, question and answer included (at least
            ``(decoys + 1) * (digits + 4) + digits + 5``, at most 131,072).
        digits: Digits of the key (≥ 1).
        decoys: Numbers with another name (1 to 7).
        dense: Which rewards are paid, see above.

    Raises:
        ValueError: If an argument is out of range.
    """

    vocab_size = _N_DIGITS + 1
    eos_id = _N_DIGITS

    def __init__(self, context_length: int = 256, digits: int = 5, decoys: int = 3, dense: bool = True) -> None:
        self.digits = check_at_least("digits", digits, 1)
        self.decoys = check_at_least("decoys", decoys, 1)
        if self.decoys >= len(_STATEMENTS):
            raise ValueError(f"decoys must be at most {len(_STATEMENTS) - 1}, got {decoys}")
        vocabulary = [*load_english(_N_WORDS).words, *_QUESTION.split(), *" ".join(_STATEMENTS).split()]
        self._words = tuple(dict.fromkeys(vocabulary))
        ids = {word: self.vocab_size + number for number, word in enumerate(self._words)}
        self._question = np.array([ids[word] for word in _QUESTION.split()])
        names = np.array([[ids[word] for word in text.split()] for text in _STATEMENTS[: self.decoys + 1]], np.int32)
        # The statements of all parts, digits left open, by the part that holds the key: the key's own comes first.
        names = np.pad(names, ((0, 0), (0, self.digits)))
        self._statements = np.stack([np.roll(names, key_part, axis=0) for key_part in range(len(names))])

        statement_length = names.shape[1]
        shortest = (self.decoys + 1) * statement_length + len(self._question) + self.digits
        longest = _BOOK_SECTIONS * _SECTION_LENGTH
        self.context_length = check_at_least("context_length", context_length, shortest)
        if self.context_length > longest:
            raise ValueError(f"context_length must be at most {longest}, got {context_length}")
        super().__init__(dense)
        self.max_new_tokens = self.digits
        self.pad_id = self.vocab_size + len(self._words)
        self._part_length = (self.context_length - self.digits - len(self._question)) // (self.decoys + 1)
        self._n_places = self._part_length - statement_length + 1
        # The first number of the prompt may be the key; any other digit is right by chance.
        by_chance = 0.1 if self.dense else 0.1 ** ((self.digits + 1) // 2)
        self.cheat_bound = 1 / (self.decoys + 1) + (1 - 1 / (self.decoys + 1)) * by_chance

    def prompts(self, random: RowStreams) -> Prompts:
        """A window of the book, with a statement in each part and the question at the end."""
        n, length, n_parts = len(random), self.context_length - self.digits, self.decoys + 1
        windows = sliding_window_view(_book(self.vocab_size), length)
        tokens = windows[random.integers(len(windows))]
        tokens[:, -len(self._question) :] = self._question
        digits = random.integers(_N_DIGITS, (n_parts, self.digits))
        key_part = random.integers(n_parts)
        statements = self._statements[key_part]  # (n, parts, words and digits)
        statements[:, :, -self.digits :] = digits
        place = random.integers(self._n_places, (n_parts,)) + np.arange(n_parts) * self._part_length
        place += np.arange(0, n * length, length)[:, None]  # in all rows, one behind the other
        tokens.reshape(-1)[place[:, :, None] + np.arange(statements.shape[2])] = statements
        answer = digits[np.arange(n), key_part]
        return Prompts(tokens, np.full(n, length), self.answer_columns(answer, self.digits))

    def token_text(self, token: int) -> str:
        """A digit or a word."""
        if token < _N_DIGITS:
            return str(token)
        if token == self.eos_id:
            return "<eos>"
        return "<pad>" if token == self.pad_id else self._words[token - self.vocab_size]


@cache
def _book(first_id: int) -> NDArray[np.int32]:
    """The text around the keys, its words numbered from ``first_id``.

    In each section, a word follows the one before as often as in English. One word in ten, and each whose predecessor
    has no counted pair, is drawn by its frequency alone.
    """
    english, generator = load_english(_N_WORDS), np.random.default_rng(0)
    frequency = np.cumsum(english.counts / english.counts.sum())
    pairs = np.concatenate([[0.0], np.cumsum(english.pair_counts)])
    starts = np.searchsorted(english.first, np.arange(_N_WORDS + 1))
    text = np.empty((_BOOK_SECTIONS, _SECTION_LENGTH), np.int32)
    for position in range(_SECTION_LENGTH):
        drawn = np.searchsorted(frequency, generator.random(_BOOK_SECTIONS), side="right").clip(max=_N_WORDS - 1)
        if position:
            previous = text[:, position - 1]
            low, high = starts[previous], starts[previous + 1]
            weight = pairs[low] + generator.random(_BOOK_SECTIONS) * (pairs[high] - pairs[low])
            pair = np.clip(np.searchsorted(pairs, weight, side="right") - 1, low, high - 1)
            follows = (generator.random(_BOOK_SECTIONS) < 0.9) & (high > low)
            drawn = np.where(follows, english.second[pair], drawn)
        text[:, position] = drawn
    return text.reshape(-1) + np.int32(first_id)
