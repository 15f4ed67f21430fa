"""Beam search for the best texts of ``TextGen/Keywords-v0``: it sees the reward's parts, which no agent does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from textgym.rewards import can_end, likelihood_score
from textgym.tasks.keywords import Keywords


def best_text(task: Keywords, keywords: NDArray[np.integer], width: int = 40) -> tuple[NDArray[np.int64], float]:
    """The text with the highest reward among those found.

    For each set of keywords used so far, as many prefixes are kept: ranked together, those that still owe a keyword
    would crowd out the rest, or the other way round.

    Args:
        task: Whose reward.
        keywords: The words to use, shape ``(k,)``.
        width: Prefixes kept at each length for each set of keywords used.

    Returns:
        The words, shape ``(length,)``, and their reward.
    """
    model, n_words = task.model, task.n_words
    ends = np.array([can_end(word) for word in model.words])
    bit = np.zeros(n_words, np.int64)
    bit[keywords] = 2 ** np.arange(len(keywords))
    coverage = np.array([mask.bit_count() for mask in range(2 ** len(keywords))]) / len(keywords)

    texts = np.full((1, task.max_new_tokens), n_words)
    previous, used, likely = np.array([n_words]), np.zeros(1, np.int64), np.zeros(1)
    best, best_reward = texts[0, :0].astype(np.int64), 0.0
    for count in range(1, task.max_new_tokens + 1):
        scores = likelihood_score(model.log_probs(previous[:, None], np.ones(len(previous), np.int64)))  # (W, V)
        likelies, covered = likely[:, None] + scores, used[:, None] | bit
        fresh = np.ones(scores.shape, np.bool_)  # repetitions cost more than they earn
        fresh[np.arange(len(texts))[:, None], np.minimum(texts[:, : count - 1], n_words - 1)] = False
        reward = coverage[covered] * (likelies + ends) / (max(count, task.full_length) + 1) * fresh
        flat = int(reward.argmax())
        if reward.flat[flat] > best_reward:
            best_reward = float(reward.flat[flat])
            best = np.append(texts[flat // n_words, : count - 1], flat % n_words).astype(np.int64)
        likelies[~fresh] = -1.0
        kept = np.concatenate([_highest(likelies, covered == mask, width) for mask in range(len(coverage))])
        rows, words = kept // n_words, kept % n_words
        texts = texts[rows]
        texts[:, count - 1] = words
        previous, used, likely = words, covered[rows, words], likelies[rows, words]
    return best, best_reward


def _highest(values: NDArray[np.floating], among: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Flat indices of the ``count`` highest values among some, fewer where there are fewer."""
    places = np.flatnonzero(among & (values >= 0))
    if len(places) <= count:
        return places
    return places[np.argpartition(values.ravel()[places], -count)[-count:]]
