"""A causal Transformer: exact softmax attention, in parallel or token by token over a cache of keys and values."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.encoders.attention import AttentionEncoder
from agents.encoders.base import EncoderState, features_at, require_positive, take_positions, visible_at
from agents.encoders.cache import CacheState

_POSITION_SHARE = 0.2  # with `mimetic`, of position embeddings: as large as those of tokens, they drown equality

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Attention of one layer: (layer, q, k, v) to values, all (B, H, L, E)."""


class Transformer(AttentionEncoder):
    """Softmax attention (Vaswani et al. 2017, arXiv:1706.03762) in pre-norm blocks, in parallel or token by token.

    The blocks are those of :class:`~agents.encoders.performer.Performer`, weight for weight; only the attention
    differs. It is exact, and its cost grows with the text: a step reads the keys and values of all tokens before, which
    the state holds (see :class:`~agents.encoders.cache.CacheState`).

    Weights are drawn from PyTorch's global generator when the encoder is built, as in any module.

    Args:
        vocab_size: Number of embeddings, the padding id included (≥ 1).
        context_length: Most tokens in a sequence (≥ 1); the number of learned position embeddings.
        pad_id: The padding id, in ``[0, vocab_size)``.
        features_dim: Width D of the residual stream and of the features; a multiple of ``n_heads``.
        n_layers: Number of blocks (≥ 1).
        n_heads: Number of attention heads H (≥ 1).
        feedforward_mult: Width of the hidden feed-forward layer, in multiples of ``features_dim`` (≥ 1).
        embedding_std: Standard deviation of the initial token and position embeddings (> 0).
        n_gram: Tokens whose embeddings a position adds up (≥ 1), see :class:`AttentionEncoder`.
        mimetic: Whether attention looks for equal tokens from the start and copies what it finds, see
            :meth:`_init_mimetic`: a layer then looks up one step of a chain before anything has been learned. A
            Q-network on top starts by rating the tokens that have been found.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> encoder = Transformer(vocab_size=12, context_length=16, pad_id=11)
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
        n_heads: int = 4,
        feedforward_mult: int = 4,
        embedding_std: float = 0.5,
        n_gram: int = 1,
        mimetic: bool = False,
    ) -> None:
        super().__init__(vocab_size, context_length, pad_id, features_dim, n_heads, embedding_std, n_gram)
        require_positive(n_layers=n_layers, feedforward_mult=feedforward_mult)
        if not isinstance(mimetic, bool):
            raise ValueError(f"mimetic must be True or False, got {mimetic!r}")
        self.mimetic = mimetic
        self.blocks = nn.ModuleList(Block(features_dim, feedforward_mult) for _ in range(n_layers))
        self.norm = nn.LayerNorm(features_dim)
        if mimetic:
            self._init_mimetic(embedding_std)

    @property
    def token_directions(self) -> Tensor | None:
        """The embeddings, if attention copies them as they are; see :attr:`CausalEncoder.token_directions`."""
        return self.token_embedding.weight if self.mimetic else None

    @torch.no_grad()
    def _init_mimetic(self, embedding_std: float) -> None:
        """Start from weights whose products are identities (in the manner of arXiv:2305.09828).

        Queries and keys are the same rotation of the stream, so a position attends to where its token stands.
        Values and outputs undo each other, so what it finds is added to the stream as it is; and what stood before a
        token has the embedding of that token, so what was found can be looked for by the next layer. Embeddings of
        tokens are orthogonal, as far as there is room, and those of positions a fifth as large as they.
        """
        embedding = self.token_embedding.weight
        nn.init.orthogonal_(embedding, gain=embedding_std * max(embedding.shape) ** 0.5)
        self.position_embedding.weight.mul_(_POSITION_SHARE)
        for table in self.previous_embeddings:
            assert isinstance(table, nn.Embedding)
            table.weight.copy_(embedding)
        for block in self.blocks:
            assert isinstance(block, Block)
            queries, keys, values = block.to_qkv.weight.chunk(3)
            nn.init.orthogonal_(queries)
            keys.copy_(queries)
            nn.init.orthogonal_(values)
            block.to_out.weight.copy_(values.T)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the features of every prefix; see :meth:`CausalEncoder.forward`."""
        self.check_tokens(tokens)
        return self._run(
            self.embed_prefixes(tokens),
            lambda _layer, q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        )

    def forward_at(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return the features of some prefixes; see :meth:`CausalEncoder.forward_at`."""
        visible = visible_at(positions, tokens.shape[1])
        if visible is None:
            return super().forward_at(tokens, positions)
        self.check_tokens(tokens)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if layer < len(self.blocks) - 1:
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=visible)

        return self._run(self.embed_prefixes(tokens), attend, positions)

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> EncoderState:
        """Return the state of empty prefixes; see :meth:`CausalEncoder.initial_state`."""
        weight = self.norm.weight
        device = weight.device if device is None else torch.device(device)
        shape = (batch_size, 2, self.n_heads, 0, self.head_dim)
        return CacheState(
            lengths=torch.zeros(batch_size, dtype=torch.int64, device=device),
            tensors=tuple(torch.zeros(shape, dtype=weight.dtype, device=device) for _ in self.blocks),
            recent=self.no_tokens(batch_size, device),
        )

    def step(self, tokens: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Append one token to every row; see :meth:`CausalEncoder.step`."""
        self.check_step(state)
        features, new = self._append(tokens.unsqueeze(1), torch.ones_like(state.lengths), state)
        return features.squeeze(1), new

    def prefill(self, tokens: Tensor, lengths: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Append each row's new tokens; see :meth:`CausalEncoder.prefill`."""
        self.check_prefill(tokens, lengths, state)
        features, new = self._append(tokens, lengths, state)
        return features_at(features, lengths - 1), new

    def _append(self, tokens: Tensor, lengths: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Return the features of new tokens, (B, P, D), those at padding meaningless, and the state after them."""
        assert isinstance(state, CacheState)
        offsets = torch.arange(tokens.shape[1], device=tokens.device)  # (P,)
        positions = state.lengths.unsqueeze(1) + offsets  # (B, P)
        end = int((state.lengths + lengths).max())
        cache = state.extended(lengths, end, self.context_length)
        rows, columns = (offsets < lengths.unsqueeze(1)).nonzero(as_tuple=True)  # what is no padding
        targets = positions[rows, columns]
        visible = (torch.arange(end, device=tokens.device) <= positions.unsqueeze(-1)).unsqueeze(1)  # (B, 1, P, end)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            memory = cache.tensors[layer]  # (B, 2, H, capacity, E)
            memory[rows, 0, :, targets] = k[rows, :, columns]
            memory[rows, 1, :, targets] = v[rows, :, columns]
            keys, values = memory[:, 0, :, :end], memory[:, 1, :, :end]
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=visible)

        x, cache.recent = self.embed_next(tokens, lengths, state)
        return self._run(x, attend), cache

    def _run(self, x: Tensor, attend: Attend, positions: Tensor | None = None) -> Tensor:
        """Run the residual stream, (B, L, D), through every block and the final norm.

        With ``positions``, (B, S), the last block has queries there alone, and the result is (B, S, D).
        """
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            normed = block.attention_norm(x)
            if positions is None or layer < len(self.blocks) - 1:
                q, k, v = (self.split_heads(t) for t in block.to_qkv(normed).chunk(3, dim=-1))
            else:
                to_q, to_kv = block.to_qkv.weight.split((self.features_dim, 2 * self.features_dim))
                k, v = (self.split_heads(t) for t in F.linear(normed, to_kv).chunk(2, dim=-1))
                x = take_positions(x, positions)
                q = self.split_heads(F.linear(take_positions(normed, positions), to_q))
            x = x + block.to_out(attend(layer, q, k, v).transpose(1, 2).flatten(2))
            x = x + block.feedforward(block.feedforward_norm(x))
        normalised: Tensor = self.norm(x)
        return normalised


class Block(nn.Module):
    """The weights of one pre-norm block: attention and a feed-forward layer.

    Args:
        features_dim: Width D of the residual stream.
        feedforward_mult: Width of the hidden layer, in multiples of D.
    """

    def __init__(self, features_dim: int, feedforward_mult: int) -> None:
        super().__init__()
        hidden_dim = feedforward_mult * features_dim
        self.attention_norm = nn.LayerNorm(features_dim)
        self.to_qkv = nn.Linear(features_dim, 3 * features_dim, bias=False)
        self.to_out = nn.Linear(features_dim, features_dim)
        self.feedforward_norm = nn.LayerNorm(features_dim)
        self.feedforward = nn.Sequential(
            nn.Linear(features_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, features_dim)
        )
