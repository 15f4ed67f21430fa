"""The policy whose trunk is a pretrained encoder of texts, frozen, with an autoencoder behind it or without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import Schedule

from agents.double_dqn.transition_policies import TransitionPolicy
from agents.representations.embedding_extractor import StateEmbeddingExtractor
from agents.representations.state_autoencoder import StateAutoEncoder
from agents.representations.state_embedding import StateEmbedding
from textgym.language_models.huggingface import checksum_of_weights
from textgym.spaces import TokenSequence
from textgym.tasks.base import Task


class EncoderPolicy(TransitionPolicy):
    """``"MlpPolicy"`` on vectors of a pretrained encoder, as plain values say it, so that files can hold it.

    It is :class:`agents.StateEmbeddingExtractor` with :meth:`agents.StateEmbedding.from_pretrained`: the encoder stays
    as it is, and files of the agent hold its path and its fingerprint.

    Args:
        observation_space: A :class:`textgym.TokenSequence`.
        action_space: The tokens.
        lr_schedule: Learning rate as a function of the remaining progress.
        encoder: Local directory with an encoder, BERT-like or LLaMA-like, pruned or not, and its tokenizer.
        pooling: See :class:`agents.representations.state_embedding.PretrainedEmbedding`.
        latent_dim: Numbers that a linear :class:`agents.StateAutoEncoder` leaves of a vector (≥ 1); None for all.
        auxiliary_coefficient: Weight of the autoencoder's own loss (≥ 0), see :class:`agents.StateEmbeddingExtractor`.
        token_texts: Text of every token id, and between two of them ``separator``; None takes the environment's.
        separator: See there.
        fingerprint: That of the encoder on which was learned, which ``encoder`` must have; None for a new agent.
        **kwargs: As for :class:`agents.double_dqn.transition_policies.TransitionPolicy`.

    Raises:
        ValueError: If an argument is out of range, or the encoder is another one than was learned on.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        encoder: str | Path | None = None,
        pooling: str = "mean",
        latent_dim: int | None = None,
        auxiliary_coefficient: float = 0.0,
        token_texts: Sequence[str] | None = None,
        separator: str = " ",
        fingerprint: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(observation_space, TokenSequence):
            raise ValueError(f"env must have TokenSequence observations for EncoderPolicy, got {observation_space}")
        if encoder is None:
            raise ValueError("encoder must be a local path to a pretrained encoder, got None")
        if token_texts is None:
            raise ValueError("token_texts must be the texts of the tokens where there is no environment, got None")
        self.encoder = str(encoder)
        self.token_texts, self.separator = list(token_texts), separator
        embedding = StateEmbedding.from_pretrained(self.encoder, pooling, decode=self._decode)  # type: ignore[arg-type]
        own = checksum_of_weights(embedding.model)
        if fingerprint not in (None, own):
            raise ValueError(
                f"encoder must be the one that was learned on, got {self.encoder!r}, which has other weights "
                f"(fingerprint {own}, not {fingerprint})"
            )
        self.fingerprint = own
        autoencoder = None
        if latent_dim is not None:
            autoencoder = StateAutoEncoder(embedding.features_dim, latent_dim, hidden=())
        extractor = {"embedding": embedding, "autoencoder": autoencoder, "auxiliary_coefficient": auxiliary_coefficient}
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            features_extractor_class=StateEmbeddingExtractor,
            features_extractor_kwargs=extractor,
            **kwargs,
        )

    def _decode(self, row: NDArray[np.integer]) -> str:
        texts = (self.token_texts[token] for token in row.tolist() if token < len(self.token_texts))
        return self.separator.join(text for text in texts if text)

    @property
    def embedding(self) -> Any:
        """What both networks share."""
        return self.features_extractor_kwargs["embedding"]


def texts_of(task: Task) -> dict[str, Any]:
    """``token_texts`` and ``separator`` of a task; tokens of no text are empty."""
    without = {task.eos_id, getattr(task, "sep_id", None)}
    texts = ["" if token in without else task.token_text(token) for token in range(task.pad_id)]
    return {"token_texts": texts, "separator": task.join(["a", "b"])[1:-1]}
