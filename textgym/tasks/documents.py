"""Documents with summaries: generated ones, and the user's own."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least, check_list
from textgym.random import RowStreams
from textgym.tasks.base import Prompts
from textgym.tokenizers import WordTokenizer

PEOPLE = (
    "teacher doctor farmer baker king queen captain painter singer student driver writer sister brother mother father "
    "neighbor lawyer soldier sailor guide guest hunter dancer judge coach chef nurse uncle aunt prince poet"
).split()
OBJECTS = (
    "letter table river garden window house boat horse book picture lamp door bridge tree stone road coat ring bell "
    "clock basket bottle chair mirror wagon drum flag ladder map candle bread kite"
).split()
VERBS = (
    "found moved saw painted bought sold carried cleaned opened closed missed loved needed watched followed lost took "
    "brought kept fixed passed reached touched liked"
).split()
OPENINGS = (
    "",
    "later",
    "today",
    "that night",
    "after lunch",
    "before the storm",
    "in the morning",
    "at the end of the day",
    "on a cold afternoon",
    "as we all know",
    "to our great surprise",
    "not far from here",
)
CLOSINGS = (
    "",
    "again",
    "alone",
    "at home",
    "in the rain",
    "for an old friend",
    "with a smile",
    "near the market",
    "without a word",
    "once more",
    "by the sea",
    "in a hurry",
)


class GeneratedDocuments:
    """Reports on several people, of whom one is mentioned most; the summary says what that one did.

    A sentence is an opening, ``the``, a person, a verb, ``the``, an object, a closing and a full stop; of three facts
    the summary is ``the <person> <verb> the <object> <verb> the <object> and <verb> the <object>``.

    Args:
        sentences: Sentences of a document.
        facts: How many of them are about the same person (≥ 2); each of the others is about one of its own.

    Attributes:
        tokenizer: All words as actions, EOS, then the full stop, which only documents hold.
        longest_prompt: Tokens of the longest document, without separator.
        longest_summary: Tokens of every summary.

    Raises:
        ValueError: If ``sentences`` is below ``facts``, or there are too few people or objects.
    """

    def __init__(self, sentences: int, facts: int) -> None:
        most = min(len(PEOPLE) - 1 + facts, len(OBJECTS))
        sentences = check_at_least("sentences", sentences, 1)
        if not facts <= sentences <= most:
            raise ValueError(f"sentences must lie in [{facts}, {most}] for facts={facts}, got {sentences}")
        self.sentences, self.facts = sentences, facts
        phrases = " ".join([*OPENINGS, *CLOSINGS]).split()
        self.tokenizer = WordTokenizer(dict.fromkeys(["the", "and", *PEOPLE, *OBJECTS, *VERBS, *phrases]), ["."])
        self._people, self._objects, self._verbs = (
            np.array(self.tokenizer.encode(" ".join(words))) for words in (PEOPLE, OBJECTS, VERBS)
        )
        self._openings, self._closings = (self._encode(phrases) for phrases in (OPENINGS, CLOSINGS))
        self._the, self._and, self._stop = self.tokenizer.encode("the and .")
        width = self._openings.shape[1] + self._closings.shape[1] + 6
        self.longest_prompt = sentences * width
        self.longest_summary = 3 * facts + 3

    def draw(self, random: RowStreams) -> tuple[Prompts, NDArray[np.int32]]:
        """Documents without separator, and their summaries, shape ``(n, longest_summary)``."""
        n, sentences, facts = len(random), self.sentences, self.facts
        rows = np.arange(n)[:, None]
        people = self._people[random.permutation(len(self._people))[:, : sentences - facts + 1]]
        objects = self._objects[random.permutation(len(self._objects))[:, :sentences]]  # (n, S)
        verbs = self._verbs[random.integers(len(self._verbs), (sentences,))]
        about_topic = np.sort(random.permutation(sentences)[:, :facts], axis=1)  # (n, F)
        is_topic = np.zeros((n, sentences), np.bool_)
        is_topic[rows, about_topic] = True
        subjects = np.where(is_topic, people[:, :1], np.take_along_axis(people, np.cumsum(~is_topic, axis=1), axis=1))

        slots = np.full((n, sentences, self.longest_prompt // sentences), self._the, np.int32)
        at = self._openings.shape[1]
        slots[:, :, :at] = self._openings[random.integers(len(self._openings), (sentences,))]
        slots[:, :, at + 1], slots[:, :, at + 2], slots[:, :, at + 4] = subjects, verbs, objects
        slots[:, :, at + 5 : -1] = self._closings[random.integers(len(self._closings), (sentences,))]
        slots[:, :, -1] = self._stop
        tokens, lengths = _compact(slots.reshape(n, -1))

        summary = np.full((n, self.longest_summary), self._the, np.int32)
        summary[:, 1] = people[:, 0]
        summary[:, -4] = self._and
        starts = 2 + 3 * np.arange(facts)
        starts[-1] += 1  # after "and"
        summary[:, starts] = verbs[rows, about_topic]
        summary[:, starts + 2] = objects[rows, about_topic]
        return Prompts(tokens, lengths, {}), summary

    def _encode(self, phrases: Iterable[str]) -> NDArray[np.int32]:
        return pad([self.tokenizer.encode(phrase) for phrase in phrases])


class OwnDocuments:
    """Documents and summaries of the user's own.

    Text becomes words of the letters a to z and digits, in lower case, as in the package ``rouge-score``; in documents
    other characters are single tokens. The words of documents and summaries are the actions, most frequent first.

    Args:
        data: Mappings with the strings ``"document"`` and ``"summary"``, or a ``datasets.Dataset`` of such rows.

    Attributes:
        tokenizer: The words, EOS, then what only documents hold.
        longest_prompt: Tokens of the longest document, without separator.
        longest_summary: Tokens of the longest summary.

    Raises:
        ValueError: If there is no row, or one cannot be used; the message names its number.
    """

    def __init__(self, data: Iterable[Mapping[str, Any]]) -> None:
        rows = read_rows(data, ("document", "summary"))
        texts = [(_words_and_marks(row["document"]), _words(row["summary"])) for row in rows]
        counts: dict[str, int] = {}
        for number, (document, summary) in enumerate(texts):
            if not summary or not document:
                empty = "document" if summary else "summary"
                raise ValueError(f"data[{number}][{empty!r}] must hold a word, got {rows[number][empty]!r}")
            for piece in (*document, *summary):
                counts[piece] = counts.get(piece, 0) + 1
        pieces = sorted(counts, key=lambda piece: -counts[piece])
        words = [piece for piece in pieces if _words(piece)]
        self.tokenizer = WordTokenizer(words, [piece for piece in pieces if not _words(piece)])
        ids = {piece: self.tokenizer.encode(piece)[0] for piece in pieces}
        self._documents = pad([[ids[piece] for piece in document] for document, _ in texts])
        self._summaries = pad([[ids[piece] for piece in summary] for _, summary in texts])
        self._lengths = np.count_nonzero(self._documents >= 0, axis=1)
        self.longest_prompt, self.longest_summary = self._documents.shape[1], self._summaries.shape[1]

    def draw(self, random: RowStreams) -> tuple[Prompts, NDArray[np.int32]]:
        """Documents without separator, drawn uniformly, and their summaries, -1 after their ends."""
        index = random.integers(len(self._lengths))
        return Prompts(self._documents[index], self._lengths[index], {}), self._summaries[index]


def read_rows(data: Any, names: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """The rows of a list of mappings or of a ``datasets.Dataset``, each of which has the named strings.

    Raises:
        ValueError: If there is no row, or one lacks a string; the message names its number.
    """
    rows = check_list("data", data, "rows")
    if not rows:
        raise ValueError("data must hold at least one row, got none")
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(
                f"data[{number}] must be a mapping with the strings {list(names)}, got {reprlib.repr(row)}"
            )
        for name in names:
            if not isinstance(row.get(name), str) or not row[name].strip():
                got = reprlib.repr(row.get(name))
                raise ValueError(f"data[{number}] must have a string under {name!r} that is not empty, got {got}")
    return rows


def pad(rows: list[list[int]]) -> NDArray[np.int32]:
    """Ragged rows as one array, -1 after each row's end, shape ``(len(rows), longest)``."""
    padded = np.full((len(rows), max(map(len, rows))), -1, np.int32)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded


def _compact(slots: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Each row's values without its -1, and how many there are; shapes ``(n, L)`` and ``(n,)``."""
    filled = slots >= 0
    lengths = filled.sum(axis=1)
    compacted = np.full_like(slots, -1)
    compacted[np.arange(slots.shape[1]) < lengths[:, None]] = slots[filled]
    return compacted, lengths


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _words_and_marks(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text.lower())
