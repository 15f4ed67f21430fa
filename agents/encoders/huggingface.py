"""Causal transformers as encoders, with a key-value cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agents.encoders.base import CausalEncoder, EncoderState, Rows, features_at
from agents.pruning.pruned_transformer import load_model
from textgym.language_models.key_values import append, empty_cache


@dataclass
class KeyValueState(EncoderState):
    """Keys and values of every layer, which grow with the longest row.

    Row ``b`` takes the last ``lengths[b]`` slots; those before them hold nothing of meaning.

    Attributes:
        lengths: Tokens that each row has consumed, (B,), int64.
        tensors: Keys and values in turns, layer by layer, each (B, H, T, E) with its layer's number of heads H.
    """

    def take(self, rows: Rows) -> KeyValueState:
        """Return a copy of these rows, in the order given."""
        taken = super().take(rows)
        return KeyValueState(taken.lengths, taken.tensors)

    def put(self, rows: Rows, other: EncoderState) -> None:
        """Overwrite these rows, in place, with all the rows of ``other`` in their order."""
        slots = max(self.tensors[0].shape[2], other.tensors[0].shape[2])
        self.tensors = tuple(_with_slots(tensor, slots) for tensor in self.tensors)
        super().put(rows, EncoderState(other.lengths, tuple(_with_slots(tensor, slots) for tensor in other.tensors)))


class HuggingFaceEncoder(CausalEncoder):
    """A causal model of the GPT-2 kind, pruned or not, as a :class:`~agents.encoders.base.CausalEncoder`.

    Features are the model's last hidden states. Observation ids below the model's vocabulary are its own tokens, as in
    a task with the model's tokenizer; the ids above them (separator, control words, padding) have learned embeddings
    here. The model is put into evaluation mode for good: with dropout, stepping and whole sequences would differ.

    Args:
        model: A causal transformer, with a head (which is left out) or without, that takes ``inputs_embeds`` and
            ``position_ids``; a :class:`agents.PrunedTransformer`; or a local path of either.
        vocab_size: Number of observation ids, the padding id included (≥ 1).
        context_length: Most tokens in a sequence (≥ 1), no more than the model has positions.
        pad_id: The padding id, in ``[0, vocab_size)``.
        frozen: Whether the model's own weights are left as they are; the new embeddings are always learned.

    Raises:
        ValueError: If an argument is out of range, or the model is not causal.
    """

    def __init__(self, model: Any, vocab_size: int, context_length: int, pad_id: int, frozen: bool = False) -> None:
        model = load_model(model) if isinstance(model, (str, Path)) else getattr(model, "model", model)
        model = getattr(model, "base_model", model)
        config = model.config
        super().__init__(vocab_size, context_length, pad_id, int(config.hidden_size))
        if config.model_type in _BIDIRECTIONAL and not getattr(config, "is_decoder", False):
            raise ValueError(f"model must be causal, as GPT-2 is, got a {config.model_type!r}, which reads both ways")
        positions = getattr(config, "max_position_embeddings", None)
        if positions is not None and context_length > positions:
            raise ValueError(f"context_length must be at most the {positions} positions of model, got {context_length}")
        if "chunked_attention" in (getattr(config, "layer_types", None) or ()):
            raise ValueError(
                f"model must not attend in chunks, which count from a batch's start, got {config.model_type!r}"
            )
        self.model = model.eval().requires_grad_(not frozen)
        self.n_model_ids = int(model.get_input_embeddings().num_embeddings)
        dtype = model.get_input_embeddings().weight.dtype
        self.extra_embedding = nn.Embedding(max(0, vocab_size - self.n_model_ids), self.features_dim, dtype=dtype)
        nn.init.normal_(self.extra_embedding.weight, std=float(getattr(config, "initializer_range", 0.02)))

    def train(self, mode: bool = True) -> HuggingFaceEncoder:
        """Set the training mode of all but the model."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the features of every prefix; see :meth:`CausalEncoder.forward`."""
        self.check_tokens(tokens)
        features: Tensor = self.model(inputs_embeds=self._embed(tokens), use_cache=False).last_hidden_state
        return features

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> KeyValueState:
        """Return the state of empty prefixes, which hold no slot yet; see :meth:`CausalEncoder.initial_state`."""
        device = self.extra_embedding.weight.device if device is None else torch.device(device)
        lengths = torch.zeros(batch_size, dtype=torch.int64, device=device)
        tensors = empty_cache(self.model, batch_size, device)
        if tensors is None:
            raise ValueError(f"model must keep keys and values, got {type(self.model).__name__}, which does not")
        return KeyValueState(lengths, tensors)

    def step(self, tokens: Tensor, state: EncoderState) -> tuple[Tensor, KeyValueState]:
        """Append one token to every row; see :meth:`CausalEncoder.step`."""
        self.check_step(state)
        return self._append(tokens.unsqueeze(1), torch.ones_like(state.lengths), state)

    def prefill(self, tokens: Tensor, lengths: Tensor, state: EncoderState) -> tuple[Tensor, KeyValueState]:
        """Append each row's new tokens; see :meth:`CausalEncoder.prefill`."""
        self.check_prefill(tokens, lengths, state)
        return self._append(tokens, lengths, state)

    def _embed(self, tokens: Tensor) -> Tensor:
        """Embeddings of tokens, (B, L) to (B, L, D): the model's, and ours for ids that it does not have."""
        embedding = self.model.get_input_embeddings()
        if not self.extra_embedding.num_embeddings:
            return embedding(tokens)
        extra = (tokens - self.n_model_ids).clamp(min=0)
        known = embedding(tokens.clamp(max=self.n_model_ids - 1))
        return torch.where((tokens < self.n_model_ids).unsqueeze(-1), known, self.extra_embedding(extra))

    def _append(self, tokens: Tensor, lengths: Tensor, state: EncoderState) -> tuple[Tensor, KeyValueState]:
        output, tensors = append(
            self.model, state.tensors, state.lengths, lengths, self.context_length, inputs_embeds=self._embed(tokens)
        )
        return features_at(output.last_hidden_state, lengths - 1), KeyValueState(state.lengths + lengths, tensors)


_BIDIRECTIONAL = ("bert", "roberta", "distilbert", "xlm-roberta", "electra", "albert", "mpnet", "modernbert")


def _with_slots(tensor: Tensor, slots: int) -> Tensor:
    missing = slots - tensor.shape[2]
    return nn.functional.pad(tensor, (0, 0, missing, 0)) if missing else tensor
