"""Causal encoders as Stable-Baselines3 features extractors, for PPO, A2C, DQN, QR-DQN, MaskablePPO and the like."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from agents.encoders.base import features_at
from agents.encoders.performer import Performer


class PerformerExtractor(BaseFeaturesExtractor):
    """The features of a text's last token, from a :class:`~agents.encoders.performer.Performer`.

    Pass it as ``policy_kwargs={"features_extractor_class": PerformerExtractor}`` with any ``MlpPolicy``. Only the
    columns up to the batch's longest text are computed.

    Args:
        observation_space: Right-padded token ids: a :class:`textgym.spaces.TokenSequence`, or any integer Box of shape
            (L,) from 0 to one highest id, which is the padding.
        features_dim: Number of features D, a multiple of ``n_heads``.
        n_layers: Number of blocks (≥ 1).
        n_heads: Number of attention heads (≥ 1).
        **encoder_kwargs: Further arguments of the encoder, such as ``n_random_features``.

    Raises:
        ValueError: If the space is no such row of token ids, or an argument of the encoder is out of range.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 64,
        n_layers: int = 2,
        n_heads: int = 4,
        **encoder_kwargs: Any,
    ) -> None:
        context_length, pad_id = token_row(observation_space)
        super().__init__(observation_space, features_dim)
        self.encoder = Performer(
            vocab_size=pad_id + 1,
            context_length=context_length,
            pad_id=pad_id,
            features_dim=features_dim,
            n_layers=n_layers,
            n_heads=n_heads,
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
