"""Rewards by a Hugging Face model on this machine: a classifier's probability, the similarity of embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from textgym.checks import check_at_least
from textgym.rewards.base import Reward, column


class _LocalModel(Reward):
    """A model and its tokenizer, read from a local path; nothing is downloaded."""

    def __init__(self, path: str | Path, auto_class: str, device: str, batch_size: int) -> None:
        if not Path(path).is_dir():
            raise ValueError(f"path must be a local directory (nothing is downloaded), got {str(path)!r}")
        import transformers

        self.path, self.device = str(path), device
        self.batch_size = check_at_least("batch_size", batch_size, 1)
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(self.path, local_files_only=True)
        if self._tokenizer.pad_token is None:
            raise ValueError(f"path must hold a tokenizer with a padding token, got {self.path!r} without one")
        model = getattr(transformers, auto_class).from_pretrained(self.path, local_files_only=True)
        self._model = model.to(device).eval()
        self._max_length = getattr(self._model.config, "max_position_embeddings", None)

    def _encode(self, texts: list[str]) -> Any:
        # An empty text has no token in some tokenizers, and a model needs one.
        return self._tokenizer(
            [text or " " for text in texts],
            return_tensors="pt",
            padding=True,
            truncation=self._max_length is not None,
            max_length=self._max_length,
        ).to(self.device)


class Classifier(_LocalModel):
    """A text classifier's probability of a label, in [0, 1].

    Args:
        path: Local directory of a model for sequence classification and its tokenizer.
        label: The label, by name or number.
        device: Where the model runs.
        batch_size: Texts at once (≥ 1).

    Raises:
        ValueError: If the path does not exist, or the model has no such label.
    """

    def __init__(self, path: str | Path, label: str | int, device: str = "cpu", batch_size: int = 32) -> None:
        super().__init__(path, "AutoModelForSequenceClassification", device, batch_size)
        names = self._model.config.id2label
        numbers = {name: number for number, name in names.items()}
        if label not in names and label not in numbers:
            raise ValueError(f"label must be one of {list(numbers)}, or its number, got {label!r}")
        self.label = numbers.get(label, label)

    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Probabilities in [0, 1]."""
        import torch

        scores: list[float] = []
        for start in range(0, len(completions), self.batch_size):
            with torch.inference_mode():
                logits = self._model(**self._encode(completions[start : start + self.batch_size])).logits
            scores += logits.float().softmax(dim=-1)[:, self.label].tolist()
        return scores


class EmbeddingSimilarity(_LocalModel):
    """Cosine similarity of a text's embedding with its reference's, negative values as 0, in [0, 1].

    The embedding is the mean of an encoder's last hidden states over the text's tokens
    (Reimers and Gurevych 2019, arXiv:1908.10084).

    Args:
        path: Local directory of an encoder and its tokenizer.
        reference_column: Column that holds a reference a text.
        device: Where the model runs.
        batch_size: Texts at once (≥ 1).

    Raises:
        ValueError: If the path does not exist, or the column is missing.
    """

    def __init__(
        self, path: str | Path, reference_column: str = "reference", device: str = "cpu", batch_size: int = 32
    ) -> None:
        super().__init__(path, "AutoModel", device, batch_size)
        self.reference_column = reference_column

    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Similarities in [0, 1]; 0 for an empty text."""
        references = column(columns, self.reference_column, self)
        similarities = (self._embed(completions) * self._embed(references)).sum(dim=-1).clamp(0.0, 1.0).tolist()
        return [value if text.strip() else 0.0 for value, text in zip(similarities, completions, strict=True)]

    def _embed(self, texts: list[str]) -> Any:
        """Embeddings of length 1, shape ``(n, D)``."""
        import torch

        means = []
        for start in range(0, len(texts), self.batch_size):
            batch = self._encode(texts[start : start + self.batch_size])
            with torch.inference_mode():
                hidden = self._model(**batch).last_hidden_state.float()  # (B, T, D)
            mask = batch["attention_mask"].unsqueeze(-1)  # (B, T, 1)
            means.append((hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1))
        return torch.nn.functional.normalize(torch.cat(means), dim=-1)
