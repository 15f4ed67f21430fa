"""How likely a language model finds a text."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.language_models import LanguageModel
from textgym.rewards.base import Reward, column

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

    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Scores in [0, 1]; 0 for an empty text."""
        scores = []
        for text, log_probs in zip(completions, self.language_model.text_log_probs(prompts, completions), strict=True):
            words = text.lower().split()
            earned = float(likelihood_score(log_probs).sum()) + can_end(words[-1]) if words else 0.0
            scores.append(earned / (max(len(log_probs), self.full_length) + 1))
        return scores


class LogLikelihood(Reward):
    """The mean natural log-probability of the completion's tokens under a language model, in [``floor``, 0].

    Args:
        language_model: Gives the probabilities, of each token given the prompt and what precedes it.
        floor: Lowest value of one token, and the reward of an empty text (finite, below 0). Tokens that the model does
            not know have probability 0 and earn it.

    Raises:
        ValueError: If ``floor`` is not a finite negative number.
    """

    def __init__(self, language_model: LanguageModel, floor: float = -20.0) -> None:
        if not (np.isfinite(floor) and floor < 0):
            raise ValueError(f"floor must be a finite number below 0, got {floor!r}")
        self.language_model, self.floor = language_model, float(floor)
        self.range = (self.floor, 0.0)

    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Means in [``floor``, 0]."""
        return [
            float(np.maximum(log_probs, self.floor).mean()) if len(log_probs) else self.floor
            for log_probs in self.language_model.text_log_probs(prompts, completions)
        ]


class NegativeKL(Reward):
    """Minus an estimate of the divergence KL(policy ‖ language model) per token, in [−``ceiling``, ``ceiling``].

    For a completion drawn from the policy, ``mean_t(log p(y_t) − log π(y_t))`` estimates ``−KL(π ‖ p)`` per token
    without bias; one completion's estimate may have either sign. Adding it with a weight keeps a policy near the model
    (Ziegler et al. 2019, arXiv:1909.08593).

    Args:
        language_model: The model ``p`` to stay near.
        policy: The policy ``π`` as a language model with the same tokens; None to read the log-probabilities of each
            completion's tokens from the column ``log_probs`` (one sequence a completion).
        ceiling: Bound of the value of one token (finite, above 0).

    Raises:
        ValueError: If ``ceiling`` is out of range, the column is missing, or the two disagree on the number of tokens.
    """

    def __init__(
        self, language_model: LanguageModel, policy: LanguageModel | None = None, ceiling: float = 20.0
    ) -> None:
        if not (np.isfinite(ceiling) and ceiling > 0):
            raise ValueError(f"ceiling must be a finite number above 0, got {ceiling!r}")
        self.language_model, self.policy, self.ceiling = language_model, policy, float(ceiling)
        self.range = (-self.ceiling, self.ceiling)

    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Means in [−``ceiling``, ``ceiling``]; 0 for an empty text."""
        models = self.language_model.text_log_probs(prompts, completions)
        if self.policy is None:
            policies = [np.asarray(row, np.float64) for row in column(columns, "log_probs", self)]
        else:
            policies = self.policy.text_log_probs(prompts, completions)
        scores = []
        for number, (model, policy) in enumerate(zip(models, policies, strict=True)):
            if len(model) != len(policy):
                raise ValueError(
                    f"log_probs of the policy must have one value a token, got {len(policy)} for the {len(model)} "
                    f"tokens of completions[{number}]"
                )
            # Where both give probability 0 the difference has no value; clipped before, it counts as none.
            difference = np.maximum(model, -1e9) - np.maximum(policy, -1e9)
            scores.append(float(np.clip(difference, -self.ceiling, self.ceiling).mean()) if len(model) else 0.0)
        return scores


def likelihood_score(log_probs: NDArray[np.floating]) -> NDArray[np.floating]:
    """Natural log-probabilities, any shape, mapped linearly from [log 1e-5, log 0.3] onto [0, 1] and clipped."""
    low, high = np.log(1e-5), np.log(0.3)
    return np.clip((log_probs - low) / (high - low), 0.0, 1.0)


def can_end(word: str) -> bool:
    """Whether a phrase may end with this lower-case word."""
    return word not in _DANGLING
