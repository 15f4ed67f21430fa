"""A Stable-Baselines3 plugin for text generation at token level.

Importing it registers TextGym's ids. The public names load torch when they are first used, so that a command that needs
none of them does not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import textgym as textgym  # registers the ids

if TYPE_CHECKING:
    from agents.double_dqn.double_dqn import DoubleDQN
    from agents.embed_observation import EmbedObservation, VectorEmbedObservation
    from agents.embedding_extractor import StateEmbeddingExtractor
    from agents.encoders.pruning import PrunedTransformer
    from agents.extractors import GRUExtractor, PerformerExtractor, TransformerExtractor
    from agents.offline import learn_from_text
    from agents.saving.export import load
    from agents.state_autoencoder import StateAutoEncoder
    from agents.state_embedding import StateEmbedding
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
]

_MODULES = {
    "DoubleDQN": "agents.double_dqn.double_dqn",
    "EmbedObservation": "agents.embed_observation",
    "GRUExtractor": "agents.extractors",
    "PerformerExtractor": "agents.extractors",
    "PrunedTransformer": "agents.encoders.pruning",
    "StateAutoEncoder": "agents.state_autoencoder",
    "StateEmbedding": "agents.state_embedding",
    "StateEmbeddingExtractor": "agents.embedding_extractor",
    "TextGenVecEnv": "agents.vec_env",
    "TransformerExtractor": "agents.extractors",
    "VectorEmbedObservation": "agents.embed_observation",
    "learn_from_text": "agents.offline",
    "load": "agents.saving.export",
    "make_vec_env": "agents.vec_env",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'agents' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
