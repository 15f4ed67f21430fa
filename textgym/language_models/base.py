"""What a language model offers: how likely a next token is, for many prefixes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class LanguageModel(Protocol):
    """What a language model offers, in token ids and in text.

    Attributes:
        vocab_size: Number of tokens ``V`` that the model gives a probability.
    """

    vocab_size: int

    def log_probs(self, tokens: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[np.float32]:
        """Natural log-probabilities of the next token after each prefix.

        Args:
            tokens: Right-padded prefixes, shape ``(n, L)``.
            lengths: Tokens of each prefix, shape ``(n,)``, each between 0 and ``L``.

        Returns:
            Shape ``(n, V)``; each row's exponentials sum to 1.
        """
        ...

    def text_log_probs(self, prompts: Sequence[str], completions: Sequence[str]) -> list[NDArray[np.float64]]:
        """Natural log-probability of each token of each completion, given its prompt and what precedes it."""
        ...
