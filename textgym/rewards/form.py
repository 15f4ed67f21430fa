"""The form of a text: repetition, length, readability, patterns, JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from textgym.checks import check_at_least
from textgym.rewards.base import Reward, column, require

MAX_LENGTH = 10_000
"""Longest text, in characters, that rewards of more than linear cost look at; a longer one earns 0."""


class Distinctness(Reward):
    """Share of different n-grams among all n-grams of words, in [0, 1] (distinct-n, Li et al. 2016, arXiv:1510.03055).

    Args:
        n: Words in an n-gram (≥ 1).

    Raises:
        ValueError: If ``n`` is below 1.
    """

    def __init__(self, n: int = 1) -> None:
        self.n = check_at_least("n", n, 1)

    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Scores in [0, 1]; 0 for a text of fewer than ``n`` words."""
        scores = []
        for text in completions:
            words = text.lower().split()
            grams = list(zip(*(words[start:] for start in range(self.n)), strict=False))
            scores.append(len(set(grams)) / max(len(grams), 1))
        return scores


class Length(Reward):
    """Whether a text is as long as asked for, in [0, 1].

    1 from ``minimum`` to ``maximum`` units, ``n / minimum`` for a shorter text of ``n`` units, and for a longer one
    ``1 - (n - maximum) / maximum``, which is 0 from twice the maximum on.

    Args:
        minimum: Fewest units (≥ 0).
        maximum: Most units (≥ ``minimum`` and ≥ 1).
        unit: ``"words"`` or ``"characters"``.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, minimum: int, maximum: int, unit: str = "words") -> None:
        self.minimum = check_at_least("minimum", minimum, 0)
        self.maximum = check_at_least("maximum", maximum, max(self.minimum, 1))
        self.unit = check_unit(unit)

    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Scores in [0, 1]."""
        lengths = [len(text.split() if self.unit == "words" else text) for text in completions]
        return [
            length / self.minimum
            if length < self.minimum
            else max(0.0, 1.0 - max(0, length - self.maximum) / self.maximum)
            for length in lengths
        ]


class Readability(Reward):
    """How easy a text is to read, in [0, 1]: a hundredth of Flesch's reading ease, clipped.

    Reading ease (Flesch 1948) is ``206.835 - 1.015 * words / sentences - 84.6 * syllables / words``. Syllables are
    estimated by :func:`count_syllables`. Short words alone score high: combine it with rewards that ask for content.

    Args:
        full_length: Number of words from which a text is not short (≥ 1); a text of fewer earns that share only.

    Raises:
        ValueError: If ``full_length`` is below 1.
    """

    def __init__(self, full_length: int = 8) -> None:
        self.full_length = check_at_least("full_length", full_length, 1)

    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Scores in [0, 1]; 0 for a text without a word."""
        scores = []
        for text in completions:
            words = re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text.lower())
            ease = reading_ease(words, text) if words else 0.0
            scores.append(min(max(ease / 100, 0.0), 1.0) * min(len(words) / self.full_length, 1.0))
        return scores


class Matches(Reward):
    r"""1 for a text that matches a regular expression, else 0.

    A match that takes longer than ``timeout`` counts as none, so a pattern or text that explodes costs that long.

    Args:
        pattern: A regular expression of the package ``regex``, a superset of :mod:`re`.
        full: Whether the whole text has to match; otherwise a part of it is enough.
        timeout: Seconds for one text (above 0).

    Raises:
        ModuleNotFoundError: If the package ``regex`` is not installed.
        ValueError: If the pattern or ``timeout`` is invalid.

    Example:
        >>> Matches(r"\d{4}-\d{2}-\d{2}")([""] * 2, ["2024-02-29", "on 2024-02-29"])
        [1.0, 0.0]
    """

    def __init__(self, pattern: str, full: bool = True, timeout: float = 0.1) -> None:
        regex = require("regex", "regex", "Matches")
        if not timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, got {timeout!r}")
        try:
            compiled = regex.compile(pattern)
        except regex.error as error:
            raise ValueError(f"pattern must be a regular expression, got {pattern!r}: {error}") from None
        self.pattern, self.timeout = pattern, float(timeout)
        self._match = compiled.fullmatch if full else compiled.search

    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Zeros and ones."""
        return [float(self._matches(text)) for text in completions]

    def _matches(self, text: str) -> bool:
        try:
            return self._match(text, timeout=self.timeout) is not None
        except TimeoutError:
            return False


class JsonSchema(Reward):
    """How well a text meets a JSON schema of an object, in [0, 1]; see ``textgym.tasks.json_documents.SchemaScore``.

    1 for a document that validates; otherwise 0.1 for a JSON object, plus 0.5 times the share of the schema's
    properties that are present with a valid value; 0 for anything else.

    Args:
        schema: A schema (draft 2020-12) with at least one property, as a mapping or as JSON text; None to read one a
            text from the column ``schema``. It is trusted: its patterns are run as they stand.

    Raises:
        ModuleNotFoundError: If the package ``jsonschema`` is not installed.
        ValueError: If a schema is invalid or missing.
    """

    def __init__(self, schema: Mapping[str, Any] | str | None = None) -> None:
        self.schema = None if schema is None else _schema_text(schema)
        if self.schema is not None:
            _schema_score(self.schema)  # an invalid schema is reported here, not at the first text

    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Scores in [0, 1]."""
        if self.schema is None:
            schemas = [_schema_text(schema) for schema in column(columns, "schema", self)]
        else:
            schemas = [self.schema] * len(completions)
        return [_schema_score(schema)(text) for schema, text in zip(schemas, completions, strict=True)]


def count_syllables(word: str) -> int:
    """An estimate of the syllables of an English word: its groups of vowels, without a silent final e; at least 1."""
    word = word.lower()
    groups = len(re.findall(r"[aeiouy]+", word))
    # "made" and "names" end silently; "table", "noises" and "wanted" do not.
    if re.search(r"[^aeiouy](e|es|ed)$", word) and not re.search(r"([^aeiouy]le|(s|x|z|c|g|ch|sh)es|[td]ed)$", word):
        groups -= 1
    return max(groups, 1)


def reading_ease(words: list[str], text: str) -> float:
    """Flesch's reading ease of a text and its words, at least one; its sentences are counted by their full stops."""
    sentences = max(len(re.findall(r"[.!?](?=\s|$)", text)), 1)
    syllables = sum(count_syllables(word) for word in words)
    return 206.835 - 1.015 * len(words) / sentences - 84.6 * syllables / len(words)


def check_unit(unit: str) -> str:
    """Return the unit if it is one, else raise a ValueError that names it."""
    if unit not in ("words", "characters"):
        raise ValueError(f"unit must be 'words' or 'characters', got {unit!r}")
    return unit


def _schema_text(schema: Any) -> str:
    return schema if isinstance(schema, str) else json.dumps(schema, sort_keys=True)


@lru_cache(maxsize=1024)
def _schema_score(schema: str) -> Any:
    from textgym.tasks.json_documents import SchemaScore

    try:
        parsed = json.loads(schema)
    except ValueError:
        raise ValueError(f"schema must be JSON, got {schema!r}") from None
    return SchemaScore(parsed)
