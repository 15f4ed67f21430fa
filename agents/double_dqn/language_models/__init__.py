"""A pretrained language model steered by values: it stays as it is, reads each token once, and a small head learns."""

from agents.double_dqn.language_models.asking import reward_steering
from agents.double_dqn.language_models.policy import LanguageModelPolicy
from agents.double_dqn.language_models.steering import steering

__all__ = ["LanguageModelPolicy", "reward_steering", "steering"]
