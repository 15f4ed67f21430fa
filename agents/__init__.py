"""A Stable-Baselines3 plugin for text generation at token level."""

import textgym as textgym  # registers the ids
from agents.double_dqn import DoubleDQN
from agents.extractors import PerformerExtractor
from agents.vec_env import TextGenVecEnv, make_vec_env

__all__ = ["DoubleDQN", "PerformerExtractor", "TextGenVecEnv", "make_vec_env"]
