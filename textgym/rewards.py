"""Reward functions of text, with TRL's signature: ``reward(prompts, completions, **columns) -> list[float]``.

One function serves a textgym task, TRL's ``GRPOTrainer`` and a script of your own. All of them are pure: equal texts
earn equal rewards. Words are blank-separated and compared in lower case.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.language_models import LanguageModel

RewardFunction = Callable[..., list[float]]
TONES = ("positive", "negative")

# Words after which no English phrase ends: articles, prepositions, conjunctions, auxiliaries, possessives.
_DANGLING = frozenset(
    """
    a about across after although among an and are as at be because been before being between but by can could did do
    does during every for from had has have he her his how i if in including into is its may might more most must my nor
    of on or our per shall she should so some than that the their these they this those through to toward towards under
    unless until upon very was we were what when where whether which while who whose will with within without would you
    your
    """.split()
)


class Reward(ABC):
    """A reward function that is an object.

    Attributes:
        range: Lowest and highest reward.
    """

    range: tuple[float, float] = (0.0, 1.0)

    @property
    def __name__(self) -> str:
        """The name that TRL logs the reward under."""
        return type(self).__qualname__.lower()

    @abstractmethod
    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """One reward a completion."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Reward:
        return self  # never changes: gymnasium.make copies the arguments it is given


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

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Scores in [0, 1], rounded to four decimals as VADER does."""
        tones = columns.get("tone") if self.tone is None else [self.tone] * len(completions)
        if tones is None:
            raise ValueError(f"Sentiment needs a column 'tone' or Sentiment(tone=...), got columns {sorted(columns)}")
        return [
            max(sentiment(text) * (1 if check_tone(tone) == "positive" else -1), 0.0)
            for text, tone in zip(completions, tones, strict=True)
        ]


class Fluency(Reward):
    """How well the words follow one another, in [0, 1]: 1 where a language model finds every word likely.

    Each word earns ``clip((log p - log 1e-5) / (log 0.3 - log 1e-5), 0, 1)``, where ``p`` is its probability given what
    precedes it, the prompt included. The ending counts as one more word and earns 1, unless the last word is one that
    no phrase ends with (``the``, ``of``, ``and`` …). The fluency is the mean over words and ending, with missing words
    counted as 0 in texts of fewer than ``full_length`` words, so that a text of one likely word earns little.

    Args:
        language_model: Gives ``p``.
        full_length: Number of words from which a text is not short (≥ 1).

    Raises:
        ValueError: If ``full_length`` is below 1.
    """

    def __init__(self, language_model: LanguageModel, full_length: int = 8) -> None:
        if full_length < 1:
            raise ValueError(f"full_length must be at least 1, got {full_length!r}")
        self.language_model, self.full_length = language_model, full_length

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Scores in [0, 1]; 0 for an empty text."""
        scores = []
        for text, log_probs in zip(completions, self.language_model.text_log_probs(prompts, completions), strict=True):
            words = text.lower().split()
            earned = float(likelihood_score(log_probs).sum()) + can_end(words[-1]) if words else 0.0
            scores.append(earned / (max(len(log_probs), self.full_length) + 1))
        return scores


class Distinctness(Reward):
    """Share of different words among all words, in [0, 1] (distinct-1 of Li et al. 2016, arXiv:1510.03055)."""

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Scores in [0, 1]; 0 for an empty text."""
        texts = [text.lower().split() for text in completions]
        return [len(set(words)) / max(len(words), 1) for words in texts]


class Product(Reward):
    """The product of several rewards in [0, 1]: high only where all of them are.

    Args:
        rewards: Reward functions, at least one; each has to stay in [0, 1].

    Raises:
        ValueError: If ``rewards`` is empty, or one of them states another range.
    """

    def __init__(self, rewards: Sequence[RewardFunction]) -> None:
        if not rewards:
            raise ValueError("rewards must hold at least one reward function, got none")
        for reward in rewards:
            low, high = getattr(reward, "range", (0.0, 1.0))
            if low < 0 or high > 1:
                raise ValueError(f"rewards of a Product must lie in [0, 1], {reward_name(reward)} has ({low}, {high})")
        self.rewards = tuple(rewards)

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Products in [0, 1]."""
        scores = [call_reward(reward, prompts, completions, columns) for reward in self.rewards]
        return np.prod(scores, axis=0).tolist()


class WeightedSum(Reward):
    """A weighted sum of several rewards; its range is the weighted sum of theirs.

    Args:
        weights: Reward function → weight, at least one.

    Raises:
        ValueError: If ``weights`` is empty or a weight is not finite.
    """

    def __init__(self, weights: Mapping[RewardFunction, float]) -> None:
        if not weights:
            raise ValueError("weights must hold at least one reward function, got none")
        self.weights = dict(weights)
        low = high = 0.0
        for reward, weight in self.weights.items():
            if not np.isfinite(weight):
                raise ValueError(f"weights must be finite, got {weight!r} for {reward_name(reward)}")
            ends = [weight * end for end in getattr(reward, "range", (-np.inf, np.inf)) if weight]
            low, high = low + min(ends, default=0.0), high + max(ends, default=0.0)
        self.range = (low, high)

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Weighted sums."""
        scores = [call_reward(reward, prompts, completions, columns) for reward in self.weights]
        return (np.array(list(self.weights.values())) @ np.array(scores)).tolist()


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


def likelihood_score(log_probs: NDArray[np.floating]) -> NDArray[np.floating]:
    """Natural log-probabilities, any shape, mapped linearly from [log 1e-5, log 0.3] onto [0, 1] and clipped."""
    low, high = np.log(1e-5), np.log(0.3)
    return np.clip((log_probs - low) / (high - low), 0.0, 1.0)


def can_end(word: str) -> bool:
    """Whether a phrase may end with this lower-case word."""
    return word not in _DANGLING


def check_tone(tone: str) -> str:
    """Return the tone if it is one, else raise a ValueError that names it."""
    if tone not in TONES:
        raise ValueError(f"tone must be one of {list(TONES)}, got {tone!r}")
    return tone


def reward_name(reward: RewardFunction) -> str:
    """The name of a reward function, as error messages and logs show it."""
    return getattr(reward, "__name__", type(reward).__name__)


def call_reward(
    reward: RewardFunction, prompts: list[str], completions: list[str], columns: Mapping[str, list[Any]]
) -> NDArray[np.float64]:
    """Call a reward function and check what it returns.

    Args:
        reward: The function.
        prompts: ``n`` prompts.
        completions: ``n`` completions.
        columns: Further columns, each of ``n`` values, passed as keyword arguments.

    Returns:
        Rewards, shape ``(n,)``, all finite.

    Raises:
        RuntimeError: If the function raises.
        ValueError: If it does not return ``n`` finite numbers.
    """
    name = reward_name(reward)
    try:
        returned = reward(prompts=prompts, completions=completions, **columns)
    except Exception as error:
        raise RuntimeError(
            f"reward {name!r} raised {type(error).__name__}: {error} "
            f"(first of {len(prompts)} prompts {prompts[0]!r}, completion {completions[0]!r})"
        ) from error
    try:
        rewards = np.asarray(returned, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"reward {name!r} must return a list of {len(prompts)} numbers, got {returned!r}") from None
    if rewards.shape != (len(prompts),):
        raise ValueError(f"reward {name!r} must return a list of {len(prompts)} numbers, got shape {rewards.shape}")
    if not np.isfinite(rewards).all():
        row = int(np.flatnonzero(~np.isfinite(rewards))[0])
        raise ValueError(
            f"reward {name!r} must return finite numbers, got {rewards[row]} "
            f"for prompt {prompts[row]!r}, completion {completions[row]!r}"
        )
    return rewards
