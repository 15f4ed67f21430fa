"""Keys and values of a causal transformer for rows of unequal length, which go on where they stopped.

Every row ends in the last slot, so that rows which all grow by a token stay where the model has written them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

KeysValues = tuple[Tensor, ...]
"""Keys and values in turns, layer by layer, each (B, H, T, E) with its layer's number of heads H."""


def empty_cache(model: Any, batch_size: int, device: Any = None) -> KeysValues | None:
    """Keys and values of empty rows; None for a model that keeps none, or attends in chunks.

    Chunks count from the start of the batch's tensors, so that rows of unequal length can't be moved.
    """
    if "chunked_attention" in (getattr(model.config, "layer_types", None) or ()):
        return None
    token = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    with torch.no_grad():  # one token shows each layer's number and width of heads, whatever was pruned
        cache = getattr(model(input_ids=token, use_cache=True), "past_key_values", None)
    layers = cache.layers if isinstance(cache, DynamicCache) else []
    tensors: list[Any] = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
        return None
    return tuple(t.new_zeros((batch_size, t.shape[1], 0, t.shape[3]), device=device or t.device) for t in tensors)


def append(
    model: Any, past: KeysValues, lengths: Tensor, new: Tensor, most_positions: int, **inputs: Any
) -> tuple[Any, KeysValues]:
    """Run a model over each row's new tokens.

    Args:
        model: A causal transformer.
        past: What the rows have kept, the last token of each in the last slot; it is not modified.
        lengths: Tokens of each row that ``past`` holds, (B,); 0 forgets a row.
        new: New tokens of each row, (B,).
        most_positions: Positions that the model has.
        inputs: ``input_ids`` (B, P) or ``inputs_embeds`` (B, P, D), right-padded, first; other arguments of the model.

    Returns:
        The model's output, whose column ``i`` is the ``i``-th new token's, and the keys and values of all.
    """
    width = next(iter(inputs.values())).shape[1]
    used = past[0].shape[2]
    offsets, slots = (torch.arange(n, device=lengths.device) for n in (width, used))  # (P,), (T,)
    old = lengths.unsqueeze(1)  # (B, 1)
    output = model(
        attention_mask=torch.cat([slots >= used - old, offsets < new.unsqueeze(1)], dim=1).long(),  # (B, T + P)
        position_ids=(old + offsets).clamp(max=most_positions - 1),
        past_key_values=DynamicCache(list(zip(past[::2], past[1::2], strict=True)) if used else None),
        use_cache=True,
        **inputs,
    )
    written = [tensor for layer in output.past_key_values.layers for tensor in (layer.keys, layer.values)]
    longest = int((lengths + new).max())
    if longest == used + width and bool((new == width).all()):
        return output, tuple(written)
    # A row's text ends behind its own new tokens: it moves up to where the longest one ends.
    ends = (used + new).unsqueeze(1)
    source = (ends - longest + torch.arange(longest, device=lengths.device)).clamp(min=0)  # (B, T')
    return output, tuple(_rows_of(tensor, source) for tensor in written)


def _rows_of(tensor: Tensor, slots: Tensor) -> Tensor:
    """Some slots of each row: (B, H, T, E) and (B, T') to (B, H, T', E)."""
    rows, heads, used, width = tensor.shape
    first = torch.arange(0, rows * heads * used, used, device=slots.device).view(rows, heads, 1)
    whole = (first + slots.unsqueeze(1)).flatten()  # whole vectors of E numbers: four times as fast as gather
    return tensor.reshape(-1, width).index_select(0, whole).view(rows, heads, -1, width)
