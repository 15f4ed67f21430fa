"""Policies of :class:`agents.DoubleDQN` on the sequence path: a causal encoder with a Q-value head."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from agents.double_dqn.defaults import ENCODER
from agents.double_dqn.sequence_network import SequenceQNetwork
from agents.representations.extractors import GRUExtractor, PerformerExtractor, TransformerExtractor


class SequencePolicy(DQNPolicy):
    """Q-network and target network over a causal encoder.

    Args:
        observation_space: A :class:`textgym.TokenSequence`.
        action_space: The tokens.
        lr_schedule: Learning rate as a function of the remaining progress.
        features_extractor_class: An extractor with a causal ``encoder``; None for :attr:`extractor_class`.
        features_extractor_kwargs: Its arguments.
        dueling: See :class:`agents.double_dqn.heads.QHead`.
        n_ensemble: Likewise; more than 1 is what ``exploration="ensemble_ucb"`` needs.
        value_range: Likewise; ``loss="cross_entropy"`` needs one.
        optimizer_class: The optimizer.
        optimizer_kwargs: Its arguments, without the learning rate.
        **encoder_kwargs: ``features_dim``, ``n_layers``, ``n_heads`` …: a short way to write
            ``features_extractor_kwargs``.

    Attributes:
        extractor_class: The extractor of this class's policies.

    Raises:
        ValueError: If an argument is out of range.
    """

    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = PerformerExtractor
    q_net: SequenceQNetwork  # type: ignore[assignment]
    q_net_target: SequenceQNetwork  # type: ignore[assignment]

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        dueling: bool = True,
        n_ensemble: int = 1,
        value_range: tuple[float, float] | None = None,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        **encoder_kwargs: Any,
    ) -> None:
        self.dueling, self.n_ensemble, self.value_range = dueling, n_ensemble, value_range
        self._switched: list[nn.Module] | None = None
        if issubclass(optimizer_class, (torch.optim.Adam, torch.optim.AdamW)):
            # One kernel for all weights: for networks this small, a fifth of the time of a loop over them.
            optimizer_kwargs = {"fused": True, **(optimizer_kwargs or {})}
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[],
            activation_fn=nn.ReLU,
            features_extractor_class=features_extractor_class or self.extractor_class,
            features_extractor_kwargs={**(features_extractor_kwargs or {}), **encoder_kwargs},
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )

    def make_q_net(self) -> SequenceQNetwork:  # type: ignore[override]
        """Build one of the two networks."""
        extractor = self.make_features_extractor()
        assert isinstance(self.action_space, spaces.Discrete)
        return SequenceQNetwork(
            self.observation_space,
            self.action_space,
            extractor,
            extractor.features_dim,
            self.dueling,
            self.n_ensemble,
            self.value_range,
        ).to(self.device)

    def set_training_mode(self, mode: bool) -> None:
        """Switch between training and evaluation mode where that changes a thing, without a walk through the tree."""
        if mode == self.training:
            return
        if self._switched is None:
            self._switched = list(self.q_net.modules())
            if any(type(module).train is not nn.Module.train for module in self._switched):
                self._switched = []  # one of them has a say in it
        if not self._switched:
            super().set_training_mode(mode)
            return
        for module in self._switched:
            vars(module)["training"] = mode  # past nn.Module's own way to set attributes, which asks what they are
        self.training = mode

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_switched": None}  # a copy has modules of its own

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        for name in ("net_arch", "activation_fn", "normalize_images"):
            data.pop(name, None)
        return data | {"dueling": self.dueling, "n_ensemble": self.n_ensemble, "value_range": self.value_range}


PerformerPolicy = SequencePolicy
"""The default: a :class:`agents.encoders.Performer`."""


class TransformerPolicy(SequencePolicy):
    """:class:`SequencePolicy` over a :class:`agents.encoders.Transformer`: softmax attention."""

    extractor_class = TransformerExtractor


class GRUPolicy(SequencePolicy):
    """:class:`SequencePolicy` over a :class:`agents.encoders.GRU`."""

    extractor_class = GRUExtractor


def with_encoder_defaults(policy_class: type[BasePolicy], policy_kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """Arguments of a policy, with the default blocks where its encoder is one of attention and they are not given."""
    given = dict(policy_kwargs or {})
    extractor = given.get("features_extractor_class") or getattr(policy_class, "extractor_class", None)
    if extractor not in (PerformerExtractor, TransformerExtractor):
        return given
    named = {**given, **(given.get("features_extractor_kwargs") or {})}
    return given | {name: value for name, value in ENCODER.items() if name not in named}
