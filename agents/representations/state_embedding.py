"""Text states as vectors of one size: learned from tokens, or by a pretrained sentence encoder, and then cached."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.encoders.base import CausalEncoder, features_at
from agents.encoders.performer import Performer
from agents.representations.embedding_cache import EmbeddingCache
from agents.representations.extractors import token_row
from textgym.checks import check_texts
from textgym.tokenizers import Tokenizer, as_tokenizer

States: TypeAlias = "Sequence[str] | NDArray[np.generic] | Tensor"
"""Strings, or right-padded rows of token ids, (B, L)."""
Decode = Callable[[NDArray[np.integer]], str]
"""A row of token ids as a string, such as the ``decode`` of a TextGym task."""
CACHE_ROWS = 32_768


class StateEmbedding(nn.Module, ABC):
    """Text state to vector.

    :meth:`for_space` makes one that is learned with the agent, :meth:`from_pretrained` one from a Hugging Face encoder.
    While it is frozen, its vectors are cached, in evaluation mode whatever mode is asked for, and without gradient.

    Args:
        features_dim: Size D of a vector.
        frozen: Whether the weights stay as they are.
        cache_size: Most vectors that are kept while frozen (≥ 0).

    Attributes:
        cache: The cached vectors, see :class:`EmbeddingCache`.
    """

    def __init__(self, features_dim: int, frozen: bool, cache_size: int) -> None:
        super().__init__()
        self.features_dim = features_dim
        self.frozen = frozen
        self.cache = EmbeddingCache(features_dim, cache_size)
        self.register_load_state_dict_post_hook(_forget)

    def __deepcopy__(self, memo: dict[int, Any]) -> StateEmbedding:
        """Itself while frozen, as nothing changes it: environments copy the arguments of their wrappers."""
        if self.frozen:
            return self
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    @staticmethod
    def for_space(
        observation_space: spaces.Space[Any],
        pooling: Literal["last", "mean"] = "last",
        encoder_class: type[CausalEncoder] = Performer,
        tokenizer: Any = None,
        **encoder_kwargs: Any,
    ) -> LearnedEmbedding:
        """A learned embedding for an observation space.

        Args:
            observation_space: See :class:`agents.representations.extractors.PerformerExtractor`.
            pooling: See :class:`LearnedEmbedding`.
            encoder_class: The encoder.
            tokenizer: See :class:`LearnedEmbedding`.
            **encoder_kwargs: Arguments of the encoder, such as ``features_dim``.

        Raises:
            ValueError: If the space is no row of token ids, or an argument is out of range.
        """
        context_length, pad_id = token_row(observation_space)
        encoder = encoder_class(vocab_size=pad_id + 1, context_length=context_length, pad_id=pad_id, **encoder_kwargs)
        return LearnedEmbedding(encoder, pooling, tokenizer)

    @staticmethod
    def from_pretrained(
        path: str | Path,
        pooling: Literal["mean", "cls", "last"] = "mean",
        frozen: bool = True,
        decode: Decode | None = None,
        **kwargs: Any,
    ) -> PretrainedEmbedding:
        """An embedding by a Hugging Face encoder, pruned or not, and its tokenizer.

        Args:
            path: A local directory that holds both; nothing is downloaded.
            pooling: See :class:`PretrainedEmbedding`, as for the further arguments.
            frozen: Whether the weights stay as they are.
            decode: Turns token rows into strings.
            **kwargs: ``max_tokens``, ``batch_size``, ``cache_size``, ``device``.

        Raises:
            ValueError: If the path holds no model or an argument is out of range.
        """
        from transformers import AutoTokenizer

        from agents.pruning.pruned_transformer import load_model, local_directory

        directory = local_directory(path)
        tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
        embedding = PretrainedEmbedding(load_model(directory), tokenizer, pooling, frozen, decode, **kwargs)
        # What is learned from here on is not in that directory.
        embedding.source = (str(directory.resolve()), pooling, kwargs) if frozen else None
        return embedding

    @abstractmethod
    def _features(self, states: States) -> Tensor:
        """Compute the vectors, (B, D), of at least one state."""

    def freeze(self) -> StateEmbedding:
        """Stop learning and cache from now on; returns itself."""
        self.requires_grad_(False)
        self.frozen = True
        self.cache.clear()
        return self.train(False)

    def train(self, mode: bool = True) -> StateEmbedding:
        """Set the training mode, which stays off while frozen: dropout would get into the cache."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, states: States) -> Tensor:
        """Return the vectors of states.

        Args:
            states: Strings, or token rows (B, L) as integers or as the floats that SB3 makes of them.

        Returns:
            Vectors, (B, D), float32.

        Raises:
            ValueError: If strings are given and there is no tokenizer, or token rows and there is no ``decode``.
        """
        if not self.frozen:
            return self._features(states)
        device = states.device if isinstance(states, Tensor) else None
        return torch.from_numpy(self.embed(states)).to(device)

    def embed(self, states: States) -> NDArray[np.float32]:
        """Return the vectors, (B, D), as an array without gradient; see :meth:`forward`."""
        rows: Any
        if isinstance(states, (np.ndarray, Tensor)):
            rows = token_rows(states)
        else:
            rows = check_texts("states", states, "texts, or token rows (B, L)")
        if not len(rows):
            return np.empty((0, self.features_dim), np.float32)
        if not self.frozen:
            return self._arrays(rows)
        keys = rows if isinstance(rows, list) else [row.tobytes() for row in rows]
        return self.cache.get(keys, lambda missing: self._arrays(_pick(rows, missing)))

    def _arrays(self, states: States) -> NDArray[np.float32]:
        with torch.no_grad():
            return self._features(states).float().cpu().numpy()


class LearnedEmbedding(StateEmbedding):
    """Token and position embeddings, a causal encoder, and the features of one position or the mean of all.

    Args:
        encoder: The encoder.
        pooling: ``"last"`` for the features of the last token, ``"mean"`` for the mean over all tokens.
        tokenizer: For strings; see :func:`textgym.tokenizers.as_tokenizer`.
        cache_size: See :class:`StateEmbedding`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from textgym.spaces import TokenSequence
        >>> embedding = StateEmbedding.for_space(TokenSequence(context_length=8, vocab_size=4, pad_id=5))
        >>> embedding(torch.tensor([[1, 3, 2, 5, 5, 5, 5, 5]])).shape
        torch.Size([1, 64])
    """

    def __init__(
        self,
        encoder: CausalEncoder,
        pooling: Literal["last", "mean"] = "last",
        tokenizer: Any = None,
        cache_size: int = CACHE_ROWS,
    ) -> None:
        super().__init__(encoder.features_dim, False, cache_size)
        if pooling not in ("last", "mean"):
            raise ValueError(f"pooling must be 'last' or 'mean', got {pooling!r}")
        self.encoder, self.pooling = encoder, pooling
        self.tokenizer: Tokenizer | None = None if tokenizer is None else as_tokenizer(tokenizer)

    def _features(self, states: States) -> Tensor:
        if not isinstance(states, (np.ndarray, Tensor)):
            states = self._encode(states)
        device = next(self.encoder.parameters()).device
        tokens = torch.as_tensor(states, device=device).long()
        lengths = (tokens != self.encoder.pad_id).sum(dim=1)  # (B,)
        features = self.encoder(tokens[:, : max(1, int(lengths.max()))])  # (B, L', D)
        if self.pooling == "last":
            return features_at(features, (lengths - 1).clamp(min=0))
        is_text = torch.arange(features.shape[1], device=device) < lengths.clamp(min=1).unsqueeze(1)
        mean: Tensor = (features * is_text.unsqueeze(-1)).sum(dim=1) / lengths.clamp(min=1).unsqueeze(1)
        return mean

    def _encode(self, texts: Sequence[str]) -> NDArray[np.int64]:
        if self.tokenizer is None:
            raise ValueError(f"states must be token rows where there is no tokenizer, got {texts[0]!r}")
        rows = np.full((len(texts), self.encoder.context_length), self.encoder.pad_id)
        for row, text in zip(rows, texts, strict=True):
            ids = self.tokenizer.encode(text)[: len(row)]
            row[: len(ids)] = ids
        return rows


class PretrainedEmbedding(StateEmbedding):
    """The pooled last hidden states of a transformer: a sentence encoder, which reads both ways, or a causal model.

    Token rows are the task's ids, so they are decoded to text first and read by the encoder's own tokenizer. A frozen
    one that came from a path is pickled as that path, so that a saved agent holds no copy of it; one whose model is to
    be pruned is made of the pruned model instead.

    Args:
        model: A BERT-like or LLaMA-like model of ``transformers``, on CPU or not.
        tokenizer: Its tokenizer; one without a padding token, as language models often have, pads with EOS.
        pooling: ``"mean"`` over the tokens, special ones included, ``"cls"`` for the first token, or ``"last"`` for the
            last one, which alone has seen the whole text where the model is causal.
        frozen: Whether the weights stay as they are.
        decode: Turns a token row into a string; not needed for strings, and
            :class:`~agents.representations.embed_observation.EmbedObservation` takes the task's.
        max_tokens: Tokens of the encoder that are read of a text; the rest is cut off.
        batch_size: Texts at once (≥ 1) while there is no gradient.
        cache_size: See :class:`StateEmbedding`.
        device: Where the model goes; None leaves it where it is.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        pooling: Literal["mean", "cls", "last"] = "mean",
        frozen: bool = True,
        decode: Decode | None = None,
        max_tokens: int = 256,
        batch_size: int = 64,
        cache_size: int = CACHE_ROWS,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__(int(model.config.hidden_size), frozen, cache_size)
        if pooling not in ("mean", "cls", "last"):
            raise ValueError(f"pooling must be 'mean', 'cls' or 'last', got {pooling!r}")
        if tokenizer.pad_token is None:
            tokenizer = copy.deepcopy(tokenizer)  # the user's own stays as it is
            tokenizer.pad_token = tokenizer.eos_token
        for name, value in {"max_tokens": max_tokens, "batch_size": batch_size}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.model: Any = model if device is None else model.to(device)
        self.model.requires_grad_(not frozen)
        self.tokenizer, self.pooling, self.decode = tokenizer, pooling, decode
        self.max_tokens = min(max_tokens, int(getattr(model.config, "max_position_embeddings", max_tokens)))
        self.batch_size = batch_size
        self.source: tuple[Any, ...] | None = None
        self.train(not frozen)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.frozen and self.source is not None:
            path, pooling, kwargs = self.source
            return _from_source, (path, pooling, self.decode, kwargs)
        return super().__reduce_ex__(protocol)

    def with_decoder(self, decode: Decode) -> PretrainedEmbedding:
        """The same model for token rows of another task, with a cache of its own."""
        other = PretrainedEmbedding(
            self.model,
            self.tokenizer,
            self.pooling,
            self.frozen,
            decode,
            self.max_tokens,
            self.batch_size,
            self.cache.capacity,
        )
        other.source = self.source
        return other

    def _features(self, states: States) -> Tensor:
        texts = self._decode_rows(states) if isinstance(states, (np.ndarray, Tensor)) else states
        if len(texts) <= self.batch_size or (torch.is_grad_enabled() and not self.frozen):
            return self._pooled(texts)
        # Texts of like length together: less padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        pooled = torch.cat([self._pooled([texts[index] for index in batch]) for batch in batches])
        return pooled[torch.tensor(order).argsort().to(pooled.device)]

    def _pooled(self, texts: Sequence[str]) -> Tensor:
        inputs = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.model.device)
        hidden: Tensor = self.model(**inputs).last_hidden_state  # (B, T, D)
        mask = inputs["attention_mask"]  # (B, T); padding may be on either side
        if self.pooling == "cls":
            return hidden[torch.arange(len(hidden)), mask.argmax(dim=1)]
        if self.pooling == "last":
            return hidden[torch.arange(len(hidden)), (mask * torch.arange(mask.shape[1])).argmax(dim=1)]
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)

    def _decode_rows(self, states: NDArray[np.generic] | Tensor) -> list[str]:
        if self.decode is None:
            raise ValueError("decode must be given to read token rows, such as env.unwrapped.task.decode; got None")
        return [self.decode(row) for row in token_rows(states)]


def token_rows(states: NDArray[np.generic] | Tensor) -> NDArray[np.int32]:
    """Return token rows, (B, L), of any type as int32 in memory of their own.

    Raises:
        ValueError: If they are not two-dimensional.
    """
    rows = states.detach().cpu().numpy() if isinstance(states, Tensor) else states
    if rows.ndim != 2:
        raise ValueError(f"states must be strings or token rows of shape (B, L), got shape {rows.shape}")
    return np.ascontiguousarray(rows, np.int32)


def _pick(states: Any, positions: list[int]) -> States:
    return [states[position] for position in positions] if isinstance(states, list) else states[positions]


def _forget(module: nn.Module, _: Any) -> None:
    assert isinstance(module, StateEmbedding)
    module.cache.clear()
    if isinstance(module, PretrainedEmbedding):
        module.source = None  # its weights may be others now


def _from_source(path: str, pooling: Any, decode: Decode | None, kwargs: dict[str, Any]) -> PretrainedEmbedding:
    return StateEmbedding.from_pretrained(path, pooling, True, decode, **kwargs)
