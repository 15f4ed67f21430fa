"""Tone of a text."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from textgym.rewards.base import Reward, column

TONES = ("positive", "negative")


class Sentiment(Reward):
    """How strongly the completion alone speaks in the asked direction, in [0, 1].

    VADER's compound score (Hutto and Gilbert 2014) of the completion, its sign turned for a negative tone, and 0 where
    the text speaks in the other direction. The prompt's own words do not count.

    Args:
        tone: ``"positive"`` or ``"negative"`` for every text; None to read it from the column ``tone``.

    Raises:
        ValueError: If a tone is missing or is another word.
    """

    def __init__(self, tone: str | None = None) -> None:
        self.tone = None if tone is None else check_tone(tone)

    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Scores in [0, 1], rounded to four decimals as VADER does."""
        tones = column(columns, "tone", self) if self.tone is None else [self.tone] * len(completions)
        return [
            max(sentiment(text) * (1 if check_tone(tone) == "positive" else -1), 0.0)
            for text, tone in zip(completions, tones, strict=True)
        ]


@lru_cache(maxsize=4096)  # a text is often asked about twice: for both tones, or once more at its end
def sentiment(text: str) -> float:
    """VADER's compound score of a text, in [-1, 1]."""
    analyzer = vader()
    # VADER sums over lexicon words: without one the score is exactly 0, at a fiftieth of the cost. Punctuation and
    # symbols could hide an emoticon or an emoji, so only plain words take the short cut.
    if not any(word in analyzer.lexicon or not word.isalpha() for word in text.lower().split()):
        return 0.0
    return float(analyzer.polarity_scores(text)["compound"])


@cache
def vader() -> Any:
    """The sentiment analyser, built on first use and shared."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def check_tone(tone: str) -> str:
    """Return the tone if it is one, else raise a ValueError that names it."""
    if tone not in TONES:
        raise ValueError(f"tone must be one of {list(TONES)}, got {tone!r}")
    return tone
