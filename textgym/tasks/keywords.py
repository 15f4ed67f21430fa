"""Keywords: a fluent English text that uses all the given words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.language_models import bigram_model
from textgym.random import RowStreams
from textgym.rewards import can_end, likelihood_score
from textgym.tasks.base import Episodes, Prompts, Task
from textgym.tokenizers import WordTokenizer

FULL_LENGTH = 8
_N_TOO_COMMON = 100


class Keywords(Task):
    """Write English that uses all the given words.

    ## Description
    The prompt names some words, such as ``water garden family``; the agent writes a text that holds all of them, reads
    as English and does not repeat itself. It is constrained generation in the manner of CommonGen (arXiv:1911.03705),
    small enough to learn from rewards: what is likely next and what has to be used pull in different directions, so
    the way from one keyword to the next has to be planned.

    ## Action Space
    ``Discrete(vocab_size + 1)``: the most frequent English words of :mod:`textgym.english`, then EOS. Every action is
    legal in every state.

    ## Observation Space
    ``TokenSequence(keywords + 1 + max_new_tokens)``: the keywords, a separator (id ``vocab_size + 1``) and the words
    written so far; the padding id is one above the separator.

    ## Rewards
    ``R = coverage * fluency * distinctness``, each in [0, 1]: the share of the keywords that the text holds
    (:class:`textgym.rewards.KeywordCoverage`), how likely each word is after the one before, in a text of at least
    eight words (:class:`textgym.rewards.Fluency` of the embedded word pairs; the first word is judged by its frequency
    alone), and the share of different words (:class:`textgym.rewards.Distinctness`).

    Dense: each token earns the change of R of the text as it stands, so the rewards of an episode add up to R, and the
    best texts stay the same (Ng, Harada and Russell 1999). Sparse: R at the end.

    ## Starting State
    Different words, drawn uniformly: those of the vocabulary that a phrase can end with, less the hundred most frequent
    words of all.

    ## Episode End
    EOS terminates, and so does the budget of ``max_new_tokens`` actions.

    ## Arguments
    ``keywords=3``, ``max_new_tokens=12``, ``vocab_size=1500``, ``dense=True``; see below. For keywords or tokenizers of
    your own, hand :class:`textgym.rewards.KeywordCoverage` to :class:`textgym.tasks.text_generation.TextGeneration`.

    ## Version History
    * v0: first version.

    Args:
        keywords: Words to use (≥ 1).
        max_new_tokens: Budget (at least ``keywords``).
        vocab_size: Number of English words, from which at least ``keywords`` can be drawn.
        dense: Which rewards are paid, see above.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, keywords: int = 3, max_new_tokens: int = 12, vocab_size: int = 1500, dense: bool = True) -> None:
        self.n_keywords = check_at_least("keywords", keywords, 1)
        self.max_new_tokens = check_at_least("max_new_tokens", max_new_tokens, self.n_keywords)
        self.n_words = check_at_least("vocab_size", vocab_size, 2)
        self.dense = bool(dense)
        self.pays_at_end = not self.dense
        self.model = bigram_model(self.n_words)
        self.tokenizer = WordTokenizer(self.model.words)
        self._can_end = np.array([can_end(word) for word in self.model.words])
        self._pool = np.flatnonzero(self._can_end & (np.arange(self.n_words) >= _N_TOO_COMMON))
        if len(self._pool) < self.n_keywords:
            raise ValueError(
                f"vocab_size must leave {self.n_keywords} keywords to draw from, got {vocab_size}, "
                f"which leaves {len(self._pool)}"
            )
        self.vocab_size, self.eos_id = self.tokenizer.vocab_size, self.tokenizer.eos_id
        self.sep_id, self.pad_id = self.vocab_size, self.vocab_size + 1
        self.prompt_length = self.n_keywords + 1
        self.context_length = self.prompt_length + self.max_new_tokens
        self.full_length = min(FULL_LENGTH, self.max_new_tokens)
        # The keywords alone: they cover everything, and hardly ever follow one another in English.
        self.cheat_bound = 0.3

    def prompts(self, random: RowStreams) -> Prompts:
        """Different words and a separator."""
        n = len(random)
        tokens = np.full((n, self.prompt_length), self.sep_id)
        drawn = np.zeros((n, 0), np.int64)
        for number in range(self.n_keywords):
            # One of those left, numbered without those taken: it moves up past each of them, the lowest first.
            index = random.integers(len(self._pool) - number)
            for taken in drawn.T:
                index = index + (index >= taken)
            drawn = np.sort(np.column_stack([drawn, index]), axis=1)
            tokens[:, number] = self._pool[index]
        return Prompts(tokens, np.full(n, self.prompt_length), {"score": np.zeros(n)})

    def score(self, episodes: Episodes) -> NDArray[np.float64]:
        """``R`` of each text as it stands, shape ``(n,)``, in [0, 1]."""
        tokens, first = episodes.tokens, self.prompt_length
        words = tokens[:, first : first + self.max_new_tokens]  # (n, T)
        count = (words < self.n_words).sum(axis=1)
        keywords = tokens[:, : self.n_keywords]
        coverage = (words[:, None, :] == keywords[:, :, None]).any(axis=2).mean(axis=1)

        previous = tokens[:, first - 1 : first - 1 + self.max_new_tokens]  # the separator is no word of the model
        likely = likelihood_score(self.model.pair_log_probs(previous, words)).sum(axis=1, dtype=np.float64)
        last = words[np.arange(len(words)), np.maximum(count - 1, 0)]
        ending = (count > 0) & self._can_end[np.minimum(last, self.n_words - 1)]
        fluency = (likely + ending) / (np.maximum(count, self.full_length) + 1)

        ordered = np.sort(words, axis=1)  # words come first: every other id is higher
        different = 1 + ((np.diff(ordered, axis=1) != 0) & (ordered[:, 1:] < self.n_words)).sum(axis=1)
        return coverage * fluency * (different / np.maximum(count, 1))

    def step_reward(self, episodes: Episodes, actions: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """The change of the text's score (dense variant)."""
        if not self.dense:
            return None
        score = self.score(episodes)
        change = score - episodes.columns["score"]
        episodes.columns["score"] = score
        return change

    def final_reward(self, episodes: Episodes) -> NDArray[np.float64]:
        """The text's score (sparse variant)."""
        return self.score(episodes)

    def token_text(self, token: int) -> str:
        """A word."""
        if token < self.tokenizer.n_ids:
            return self.tokenizer.token_text(token)
        return "<sep>" if token == self.sep_id else "<pad>"
