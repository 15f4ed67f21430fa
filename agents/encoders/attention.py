"""What encoders made of attention blocks have in common: their arguments and their embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agents.encoders.base import CausalEncoder, EncoderState, init_embedding, require_positive

PREVIOUS_SHARE = 0.3
"""Initial size of the embeddings of earlier tokens, as a share of that of a position's own token: as large as this they
blur what stands where (a reversal of 8 symbols stops being learned), much smaller they are found too late."""


class AttentionEncoder(CausalEncoder):
    """Learned embeddings of tokens and positions in front of blocks with ``n_heads`` attention heads.

    With ``n_gram`` above 1 a position also adds up embeddings of the tokens before its own, from a table for each
    distance: a short convolution over the text (as in H3, arXiv:2212.14052). A key then says what stood before its
    token, so that one layer can look up what followed a symbol, for which plain attention needs two (arXiv:2209.11895).

    Args:
        vocab_size: Number of embeddings, the padding id included (≥ 1).
        context_length: Most tokens in a sequence (≥ 1); the number of position embeddings.
        pad_id: The padding id, in ``[0, vocab_size)``.
        features_dim: Width D of the residual stream and of the features; a multiple of ``n_heads``.
        n_heads: Number of attention heads H (≥ 1).
        embedding_std: Standard deviation of the initial token and position embeddings (> 0).
        n_gram: Tokens whose embeddings a position adds up, its own and those before it (≥ 1).

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        pad_id: int,
        features_dim: int,
        n_heads: int,
        embedding_std: float,
        n_gram: int = 1,
    ) -> None:
        super().__init__(vocab_size, context_length, pad_id, features_dim)
        require_positive(n_heads=n_heads, n_gram=n_gram)
        if features_dim % n_heads:
            raise ValueError(f"features_dim must be a multiple of n_heads = {n_heads}, got {features_dim}")
        self.n_heads = n_heads
        self.head_dim = features_dim // n_heads
        self.token_embedding = nn.Embedding(vocab_size, features_dim)
        self.position_embedding = nn.Embedding(context_length, features_dim)
        self.previous_embeddings = nn.ModuleList(nn.Embedding(vocab_size, features_dim) for _ in range(n_gram - 1))
        for embedding in (self.token_embedding, self.position_embedding):
            init_embedding(embedding, embedding_std)
        for table in self.previous_embeddings:
            assert isinstance(table, nn.Embedding)
            init_embedding(table, PREVIOUS_SHARE * embedding_std)

    def embed_prefixes(self, tokens: Tensor) -> Tensor:
        """Embed rows, (B, L), that start at position 0: (B, L, D)."""
        embedded: Tensor = self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]
        for distance, table in enumerate(self.previous_embeddings, 1):
            embedded[:, distance:] += table(tokens[:, :-distance])
        return embedded

    def embed_next(self, tokens: Tensor, lengths: Tensor, state: EncoderState) -> tuple[Tensor, Tensor | None]:
        """Embed what follows.

        Args:
            tokens: Right-padded new tokens, (B, P).
            lengths: How many of them each row has, in [1, P], (B,).
            state: What stands before them.

        Returns:
            The embeddings, (B, P, D), those at padding meaningless, and ``EncoderState.recent`` after the new tokens.
        """
        n_new = tokens.shape[1]
        positions = state.lengths.unsqueeze(1) + torch.arange(n_new, device=tokens.device)  # (B, P)
        embedded = self.token_embedding(tokens) + self.position_embedding(positions.clamp(max=self.context_length - 1))
        if state.recent is None:
            return embedded, None
        n_before = len(self.previous_embeddings)
        joined = torch.cat([state.recent, tokens + 1], dim=1)  # (B, n_before + P), 0 where there is no token
        for distance, table in enumerate(self.previous_embeddings, 1):
            previous = joined[:, n_before - distance : n_before - distance + n_new]
            embedded = embedded + table((previous - 1).clamp(min=0)) * (previous > 0).unsqueeze(-1)
        last = lengths.unsqueeze(1) + torch.arange(n_before, device=tokens.device)  # (B, n_before)
        return embedded, joined.gather(1, last)

    def no_tokens(self, batch_size: int, device: torch.device) -> Tensor | None:
        """``EncoderState.recent`` of empty prefixes."""
        if not self.previous_embeddings:
            return None
        return torch.zeros(batch_size, len(self.previous_embeddings), dtype=torch.int64, device=device)

    def split_heads(self, x: Tensor) -> Tensor:
        """Return x, (B, L, D), as (B, H, L, E)."""
        return x.unflatten(-1, (self.n_heads, self.head_dim)).transpose(1, 2)
