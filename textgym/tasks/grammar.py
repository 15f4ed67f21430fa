"""Tasks whose texts have a grammar, and their masks: an automaton that never lets a text run into a dead end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from textgym.tasks.base import Episodes, Task

State = TypeVar("State", bound=Hashable)

_NEVER = 2**30
"""More actions than any budget has."""


class Automaton:
    """A deterministic finite automaton whose accepted texts are those that EOS may close.

    The states are found by trying every token from the start state, so a grammar is written as one function of
    (state, token); nesting is bounded by putting the stack into the state.

    Args:
        start: The state before the first token.
        step: ``step(state, token)`` is the next state, or None where the token is illegal. Never asked about EOS.
        accepts: Whether the text may end in a state.
        vocab_size: Number of actions ``V``, EOS included.
        eos_id: The action that ends a text.

    Attributes:
        transitions: Next state by (state, token), shape ``(S + 1, V + 1)``, int32; the last state is "over" (an
            illegal token or EOS came), the last column stands for "no token" and leads nowhere else.
        need: Actions until a text can be closed if a token is chosen now, itself and EOS included, shape
            ``(S + 1, V)``, int32; huge where the token is illegal.

    Raises:
        ValueError: If no text at all is accepted.
    """

    def __init__(
        self,
        start: State,
        step: Callable[[State, int], State | None],
        accepts: Callable[[State], bool],
        vocab_size: int,
        eos_id: int,
    ) -> None:
        index: dict[State, int] = {start: 0}
        found: list[State] = [start]
        edges: list[tuple[int, int, int]] = []
        for state in found:  # grows while it is read: breadth-first
            for token in range(vocab_size):
                target = None if token == eos_id else step(state, token)
                if target is None:
                    continue
                if target not in index:
                    index[target] = len(found)
                    found.append(target)
                edges.append((index[state], token, index[target]))

        self.over = len(found)
        self._eos_id = eos_id
        self.transitions = np.full((self.over + 1, vocab_size + 1), self.over, np.int32)
        self.transitions[:, vocab_size] = np.arange(self.over + 1)
        sources, tokens, targets = np.array(edges, np.int64).reshape(-1, 3).T
        self.transitions[sources, tokens] = targets

        closable = np.array([accepts(state) for state in found])
        distance = np.where(np.append(closable, False), 1, _NEVER).astype(np.int32)
        while True:
            shorter = distance.copy()
            np.minimum.at(shorter, sources, np.minimum(distance[targets] + 1, _NEVER))
            if np.array_equal(shorter, distance):
                break
            distance = shorter
        if distance[0] >= _NEVER:
            raise ValueError("the grammar accepts no text: no accepting state can be reached from the start")
        self.need = np.full((self.over + 1, vocab_size), _NEVER, np.int32)
        self.need[sources, tokens] = np.minimum(distance[targets] + 1, _NEVER)
        self.need[: self.over, eos_id] = np.where(closable, 1, _NEVER)
        self.need[self.over, eos_id] = -_NEVER  # a text that is over still needs a legal token to show

    def states(self, tokens: NDArray[np.integer], lengths: NDArray[np.int64]) -> NDArray[np.int32]:
        """The states that texts lead to, shape ``(n,)``, given tokens ``(n, L)`` and their lengths ``(n,)``."""
        steps = int(lengths.max(initial=0))
        nothing = self.transitions.shape[1] - 1
        read = np.where(np.arange(steps) < lengths[:, None], tokens[:, :steps], nothing)
        states = np.zeros(len(tokens), np.int32)
        for position in range(steps):
            states = self.transitions[states, read[:, position]]
        return states

    def allowed(self, tokens: NDArray[np.integer], lengths: NDArray[np.int64], budget: int) -> NDArray[np.bool_]:
        """Tokens from which the text can still be closed within the budget, shape ``(n, V)``.

        Args:
            tokens: The texts so far, shape ``(n, L)``; beyond ``lengths`` the content is ignored.
            lengths: Shape ``(n,)``.
            budget: Longest text, EOS included.
        """
        remaining = budget - lengths
        states = np.where(remaining > 0, self.states(tokens, lengths), self.over)
        return self.need[states] <= remaining[:, None]


class GrammarTask(Task):
    """A task whose answers are texts of a grammar.

    Args:
        dense: Whether to pay partial credit.
        masked: Whether to offer the grammar as a mask.
    """

    def __init__(self, dense: bool, masked: bool) -> None:
        self.dense, self.masked = bool(dense), bool(masked)
        self._grammar: Automaton | None = None

    @abstractmethod
    def build_grammar(self) -> Automaton:
        """The grammar; asked for at the first mask."""

    @abstractmethod
    def scores(self, episodes: Episodes) -> list[float]:
        """Score of each text, in [0, 1]: 1 for a right answer, less for partial credit."""

    def final_reward(self, episodes: Episodes) -> NDArray[np.float64]:
        """The score of each text; without ``dense``, only right answers count."""
        scores = np.array(self.scores(episodes), np.float64)
        return scores if self.dense else np.where(scores == 1.0, 1.0, 0.0)

    def allowed(self, episodes: Episodes) -> NDArray[np.bool_]:
        """Tokens that keep the text well-formed and leave room to complete it within the budget."""
        if self._grammar is None:
            self._grammar = self.build_grammar()
        texts = completions(episodes, self.max_new_tokens)
        return self._grammar.allowed(texts, episodes.steps, self.max_new_tokens)


def completions(episodes: Episodes, width: int) -> NDArray[np.int32]:
    """The first ``width`` tokens after each prompt, shape ``(n, width)``; what follows a row's last token is junk."""
    columns = episodes.prompt_lengths[:, None] + np.arange(width)
    np.minimum(columns, episodes.tokens.shape[1] - 1, out=columns)
    return np.take_along_axis(episodes.tokens, columns, axis=1)


def left_align(tokens: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Close the gaps (-1) in rows of token ids ``(n, L)``; returns the rows and their lengths ``(n,)``.

    Example:
        >>> left_align(np.array([[-1, 4, -1, 7]]))
        (array([[ 4,  7, -1, -1]]), array([2]))
    """
    gaps = tokens < 0
    order = np.argsort(gaps, axis=1, kind="stable")
    return np.take_along_axis(tokens, order, axis=1), tokens.shape[1] - gaps.sum(axis=1)
