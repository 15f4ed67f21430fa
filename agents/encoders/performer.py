"""A Performer whose weights are performer-pytorch's and whose arithmetic is exact, causal and fast."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast, get_args

import performer_pytorch
import torch
from performer_pytorch.performer_pytorch import FastAttention
from torch import Tensor, nn

from agents.encoders.attention import AttentionEncoder
from agents.encoders.base import EncoderState, features_at, require_positive, take_positions, visible_at
from agents.encoders.linear_attention import (
    causal_linear_attention,
    linear_attention_at,
    linear_attention_prefill,
    linear_attention_step,
)

KERNEL_EPSILON = 1e-3
"""What performer-pytorch adds to every random feature, so that no key is invisible."""

MAX_EXPONENT = 40.0
"""Bound of FAVOR+'s exponents: e⁴⁰ leaves room in float32 for sums over ten thousand keys and for their gradients."""

FeatureMap = Literal["softmax", "relu", "favor+"]
"""What makes the random projections of a query or key positive."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Attention of one layer: (layer, q, k, v) to values, q and k (B, H, L, M), v and the result (B, H, L, E)."""


class Performer(AttentionEncoder):
    """Linear attention over random features (Choromanski et al. 2020, arXiv:2009.14794), in parallel or token by token.

    ``performer`` is performer-pytorch's own module and owns the weights of the blocks (pre-norm attention and
    feed-forward). Four things differ from its default:

    * Each ``feature_map`` looks at one token alone. The library's own FAVOR+ subtracts a maximum over the whole
      sequence from the keys, which lets later tokens reach earlier positions.
    * The causal product is :func:`~agents.encoders.linear_attention.causal_linear_attention`, not the fallback that
      builds an outer product for every token.
    * The random projections are buffers that are never redrawn: a redraw would change every Q-value between two
      updates. Two encoders agree only if they share them, as ``load_state_dict`` ensures; copying the parameters does
      not.
    * ``forward``, ``prefill`` and ``step`` compute the blocks straight from its weights, so that one description of a
      block serves all three.

    The state holds, for each layer and head, the (M, E + 1) sum of the key features times the values and one, so a step
    costs the same at position 10 and at position 10,000.

    FAVOR+ estimates the softmax kernel exp(q·k / √E) without bias by E[φ(q)·φ(k)], ``φ(x) = exp(w·x' − |x'|²/2)``,
    where x' = x E^(-1/4) and the directions w of a head are orthogonal and as long as Gaussian vectors. A query's
    features are divided by their largest, which cancels in the quotient of attention. A key's may only be scaled by a
    constant, the same for the whole text, and none is needed: the exponent is ``|w|²/2 − |w − x'|²/2``, so whatever
    the weights it stays below ``|w|²/2``, about E/2. Only heads wider than about 40 could reach :data:`MAX_EXPONENT`,
    where it is clamped, again for each token on its own. A running maximum with a rescaled state would be exact as
    well, but the chunked form would need one scale for each chunk, and nothing would be gained.

    Weights and projections are drawn from PyTorch's global generator when the encoder is built, as in any module.

    Args:
        vocab_size: Number of embeddings, the padding id included (≥ 1).
        context_length: Most tokens in a sequence (≥ 1); the number of learned position embeddings.
        pad_id: The padding id, in ``[0, vocab_size)``.
        features_dim: Width D of the residual stream and of the features; a multiple of ``n_heads``.
        n_layers: Number of blocks (≥ 1).
        n_heads: Number of attention heads H (≥ 1).
        n_random_features: Random features M of a head (≥ 1).
        feedforward_mult: Width of the hidden feed-forward layer, in multiples of ``features_dim`` (≥ 1).
        embedding_std: Standard deviation of the initial token and position embeddings (> 0).
        feature_map: ``"softmax"`` over the M projections of a token, which can attend sharply and learns long copies
            sooner (0.95 on 12 symbols of 31 after 40,000 to 50,000 steps); ``"relu"`` of each projection (0.969 and
            0.903 after 60,000); or ``"favor+"``, the estimate of softmax attention, which needs M ≥ 256 to be one.
        n_gram: Tokens whose embeddings a position adds up (≥ 1), see :class:`AttentionEncoder`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> encoder = Performer(vocab_size=12, context_length=16, pad_id=11)
        >>> encoder(torch.tensor([[3, 1, 4, 1, 5]])).shape
        torch.Size([1, 5, 64])
    """

    capturable = True

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        pad_id: int,
        features_dim: int = 64,
        n_layers: int = 2,
        n_heads: int = 4,
        n_random_features: int = 32,
        feedforward_mult: int = 4,
        embedding_std: float = 0.5,
        feature_map: FeatureMap = "softmax",
        n_gram: int = 1,
    ) -> None:
        super().__init__(vocab_size, context_length, pad_id, features_dim, n_heads, embedding_std, n_gram)
        require_positive(n_layers=n_layers, n_random_features=n_random_features, feedforward_mult=feedforward_mult)
        if feature_map not in get_args(FeatureMap):
            raise ValueError(f"feature_map must be one of {get_args(FeatureMap)}, got {feature_map!r}")
        self.feature_map: FeatureMap = feature_map
        self.n_random_features = n_random_features
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that its CUDA extension is missing
            self.performer = performer_pytorch.Performer(
                dim=features_dim,
                depth=n_layers,
                heads=n_heads,
                dim_head=self.head_dim,
                causal=True,
                ff_mult=feedforward_mult,
                nb_features=n_random_features,
                generalized_attention=feature_map != "favor+",
                kernel_fn=nn.Softmax(dim=-1) if feature_map == "softmax" else nn.ReLU(),
                qkv_bias=False,
                auto_check_redraw=False,
            )
        # It only redraws projections, and would list every weight a second time in the state dict.
        del self.performer.proj_updater
        for module in self.performer.modules():
            if isinstance(module, FastAttention):
                module.causal_linear_fn = causal_linear_attention
        self.norm = nn.LayerNorm(features_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the features of every prefix; see :meth:`CausalEncoder.forward`."""
        self.check_tokens(tokens)
        return self._blocks(self.embed_prefixes(tokens), lambda _layer, q, k, v: causal_linear_attention(q, k, v))

    def forward_at(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return the features of some prefixes; see :meth:`CausalEncoder.forward_at`."""
        visible = visible_at(positions, tokens.shape[1])
        if visible is None:
            return super().forward_at(tokens, positions)
        self.check_tokens(tokens)
        x = self.embed_prefixes(tokens)
        *layers, last = self.performer.net.layers
        for layer in layers:
            x = self._block(layer, x, causal_linear_attention)
        normalised: Tensor = self.norm(
            self._block(last, x, lambda q, k, v: linear_attention_at(q, k, v, visible), positions)
        )
        return normalised

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> EncoderState:
        """Return the state of empty prefixes; see :meth:`CausalEncoder.initial_state`."""
        weight = self.norm.weight
        device = weight.device if device is None else torch.device(device)
        shape = (batch_size, self.n_heads, self.n_random_features, self.head_dim + 1)
        return EncoderState(
            lengths=torch.zeros(batch_size, dtype=torch.int64, device=device),
            tensors=tuple(torch.zeros(shape, dtype=weight.dtype, device=device) for _ in self.performer.net.layers),
            recent=self.no_tokens(batch_size, device),
        )

    def step(self, tokens: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Append one token to every row; see :meth:`CausalEncoder.step`."""
        self.check_step(state)
        memories: list[Tensor] = []

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out, memory = linear_attention_step(q[:, :, 0], k[:, :, 0], v[:, :, 0], state.tensors[layer])
            memories.append(memory)
            return out.unsqueeze(2)

        x, recent = self.embed_next(tokens.unsqueeze(1), torch.ones_like(state.lengths), state)
        features = self._blocks(x, attend).squeeze(1)
        return features, EncoderState(state.lengths + 1, tuple(memories), recent)

    def prefill(self, tokens: Tensor, lengths: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """Append each row's new tokens; see :meth:`CausalEncoder.prefill`."""
        self.check_prefill(tokens, lengths, state)
        offsets = torch.arange(tokens.shape[1], device=tokens.device)  # (P,)
        is_token = (offsets < lengths.unsqueeze(1)).unsqueeze(1).unsqueeze(-1)  # (B, 1, P, 1)
        memories: list[Tensor] = []

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out, memory = linear_attention_prefill(q, k * is_token, v, state.tensors[layer])
            memories.append(memory)
            return out

        x, recent = self.embed_next(tokens, lengths, state)
        features = self._blocks(x, attend)
        return features_at(features, lengths - 1), EncoderState(state.lengths + lengths, tuple(memories), recent)

    def _blocks(self, x: Tensor, attend: Attend) -> Tensor:
        """Run the residual stream, (B, L, D), through every block of ``self.performer`` and the final norm."""
        for number, layer in enumerate(self.performer.net.layers):
            x = self._block(layer, x, partial(attend, number))
        normalised: Tensor = self.norm(x)
        return normalised

    def _block(
        self,
        layer: nn.Module,
        x: Tensor,
        attend: Callable[[Tensor, Tensor, Tensor], Tensor],
        positions: Tensor | None = None,
    ) -> Tensor:
        """Run one block on the residual stream, (B, L, D), or with ``positions``, (B, S), on these alone: (B, S, D)."""
        attention, feedforward = cast(Any, layer)
        fast, normed = attention.fn, attention.norm(x)
        projection = fast.fast_attention.projection_matrix  # (M, E)
        k, v = self.split_heads(fast.to_k(normed)), self.split_heads(fast.to_v(normed))
        if positions is not None:
            x, normed = take_positions(x, positions), take_positions(normed, positions)
        q = self.split_heads(fast.to_q(normed))
        q, k = self.random_features(q, projection, is_query=True), self.random_features(k, projection)
        x = x + fast.to_out(attend(q, k, v).transpose(1, 2).flatten(2))
        hidden = feedforward.fn.fn
        return x + hidden.w2(hidden.act(hidden.w1(feedforward.norm(x))))

    def random_features(self, x: Tensor, projection: Tensor, is_query: bool = False) -> Tensor:
        """Return the positive features whose products stand for the kernel.

        Args:
            x: Queries or keys, (..., E).
            projection: Random directions, (M, E).
            is_query: Whether a factor of its own may scale each token's features.

        Returns:
            Features, (..., M): those of keys positive, those of a query not all zero.
        """
        # Both sides of the kernel carry E^(-1/4), so that their product carries attention's 1/√E.
        scale = self.head_dim**-0.25
        projected = x @ (projection.mT * scale)  # (..., M)
        if self.feature_map == "favor+":
            exponent = projected - x.square().sum(-1, keepdim=True) * (0.5 * scale**2)
            if is_query:
                # The largest is 1, so no epsilon is needed; beside it one would drown the many small features.
                return (exponent - exponent.detach().amax(-1, keepdim=True)).exp()
            features = exponent.clamp(max=MAX_EXPONENT).exp()
        else:
            features = projected.relu() if self.feature_map == "relu" else projected.softmax(dim=-1)
        return features + KERNEL_EPSILON
