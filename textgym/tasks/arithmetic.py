"""Arithmetic: write an expression over given numbers that reaches a target."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.random import RowStreams
from textgym.tasks.base import Episodes, Prompts
from textgym.tasks.expressions import MAX_DEPTH, MAX_DIGITS, MAX_LENGTH, Evaluation, evaluate
from textgym.tasks.grammar import Automaton, GrammarTask, left_align

__all__ = ["Arithmetic", "Evaluation", "evaluate"]

_CHARACTERS = "0123456789+-*/()"
_PLUS, _OPEN, _CLOSE = (_CHARACTERS.index(symbol) for symbol in "+()")
_EOS, _COMMA, _EQUALS, _SEP, _PAD = range(16, 21)
_TEXTS = (*_CHARACTERS, "<eos>", ",", "=", "<sep>", "<pad>")


class Arithmetic(GrammarTask):
    """Write an expression that uses every given number once and has the given value, then close with EOS.

    ## Description
    As in the numbers round of Countdown, but with all numbers to be used: for ``3,4,9=21 <sep>`` one answer is
    ``9+3*4 <eos>``, another ``(4*3)+9 <eos>``. Values are exact fractions. Digits are tokens, so that ``1 2`` is
    twelve. The text is read by a parser of its own (:func:`textgym.tasks.expressions.evaluate`), which knows no
    powers, names or calls.

    ## Action Space
    ``Discrete(17)``: the digits ``0`` to ``9``, ``+ - * / ( )``, then EOS. With ``masked=True`` a mask admits the
    tokens from which a well-formed expression can still be completed within the budget; it says nothing of the
    numbers.

    ## Observation Space
    ``TokenSequence``: the numbers in ascending order, separated by ``,``, then ``=``, the target and ``<sep>``; then
    the tokens written so far. ``,``, ``=`` and ``<sep>`` occur in prompts only.

    ## Rewards
    At the end, 1 for an expression that uses each given number exactly once and equals the target. Otherwise, if
    ``dense``: 0.1 for a well-formed expression, and ``0.2 + 0.3 / (1 + |value - target|)`` for one that uses the
    right numbers; 0 for anything else. Returns lie in [0, 1].

    ## Starting State
    ``numbers`` numbers drawn uniformly from 1 to ``max_number``. The target comes from combining them in random order
    from left to right, each time by an operation drawn from those that keep the value an integer between 1 and
    ``max_target``: every prompt has a solution.

    ## Episode End
    EOS terminates, and so does the budget: two more actions than the longest solution of the form
    ``((a + b) * c) - d`` needs.

    ## Arguments
    * ``numbers=3``: given numbers (≥ 2).
    * ``max_number=9``: the largest of them (≥ 1).
    * ``max_target=99``: the largest target (≥ ``2 * max_number``, so that a sum or a difference is always possible).
    * ``dense=True``: pay partial credit.
    * ``masked=False``: offer the grammar mask.

    ## Version History
    * v0: first version.
    """

    def __init__(
        self,
        numbers: int = 3,
        max_number: int = 9,
        max_target: int = 99,
        dense: bool = True,
        masked: bool = False,
    ) -> None:
        self.numbers = check_at_least("numbers", numbers, 2)
        self.max_number = check_at_least("max_number", max_number, 1)
        self.max_target = check_at_least("max_target", max_target, 2 * self.max_number)
        super().__init__(dense, masked)
        self._digits = len(str(self.max_number))
        self._target_digits = len(str(self.max_target))
        if self._target_digits > MAX_DIGITS:
            raise ValueError(f"max_target must have at most {MAX_DIGITS} digits, got {max_target}")
        self.vocab_size, self.eos_id, self.pad_id = _EOS + 1, _EOS, _PAD
        longest = self.numbers * (self._digits + 1) - 1 + 2 * (self.numbers - 2)
        self.max_new_tokens = longest + 3
        if self.max_new_tokens > MAX_LENGTH:
            raise ValueError(f"numbers must be fewer: solutions may have {MAX_LENGTH} characters, got {numbers}")
        longest_prompt = self.numbers * (self._digits + 1) + self._target_digits + 1
        self.context_length = longest_prompt + self.max_new_tokens

    def prompts(self, random: RowStreams) -> Prompts:
        """Numbers, and a target that some expression over them reaches."""
        n, k = len(random), self.numbers
        drawn = random.integers(self.max_number, (k,)) + 1  # (n, k)
        tastes = random.random((k - 1, 4))
        operations = np.empty((n, k - 1), np.int64)
        value = drawn[:, 0]
        for index in range(k - 1):
            right = drawn[:, index + 1]
            results = np.stack([value + right, value - right, value * right, value // right], axis=1)  # (n, 4)
            feasible = (results >= 1) & (results <= self.max_target)
            feasible[:, 3] &= value % right == 0
            operations[:, index] = np.where(feasible, tastes[:, index], -1.0).argmax(axis=1)
            value = np.take_along_axis(results, operations[:, index : index + 1], axis=1)[:, 0]
        shown = np.sort(drawn, axis=1)
        pieces = []
        for index in range(k):
            pieces += [_decimal(shown[:, index], self._digits), np.full((n, 1), _COMMA if index < k - 1 else _EQUALS)]
        pieces += [_decimal(value, self._target_digits), np.full((n, 1), _SEP)]
        tokens, lengths = left_align(np.concatenate(pieces, axis=1))
        columns = {"numbers": shown, "target": value, "solution": self._solution(drawn, operations)}
        return Prompts(tokens, lengths, columns)

    def _solution(self, drawn: NDArray[np.int64], operations: NDArray[np.int64]) -> NDArray[np.int64]:
        n, k = drawn.shape
        pieces = [np.full((n, k - 2), _OPEN), _decimal(drawn[:, 0], self._digits)]
        for index in range(k - 1):
            pieces += [operations[:, index : index + 1] + _PLUS, _decimal(drawn[:, index + 1], self._digits)]
            pieces += [np.full((n, 1), _CLOSE)] if index < k - 2 else []
        tokens, _ = left_align(np.concatenate(pieces, axis=1))
        solution = np.full((n, self.max_new_tokens), _EOS)
        solution[:, : tokens.shape[1]] = np.where(tokens < 0, _EOS, tokens)
        return solution

    def scores(self, episodes: Episodes) -> list[float]:
        """The score of each expression."""
        texts = [self.decode(episodes.completion(row)) for row in range(len(episodes))]
        numbers, targets = episodes.columns["numbers"], episodes.columns["target"]
        rows = zip(texts, numbers.tolist(), targets.tolist(), strict=True)
        return [self.score(text, tuple(given), target) for text, given, target in rows]

    def score(self, text: str, numbers: tuple[int, ...], target: int) -> float:
        """Score of any text as an answer, between 0 and 1; see the section on rewards."""
        try:
            value, used = evaluate(text)
        except ValueError:
            return 0.0
        if sorted(used) != sorted(numbers):
            return 0.1 * self.dense
        if value == target:
            return 1.0
        return (0.2 + 0.3 / (1.0 + float(abs(value - target)))) * self.dense

    def build_grammar(self) -> Automaton:
        """States are (open parentheses, digits of the number being written; 0 before an operand, -1 after ``)``)."""
        deepest = min(MAX_DEPTH, self.max_new_tokens // 2)

        def step(state: tuple[int, int], token: int) -> tuple[int, int] | None:
            depth, digits = state
            if token < _PLUS:
                return (depth, digits + 1) if 0 <= digits < self._digits else None
            if token == _OPEN:
                return (depth + 1, 0) if digits == 0 and depth < deepest else None
            if digits == 0:
                return None
            if token == _CLOSE:
                return (depth - 1, -1) if depth else None
            return depth, 0

        return Automaton((0, 0), step, lambda state: state[0] == 0 and state[1] != 0, self.vocab_size, _EOS)

    def oracle(self, episodes: Episodes) -> NDArray[np.int64]:
        """The expression that the target was made from, token by token."""
        return episodes.columns["solution"][np.arange(len(episodes)), episodes.steps]

    def token_text(self, token: int) -> str:
        """The character of a token."""
        return _TEXTS[token]

    def join(self, texts: list[str]) -> str:
        """Characters stand side by side."""
        return "".join(texts)


def _decimal(values: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Decimal digits, shape ``(n, width)``, with -1 in place of leading zeros."""
    powers = 10 ** np.arange(width - 1, -1, -1)
    digits = values[:, None] // powers % 10
    return np.where((values[:, None] >= powers) | (powers == 1), digits, -1)
