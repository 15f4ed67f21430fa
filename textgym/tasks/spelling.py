"""Spelling: correct a misspelt English word."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least, check_list
from textgym.english import load_english
from textgym.random import RowStreams
from textgym.tasks.base import Episodes, Prompts, Task

_LETTERS = string.ascii_lowercase
_EOS, _SEP, _PAD = 26, 27, 28
_PER_WORD = 32
_N_ENGLISH = 1500
_RUDE_STEMS = (
    "anal anus arse ass cock coon crap cum cunt dick dyke fag fuck gook homo kike nazi nigg piss poo porn".split()
)
_RUDE_STEMS += "prick puss rape sex shit slut spic suck tit turd twat wank whor".split()


class Spelling(Task):
    """Write the English word that the prompt misspells, then close with EOS.

    ## Description
    The prompt is a word with ``edits`` typing mistakes: a letter too many, one left out, a wrong one, or two swapped.
    For the prompt ``peolpe`` the answer is ``people<eos>``. The vocabulary of the task has to be learnt from rewards;
    copying the prompt is a good start and never the answer.

    ## Action Space
    ``Discrete(27)``: the letters, then EOS. Every action is legal in every state.

    ## Observation Space
    ``TokenSequence(2 * longest + edits + 3)``, where ``longest`` is the length of the longest word: the prompt and the
    letters written so far. Id 27, the separator, closes every prompt and occurs nowhere else; the padding id is 28.

    ## Rewards
    Dense: the return is ``1 - d / max(len(text), len(word))``, where ``d`` is the edit distance (Levenshtein) between
    the text and the word. It is paid as it is earned: each letter earns the change of a potential, the last action the
    rest, which leaves the best policy as it is (Ng, Harada and Russell 1999). The potential of a beginning is the
    largest ``(j - distance to the word's first j letters) / len(word)`` over ``j``: right letters, less mistakes.
    Sparse: 1 for the very word when EOS is written, else 0. Returns lie in [0, 1].

    ## Starting State
    One of up to 32 misspellings of each word, drawn uniformly. No misspelling is itself a word of the list or belongs
    to two of them, so the prompt determines the answer.

    ## Episode End
    EOS terminates, and so does the budget of ``longest + 2`` actions.

    ## Arguments
    ``edits=2``, ``min_length=5``, ``max_length=8``, ``words=None``, ``dense=True``; see below.

    ## Version History
    * v0: first version.

    Args:
        edits: Mistakes in a word (≥ 1).
        min_length: Shortest word taken from the list (≥ 2).
        max_length: Longest word taken from the list (≥ ``min_length``).
        words: Words of the letters a to z; None for the 1,500 most frequent of :mod:`textgym.english`.
        dense: Which rewards are paid, see above.

    Raises:
        ValueError: If an argument is out of range, a word has other letters, or no misspelling can be made.
    """

    vocab_size = 27
    eos_id = _EOS
    pad_id = _PAD

    def __init__(
        self,
        edits: int = 2,
        min_length: int = 5,
        max_length: int = 8,
        words: Sequence[str] | None = None,
        dense: bool = True,
    ) -> None:
        self.edits = check_at_least("edits", edits, 1)
        self.min_length = check_at_least("min_length", min_length, 2)
        self.max_length = check_at_least("max_length", max_length, self.min_length)
        self.dense = bool(dense)
        listed = load_english(_N_ENGLISH).words if words is None else check_list("words", words, "words")
        for word in listed:
            if not isinstance(word, str) or not word or not set(word) <= set(_LETTERS):
                raise ValueError(f"words must consist of the letters a to z, got {word!r}")
        self.words = tuple(dict.fromkeys(word for word in listed if min_length <= len(word) <= max_length))
        self._table = _misspellings(self.words, self.edits)
        if not len(self._table.word):
            raise ValueError(
                f"words must have at least one of {min_length} to {max_length} letters with a misspelling of its own, "
                f"got {len(self.words)} of that length"
            )
        longest = self._table.letters.shape[1] - 1
        self.max_new_tokens = longest + 2
        self.context_length = self._table.tokens.shape[1] + self.max_new_tokens
        self.cheat_bound = float(self._table.copy_score.mean()) if self.dense else 0.01

    def prompts(self, random: RowStreams) -> Prompts:
        """A misspelt word and a separator."""
        row, table = random.integers(len(self._table.word)), self._table
        letters = table.letters[table.word[row]]
        columns = {
            "letters": letters,
            "word_length": np.count_nonzero(letters != _EOS, axis=1),
            "distances": np.broadcast_to(np.arange(letters.shape[1], dtype=np.int16), letters.shape),
            "potential": np.zeros(len(row)),
        }
        return Prompts(table.tokens[row], table.lengths[row], columns)

    def step_reward(self, episodes: Episodes, actions: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """The change of the potential (dense variant); keeps the distances up to date in both."""
        columns = episodes.columns
        distances = append_letter(columns["distances"], columns["letters"], actions)
        columns["distances"] = np.where((actions == _EOS)[:, None], columns["distances"], distances)
        if not self.dense:
            return None
        position, length = np.arange(distances.shape[1]), columns["word_length"]
        # Beyond the word's end nothing can be right.
        right = np.where(position <= length[:, None], position - columns["distances"], 0).max(axis=1)
        potential = right / length
        earned = potential - columns["potential"]
        columns["potential"] = potential
        return earned

    def final_reward(self, episodes: Episodes) -> NDArray[np.float64]:
        """What the text earns beyond its potential; in the sparse variant 1 for the very word."""
        rows, length = np.arange(len(episodes)), episodes.columns["word_length"]
        distance = episodes.columns["distances"][rows, length]
        if not self.dense:
            return (distance == 0).astype(np.float64)  # the budget is longer than any word, so EOS has been written
        written = episodes.steps - (episodes.tokens[rows, episodes.lengths - 1] == _EOS)
        return 1 - distance / np.maximum(written, length) - episodes.columns["potential"]

    def oracle(self, episodes: Episodes) -> NDArray[np.int64]:
        """The word and its EOS, letter by letter."""
        letters = episodes.columns["letters"]
        return letters[np.arange(len(episodes)), np.minimum(episodes.steps, letters.shape[1] - 1)].astype(np.int64)

    def token_text(self, token: int) -> str:
        """A letter."""
        return _LETTERS[token] if token < _EOS else ("<eos>", "<sep>", "<pad>")[token - _EOS]

    def join(self, texts: list[str]) -> str:
        """Letters without spaces."""
        return "".join(texts)


def append_letter(
    distances: NDArray[np.int16], letters: NDArray[np.int16], letter: NDArray[np.int64]
) -> NDArray[np.int16]:
    """One row of the dynamic programme of the edit distance, for all texts at once.

    Args:
        distances: Distance between each text and the first ``j`` letters of its word, shape ``(n, L + 1)``.
        letters: The words, shape ``(n, L + 1)``; the last column is not read.
        letter: The letter that each text grows by, shape ``(n,)``.

    Returns:
        The distances of the longer texts, shape ``(n, L + 1)``.
    """
    position = np.arange(distances.shape[1], dtype=np.int16)
    longer = distances + np.int16(1)
    np.minimum(longer[:, 1:], distances[:, :-1] + (letters[:, :-1] != letter[:, None]), out=longer[:, 1:])
    # A letter left out costs 1 a position: the minimum over all earlier positions, by one running minimum.
    return np.minimum.accumulate(longer - position, axis=1) + position


class _Table(NamedTuple):
    """Misspellings of a list of words.

    Attributes:
        tokens: Misspellings, separator included, shape ``(M, longest + edits + 1)``, int32.
        lengths: Tokens in each, shape ``(M,)``.
        word: Number of the word that each misspells, shape ``(M,)``.
        letters: The words, closed and filled up with EOS, shape ``(len(words), longest + 1)``.
        copy_score: What the misspelling itself would earn, shape ``(M,)``.
    """

    tokens: NDArray[np.int32]
    lengths: NDArray[np.int64]
    word: NDArray[np.int64]
    letters: NDArray[np.int16]
    copy_score: NDArray[np.float64]


@cache
def _misspellings(words: tuple[str, ...], edits: int) -> _Table:
    """Up to 32 misspellings of each word, always the same; those that are words, fit two or are rude are left out."""
    draws = np.random.default_rng(0).random((len(words), _PER_WORD, edits, 3)).tolist()
    candidates: dict[tuple[int, str], None] = {}  # without repetitions, in order
    for number, (word, of_word) in enumerate(zip(words, draws, strict=True)):
        for of_misspelling in of_word:
            text = word
            for draw in of_misspelling:
                text = misspell(text, *draw)
            candidates[number, text] = None
    n_words = Counter(text for _, text in candidates)
    known = frozenset(words)
    kept = [
        (number, text)
        for number, text in candidates
        if text
        and text not in known
        and n_words[text] == 1
        and not any(stem in text and stem not in words[number] for stem in _RUDE_STEMS)
    ]

    longest = max(map(len, words), default=0)
    letters = np.full((len(words), longest + 1), _EOS, np.int16)
    for number, word in enumerate(words):
        letters[number, : len(word)] = [_LETTERS.index(letter) for letter in word]
    tokens = np.full((len(kept), longest + edits + 1), _SEP, np.int32)
    for row, (_, text) in enumerate(kept):
        tokens[row, : len(text)] = [_LETTERS.index(letter) for letter in text]
    word_numbers = np.array([number for number, _ in kept], np.int64)
    text_lengths = np.array([len(text) for _, text in kept], np.int64)

    targets = letters[word_numbers]
    word_lengths = np.count_nonzero(targets != _EOS, axis=1)
    distances = np.broadcast_to(np.arange(longest + 1, dtype=np.int16), targets.shape)
    for position in range(longest + edits):
        longer = append_letter(distances, targets, tokens[:, position].astype(np.int64))
        distances = np.where((position < text_lengths)[:, None], longer, distances)
    distance = distances[np.arange(len(kept)), word_lengths]
    copy_score = 1 - distance / np.maximum(text_lengths, word_lengths)
    return _Table(tokens, text_lengths + 1, word_numbers, letters, copy_score)


def misspell(word: str, kind: float, place: float, letter: float) -> str:
    """Make one typing mistake; the arguments in [0, 1) choose its kind, its place and its letter."""
    new = _LETTERS[int(letter * 26)]
    if kind < 0.25:  # a letter too many
        at = int(place * (len(word) + 1))
        return word[:at] + new + word[at:]
    if kind < 0.5 and len(word) > 1:  # one left out
        at = int(place * len(word))
        return word[:at] + word[at + 1 :]
    if kind < 0.75 or len(word) < 2:  # a wrong one
        at = int(place * len(word))
        return word[:at] + new + word[at + 1 :]
    at = int(place * (len(word) - 1))  # two swapped
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
