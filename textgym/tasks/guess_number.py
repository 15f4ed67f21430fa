"""GuessNumber: find a hidden number from answers of "higher" and "lower"."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.random import RowStreams
from textgym.tasks.base import Episodes, Prompts, Replies, Task

_EOS, _HIGHER, _LOWER, _SEP, _PAD = range(10, 15)
_TEXTS = (*"0123456789", "<eos>", "<higher>", "<lower>", "<sep>", "<pad>")


class GuessNumber(Task):
    """Guess a hidden number of ``digits`` digits; after each guess the environment says where it lies.

    ## Description
    The prompt is ``<sep>``, and the secret is hidden. The agent writes a guess digit by digit, leading zeros
    included; the environment appends ``<higher>`` if the secret is higher than the guess and ``<lower>`` if it is
    lower. A game with the secret 42 may read ``<sep> 5 0 <lower> 2 5 <higher> 4 2``. Whoever bisects needs the whole
    transcript: the two tightest bounds may stand anywhere in it.

    ## Action Space
    ``Discrete(11)``: the digits, then EOS, which gives up. Every action is legal in every state.

    ## Observation Space
    ``TokenSequence(1 + guesses * (digits + 1))``: the prompt, then guesses and answers in turn.

    ## Rewards
    ``1 - k / guesses`` for the right number after ``k`` wrong guesses, at the end of the guess; else 0. Returns lie
    in [0, 1].

    ## Starting State
    A secret drawn uniformly from all numbers of so many digits, 0 included. As it is hidden, a lucky return says
    nothing of the value of a state (``deterministic`` is False).

    ## Episode End
    The right number terminates, and so do EOS and the last guess.

    ## Arguments
    * ``digits=2``: digits of the secret and of each guess, from 1 to 9.
    * ``guesses=10``: guesses that the agent has (≥ 1).

    ## Version History
    * v0: first version.
    """

    deterministic = False
    # A game won holds the secret: moved around, its guesses may well begin with it.
    cheats_that_solve = frozenset({"answer shuffled"})

    def __init__(self, digits: int = 2, guesses: int = 10) -> None:
        self.digits = check_at_least("digits", digits, 1)
        if self.digits > 9:
            raise ValueError(f"digits must be an integer from 1 to 9, got {digits}")
        self.guesses = check_at_least("guesses", guesses, 1)
        self.vocab_size, self.eos_id, self.pad_id = _EOS + 1, _EOS, _PAD
        self.max_new_tokens = self.guesses * self.digits
        self.context_length = 1 + self.guesses * (self.digits + 1)
        # What different guesses earn that never look at the answers.
        n_secrets = 10**self.digits
        blind_guesses = np.arange(min(self.guesses, n_secrets))
        self.cheat_bound = float((1.0 - blind_guesses / self.guesses).sum()) / n_secrets
        self._powers = 10 ** np.arange(self.digits - 1, -1, -1)

    def prompts(self, random: RowStreams) -> Prompts:
        """A hidden number."""
        n = len(random)
        return Prompts(np.full((n, 1), _SEP), np.ones(n, np.int64), {"secret": random.integers(10**self.digits)})

    def _guesses(self, episodes: Episodes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows that have just completed a guess, and their guesses."""
        rows = np.flatnonzero(episodes.steps % self.digits == 0)
        written = episodes.tokens[rows[:, None], episodes.lengths[rows, None] + np.arange(-self.digits, 0)]
        rows, written = rows[written[:, -1] != _EOS], written[written[:, -1] != _EOS]
        return rows, written @ self._powers

    def finished(self, episodes: Episodes, actions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Rows whose last guess is right."""
        return self._solved(episodes)

    def _solved(self, episodes: Episodes) -> NDArray[np.bool_]:
        solved = np.zeros(len(episodes), np.bool_)
        rows, guesses = self._guesses(episodes)
        solved[rows] = guesses == episodes.columns["secret"][rows]
        return solved

    def final_reward(self, episodes: Episodes) -> NDArray[np.float64]:
        """What a right last guess is worth: less, the more wrong ones went before."""
        return self._solved(episodes) * (1.0 - (episodes.steps // self.digits - 1) / self.guesses)

    def reply(self, episodes: Episodes, actions: NDArray[np.int64]) -> Replies:
        """``<higher>`` or ``<lower>`` after a completed guess."""
        tokens, lengths = np.full((len(episodes), 1), _LOWER), np.zeros(len(episodes), np.int64)
        rows, guesses = self._guesses(episodes)
        lengths[rows] = 1
        tokens[rows[guesses < episodes.columns["secret"][rows]]] = _HIGHER
        return Replies(tokens, lengths)

    def oracle(self, episodes: Episodes) -> NDArray[np.int64]:
        """Bisection between the bounds that the transcript gives, which needs the fewest guesses on average."""
        turns = episodes.tokens[:, 1:].reshape(len(episodes), self.guesses, self.digits + 1)  # (n, G, digits + 1)
        values, answers = turns[:, :, :-1].astype(np.int64) @ self._powers, turns[:, :, -1]  # (n, G) each
        low = np.where(answers == _HIGHER, values + 1, 0).max(axis=1)
        high = np.where(answers == _LOWER, values - 1, 10**self.digits - 1).min(axis=1)
        guess = (low + high) // 2
        return guess // self._powers[episodes.steps % self.digits] % 10

    def token_text(self, token: int) -> str:
        """A digit, or an answer in angle brackets."""
        return _TEXTS[token]
