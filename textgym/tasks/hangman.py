"""Hangman: find a hidden word, letter by letter."""

from __future__ import annotations

import string

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.memo import Memo
from textgym.random import RowStreams
from textgym.tasks.base import Episodes, Prompts, Replies, Task
from textgym.tasks.word_list import N_LETTERS, secret_words

_EOS, _BLANK, _SEP, _PAD = range(N_LETTERS, N_LETTERS + 4)
_TEXTS = (*string.ascii_lowercase, "<eos>", "_", "<sep>", "<pad>")


class Hangman(Task):
    """Guess the letters of a hidden English word; after each guess the environment shows what is known of it.

    ## Description
    The prompt shows one ``_`` for each letter of the word. The agent says a letter, and the environment appends the
    word with the letters found so far, the others as ``_``: ``_ _ _ _ <sep> e _ _ _ e s s _ _ e i …``. A letter that
    is not in the word, or was said before, is a wrong guess.

    ## Action Space
    ``Discrete(27)``: the letters, then EOS, which gives up. With ``masked=True`` a mask admits the letters not yet
    said, and no giving up.

    ## Observation Space
    ``TokenSequence``: the prompt and ``<sep>``, then letters and patterns in turn; letters have the same ids in both.

    ## Rewards
    Solving the word pays ``1 - wrong / max_wrong``, in the sparse variant; in the dense one it pays half of that, and
    every letter's place that is found pays ``0.5 / length`` at once. Returns lie in [0, 1].

    ## Starting State
    A word drawn uniformly from the frequent English words of ``min_length`` to ``max_length`` letters. As it is
    hidden, a lucky return says nothing of the value of a state (``deterministic`` is False).

    ## Episode End
    The whole word, ``max_wrong`` wrong guesses and EOS terminate; the budget is the most letters that this allows.

    ## Arguments
    * ``min_length=4``, ``max_length=6``: lengths of the word (from 1 to 12).
    * ``max_wrong=6``: wrong guesses that lose the game (≥ 1).
    * ``dense=True``: pay for letters found.
    * ``masked=False``: forbid repetitions and giving up by a mask.

    ## Version History
    * v0: first version.
    """

    deterministic = False
    pays_at_end = False
    # The order of the right letters hardly matters, so a game won, said in another order, is a game won.
    cheats_that_solve = frozenset({"answer shuffled"})

    def __init__(
        self,
        min_length: int = 4,
        max_length: int = 6,
        max_wrong: int = 6,
        dense: bool = True,
        masked: bool = False,
    ) -> None:
        self.min_length = check_at_least("min_length", min_length, 1)
        self.max_length = check_at_least("max_length", max_length, self.min_length)
        if self.max_length > 12:
            raise ValueError(f"max_length must be at most 12, got {max_length}")
        self.max_wrong = check_at_least("max_wrong", max_wrong, 1)
        self.dense = bool(dense)
        self.masked = bool(masked)
        self.vocab_size, self.eos_id, self.pad_id = _EOS + 1, _EOS, _PAD
        self.max_new_tokens = self.max_length + self.max_wrong - 1
        self.context_length = self.max_length + 1 + self.max_new_tokens * (1 + self.max_length)
        self.words = secret_words(self.min_length, self.max_length)  # (W, max_length)
        self._lengths = (self.words >= 0).sum(axis=1)
        self._choose = Memo(self._choose_letter, 4096)

    def prompts(self, random: RowStreams) -> Prompts:
        """A hidden word, shown as blanks."""
        word = random.integers(len(self.words))
        lengths = self._lengths[word]
        tokens = np.full((len(random), self.max_length + 1), _BLANK)
        tokens[np.arange(len(random)), lengths] = _SEP
        columns = {
            "word": word,
            "said": np.zeros((len(random), self.vocab_size), np.bool_),
            "hidden": lengths,
            "wrong": np.zeros(len(random), np.int64),
        }
        return Prompts(tokens, lengths + 1, columns)

    def step_reward(self, episodes: Episodes, actions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Letters found and the word solved; brings the columns up to date."""
        columns, rows = episodes.columns, np.arange(len(actions))
        found = (self.words[columns["word"]] == actions[:, None]).sum(axis=1)
        found[columns["said"][rows, actions]] = 0
        columns["said"][rows, actions] = True
        columns["hidden"] -= found
        columns["wrong"] += found == 0
        solved = (columns["hidden"] == 0) * (1.0 - columns["wrong"] / self.max_wrong)
        if not self.dense:
            return solved
        return 0.5 * (found / self._lengths[columns["word"]] + solved)

    def finished(self, episodes: Episodes, actions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Rows that have found the word or lost the game."""
        return (episodes.columns["hidden"] == 0) | (episodes.columns["wrong"] >= self.max_wrong)

    def reply(self, episodes: Episodes, actions: NDArray[np.int64]) -> Replies:
        """The word, with blanks for the letters that have not been said."""
        word = episodes.columns["word"]
        return Replies(self._pattern(episodes), self._lengths[word])

    def _pattern(self, episodes: Episodes) -> NDArray[np.int64]:
        letters = self.words[episodes.columns["word"]]
        known = np.take_along_axis(episodes.columns["said"], np.maximum(letters, 0), axis=1)
        return np.where(known, letters, _BLANK)

    def allowed(self, episodes: Episodes) -> NDArray[np.bool_]:
        """Letters that have not been said; EOS only where none is left."""
        allowed = ~episodes.columns["said"]
        allowed[:, _EOS] = ~allowed[:, :_EOS].any(axis=1)
        return allowed

    def oracle(self, episodes: Episodes) -> NDArray[np.int64]:
        """The letter that occurs in most of the words that the transcript leaves possible."""
        patterns, lengths = self._pattern(episodes), self._lengths[episodes.columns["word"]]
        said = episodes.columns["said"][:, :N_LETTERS]
        choices = [
            self._choose(tuple(pattern[:length]), letters.tobytes())
            for pattern, length, letters in zip(patterns.tolist(), lengths.tolist(), said, strict=True)
        ]
        return np.array(choices, np.int64)

    def _choose_letter(self, pattern: tuple[int, ...], said: bytes) -> int:
        is_said = np.frombuffer(said, np.bool_)
        words = self.words[self._lengths == len(pattern), : len(pattern)]
        shown = np.array(pattern)
        possible = np.where(shown == _BLANK, ~is_said[words], words == shown).all(axis=1)
        # (candidates, letters, places): in how many words does each letter occur?
        occurs = (words[possible][:, None] == np.arange(N_LETTERS)[:, None]).any(axis=2).sum(axis=0)
        return int(np.where(is_said, -1, occurs).argmax())

    def token_text(self, token: int) -> str:
        """A letter or a blank."""
        return _TEXTS[token]
