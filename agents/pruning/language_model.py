"""Pruned language models as :class:`textgym.language_models.HuggingFaceLM`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from textgym.language_models import HuggingFaceLM


def load_language_model(path: str | Path, **kwargs: Any) -> HuggingFaceLM:
    """Read a causal language model with its head and its tokenizer; pruned ones with their pruning.

    Args:
        path: A local directory that :meth:`PrunedTransformer.save_pretrained` or ``transformers`` wrote.
        kwargs: Other arguments of :class:`textgym.language_models.HuggingFaceLM`.

    Raises:
        ValueError: If the directory does not exist, or the model has no head.
    """
    pruned = pruned_model(path)
    return HuggingFaceLM(path, **kwargs) if pruned is None else HuggingFaceLM(path, model=pruned, **kwargs)


def pruned_model(path: str | Path) -> Any:
    """The model in a directory that :meth:`PrunedTransformer.save_pretrained` wrote; None for any other directory."""
    from agents.pruning.pruned_transformer import PRUNING_FILE, PrunedTransformer  # agents start without transformers

    return PrunedTransformer.from_pretrained(path).model if (Path(path) / PRUNING_FILE).is_file() else None
