"""Addition: write the sum of two numbers."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.random import RowStreams
from textgym.tasks.base import Prompts
from textgym.tasks.exact_answer import ExactAnswer, gather

_EOS, _PLUS, _EQUALS, _PAD = 10, 11, 12, 13
_TEXTS = (*"0123456789", "<eos>", "+", "=", "<pad>")


class Addition(ExactAnswer):
    """Write the sum of two numbers digit by digit, then close with EOS.

    ## Description
    The prompt is a sum such as ``47+385=``; its answer is ``432<eos>``. Written with the most significant digit first,
    the first digit may depend on a carry out of the last one; with ``least_significant_first`` the answer is
    ``234<eos>``, each digit needs one column and the carry of the column before, and the task is far easier to learn
    (arXiv:2307.03381).

    ## Action Space
    ``Discrete(11)``: the digits, then EOS. Every action is legal in every state.

    ## Observation Space
    ``TokenSequence(3 * digits + 4)``: the prompt and the tokens written so far. Ids 11 (``+``) and 12 (``=``) occur in
    prompts only; the padding id is 13.

    ## Rewards
    Dense: ``1 / (n + 1)`` for each of the ``n`` digits of the sum that stands where it belongs and for an EOS right
    after the last one. Sparse: 1 for the exact answer when EOS is written, else 0. Returns lie in [0, 1].

    ## Starting State
    The number of digits of each summand is drawn uniformly from 1 to ``digits``, then its digits, uniformly; the first
    of several is not 0.

    ## Episode End
    EOS terminates, and so does the budget of ``digits + 2`` actions: the longest sum and its EOS.

    ## Arguments
    ``digits=3``, ``carry=True``, ``least_significant_first=False``, ``dense=True``; see below.

    ## Version History
    * v0: first version.

    Args:
        digits: Most digits of a summand (≥ 1).
        carry: Whether columns may add up to more than 9.
        least_significant_first: Whether the answer is written from its last digit to its first.
        dense: Which rewards are paid, see above.

    Raises:
        ValueError: If an argument is out of range.
    """

    vocab_size = 11
    eos_id = _EOS
    pad_id = _PAD

    def __init__(
        self, digits: int = 3, carry: bool = True, least_significant_first: bool = False, dense: bool = True
    ) -> None:
        self.digits = check_at_least("digits", digits, 1)
        self.carry = bool(carry)
        self.least_significant_first = bool(least_significant_first)
        super().__init__(dense)
        self.max_new_tokens = self.digits + 2
        self.context_length = 2 * self.digits + 2 + self.max_new_tokens
        self._layouts = _layouts(self.digits, self.least_significant_first)
        # Dense: digits of the right answer in another order, closed by EOS. Sparse: the copied prompt never has the
        # sum's value, and a number with its digits moved is itself only if they repeat (11, 22 …).
        self.cheat_bound = 0.45 if self.dense else 0.12

    def prompts(self, random: RowStreams) -> Prompts:
        """Two numbers of 1 to ``digits`` digits, a plus between them and an equals sign behind."""
        digits, place = self.digits, np.arange(self.digits)  # place 0 for units, 1 for tens …
        uniform = random.random((2, digits + 1))
        lengths = (uniform[:, :, :1] * digits).astype(np.int64) + 1  # (n, 2, 1)
        low = ((place == lengths - 1) & (lengths > 1)).astype(np.int64)  # (n, 2, digits): leading digits are not 0
        room = 10 - low
        if not self.carry:
            room[:, 0] -= low[:, 1]
        drawn = (low + (uniform[:, :, 1:] * room).astype(np.int64)) * (place < lengths)
        if not self.carry:
            room[:, 1] -= drawn[:, 0]
            drawn[:, 1] = (low[:, 1] + (uniform[:, 1, 1:] * room[:, 1]).astype(np.int64)) * (place < lengths[:, 1])

        symbols = np.empty((len(random), 3 * digits + 5), np.int64)  # as `_layouts` counts them
        symbols[:, : 2 * digits] = drawn.reshape(-1, 2 * digits)
        symbols[:, -4:] = _PLUS, _EQUALS, _EOS, -1
        total = symbols[:, 2 * digits : 3 * digits + 1]
        total[:, :-1] = drawn[:, 0] + drawn[:, 1]
        total[:, -1] = 0
        for column in place:  # by columns, so that no number of digits overflows
            carried = total[:, column] > 9
            total[:, column] -= 10 * carried
            total[:, column + 1] += carried

        first, second = lengths[:, 0, 0], lengths[:, 1, 0]
        longer = np.maximum(first, second)
        carry = total[np.arange(len(total)), longer]  # out of the longer summand's first digit: one digit more
        tokens = gather(symbols, self._layouts[first, second, carry])
        prompt, target = tokens[:, : 2 * digits + 2], tokens[:, 2 * digits + 2 :]
        return Prompts(prompt, first + second + 2, self.answer_columns(target, longer + carry + 1))

    def token_text(self, token: int) -> str:
        """A digit or a sign."""
        return _TEXTS[token]

    def join(self, texts: list[str]) -> str:
        """Digits and signs without spaces."""
        return "".join(texts)


@cache
def _layouts(digits: int, least_significant_first: bool) -> NDArray[np.int64]:
    """What stands where in the prompt and, behind it, in the answer.

    Returns:
        Shape ``(digits + 1, digits + 1, 2, 3 * digits + 4)``, indexed by the number of digits of both summands and by
        the carry that makes the sum one digit longer than they are. The values count the digits of the first summand,
        of the second and of the sum, units first, then plus, equals, EOS, and -1 for where nothing belongs.
    """
    plus, equals, eos, nothing = 3 * digits + 1 + np.arange(4)
    layouts = np.full((digits + 1, digits + 1, 2, 3 * digits + 4), nothing)
    for first in range(1, digits + 1):
        for second in range(1, digits + 1):
            prompt = [*reversed(range(first)), plus, *reversed(range(digits, digits + second)), equals]
            for carry in range(2):
                total = max(first, second) + carry
                answer = list(range(2 * digits, 2 * digits + total))
                if not least_significant_first:
                    answer.reverse()
                layout = layouts[first, second, carry]
                layout[: len(prompt)] = prompt
                layout[2 * digits + 2 :][: total + 1] = [*answer, eos]
    return layouts
