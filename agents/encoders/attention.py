"""What encoders made of attention blocks have in common: their arguments and their embeddings."""

from __future__ import annotations

from torch import Tensor, nn

from agents.encoders.base import CausalEncoder, init_embedding, require_positive


class AttentionEncoder(CausalEncoder):
    """Learned token and position embeddings in front of blocks with ``n_heads`` attention heads.

    Args:
        vocab_size: Number of embeddings, the padding id included (≥ 1).
        context_length: Most tokens in a sequence (≥ 1); the number of position embeddings.
        pad_id: The padding id, in ``[0, vocab_size)``.
        features_dim: Width D of the residual stream and of the features; a multiple of ``n_heads``.
        n_heads: Number of attention heads H (≥ 1).
        embedding_std: Standard deviation of the initial token and position embeddings (> 0).

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
    ) -> None:
        super().__init__(vocab_size, context_length, pad_id, features_dim)
        require_positive(n_heads=n_heads)
        if features_dim % n_heads:
            raise ValueError(f"features_dim must be a multiple of n_heads = {n_heads}, got {features_dim}")
        self.n_heads = n_heads
        self.head_dim = features_dim // n_heads
        self.token_embedding = nn.Embedding(vocab_size, features_dim)
        self.position_embedding = nn.Embedding(context_length, features_dim)
        for embedding in (self.token_embedding, self.position_embedding):
            init_embedding(embedding, embedding_std)

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return the sum of token and position embeddings, (..., D)."""
        embedded: Tensor = self.token_embedding(tokens) + self.position_embedding(positions)
        return embedded

    def embed_prefixes(self, tokens: Tensor) -> Tensor:
        """Embed rows, (B, L), that start at position 0: (B, L, D)."""
        embedded: Tensor = self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]
        return embedded

    def split_heads(self, x: Tensor) -> Tensor:
        """Return x, (B, L, D), as (B, H, L, E)."""
        return x.unflatten(-1, (self.n_heads, self.head_dim)).transpose(1, 2)
