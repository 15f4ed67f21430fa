"""A gated recurrent network: the classic encoder with a state of fixed size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from agents.encoders.base import CausalEncoder, EncoderState, init_embedding, require_positive


class GRU(CausalEncoder):
    """Gated recurrent units (Cho et al. 2014, arXiv:1406.1078), by PyTorch's kernel or token by token.

    The state holds the hidden units of each layer, (B, layers, D). A step costs little, whatever the position, but
    ``forward`` is parallel over rows alone: it reads one token after another. The features are normalised, as those of
    the other encoders are.

    Weights are drawn from PyTorch's global generator when the encoder is built, as in any module.

    Args:
        vocab_size: Number of embeddings, the padding id included (≥ 1).
        context_length: Most tokens in a sequence (≥ 1).
        pad_id: The padding id, in ``[0, vocab_size)``.
        features_dim: Hidden units of a layer, and features, D (≥ 1).
        n_layers: Number of layers (≥ 1).
        embedding_std: Standard deviation of the initial token embeddings (> 0).

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> encoder = GRU(vocab_size=12, context_length=16, pad_id=11)
        >>> encoder(torch.tensor([[3, 1, 4, 1, 5]])).shape
        torch.Size([1, 5, 64])
    """

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        pad_id: int,
        features_dim: int = 64,
        n_layers: int = 2,
        embedding_std: float = 0.5,
    ) -> None:
        super().__init__(vocab_size, context_length, pad_id, features_dim)
        require_positive(n_layers=n_layers)
        self.token_embedding = nn.Embedding(vocab_size, features_dim)
        init_embedding(self.token_embedding, embedding_std)
        self.gru = nn.GRU(features_dim, features_dim, n_layers, batch_first=True)
        self.norm = nn.LayerNorm(features_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the features of every prefix; see :meth:`CausalEncoder.forward`."""
        self.check_tokens(tokens)
        hidden, _ = self.gru(self.token_embedding(tokens))
        features: Tensor = self.norm(hidden)
        return features

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> EncoderState:
        """Return the state of empty prefixes; see :meth:`CausalEncoder.initial_state`."""
        weight = self.norm.weight
        device = weight.device if device is None else torch.device(device)
        memory = torch.zeros(batch_size, self.gru.num_layers, self.features_dim, dtype=weight.dtype, device=device)
        return EncoderState(torch.zeros(batch_size, dtype=torch.int64, device=device), (memory,))

    def step(self, tokens: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Append one token to every row; see :meth:`CausalEncoder.step`."""
        self.check_step(state)
        hidden, last = self.gru(self.token_embedding(tokens).unsqueeze(1), _layers_first(state))
        return self.norm(hidden[:, 0]), EncoderState(state.lengths + 1, (last.transpose(0, 1),))

    def prefill(self, tokens: Tensor, lengths: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Append each row's new tokens; see :meth:`CausalEncoder.prefill`."""
        self.check_prefill(tokens, lengths, state)
        # Packed, every row ends at its own last token, and so does what every layer remembers of it.
        packed = pack_padded_sequence(
            self.token_embedding(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, last = self.gru(packed, _layers_first(state))  # (layers, B, D)
        return self.norm(last[-1]), EncoderState(state.lengths + lengths, (last.transpose(0, 1),))


def _layers_first(state: EncoderState) -> Tensor:
    """Return the hidden units as PyTorch wants them, (layers, B, D)."""
    return state.tensors[0].transpose(0, 1).contiguous()
