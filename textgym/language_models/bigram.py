"""Word pairs of the embedded English, interpolated with single words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.english import load_english


class BigramLM:
    """Word pairs, interpolated with single words (Jelinek and Mercer 1980).

    ``p(word | previous) = a * count(previous, word) / count(previous, ·) + (1 - a) * p(word)``, with ``a`` the
    interpolation weight, over the embedded English of :mod:`textgym.english`. Token
    ids are positions in the word list, most frequent word first, as in a :class:`~textgym.tokenizers.WordTokenizer` of
    the same words. At the start, after a word or an id that the model does not know (EOS, control words, separators),
    and after a word that no counted pair begins with, the next word is distributed as ``p(word)``. The counts say
    nothing of ends of sentences, so EOS has no probability.

    Args:
        vocab_size: Number of words ``V``.
        interpolation: Weight of the pairs, in (0, 1).

    Attributes:
        words: The ``V`` words.
        vocab_size: ``V``.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> model = BigramLM(vocab_size=1500)
        >>> of, the = model.words.index("of"), model.words.index("the")
        >>> bool(model.pair_log_probs([of], [the]) > model.pair_log_probs([the], [of]))
        True
    """

    def __init__(self, vocab_size: int = 1500, interpolation: float = 0.9) -> None:
        if not 0 < interpolation < 1:
            raise ValueError(f"interpolation must lie between 0 and 1, got {interpolation!r}")
        english = load_english(vocab_size)
        self.words, self.vocab_size, self.interpolation = english.words, vocab_size, interpolation
        self._index = {word: number for number, word in enumerate(self.words)}
        unigram = english.counts / english.counts.sum()
        self.unigram_cumulative = np.cumsum(unigram)

        totals = np.bincount(english.first, english.pair_counts, minlength=vocab_size)
        pair_probability = english.pair_counts / totals[english.first]
        # Row V stands for everything unknown. The pairs are added sparsely: most of the V × V cells hold none.
        backs_off = np.append(totals == 0, True)
        table = np.where(backs_off[:, None], unigram, (1 - interpolation) * unigram)
        table[english.first, english.second] += interpolation * pair_probability
        self._log_table = np.log(table, dtype=np.float32)

        # One ascending array for all rows: row r's cumulative probabilities lie in (r, r + 1].
        self._pair_cumulative = english.first + _cumulative_by_group(pair_probability, english.first)
        self._successors = english.second
        self._has_successors = totals > 0

    def __deepcopy__(self, memo: dict[int, Any]) -> BigramLM:
        return self  # never changes: gymnasium.make copies the arguments it is given

    def word_ids(self, text: str) -> NDArray[np.int64]:
        """Ids of the blank-separated words of a text, lower-cased; ``V`` for an unknown word."""
        return np.array([self._index.get(word, self.vocab_size) for word in text.lower().split()], np.int64)

    def log_probs(self, tokens: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[np.float32]:
        """See :meth:`~textgym.language_models.LanguageModel.log_probs`: only the last token of each prefix matters."""
        tokens, lengths = np.asarray(tokens), np.asarray(lengths)
        if tokens.shape[1] == 0:
            return self._log_table[np.full(len(tokens), self.vocab_size)]
        last = tokens[np.arange(len(tokens)), np.maximum(lengths - 1, 0)]
        return self._log_table[self._known(np.where(lengths > 0, last, self.vocab_size))]

    def pair_log_probs(
        self, previous: NDArray[np.integer] | Sequence[int], following: NDArray[np.integer] | Sequence[int]
    ) -> NDArray[np.float32]:
        """``log p(following | previous)`` elementwise; minus infinity where ``following`` is no word of the model."""
        following = np.asarray(following)
        known = self._known(following)
        values = self._log_table[self._known(np.asarray(previous)), np.minimum(known, self.vocab_size - 1)]
        return np.where(known < self.vocab_size, values, np.float32(-np.inf))

    def text_log_probs(self, prompts: Sequence[str], completions: Sequence[str]) -> list[NDArray[np.float64]]:
        """See :meth:`~textgym.language_models.LanguageModel.text_log_probs`: a prompt's last word matters alone."""
        result = []
        for prompt, completion in zip(prompts, completions, strict=True):
            before, words = self.word_ids(prompt)[-1:], self.word_ids(completion)
            previous = np.concatenate([before if len(before) else [self.vocab_size], words])[:-1]
            result.append(self.pair_log_probs(previous, words).astype(np.float64))
        return result

    def draw_successors(self, previous: NDArray[np.integer], uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
        """A word that follows each of ``previous``, by the counted pairs alone (``p(word)`` where there are none).

        Args:
            previous: Words, shape ``(n,)``.
            uniforms: One number in [0, 1) a row, shape ``(n,)``: the only randomness.
        """
        previous = np.asarray(previous)
        # Row numbers take 11 bits of a double: a number closer to 1 than this would round into the next row.
        within = np.minimum(uniforms, 1.0 - 2.0**-40)
        found = np.searchsorted(self._pair_cumulative, previous + within, side="right")
        successors = self._successors[np.minimum(found, len(self._successors) - 1)]
        unpaired = np.minimum(np.searchsorted(self.unigram_cumulative, uniforms, side="right"), self.vocab_size - 1)
        return np.where(self._has_successors[previous], successors, unpaired)

    def _known(self, ids: NDArray[np.integer]) -> NDArray[np.integer]:
        return np.where((ids >= 0) & (ids < self.vocab_size), ids, self.vocab_size)


@cache
def bigram_model(vocab_size: int = 1500) -> BigramLM:
    """The :class:`BigramLM` of that many words, built once (0.3 s with its dictionaries) and shared."""
    return BigramLM(vocab_size)


def _cumulative_by_group(values: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Cumulative sums that begin anew with each group of the ascending ``groups`` and end at exactly 1."""
    cumulative = np.cumsum(values)
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    sizes = np.diff(starts, append=len(groups))
    cumulative -= np.repeat(cumulative[starts] - values[starts], sizes)
    cumulative[starts + sizes - 1] = 1.0  # rounding must not let a draw slip into the next group
    return np.minimum(cumulative, 1.0)
