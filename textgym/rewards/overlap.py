"""What a text shares with a reference: ROUGE, BLEU, chrF, edit distance, keywords."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from textgym.checks import check_at_least, check_texts
from textgym.rewards.base import Reward, column, require
from textgym.rewards.form import MAX_LENGTH, check_unit


class _Overlap(Reward):
    """A reward of a text and its references."""

    def __init__(self, reference_column: str) -> None:
        self.reference_column = reference_column

    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Scores in [0, 1]; 0 for a text of more than ``MAX_LENGTH`` characters."""
        scores = []
        for text, references in zip(completions, column(columns, self.reference_column, self), strict=True):
            references = [references] if isinstance(references, str) else list(references)
            if not references:
                raise ValueError(f"column {self.reference_column!r} must hold at least one text a row, got none")
            scores.append(self.compare(text, references) if len(text) <= MAX_LENGTH else 0.0)
        return scores

    @abstractmethod
    def compare(self, text: str, references: list[str]) -> float:
        """Score of one text, in [0, 1]."""


class Rouge(_Overlap):
    """ROUGE (Lin 2004) against a reference, in [0, 1], as the package ``rouge-score`` computes it.

    Args:
        variant: ``"rouge1"``, ``"rouge2"`` … for n-grams, ``"rougeL"`` for the longest common subsequence,
            ``"rougeLsum"`` for that of lines.
        measure: ``"f1"``, ``"recall"`` or ``"precision"``.
        stem: Whether words are stemmed first.
        reference_column: Column that holds a reference a text, or several: then the best one counts.

    Raises:
        ModuleNotFoundError: If the package ``rouge-score`` is not installed.
        ValueError: If an argument is none of these, or the column is missing.
    """

    def __init__(
        self,
        variant: str = "rougeL",
        measure: str = "f1",
        stem: bool = False,
        reference_column: str = "reference",
    ) -> None:
        super().__init__(reference_column)
        if not re.fullmatch(r"rouge([1-9]|L|Lsum)", variant):
            raise ValueError(f"variant must be 'rouge1' … 'rouge9', 'rougeL' or 'rougeLsum', got {variant!r}")
        measures = {"f1": "fmeasure", "recall": "recall", "precision": "precision"}
        if measure not in measures:
            raise ValueError(f"measure must be one of {list(measures)}, got {measure!r}")
        self.variant, self._measure = variant, measures[measure]
        self._scorer = require("rouge_score.rouge_scorer", "rouge-score", "Rouge").RougeScorer([variant], stem)

    def compare(self, text: str, references: list[str]) -> float:
        """The best score over the references."""
        scores = (self._scorer.score(reference, text)[self.variant] for reference in references)
        return max(float(getattr(score, self._measure)) for score in scores)


class Bleu(_Overlap):
    """BLEU (Papineni et al. 2002) of a single text, in [0, 1], as the package ``sacrebleu`` computes it.

    With exponential smoothing and effective order, which single sentences need.

    Args:
        reference_column: Column that holds a reference a text, or several.

    Raises:
        ModuleNotFoundError: If the package ``sacrebleu`` is not installed.
        ValueError: If the column is missing.
    """

    def __init__(self, reference_column: str = "reference") -> None:
        super().__init__(reference_column)
        self._metric = require("sacrebleu.metrics", "sacrebleu", "Bleu").BLEU(effective_order=True)

    def compare(self, text: str, references: list[str]) -> float:
        """A hundredth of sacrebleu's score."""
        return _unit_interval(self._metric.sentence_score(text, references).score / 100)


class Chrf(_Overlap):
    """The character n-gram F-score chrF2 (Popović 2015) of a text, in [0, 1], as ``sacrebleu`` computes it.

    Args:
        word_order: Longest word n-gram that counts as well: 0 for chrF, 2 for chrF++.
        reference_column: Column that holds a reference a text, or several.

    Raises:
        ModuleNotFoundError: If the package ``sacrebleu`` is not installed.
        ValueError: If ``word_order`` is negative or the column is missing.
    """

    def __init__(self, word_order: int = 0, reference_column: str = "reference") -> None:
        super().__init__(reference_column)
        word_order = check_at_least("word_order", word_order, 0)
        self._metric = require("sacrebleu.metrics", "sacrebleu", "Chrf").CHRF(word_order=word_order)

    def compare(self, text: str, references: list[str]) -> float:
        """A hundredth of sacrebleu's score."""
        return _unit_interval(self._metric.sentence_score(text, references).score / 100)


class EditSimilarity(_Overlap):
    """``1 - d / max(len(text), len(reference))`` with the edit distance ``d`` (Levenshtein), in [0, 1].

    Args:
        unit: ``"characters"`` or ``"words"``: what one edit inserts, deletes or replaces.
        reference_column: Column that holds a reference a text, or several: then the nearest one counts.

    Raises:
        ValueError: If ``unit`` is none of these, or the column is missing.

    Example:
        >>> EditSimilarity()([""], ["sitting"], reference=["kitten"])
        [0.5714285714285714]
    """

    def __init__(self, unit: str = "characters", reference_column: str = "reference") -> None:
        super().__init__(reference_column)
        self.unit = check_unit(unit)

    def compare(self, text: str, references: list[str]) -> float:
        """The similarity to the nearest reference; 1 where both are empty."""
        written = list(text) if self.unit == "characters" else text.split()
        similarities = []
        for reference in references:
            wanted = list(reference) if self.unit == "characters" else reference.split()
            longest = max(len(written), len(wanted))
            similarities.append(1.0 - edit_distance(written, wanted) / longest if longest else 1.0)
        return max(similarities)


class KeywordCoverage(Reward):
    """Share of the keywords that a text holds as whole words, in [0, 1].

    Case does not matter, nor does punctuation around a word; keywords of several words have to stand together.

    Args:
        keywords: Keywords of every text, at least one; None to read a list of them a text from the column
            ``keywords``.

    Raises:
        ValueError: If there is no keyword, or an empty one.

    Example:
        >>> KeywordCoverage(["cat", "red hat"])([""] * 2, ["The cat's red hat.", "cats: the red, red hats"])
        [0.5, 0.0]
    """

    def __init__(self, keywords: Sequence[str] | None = None) -> None:
        self.keywords = None if keywords is None else self._check(keywords)

    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Scores in [0, 1]."""
        if self.keywords is None:
            rows = [self._check(row) for row in column(columns, "keywords", self)]
        else:
            rows = [self.keywords] * len(completions)
        scores = []
        for text, keywords in zip(completions, rows, strict=True):
            padded = _words(text)
            scores.append(sum(keyword in padded for keyword in keywords) / len(keywords))
        return scores

    @staticmethod
    def _check(keywords: Sequence[str]) -> list[str]:
        keywords = check_texts("keywords", keywords, "at least one word")
        if not keywords:
            raise ValueError(f"keywords must be a list of at least one word, got {keywords!r}")
        padded = [_words(keyword) for keyword in keywords]
        if "  " in padded:
            raise ValueError(f"keywords must hold a letter or digit each, got {keywords[padded.index('  ')]!r}")
        return padded


def edit_distance(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Fewest insertions, deletions and replacements that turn one sequence into the other (Levenshtein 1966)."""
    if len(first) < len(second):
        first, second = second, first
    ids = {symbol: number for number, symbol in enumerate(dict.fromkeys([*first, *second]))}
    columns = np.array([ids[symbol] for symbol in first], np.int64)
    positions = np.arange(len(first) + 1)
    distances = positions.copy()
    for number, symbol in enumerate(second, 1):
        # Deletions and replacements at once; insertions then run along the row: a running minimum less the position.
        candidates = np.empty_like(distances)
        candidates[0] = number
        candidates[1:] = np.minimum(distances[1:] + 1, distances[:-1] + (columns != ids[symbol]))
        distances = np.minimum.accumulate(candidates - positions) + positions
    return int(distances[-1])


def _words(text: str) -> str:
    """The words of a text in lower case, with one blank before, between and after them."""
    words = re.findall(r"\w+(?:['’-]\w+)*", text.lower())
    return f" {' '.join(words)} "


def _unit_interval(score: float) -> float:
    return min(max(float(score), 0.0), 1.0)  # a perfect BLEU is 100.00000000000004
