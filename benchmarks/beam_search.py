"""Beam search for the best texts of ``TextGen-v0``: it sees the reward's parts, which no agent does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from textgym.language_models import bigram_model
from textgym.rewards import TONES, can_end, likelihood_score, vader
from textgym.tasks.text_generation import tone_reward
from textgym.tone import FULL_LENGTH

BUDGET = 10
# Prefixes are kept by (a + sentiment) * likelihood * distinctness, for each a; a small one would rush to happy words.
PATIENCE = (1.0, 3.0)


def best_completion(prompt: str, tone: str, width: int = 300, vocab_size: int = 1500) -> tuple[str, float]:
    """The completion with the highest reward among those found.

    Args:
        prompt: The prompt; its last word conditions the first one of the completion.
        tone: ``"positive"`` or ``"negative"``.
        width: Prefixes kept at each length, for each of two ways to rank them.
        vocab_size: Number of embedded English words.

    Returns:
        The text and its exact reward.
    """
    finished = [text for patience in PATIENCE for text in _search(prompt, tone, width, vocab_size, patience)]
    n = len(finished)
    rewards = tone_reward(vocab_size, BUDGET)([prompt] * n, finished, tone=[tone] * n)
    best = int(np.argmax(rewards))
    return finished[best], rewards[best]


def _search(prompt: str, tone: str, width: int, vocab_size: int, patience: float) -> list[str]:
    """The best texts of each length, by the reward without VADER's rules on word sequences."""
    model, lexicon = bigram_model(vocab_size), vader().lexicon
    sign = 1.0 if tone == TONES[0] else -1.0
    valence = sign * np.array([lexicon.get(word, 0.0) for word in model.words])
    ends = np.array([can_end(word) for word in model.words])

    texts: list[list[int]] = [[]]
    previous = model.word_ids(prompt)[-1:]
    total, likely = np.zeros(1), np.zeros(1)  # sums over the words of each prefix
    used = np.zeros((1, vocab_size), np.bool_)
    finished: list[str] = []
    for count in range(1, BUDGET + 1):
        scores = likelihood_score(model.log_probs(previous[:, None], np.ones(len(previous), np.int64)))  # (W, V)
        totals, likelies = total[:, None] + valence, likely[:, None] + scores
        distinct = (used.sum(axis=1)[:, None] + ~used) / count
        sentiment = np.maximum(totals / np.sqrt(totals**2 + 15.0), 0.0)
        reward = sentiment * (likelies + ends) / (max(count, FULL_LENGTH) + 1) * distinct
        for flat in _highest(reward, 20):
            text = [*texts[flat // vocab_size], int(flat % vocab_size)]
            finished.append(" ".join(model.words[word] for word in text))
        kept = _highest((patience + sentiment) * likelies * distinct, width)
        rows, words = kept // vocab_size, kept % vocab_size
        texts = [[*texts[row], int(word)] for row, word in zip(rows, words, strict=True)]
        previous, total, likely = words, totals[rows, words], likelies[rows, words]
        used = used[rows]
        used[np.arange(len(rows)), words] = True
    return finished


def _highest(values: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Flat indices of the ``count`` highest values."""
    return np.argpartition(values.ravel(), -count)[-count:]
