"""The words that the word games hide."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from textgym.english import load_english

N_LETTERS = 26
_N_WORDS = 1500


@cache
def secret_words(min_length: int, max_length: int, n_words: int | None = None) -> NDArray[np.int64]:
    """The letters of the most frequent English words of some lengths, most frequent first.

    Args:
        min_length: Fewest letters.
        max_length: Most letters.
        n_words: Number of words; None for all that there are.

    Returns:
        Letters from 0 to 25, shape ``(n_words, max_length)``, -1 after a word's end; read-only, as it is shared.

    Raises:
        ValueError: If there are fewer words of these lengths.
    """
    words = [word for word in load_english(_N_WORDS).words if min_length <= len(word) <= max_length]
    if not words or (n_words is not None and n_words > len(words)):
        raise ValueError(
            f"n_words must be at most {len(words)} for words of {min_length} to {max_length} letters, got {n_words}"
        )
    words = words[:n_words]
    letters = np.full((len(words), max_length), -1)
    for row, word in enumerate(words):
        letters[row, : len(word)] = [ord(letter) - ord("a") for letter in word]
    letters.flags.writeable = False
    return letters
