"""ROUGE of growing texts against their references, one token at a time and for a whole batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

VARIANTS = ("rouge1", "rouge2", "rougeL")


class RunningRouge:
    """ROUGE's F-measure (Lin 2004) of texts that grow by a token, in [0, 1].

    Where a token is a word of the letters a to z and digits, it is what the package ``rouge-score`` computes of the
    same texts without stemming; unlike the package, it costs one pass over the reference a token. What has to be
    remembered of a row is the array of :meth:`start`.

    Args:
        variant: ``"rouge1"`` or ``"rouge2"`` for words or pairs of words, each counted as often as the reference has
            it; ``"rougeL"`` for the longest common subsequence.

    Raises:
        ValueError: If ``variant`` is none of these.
    """

    def __init__(self, variant: str) -> None:
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {list(VARIANTS)}, got {variant!r}")
        self.variant = variant
        self._gram = 2 if variant == "rouge2" else 1

    def start(self, references: NDArray[np.integer]) -> NDArray[np.int16]:
        """What is remembered of texts without a token.

        Args:
            references: Token ids, shape ``(n, L)``, -1 after a reference's end.

        Returns:
            Zeros, shape ``(n, L)``. For n-grams, 1 where the reference's n-gram that begins there is taken; for the
            longest common subsequence, its length with the reference up to there.
        """
        return np.zeros(references.shape, np.int16)

    def append(
        self,
        remembered: NDArray[np.int16],
        references: NDArray[np.integer],
        tokens: NDArray[np.integer],
        previous: NDArray[np.integer],
    ) -> NDArray[np.int16]:
        """The remembered arrays of the texts that are one token longer.

        Args:
            remembered: Of the texts before, shape ``(n, L)``.
            references: Token ids, shape ``(n, L)``, -1 after a reference's end.
            tokens: The token that each text grows by, shape ``(n,)``.
            previous: The text's token before it, shape ``(n,)``; -1 where there is none.
        """
        equal = references == tokens[:, None]  # (n, L)
        if self.variant == "rougeL":
            shorter = np.zeros_like(remembered)
            shorter[:, 1:] = remembered[:, :-1]
            longer = np.maximum(remembered, (shorter + np.int16(1)) * equal)
            return np.maximum.accumulate(longer, axis=1)
        if self.variant == "rouge2":
            pairs = np.zeros_like(equal)
            # Nothing equals the -1 of a missing token: no reference begins with it.
            pairs[:, :-1] = equal[:, 1:] & (references[:, :-1] == previous[:, None])
            equal = pairs
        free = equal & (remembered == 0)
        first = free & (np.cumsum(free, axis=1) == 1)
        return remembered + first.astype(np.int16)

    def score(
        self, remembered: NDArray[np.int16], references: NDArray[np.integer], written: NDArray[np.integer]
    ) -> NDArray[np.float64]:
        """The F-measure of each text, shape ``(n,)``, in [0, 1].

        Args:
            remembered: See :meth:`append`.
            references: Token ids, shape ``(n, L)``, -1 after a reference's end.
            written: Tokens of each text, shape ``(n,)``.
        """
        hits = remembered[:, -1].astype(np.int64) if self.variant == "rougeL" else remembered.sum(axis=1)
        less = self._gram - 1
        wanted = np.maximum(np.count_nonzero(references >= 0, axis=1) - less, 0)
        # 2PR / (P + R) with P = hits / written and R = hits / wanted.
        return 2.0 * hits / np.maximum(np.maximum(written - less, 0) + wanted, 1)
