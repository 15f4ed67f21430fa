"""Exact arithmetic on untrusted text: a parser of our own, never ``eval``.

The grammar has no powers, names, calls or signs, and the length of the text, the nesting and the digits of a number
are limited, so that no expression costs more than a few hundred small fraction operations.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

MAX_LENGTH = 200
"""Longest expression, in characters."""
MAX_DEPTH = 20
"""Deepest nesting of parentheses."""
MAX_DIGITS = 6
"""Longest number, in digits."""

_OPERATORS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
_DIGITS = frozenset("0123456789")


class Evaluation(NamedTuple):
    """What an expression is worth.

    Attributes:
        value: Its exact value.
        numbers: The numbers written in it, in order.
    """

    value: Fraction
    numbers: tuple[int, ...]


def evaluate(text: str) -> Evaluation:
    """Value of an expression of non-negative integers, ``+ - * /`` and parentheses; spaces between tokens are skipped.

    It takes well under a millisecond, whatever the text.

    Raises:
        ValueError: If the text is not such an expression, divides by zero, or exceeds :data:`MAX_LENGTH`,
            :data:`MAX_DEPTH` or :data:`MAX_DIGITS`.

    Example:
        >>> evaluate("(1+2)*3/2")
        Evaluation(value=Fraction(9, 2), numbers=(1, 2, 3, 2))
        >>> evaluate("9**9**9")
        Traceback (most recent call last):
        ValueError: expression must have a number or '(' at position 2, got '*'
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"expression must have at most {MAX_LENGTH} characters, got {len(text)}")
    values: list[Fraction] = []
    pending: list[str] = []  # operators and opening parentheses, outermost first
    numbers: list[int] = []
    depth, position, wants_operand = 0, 0, True
    while position < len(text):
        character = text[position]
        if character == " ":
            position += 1
        elif wants_operand and character in _DIGITS:
            end = position + 1
            while end < len(text) and text[end] in _DIGITS:
                end += 1
            if end - position > MAX_DIGITS:
                raise ValueError(f"expression must have numbers of at most {MAX_DIGITS} digits, got {end - position}")
            numbers.append(int(text[position:end]))
            values.append(Fraction(numbers[-1]))
            position, wants_operand = end, False
        elif wants_operand and character == "(":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"expression must nest at most {MAX_DEPTH} deep")
            pending.append("(")
            position += 1
        elif not wants_operand and character in _OPERATORS:
            _reduce(values, pending, _PRECEDENCE[character])
            pending.append(character)
            position, wants_operand = position + 1, True
        elif not wants_operand and character == ")" and depth:
            _reduce(values, pending, 1)
            pending.pop()
            depth -= 1
            position += 1
        else:
            accepted = "a number or '('" if wants_operand else "an operator" + " or ')'" * (depth > 0)
            raise ValueError(f"expression must have {accepted} at position {position}, got {character!r}")
    if wants_operand or depth:
        raise ValueError("expression must not end " + ("before a number" if wants_operand else "before ')'"))
    _reduce(values, pending, 1)
    return Evaluation(values[0], tuple(numbers))


def _reduce(values: list[Fraction], pending: list[str], precedence: int) -> None:
    """Apply the pending operators that bind at least so tightly, up to an opening parenthesis."""
    while pending and pending[-1] != "(" and _PRECEDENCE[pending[-1]] >= precedence:
        right = values.pop()
        symbol = pending.pop()
        if symbol == "/" and not right:
            raise ValueError("expression must not divide by zero")
        values[-1] = _OPERATORS[symbol](values[-1], right)
