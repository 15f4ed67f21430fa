"""State embeddings and their compression as a features extractor of Stable-Baselines3."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from agents.representations.state_autoencoder import StateAutoEncoder
from agents.representations.state_embedding import StateEmbedding


class StateEmbeddingExtractor(BaseFeaturesExtractor):
    """A :class:`StateEmbedding` as features extractor of Stable-Baselines3, with an autoencoder behind it or without.

    Pass it as ``policy_kwargs={"features_extractor_class": StateEmbeddingExtractor}``. SB3 builds several extractors
    from the same arguments: what is learned is copied for each, a frozen embedding is shared, with its cache, and is
    not among the weights that are saved.

    :class:`agents.DoubleDQN` adds :meth:`auxiliary_loss` to its own on the transition path (``"MlpPolicy"``), so that
    the autoencoder learns to reconstruct while it learns what is worth something (SAC-AE, arXiv:1910.01741). In other
    agents it learns from their loss alone.

    Args:
        observation_space: Right-padded token ids, as for :class:`agents.PerformerExtractor`; or vectors of
            an embedding, as :class:`agents.EmbedObservation` gives, for an autoencoder alone.
        embedding: What embeds; None for :meth:`StateEmbedding.for_space`.
        autoencoder: What compresses the vectors, to ``latent_dim`` features; it learns with the agent.
        auxiliary_coefficient: Weight of the autoencoder's own loss, ≥ 0; 0 leaves it to the agent's, which earned as
            much or more on every task it was tried on (`results/autoencoder.jsonl`).
        **embedding_kwargs: Arguments of :meth:`StateEmbedding.for_space`; none where ``embedding`` is given.

    Raises:
        ValueError: If the arguments do not fit each other or the space.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        embedding: StateEmbedding | None = None,
        autoencoder: StateAutoEncoder | None = None,
        auxiliary_coefficient: float = 0.0,
        **embedding_kwargs: Any,
    ) -> None:
        if not auxiliary_coefficient >= 0:
            raise ValueError(f"auxiliary_coefficient must be at least 0, got {auxiliary_coefficient}")
        if embedding is not None and embedding_kwargs:
            raise ValueError(f"embedding_kwargs must be empty where embedding is given, got {list(embedding_kwargs)}")
        is_vector = isinstance(observation_space, spaces.Box) and np.issubdtype(observation_space.dtype, np.floating)
        if is_vector and (embedding is not None or embedding_kwargs or autoencoder is None):
            raise ValueError(
                "observation_space must be a row of token ids, or autoencoder the only argument, "
                f"got {observation_space}"
            )
        if not is_vector and embedding is None:
            embedding = StateEmbedding.for_space(observation_space, **embedding_kwargs)
        size = int(np.prod(observation_space.shape or ())) if embedding is None else embedding.features_dim
        if autoencoder is not None and autoencoder.input_dim != size:
            raise ValueError(f"autoencoder must have input_dim = {size}, got {autoencoder.input_dim}")
        super().__init__(observation_space, size if autoencoder is None else autoencoder.latent_dim)
        self._shared: tuple[StateEmbedding, ...] = ()  # in a tuple, so that its weights are not the agent's
        if embedding is not None and embedding.frozen:
            self._shared = (embedding,)
        elif embedding is not None:
            decode = getattr(embedding, "decode", None)  # a method of a task, which nobody changes
            self.embedding = copy.deepcopy(embedding, {id(decode): decode})
        self.autoencoder = copy.deepcopy(autoencoder)
        self.auxiliary_coefficient = auxiliary_coefficient

    def embeddings(self, observations: Tensor) -> Tensor:
        """Return the vectors of observations before the autoencoder, (B, D)."""
        if self._shared:
            return self._shared[0](observations)
        embedded: Tensor = self.embedding(observations) if hasattr(self, "embedding") else observations.flatten(1)
        return embedded

    def forward(self, observations: Tensor) -> Tensor:
        """Return the features of observations, (B, D) or (B, latent_dim)."""
        vectors = self.embeddings(observations)
        return vectors if self.autoencoder is None else self.autoencoder.encode(vectors)

    def auxiliary_loss(self, observations: Tensor) -> Tensor:
        """Return the autoencoder's loss on these observations, to be added to the agent's; zero if there is none."""
        if self.autoencoder is None or self.auxiliary_coefficient == 0:
            return torch.zeros(())
        return self.auxiliary_coefficient * self.autoencoder.auxiliary_loss(self.embeddings(observations))
