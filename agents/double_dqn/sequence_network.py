"""The Q-network on the sequence path: a causal encoder with a head, for whole batches and token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor

from agents.double_dqn.heads import QHead
from agents.double_dqn.step_reader import MOST_TOKENS, NO_TOKEN, StepReader
from agents.encoders.base import CausalEncoder, EncoderState
from agents.replay.transfer import to_device
from textgym.spaces import sequence_lengths


@dataclass
class ActingState:
    """What acting remembers of each row between two tokens; ``predict`` hands it out and takes it back.

    Attributes:
        encoder: The encoder's recurrent state.
        features: Features of the last token read, shape ``(B, D)``.
        lengths: Tokens read so far, shape ``(B,)``.
        values: Q-values of every action after the last token, shape ``(B, V)``, where they came with the features.
    """

    encoder: EncoderState
    features: Tensor
    lengths: NDArray[np.int64]
    values: Tensor | None = None


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
        if self.encoder.token_directions is not None:
            self.head.start_from(self.encoder.token_directions)
        self.step_reader: StepReader | None = None  # on a GPU, from the first token on

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
        if self._reads_by_steps(state) and some.any():
            read = self._read_by_steps(observations, state, lengths, restart, some, several)
            if read is not None:
                return read
        if some.all() and not several.any() and not restart.any():
            tokens = to_device(observations[rows, lengths], self.device).long()
            features, encoder_state = encoder.step(tokens, state.encoder)
            return ActingState(encoder_state, features, lengths + 1)
        if not some.any():
            return state if not restart.any() else self.advance(observations)

        encoder_state = state.encoder if owned else state.encoder.take(torch.arange(n, device=state.features.device))
        features = state.features.clone()
        if restart.any():
            encoder_state.reset(to_device(restart.nonzero()[0], self.device))
        for group in (some & ~several, several):
            chosen = group.nonzero()[0]
            if not chosen.size:
                continue
            index = to_device(chosen, self.device)
            start = lengths[chosen]
            end = start + 1 if group is not several else sequence_lengths(observations[chosen], pad_id)
            columns = start[:, None] + np.arange((end - start).max())
            tokens = observations[chosen[:, None], np.minimum(columns, context_length - 1)]
            features[index], new = encoder.prefill(
                to_device(tokens, self.device).long(),
                to_device(end - start, self.device),
                encoder_state.take(index),
            )
            encoder_state.put(index, new)
            lengths[chosen] = end
        return ActingState(encoder_state, features, lengths)

    def _reads_by_steps(self, state: ActingState) -> bool:
        """Whether a :class:`StepReader` reads, as it does on a GPU."""
        if self.step_reader is None and state.features.is_cuda and self.encoder.capturable:
            self.step_reader = StepReader(self.encoder, self.head)
        return self.step_reader is not None

    def _read_by_steps(
        self,
        observations: NDArray[np.integer],
        state: ActingState,
        start: NDArray[np.int64],
        restart: NDArray[np.bool_],
        some: NDArray[np.bool_],
        several: NDArray[np.bool_],
    ) -> ActingState | None:
        """Read what each row holds from ``start`` on, where it is ``some`` or ``several``; None if that is too long."""
        assert self.step_reader is not None
        end = start + some
        end[several] = sequence_lengths(observations[several], self.encoder.pad_id)
        n_tokens = int((end - start).max())
        if n_tokens > MOST_TOKENS:
            return None
        columns = start + np.arange(n_tokens)[:, None]  # (P, B)
        tokens = observations[np.arange(len(start)), np.minimum(columns, observations.shape[1] - 1)]
        tokens = np.where(columns < end, tokens, NO_TOKEN)
        features, values, encoder = self.step_reader.read(tokens, restart, state.features, state.encoder)
        return ActingState(encoder, features, end, values)

    def _apply(self, fn: Any, recurse: bool = True) -> SequenceQNetwork:
        self.step_reader = None  # the weights may be about to move
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"step_reader": None}  # a copy has weights of its own
