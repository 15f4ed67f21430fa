"""Classify: say the label of a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.language_models import bigram_model
from textgym.random import RowStreams
from textgym.rewards import sentiment, vader
from textgym.tasks.base import Prompts
from textgym.tasks.documents import pad, read_rows
from textgym.tasks.exact_answer import ExactAnswer
from textgym.tokenizers import WordTokenizer

_N_WORDS = 1500
_PER_LABEL = 2048
_LONGEST = 32  # in longer phrases there is hardly ever no word with a sentiment
_LABELS = ("negative", "positive", "neutral")
_THRESHOLD = 0.05
"""VADER's authors call a text neutral where its compound score lies between minus and plus this."""


class Classify(ExactAnswer):
    """Say the label of a text: one action, and the episode is over.

    ## Description
    Without ``data`` the texts are phrases drawn from counts of English word pairs, such as ``best way to get over the
    loss``, and the label is their sentiment. It is the shortest of all text tasks, a contextual bandit: a reader that
    fails here will not write.

    ## Action Space
    ``Discrete(V)``: the labels, in the order of ``Classify.labels``, then EOS, which is never right. Every action is
    legal in every state.

    ## Observation Space
    ``TokenSequence(context_length)``: the text, one token a word, a separator, and the label. The ids from ``V`` are
    words, which occur in prompts only; the separator comes next, and the padding id is one higher.

    ## Rewards
    1 for the right label, else 0.

    ## Starting State
    One of 2,048 phrases a label, which are always the same, drawn uniformly; a phrase is ``positive`` where VADER
    gives it a compound score of at least 0.05, ``negative`` from -0.05 downwards, and ``neutral`` where no word of it
    has any sentiment. With ``data``, one of its texts, drawn uniformly.

    ## Episode End
    After one action.

    ## Arguments
    ``data=None``, ``length=8``, ``neutral=True``, ``context_length=None``; see below.

    ## Version History
    * v0: first version.

    Args:
        data: Mappings with the strings ``"text"`` and ``"label"``, or a ``datasets.Dataset`` of such rows; None for
            generated phrases. Texts are read by :class:`textgym.tokenizers.WordTokenizer`; labels are sorted.
        length: Words of a generated phrase (3 to 32); not together with ``data``.
        neutral: Whether there are neutral phrases among the generated ones; not together with ``data``.
        context_length: Length of an observation; longer texts are cut at their end. None for room for all of them.

    Raises:
        ValueError: If an argument is out of range, a row of ``data`` cannot be used, or all have one label.
    """

    max_new_tokens = 1

    def __init__(
        self,
        data: Iterable[Mapping[str, Any]] | None = None,
        length: int | None = None,
        neutral: bool | None = None,
        context_length: int | None = None,
    ) -> None:
        super().__init__(dense=True)
        if data is None:
            length = check_at_least("length", 8 if length is None else length, 3)
            if length > _LONGEST:
                raise ValueError(f"length must be at most {_LONGEST}, got {length}")
            self.labels: tuple[str, ...] = _LABELS if neutral is not False else _LABELS[:2]
            words: tuple[str, ...] = bigram_model(_N_WORDS).words
            phrases = _phrases(length)[: len(self.labels)]
            texts = phrases.reshape(-1, length)
            self._label = np.repeat(np.arange(len(self.labels)), _PER_LABEL)
        elif length is None and neutral is None:
            self.labels, words, texts, self._label = _read(data)
        else:
            raise ValueError("length and neutral describe generated phrases: leave them out where data is given")
        self.vocab_size, self.eos_id = len(self.labels) + 1, len(self.labels)
        self._words = words
        self.sep_id = self.vocab_size + len(words)
        self.pad_id = self.sep_id + 1

        longest = texts.shape[1]
        self.context_length = check_at_least(
            "context_length", longest + 2 if context_length is None else context_length, 3
        )
        texts = texts[:, : self.context_length - 2]
        self._lengths = np.count_nonzero(texts >= 0, axis=1) + 1
        self._tokens = np.pad(np.where(texts >= 0, texts + self.vocab_size, self.sep_id), ((0, 0), (0, 1)))
        self._tokens[np.arange(len(texts)), self._lengths - 1] = self.sep_id
        self.cheat_bound = float(np.bincount(self._label).max() / len(self._label))

    def prompts(self, random: RowStreams) -> Prompts:
        """A text and a separator."""
        index = random.integers(len(self._label))
        return Prompts(self._tokens[index], self._lengths[index], self.answer_columns(self._label[index, None], 1))

    def token_text(self, token: int) -> str:
        """A label or a word."""
        if token < self.eos_id:
            return self.labels[token]
        if token < self.sep_id:
            return "<eos>" if token == self.eos_id else self._words[token - self.vocab_size]
        return "<sep>" if token == self.sep_id else "<pad>"


def _read(data: Any) -> tuple[tuple[str, ...], tuple[str, ...], NDArray[np.int32], NDArray[np.int64]]:
    """Labels, words, texts as numbers of words (-1 after their ends), and the number of each text's label."""
    rows = read_rows(data, ("text", "label"))
    labels = sorted({row["label"] for row in rows})
    if len(labels) < 2:
        raise ValueError(f"data must have at least two different labels, got {labels}")
    # A tokenizer of the user's words alone would need one to begin with: EOS cannot stand in for it.
    tokenizer = WordTokenizer(["the"]).with_prompt_words([row["text"] for row in rows])
    texts = pad([tokenizer.encode(row["text"]) for row in rows])
    texts -= texts > tokenizer.eos_id  # numbers of words without the gap that EOS leaves
    words = (*tokenizer.symbols, *tokenizer.prompt_symbols)
    return tuple(labels), words, texts, np.array([labels.index(row["label"]) for row in rows])


@cache
def _phrases(length: int) -> NDArray[np.int32]:
    """Different phrases of each label, in the order of ``_LABELS``, shape ``(3, _PER_LABEL, length)``.

    In each, a word follows the one before as often as in English.
    """
    model, lexicon, generator = bigram_model(_N_WORDS), vader().lexicon, np.random.default_rng(0)
    valued = np.array([word in lexicon for word in model.words])
    found: list[dict[tuple[int, ...], None]] = [{}, {}, {}]  # without repetitions, in order
    while any(len(phrases) < _PER_LABEL for phrases in found):
        drawn = np.empty((4 * _PER_LABEL, length), np.int32)
        first = np.searchsorted(model.unigram_cumulative, generator.random(len(drawn)), side="right")
        drawn[:, 0] = np.minimum(first, _N_WORDS - 1)
        for position in range(1, length):
            drawn[:, position] = model.draw_successors(drawn[:, position - 1], generator.random(len(drawn)))
        has_values: list[bool] = np.any(valued[drawn], axis=1).tolist()
        for phrase, has_value in zip(drawn.tolist(), has_values, strict=True):
            score = sentiment(" ".join(model.words[word] for word in phrase)) if has_value else 0.0
            # A phrase whose words cancel out is neither: its label would be a matter of taste.
            if not has_value or abs(score) >= _THRESHOLD:
                found[2 if not has_value else int(score > 0)].setdefault(tuple(phrase))
            if all(len(phrases) >= _PER_LABEL for phrases in found):
                break
    return np.array([list(phrases)[:_PER_LABEL] for phrases in found], np.int32)
