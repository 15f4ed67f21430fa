"""Tone on request: the prompts and the reward of ``TextGen-v0``, batched in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from textgym.language_models import BigramLM, bigram_model
from textgym.random import RowStreams
from textgym.rewards import TONES, can_end, likelihood_score, sentiment, vader
from textgym.tasks.base import Episodes, Prompts
from textgym.tokenizers import WordTokenizer

PROMPT_LENGTH = 3
FULL_LENGTH = 8


class TonePrompts:
    """Prompts like ``positive: the food``: a tone, and two words to begin with.

    The tone is either one with equal probability; the first word is drawn by its frequency in English, the second by
    how often it follows the first.

    Args:
        vocab_size: Number of words, see :func:`textgym.english.load_english`.

    Attributes:
        tokenizer: The words, EOS, then the control words ``positive:`` and ``negative:``.
        length: Tokens of every prompt.
    """

    length = PROMPT_LENGTH

    def __init__(self, vocab_size: int) -> None:
        self.model = bigram_model(vocab_size)
        self.tokenizer = WordTokenizer(self.model.words, control_words=[f"{tone}:" for tone in TONES])

    def draw(self, random: RowStreams) -> Prompts:
        """One prompt a row, with the column ``tone``: an index into :data:`textgym.rewards.TONES`."""
        tone = random.integers(len(TONES))
        uniforms = random.random((2,))
        cumulative = self.model.unigram_cumulative
        first = np.minimum(np.searchsorted(cumulative, uniforms[:, 0], side="right"), len(cumulative) - 1)
        second = self.model.draw_successors(first, uniforms[:, 1])
        tokens = np.stack([self.tokenizer.vocab_size + tone, first, second], axis=1)
        return Prompts(tokens, np.full(len(tokens), self.length), {"tone": tone})

    def texts(self, episodes: Episodes) -> list[str]:
        """The prompts as strings."""
        return [self.tokenizer.decode(row) for row in episodes.tokens[:, : self.length].tolist()]

    def columns(self, episodes: Episodes) -> dict[str, list[str]]:
        """What a reward function is given besides the texts: ``tone``."""
        return {"tone": [TONES[tone] for tone in episodes.columns["tone"].tolist()]}


class ToneScore:
    """``Product([Sentiment(), Fluency(bigrams), Distinctness()])`` of whole batches, and a cheap estimate of it.

    Args:
        prompts: The source of the prompts.
        max_new_tokens: The budget ``T``.
    """

    def __init__(self, prompts: TonePrompts, max_new_tokens: int) -> None:
        self._model: BigramLM = prompts.model
        self._tokenizer = prompts.tokenizer
        self._budget = max_new_tokens
        self.full_length = min(FULL_LENGTH, max_new_tokens)
        words, lexicon = self._model.words, vader().lexicon
        n_special = self._tokenizer.n_ids + 1 - len(words)  # EOS, control words, padding: neither valence nor rule
        self._valence = np.array([lexicon.get(word, 0.0) for word in words] + [0.0] * n_special)
        rules = _vader_rule_words(words)
        self._has_rule = np.array([word in rules for word in words] + [False] * n_special)
        self._can_end = np.array([can_end(word) for word in words])

    def estimate(self, episodes: Episodes) -> NDArray[np.float64]:
        """The score of each text as it stands, with VADER's sum of word valences but none of its rules; shape ``(n,)``.

        0 for an empty text; in [0, 1].
        """
        words = self._words(episodes)
        return self._score(episodes, words, self._compound(words))

    def exact(self, episodes: Episodes) -> NDArray[np.float64]:
        """The reward of each text, shape ``(n,)``, in [0, 1]."""
        words = self._words(episodes)
        compound = np.round(self._compound(words), 4)  # as VADER does
        # Where no rule can apply, the sum of valences is all that VADER computes: the library is asked for the rest.
        valued = (self._valence[words] != 0.0).any(axis=1)
        for row in np.flatnonzero(valued & self._has_rule[words].any(axis=1)).tolist():
            compound[row] = sentiment(self._tokenizer.decode(words[row].tolist()))
        return self._score(episodes, words, compound)

    def _words(self, episodes: Episodes) -> NDArray[np.int32]:
        return episodes.tokens[:, PROMPT_LENGTH : PROMPT_LENGTH + self._budget]  # (n, T)

    def _compound(self, words: NDArray[np.int32]) -> NDArray[np.float64]:
        total = self._valence[words].sum(axis=1)
        return total / np.sqrt(total * total + 15.0)

    def _score(
        self, episodes: Episodes, words: NDArray[np.int32], compound: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        tokens, is_word = episodes.tokens, words < len(self._can_end)
        count = is_word.sum(axis=1)
        toned = np.maximum(np.where(episodes.columns["tone"] == TONES.index("positive"), compound, -compound), 0.0)
        previous = tokens[:, PROMPT_LENGTH - 1 : PROMPT_LENGTH - 1 + self._budget]
        likely = likelihood_score(self._model.pair_log_probs(previous, words)).sum(axis=1, dtype=np.float64)
        last = words[np.arange(len(words)), np.maximum(count - 1, 0)]
        ending = (count > 0) & self._can_end[np.minimum(last, len(self._can_end) - 1)]
        fluency = (likely + ending) / (np.maximum(count, self.full_length) + 1)
        ordered = np.sort(words, axis=1)  # words come first: every other id is higher
        distinct = 1 + ((np.diff(ordered, axis=1) != 0) & (ordered[:, 1:] < len(self._can_end))).sum(axis=1)
        return toned * fluency * (distinct / np.maximum(count, 1))


def _vader_rule_words(words: tuple[str, ...]) -> frozenset[str]:
    """Words of the vocabulary without which none of VADER's rules on word sequences can apply.

    Of a phrase that has a rule (``just enough``, ``kiss of death``) one word is enough, the rarest; a phrase with a
    word from outside the vocabulary cannot occur. The analyser has further rules for ``so``, ``this``, ``least``,
    ``but``, ``no`` and ``kind``.
    """
    from vaderSentiment.vaderSentiment import BOOSTER_DICT, NEGATE, SPECIAL_CASES

    rank = {word: number for number, word in enumerate(words)}
    rules = {"so", "this", "least", "but", "no", "kind", *NEGATE}
    for phrase in (*BOOSTER_DICT, *SPECIAL_CASES):
        rules.add(max(phrase.split(), key=lambda word: rank.get(word, len(words))))
    return frozenset(rules & rank.keys())
