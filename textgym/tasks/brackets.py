"""Brackets: close what is open."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.random import RowStreams
from textgym.tasks.base import Prompts
from textgym.tasks.exact_answer import ExactAnswer, gather

_OPENERS, _CLOSERS = "([{<", ")]}>"
_N_SHAPES = 4096


class Brackets(ExactAnswer):
    """Close every bracket that is open, innermost first, then close with EOS.

    ## Description
    The prompt is the beginning of a well-formed text of brackets; the answer closes what it leaves open. For the
    prompt ``([]{`` it is ``})<eos>``. Which kind comes next depends on the nesting, not on the distance: the
    context-free structure that a Dyck language has and a regular one lacks.

    ## Action Space
    ``Discrete(2 * kinds + 1)``: the opening brackets, the closing ones, then EOS. Every action is legal in every state.

    ## Observation Space
    ``TokenSequence(length + max_depth + 2)``: the prompt and the tokens written so far. The id after EOS, the
    separator, closes every prompt and occurs nowhere else; the padding id is the next one.

    ## Rewards
    Dense: ``1 / (d + 1)`` for each of the ``d`` closing brackets that stands where it belongs and for an EOS right
    after the last one. Sparse: 1 for the exact answer when EOS is written, else 0. Returns lie in [0, 1].

    ## Starting State
    One of 4,096 shapes, with the kind of each pair of brackets drawn uniformly. A shape has a length drawn uniformly
    from 1 to ``length`` and opens or closes with equal chance, where both are possible; it ends with at least one and
    never has more than ``max_depth`` brackets open.

    ## Episode End
    EOS terminates, and so does the budget of ``max_depth + 1`` actions.

    ## Arguments
    ``length=12``, ``kinds=3``, ``max_depth=6``, ``dense=True``; see below.

    ## Version History
    * v0: first version.

    Args:
        length: Most brackets in a prompt (≥ 1).
        kinds: Kinds of brackets (1 to 4).
        max_depth: Most brackets open at once (≥ 2).
        dense: Which rewards are paid, see above.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, length: int = 12, kinds: int = 3, max_depth: int = 6, dense: bool = True) -> None:
        self.length = check_at_least("length", length, 1)
        self.kinds = check_at_least("kinds", kinds, 1)
        if self.kinds > len(_OPENERS):
            raise ValueError(f"kinds must be at most {len(_OPENERS)}, got {kinds}")
        self.max_depth = check_at_least("max_depth", max_depth, 2)
        super().__init__(dense)
        self.eos_id = 2 * self.kinds
        self.vocab_size = self.eos_id + 1
        self.sep_id = self.vocab_size
        self.pad_id = self.sep_id + 1
        self.max_new_tokens = self.max_depth + 1
        self.context_length = self.length + 1 + self.max_new_tokens
        self._texts = (*_OPENERS[: self.kinds], *_CLOSERS[: self.kinds], "<eos>", "<sep>", "<pad>")
        # The right brackets in another order: each is right by chance; with two of them the EOS weighs most.
        self.cheat_bound = (2 / self.kinds + 1) / 3 if self.dense else 1 / self.kinds

    def prompts(self, random: RowStreams) -> Prompts:
        """A random shape with random kinds, and a separator."""
        shapes = _shapes(self.length, self.max_depth)
        shape = random.integers(_N_SHAPES)
        symbols = np.empty((len(random), 2 * self.length + 3), np.int64)  # as `_Shapes.source` counts them
        symbols[:, : self.length] = random.integers(self.kinds, (self.length,))
        symbols[:, self.length : -3] = symbols[:, : self.length] + self.kinds
        symbols[:, -3:] = self.sep_id, self.eos_id, -1
        tokens = gather(symbols, shapes.source[shape])
        prompt, target = tokens[:, : self.length + 1], tokens[:, self.length + 1 :]
        return Prompts(prompt, shapes.length[shape] + 1, self.answer_columns(target, shapes.depth[shape] + 1))

    def token_text(self, token: int) -> str:
        """A bracket."""
        return self._texts[token]

    def join(self, texts: list[str]) -> str:
        """Brackets without spaces."""
        return "".join(texts)


class _Shapes(NamedTuple):
    """Beginnings of well-formed texts, without the kinds of their brackets.

    Attributes:
        length: Brackets in each shape, shape ``(M,)``.
        depth: Brackets left open, shape ``(M,)``.
        source: What stands where in the prompt and, behind it, in the answer, shape
            ``(M, length + 1 + max_depth + 1)``: ``i`` for the opening bracket at position ``i``, ``length + i`` for the
            one that closes it, then ``2 * length`` for a separator, the next two for EOS and for nothing.
    """

    length: NDArray[np.int64]
    depth: NDArray[np.int64]
    source: NDArray[np.int64]


@cache
def _shapes(max_length: int, max_depth: int) -> _Shapes:
    """Draw the shapes once: a walk is sequential, and at every reset its steps would cost more than the episode."""
    generator = np.random.default_rng(0)
    separator, eos, nothing = 2 * max_length + np.arange(3)
    length = generator.integers(1, max_length + 1, _N_SHAPES)
    prompt = np.full((_N_SHAPES, max_length + 1), separator)
    stack = np.zeros((_N_SHAPES, max_depth), np.int64)
    depth = np.zeros(_N_SHAPES, np.int64)
    for position in range(max_length):
        opens = generator.random(_N_SHAPES) < 0.5
        # The last bracket must leave one open; at a depth of max_depth ≥ 2 it can close and does so.
        opens |= (depth == 0) | ((position == length - 1) & (depth == 1))
        opens &= depth < max_depth
        rows = np.flatnonzero(opens & (position < length))
        stack[rows, depth[rows]] = prompt[rows, position] = position
        depth[rows] += 1
        rows = np.flatnonzero(~opens & (position < length))
        depth[rows] -= 1
        prompt[rows, position] = max_length + stack[rows, depth[rows]]
    order = depth[:, None] - 1 - np.arange(max_depth + 1)  # innermost first
    closers = max_length + np.take_along_axis(stack, np.maximum(order, 0), axis=1)
    answer = np.where(order >= 0, closers, np.where(order == -1, eos, nothing))
    return _Shapes(length, depth, np.concatenate([prompt, answer], axis=1))
