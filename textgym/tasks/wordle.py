"""Wordle: find a hidden five-letter word from coloured guesses."""

from __future__ import annotations

import string
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.memo import Memo
from textgym.random import RowStreams
from textgym.tasks.base import Episodes, Prompts, Replies, Task
from textgym.tasks.grammar import Automaton
from textgym.tasks.word_list import N_LETTERS, secret_words

LENGTH = 5
"""Letters of a word."""

_EOS, _GREY, _YELLOW, _GREEN, _SEP, _PAD = range(N_LETTERS, N_LETTERS + 6)
_TEXTS = (*string.ascii_lowercase, "<eos>", "<grey>", "<yellow>", "<green>", "<sep>", "<pad>")
_TURN = 2 * LENGTH


class Wordle(Task):
    """Guess a hidden English word of five letters; after each guess the environment colours its letters.

    ## Description
    The prompt is ``<sep>``, and the word is hidden. The agent writes five letters, and the environment appends five
    colours: ``<green>`` for a letter in its place, ``<yellow>`` for one that stands elsewhere in the word, ``<grey>``
    for the others. A letter that occurs twice in a guess and once in the word is coloured once, green before yellow
    and then left before right.

    ## Action Space
    ``Discrete(27)``: the letters, then EOS, which gives up. Any five letters are a guess. With ``masked=True`` a mask
    admits the letters that continue a word of the list, and no giving up.

    ## Observation Space
    ``TokenSequence(1 + guesses * 10)``: the prompt, then guesses and colours in turn. Colours are never actions.

    ## Rewards
    Solving the word after ``k`` wrong guesses pays ``1 - k / guesses`` in the sparse variant. In the dense one it pays
    half of that, and a guess with more green letters than any before pays 0.1 for each one more. All of it comes with
    the last letter of a guess. Returns lie in [0, 1].

    ## Starting State
    A word drawn uniformly from the list. As it is hidden, a lucky return says nothing of the value of a state
    (``deterministic`` is False).

    ## Episode End
    The right word terminates, and so do EOS and the last guess.

    ## Arguments
    * ``n_words=250``: the words of the list, the most frequent ones (≥ 1).
    * ``guesses=6``: guesses that the agent has (≥ 1).
    * ``dense=True``: pay for green letters.
    * ``masked=False``: admit words of the list only, by a mask.

    ## Version History
    * v0: first version.
    """

    deterministic = False
    pays_at_end = False
    # A game won holds the word: moved around, its guesses may well begin with it.
    cheats_that_solve = frozenset({"answer shuffled"})
    cheat_bound = 0.3

    def __init__(self, n_words: int = 250, guesses: int = 6, dense: bool = True, masked: bool = False) -> None:
        self.words = secret_words(LENGTH, LENGTH, check_at_least("n_words", n_words, 1))  # (W, 5)
        self.guesses = check_at_least("guesses", guesses, 1)
        self.dense = bool(dense)
        self.masked = bool(masked)
        self.vocab_size, self.eos_id, self.pad_id = _EOS + 1, _EOS, _PAD
        self.max_new_tokens = self.guesses * LENGTH
        self.context_length = 1 + self.guesses * _TURN
        self._spelling = self._build_spelling() if self.masked else None
        self._choose = Memo(self._choose_word, 4096)

    def prompts(self, random: RowStreams) -> Prompts:
        """A hidden word."""
        n = len(random)
        columns = {
            "word": random.integers(len(self.words)),
            "colours": np.zeros((n, LENGTH), np.int64),
            "n_colours": np.zeros(n, np.int64),
            "solved": np.zeros(n, np.bool_),
        }
        return Prompts(np.full((n, 1), _SEP), np.ones(n, np.int64), columns)

    def step_reward(self, episodes: Episodes, actions: NDArray[np.int64]) -> NDArray[np.float64]:
        """What a completed guess has gained; brings the columns up to date."""
        columns, rewards = episodes.columns, np.zeros(len(actions))
        rows = np.flatnonzero((episodes.steps % LENGTH == 0) & (actions != _EOS))
        guesses = episodes.tokens[rows[:, None], episodes.lengths[rows, None] + np.arange(-LENGTH, 0)]  # (m, 5)
        colours = colour(guesses, self.words[columns["word"][rows]])
        green = (colours == 2).sum(axis=1)
        columns["n_colours"][:] = 0
        columns["n_colours"][rows] = LENGTH
        columns["colours"][rows] = colours + _GREY
        columns["solved"][rows] = green == LENGTH
        rewards[rows] = (green == LENGTH) * (1.0 - (episodes.steps[rows] // LENGTH - 1) / self.guesses)
        if self.dense:
            earlier = episodes.tokens[rows, 1:].reshape(len(rows), self.guesses, _TURN)[:, :, LENGTH:]
            before = (earlier == _GREEN).sum(axis=2).max(axis=1)
            rewards[rows] = 0.5 * (rewards[rows] + np.maximum(green - before, 0) / LENGTH)
        return rewards

    def finished(self, episodes: Episodes, actions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Rows whose last guess is the word."""
        return episodes.columns["solved"]

    def reply(self, episodes: Episodes, actions: NDArray[np.int64]) -> Replies:
        """The colours of a completed guess."""
        return Replies(episodes.columns["colours"], episodes.columns["n_colours"])

    def allowed(self, episodes: Episodes) -> NDArray[np.bool_]:
        """Letters that continue the guess to a word of the list."""
        assert self._spelling is not None
        written = episodes.steps % LENGTH
        columns = (episodes.lengths - written)[:, None] + np.arange(LENGTH)
        guesses = np.take_along_axis(episodes.tokens, np.minimum(columns, self.context_length - 1), axis=1)
        return self._spelling.allowed(guesses, written, LENGTH + 1)

    def _build_spelling(self) -> Automaton:
        """States are beginnings of words; a word is closed by the environment, which stands in for EOS."""
        words = [tuple(word) for word in self.words.tolist()]
        beginnings = {word[:end] for word in words for end in range(1, LENGTH + 1)}

        def step(beginning: tuple[int, ...], letter: int) -> tuple[int, ...] | None:
            longer = (*beginning, letter)
            return longer if longer in beginnings else None

        start: tuple[int, ...] = ()
        return Automaton(start, step, lambda beginning: len(beginning) == LENGTH, self.vocab_size, _EOS)

    def oracle(self, episodes: Episodes) -> NDArray[np.int64]:
        """Of the words that the transcript leaves possible, that which tells most of them apart by its colours."""
        turns = episodes.steps // LENGTH
        rows = zip(episodes.tokens[:, 1:], turns.tolist(), strict=True)
        words = np.array([self._choose(tokens[: turn * _TURN].tobytes()) for tokens, turn in rows])
        return self.words[words, episodes.steps % LENGTH]

    def _choose_word(self, transcript: bytes) -> int:
        possible = np.ones(len(self.words), np.bool_)
        for turn in np.frombuffer(transcript, np.int32).reshape(-1, 2, LENGTH):
            possible &= (colour(turn[None, 0], self.words) == turn[1] - _GREY).all(axis=1)
        candidates = np.flatnonzero(possible)
        if not len(candidates):  # only after a guess that was interrupted
            return 0
        codes = np.sort(self._codes[np.ix_(candidates, candidates)], axis=1)
        n_different = (np.diff(codes, axis=1) != 0).sum(axis=1)
        return int(candidates[n_different.argmax()])

    @cached_property
    def _codes(self) -> NDArray[np.int64]:
        """The colours of each word as a guess for each other, as one number, shape ``(W, W)``."""
        powers = 3 ** np.arange(LENGTH)
        return np.stack([colour(word[None], self.words) @ powers for word in self.words])

    def token_text(self, token: int) -> str:
        """A letter, or a colour in angle brackets."""
        return _TEXTS[token]


def colour(guesses: NDArray[np.integer], secrets: NDArray[np.integer]) -> NDArray[np.int64]:
    """Colours of guesses, shapes ``(n, 5)`` (or one row, broadcast): 0 for grey, 1 for yellow, 2 for green.

    Example:
        >>> colour(np.array([[4, 4, 0, 1, 2]]), np.array([[7, 4, 3, 0, 9]]))
        array([[0, 2, 1, 0, 0]])
    """
    green = guesses == secrets
    # How many letters of the secret are left for each letter of the guess, and how many claim them further left.
    left_over = ((guesses[:, :, None] == secrets[:, None, :]) & ~green[:, None, :]).sum(axis=2)
    claimed = np.zeros(left_over.shape, np.int64)
    for place in range(1, LENGTH):
        claimed[:, place] = ((guesses[:, :place] == guesses[:, place, None]) & ~green[:, :place]).sum(axis=1)
    return np.where(green, 2, (claimed < left_over).astype(np.int64))
