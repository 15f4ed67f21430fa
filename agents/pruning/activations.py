"""What layers of a transformer read when it reads text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Batch = Tensor | Mapping[str, Tensor]
"""Token ids, (B, L), or what a tokenizer of ``transformers`` gives: ``input_ids``, perhaps ``attention_mask``."""


def as_inputs(batch: Any, name: str) -> dict[str, Tensor]:
    """A batch as arguments of a model: ``input_ids``, and what else of a tokenizer's it has.

    Args:
        batch: See :data:`Batch`.
        name: What it is called where it came in.

    Raises:
        ValueError: If it is none.
    """
    given = {"input_ids": batch} if isinstance(batch, Tensor) else batch
    ids = given.get("input_ids") if isinstance(given, Mapping) else None
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.dtype not in (torch.int64, torch.int32):
        got = f"{ids.dtype} of shape {tuple(ids.shape)}" if isinstance(ids, Tensor) else type(batch).__name__
        raise ValueError(f"{name} must give (B, L) tensors of token ids, or mappings with such `input_ids`, got {got}")
    return {key: given[key] for key in ("input_ids", "attention_mask", "token_type_ids") if key in given}


def mean_squares(model: Any, layers: Sequence[nn.Module], batches: Iterable[Batch]) -> list[Tensor]:
    """Mean square of every input of some layers, over all tokens of text.

    Args:
        model: The transformer, which is in the mode that it was in afterwards.
        layers: Layers of it, each with I inputs.
        batches: The text; padding does not count.

    Returns:
        For each layer a tensor of shape (I,), float32.

    Raises:
        ValueError: If there is no text, or it is not what it should be.
    """
    sums: list[Any] = [0.0] * len(layers)
    n_tokens = 0
    read: Any = None

    def add(index: int, x: Tensor) -> None:
        sums[index] = sums[index] + x[read].double().square().sum(dim=0)  # (B, L, I) to (I,)

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, index=index: add(index, inputs[0]))
        for index, layer in enumerate(layers)
    ]
    training = model.training
    model.eval()
    try:
        for batch in batches:
            inputs = {key: tensor.to(model.device) for key, tensor in as_inputs(batch, "calibration").items()}
            read = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()  # (B, L)
            n_tokens += int(read.sum())
            with torch.no_grad():
                model.base_model(**inputs)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    if not n_tokens:
        raise ValueError("calibration must hold at least one token, got none")
    return [(total / n_tokens).float() for total in sums]
