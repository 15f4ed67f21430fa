"""A Stable-Baselines3 plugin for text generation at token level.

Importing it registers TextGym's ids. The public names load torch when they are first used, so that a command that needs
none of them does not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import textgym as textgym  # registers the ids

if TYPE_CHECKING:
    from agents.double_dqn.double_dqn import DoubleDQN
    from agents.extractors import GRUExtractor, PerformerExtractor, TransformerExtractor
    from agents.vec_env import TextGenVecEnv, make_vec_env

__all__ = [
    "DoubleDQN",
    "GRUExtractor",
    "PerformerExtractor",
    "TextGenVecEnv",
    "TransformerExtractor",
    "make_vec_env",
]

_MODULES = {
    "DoubleDQN": "agents.double_dqn.double_dqn",
    "GRUExtractor": "agents.extractors",
    "PerformerExtractor": "agents.extractors",
    "TextGenVecEnv": "agents.vec_env",
    "TransformerExtractor": "agents.extractors",
    "make_vec_env": "agents.vec_env",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'agents' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
