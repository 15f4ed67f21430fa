"""Sort: write the symbols of the prompt in ascending order."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from textgym.tasks.transduction import Transduction


class Sort(Transduction):
    """Write the symbols of the prompt in ascending order, then close with EOS.

    ## Description
    The prompt is a row of random symbols; the answer is the symbols of the prompt, sorted, repetitions kept. For
    the prompt ``c a b`` it is ``a b c <eos>``. Every symbol of the answer depends on the whole prompt.

    ## Action Space
    ``Discrete(vocab_size + 1)``: the symbols, then EOS. Every action is legal in every state.

    ## Observation Space
    ``TokenSequence(2 * length + 2)``: the prompt and the tokens written so far; the padding id is ``vocab_size + 1``.

    ## Rewards
    Dense: ``1 / (length + 1)`` for each position that holds the right symbol and for an EOS right after the last one,
    whatever stands elsewhere. Sparse: 1 for the exact answer when EOS is written, else 0. Returns lie in [0, 1].

    ## Starting State
    ``length`` symbols drawn uniformly and independently.

    ## Episode End
    EOS terminates, and so does the budget of ``length + 2`` actions.

    ## Arguments
    See :class:`textgym.tasks.transduction.Transduction`: ``length=6``, ``vocab_size=15``, ``dense=True``.

    ## Version History
    * v0: first version.
    """

    def answer(self, prompts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The symbols of the prompt, sorted, repetitions kept."""
        return np.sort(prompts, axis=1)

    def sparse_cheat_bound(self) -> float:
        """Chance that the prompt is sorted already."""
        return math.comb(self.n_symbols + self.length - 1, self.length) / self.n_symbols**self.length
