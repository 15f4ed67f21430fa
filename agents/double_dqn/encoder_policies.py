"""Policies of :class:`agents.DoubleDQN` with other causal encoders than the Performer."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule

from agents.double_dqn.policies import SequencePolicy
from agents.extractors import GRUExtractor, TransformerExtractor


class TransformerPolicy(SequencePolicy):
    """A :class:`agents.encoders.Transformer` with a Q-value head.

    Args:
        observation_space: A :class:`textgym.TokenSequence`.
        action_space: The tokens.
        lr_schedule: Learning rate as a function of the remaining progress.
        features_extractor_class: An extractor with a causal ``encoder``.
        **kwargs: See :class:`agents.double_dqn.policies.SequencePolicy`.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        features_extractor_class: type[BaseFeaturesExtractor] = TransformerExtractor,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            observation_space, action_space, lr_schedule, features_extractor_class=features_extractor_class, **kwargs
        )


class GRUPolicy(SequencePolicy):
    """A :class:`agents.encoders.GRU` with a Q-value head.

    Args:
        observation_space: A :class:`textgym.TokenSequence`.
        action_space: The tokens.
        lr_schedule: Learning rate as a function of the remaining progress.
        features_extractor_class: An extractor with a causal ``encoder``.
        **kwargs: See :class:`agents.double_dqn.policies.SequencePolicy`.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        features_extractor_class: type[BaseFeaturesExtractor] = GRUExtractor,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            observation_space, action_space, lr_schedule, features_extractor_class=features_extractor_class, **kwargs
        )
