"""Causal encoders as Stable-Baselines3 features extractors, for PPO, A2C, DQN, QR-DQN, MaskablePPO and the like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from agents.encoders.base import CausalEncoder, features_at
from agents.encoders.gru import GRU
from agents.encoders.performer import Performer
from agents.encoders.transformer import Transformer


class CausalEncoderExtractor(BaseFeaturesExtractor):
    """The features of a text's last token, from a causal encoder; each subclass names one.

    Pass a subclass as ``policy_kwargs={"features_extractor_class": PerformerExtractor}`` with any ``MlpPolicy``. Only
    the columns up to the batch's longest text are computed.

    Args:
        observation_space: Right-padded token ids: a :class:`textgym.spaces.TokenSequence`, or any integer Box of shape
            (L,) from 0 to one highest id, which is the padding.
        features_dim: Number of features D; with attention, a multiple of ``n_heads``.
        n_layers: Number of layers (≥ 1).
        **encoder_kwargs: Further arguments of the encoder, such as ``n_heads``.

    Raises:
        ValueError: If the space is no such row of token ids, or an argument of the encoder is out of range.
    """

    encoder_class: ClassVar[Callable[..., CausalEncoder]]

    def __init__(
        self, observation_space: spaces.Space[Any], features_dim: int = 64, n_layers: int = 2, **encoder_kwargs: Any
    ) -> None:
        context_length, pad_id = token_row(observation_space)
        super().__init__(observation_space, features_dim)
        self.encoder = type(self).encoder_class(
            vocab_size=pad_id + 1,
            context_length=context_length,
            pad_id=pad_id,
            features_dim=features_dim,
            n_layers=n_layers,
            **encoder_kwargs,
        )

    def forward(self, observations: Tensor) -> Tensor:
        """Return the features of each row's last token.

        Args:
            observations: Right-padded token ids, (B, L), as integers or as the floats that SB3 makes of them.

        Returns:
            Features, (B, D). A row of padding alone has those of its first column.
        """
        tokens = observations.long()
        lengths = (tokens != self.encoder.pad_id).sum(dim=1)  # (B,)
        longest = max(1, int(lengths.max()))
        return features_at(self.encoder(tokens[:, :longest]), (lengths - 1).clamp(min=0))


class PerformerExtractor(CausalEncoderExtractor):
    """Features of a :class:`~agents.encoders.performer.Performer`: linear attention, a step at constant cost."""

    encoder_class = Performer


class TransformerExtractor(CausalEncoderExtractor):
    """Features of a :class:`~agents.encoders.transformer.Transformer`: softmax attention."""

    encoder_class = Transformer


class GRUExtractor(CausalEncoderExtractor):
    """Features of a :class:`~agents.encoders.gru.GRU`: recurrent, without attention."""

    encoder_class = GRU


def token_row(space: spaces.Space[Any]) -> tuple[int, int]:
    """Return the context length and padding id of a space of right-padded token ids.

    Args:
        space: A :class:`textgym.spaces.TokenSequence` or an integer Box of shape (L,) from 0 to one highest id.

    Raises:
        ValueError: If it is neither.
    """
    if (
        isinstance(space, spaces.Box)
        and np.issubdtype(space.dtype, np.integer)
        and len(space.shape) == 1
        and (space.low == 0).all()
        and (space.high == space.high.flat[0]).all()
    ):
        return int(space.shape[0]), int(space.high.flat[0])
    raise ValueError(
        "observation_space must be a TokenSequence or an integer Box of shape (L,) from 0 to one highest id, "
        f"got {space}"
    )
