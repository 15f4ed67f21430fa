"""Reward functions of text, with TRL's signature: ``reward(prompts, completions, **columns) -> list[float]``.

One function serves a textgym task, TRL's ``GRPOTrainer`` and a script of your own. All of them are pure: equal texts
earn equal rewards. Words are blank-separated and compared in lower case unless a reward says otherwise.
"""

from textgym.rewards.base import Reward, RewardError, RewardFunction, call_reward, reward_name
from textgym.rewards.combinations import Product, WeightedSum
from textgym.rewards.form import Distinctness, JsonSchema, Length, Matches, Readability, count_syllables
from textgym.rewards.likelihood import Fluency, LogLikelihood, NegativeKL, can_end, likelihood_score
from textgym.rewards.models import Classifier, EmbeddingSimilarity
from textgym.rewards.overlap import Bleu, Chrf, EditSimilarity, KeywordCoverage, Rouge, edit_distance
from textgym.rewards.sentiment import TONES, Sentiment, check_tone, sentiment, vader
from textgym.rewards.trl import FromTRL

__all__ = [
    "TONES",
    "Bleu",
    "Chrf",
    "Classifier",
    "Distinctness",
    "EditSimilarity",
    "EmbeddingSimilarity",
    "Fluency",
    "FromTRL",
    "JsonSchema",
    "KeywordCoverage",
    "Length",
    "LogLikelihood",
    "Matches",
    "NegativeKL",
    "Product",
    "Readability",
    "Reward",
    "RewardError",
    "RewardFunction",
    "Rouge",
    "Sentiment",
    "WeightedSum",
    "call_reward",
    "can_end",
    "check_tone",
    "count_syllables",
    "edit_distance",
    "likelihood_score",
    "reward_name",
    "sentiment",
    "vader",
]
