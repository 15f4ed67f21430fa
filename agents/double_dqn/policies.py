"""Policies of :class:`agents.DoubleDQN` on the sequence path: a causal encoder with a Q-value head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor, nn

from agents.double_dqn.defaults import ENCODER
from agents.double_dqn.heads import QHead
from agents.encoders.base import CausalEncoder, EncoderState
from agents.representations.extractors import GRUExtractor, PerformerExtractor, TransformerExtractor
from textgym.spaces import sequence_lengths


@dataclass
class ActingState:
    """What acting remembers of each row between two tokens; ``predict`` hands it out and takes it back.

    Attributes:
        encoder: The encoder's recurrent state.
        features: Features of the last token read, shape ``(B, D)``.
        lengths: Tokens read so far, shape ``(B,)``.
    """

    encoder: EncoderState
    features: Tensor
    lengths: NDArray[np.int64]


class SequenceQNetwork(BasePolicy):
    """Q-values of token sequences: one pass for every prefix, or one step a token.

    Args:
        observation_space: A :class:`textgym.TokenSequence`.
        action_space: The tokens.
        features_extractor: An extractor with a causal ``encoder``, such as :class:`agents.PerformerExtractor`.
        features_dim: Its number of features D.
        dueling: See :class:`agents.double_dqn.heads.QHead`.
        n_ensemble: Likewise.
        value_range: Likewise.

    Raises:
        ValueError: If the extractor has no causal encoder.
    """

    action_space: spaces.Discrete

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        dueling: bool = True,
        n_ensemble: int = 1,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(observation_space, action_space, features_extractor=features_extractor)
        if not isinstance(getattr(features_extractor, "encoder", None), CausalEncoder):
            raise ValueError(
                "features_extractor_class must have a causal encoder, as agents.PerformerExtractor does, "
                f"got {type(features_extractor).__name__}"
            )
        self.features_dim = features_dim
        self.head = QHead(features_dim, int(action_space.n), dueling, n_ensemble, value_range)

    @property
    def encoder(self) -> CausalEncoder:
        """The causal encoder of the features extractor."""
        assert self.features_extractor is not None
        return self.features_extractor.encoder  # type: ignore[return-value]

    def forward(self, obs: PyTorchObs) -> Tensor:
        """Q-values of whole observations: ``(B, L)`` → ``(B, V)``."""
        assert self.features_extractor is not None
        return self.head(self.extract_features(obs, self.features_extractor))

    def features_at(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Features of several prefixes of each row, from one pass.

        Args:
            tokens: Right-padded token ids, shape ``(B, L)``.
            positions: Last token of each prefix, shape ``(B, S)``.

        Returns:
            Features, shape ``(B, S, D)``.
        """
        return self.encoder.forward_at(tokens, positions)

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> Tensor:
        return self(observation).argmax(dim=1)

    @torch.no_grad()
    def advance(
        self,
        observations: NDArray[np.integer],
        state: ActingState | None = None,
        episode_start: NDArray[np.bool_] | None = None,
    ) -> ActingState:
        """Read the tokens that each row holds beyond ``state``.

        A row's length is never searched for from the left: mostly there is one new token, and one look finds it.

        Args:
            observations: Right-padded token ids, shape ``(B, L)``.
            state: What was read before; None reads every row from its start. It is not modified.
            episode_start: Rows to read from their start, shape ``(B,)``.

        Returns:
            The new state; its ``features`` are those of each row's last token.

        Raises:
            ValueError: If ``state`` has another number of rows.
        """
        n, context_length = observations.shape
        rows, pad_id, encoder = np.arange(n), self.encoder.pad_id, self.encoder
        if state is None:
            zeros = torch.zeros(n, self.features_dim, device=self.device)
            state = ActingState(encoder.initial_state(n), zeros, np.zeros(n, np.int64))
            owned = True
        else:
            if len(state.lengths) != n:
                raise ValueError(f"state must have {n} rows, as observation has, got {len(state.lengths)}")
            owned = False
        lengths = state.lengths.copy()
        # A row that is shorter than what was read of it is a new text, flagged or not.
        restart = observations[rows, np.maximum(lengths - 1, 0)] == pad_id
        if episode_start is not None:
            restart |= episode_start
        restart &= lengths > 0
        lengths[restart] = 0

        padded = observations[rows, np.minimum(lengths, context_length - 1)] == pad_id
        some = ~padded & (lengths < context_length)
        padded = observations[rows, np.minimum(lengths + 1, context_length - 1)] == pad_id
        several = some & ~padded & (lengths + 1 < context_length)
        if some.all() and not several.any() and not restart.any():
            tokens = torch.as_tensor(observations[rows, lengths], device=self.device).long()
            features, encoder_state = encoder.step(tokens, state.encoder)
            return ActingState(encoder_state, features, lengths + 1)
        if not some.any():
            return state if not restart.any() else self.advance(observations)

        encoder_state = state.encoder if owned else state.encoder.take(torch.arange(n))
        features = state.features.clone()
        if restart.any():
            encoder_state.reset(torch.from_numpy(restart.nonzero()[0]))
        for group in (some & ~several, several):
            chosen = group.nonzero()[0]
            if not chosen.size:
                continue
            index = torch.from_numpy(chosen)
            start = lengths[chosen]
            end = start + 1 if group is not several else sequence_lengths(observations[chosen], pad_id)
            columns = start[:, None] + np.arange((end - start).max())
            tokens = observations[chosen[:, None], np.minimum(columns, context_length - 1)]
            features[index], new = encoder.prefill(
                torch.as_tensor(tokens, device=self.device).long(),
                torch.as_tensor(end - start, device=self.device),
                encoder_state.take(index),
            )
            encoder_state.put(index, new)
            lengths[chosen] = end
        return ActingState(encoder_state, features, lengths)


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
