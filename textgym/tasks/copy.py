"""Copy: repeat the prompt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from textgym.tasks.transduction import Transduction


class Copy(Transduction):
    """Repeat the prompt, then close with EOS.

    ## Description
    The prompt is a row of random symbols; the answer is the symbols of the prompt in the same order. For the
    prompt ``c a b`` it is ``c a b <eos>``. The lookback is constant (``length`` tokens), which an encoder with
    positions finds from one rule for all steps.

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

    cheats_that_solve = frozenset({"prompt copied"})

    def answer(self, prompts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The symbols of the prompt in the same order."""
        return prompts
