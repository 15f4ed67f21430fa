"""A Stable-Baselines3 plugin for text generation at token level.

Importing it registers TextGym's ids. The public names load torch when they are first used, so that a command that needs
none of them does not wait for it.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import agents.tuning
import textgym as textgym  # registers the ids

if TYPE_CHECKING:
    from agents.double_dqn.double_dqn import DoubleDQN
    from agents.double_dqn.language_models import reward_steering
    from agents.offline import learn_from_text
    from agents.pruning.pruned_transformer import PrunedTransformer
    from agents.representations.embed_observation import EmbedObservation, VectorEmbedObservation
    from agents.representations.embedding_extractor import StateEmbeddingExtractor
    from agents.representations.extractors import GRUExtractor, PerformerExtractor, TransformerExtractor
    from agents.representations.state_autoencoder import StateAutoEncoder
    from agents.representations.state_embedding import StateEmbedding
    from agents.saving.export import load
    from agents.vec_env import TextGenVecEnv, make_vec_env

__all__ = [
    "DoubleDQN",
    "EmbedObservation",
    "GRUExtractor",
    "PerformerExtractor",
    "PrunedTransformer",
    "StateAutoEncoder",
    "StateEmbedding",
    "StateEmbeddingExtractor",
    "TextGenVecEnv",
    "TransformerExtractor",
    "VectorEmbedObservation",
    "learn_from_text",
    "load",
    "make_vec_env",
    "reward_steering",
]

_MODULES = {
    "DoubleDQN": "agents.double_dqn.double_dqn",
    "EmbedObservation": "agents.representations.embed_observation",
    "GRUExtractor": "agents.representations.extractors",
    "PerformerExtractor": "agents.representations.extractors",
    "PrunedTransformer": "agents.pruning.pruned_transformer",
    "StateAutoEncoder": "agents.representations.state_autoencoder",
    "StateEmbedding": "agents.representations.state_embedding",
    "StateEmbeddingExtractor": "agents.representations.embedding_extractor",
    "TextGenVecEnv": "agents.vec_env",
    "TransformerExtractor": "agents.representations.extractors",
    "VectorEmbedObservation": "agents.representations.embed_observation",
    "learn_from_text": "agents.offline",
    "load": "agents.saving.export",
    "make_vec_env": "agents.vec_env",
    "reward_steering": "agents.double_dqn.language_models",
}


hyperparam_opt = agents.tuning  # its public name; the room is named after what it does
sys.modules["agents.hyperparam_opt"] = agents.tuning


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'agents' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
