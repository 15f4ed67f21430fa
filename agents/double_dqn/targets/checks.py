"""Checks of shapes that targets and losses share."""

from __future__ import annotations

import torch
from torch import Tensor


def check_episodes(r_t: Tensor, valid: Tensor, terminated: Tensor | None = None, **others: Tensor) -> None:
    """Raise ``ValueError`` unless arrays of episodes agree in their shapes, (B, T) or (B,)."""
    if r_t.ndim != 2 or r_t.shape[1] == 0:
        raise ValueError(f"r_t must have shape (B, T) with T at least 1, got {tuple(r_t.shape)}")
    if valid.dtype != torch.bool:
        raise ValueError(f"valid must be a bool tensor, got {valid.dtype}")
    check_shapes(r_t.shape, valid=valid, **others)
    if terminated is not None:
        check_shapes(r_t.shape[:1], terminated=terminated)


def check_shapes(shape: torch.Size, **tensors: Tensor) -> None:
    """Raise ``ValueError`` for the first tensor of another shape."""
    for name, tensor in tensors.items():
        if tensor.shape != shape:
            raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(tensor.shape)}")


def check_rows(q_t: Tensor, **tensors: Tensor) -> None:
    """Raise ``ValueError`` unless values of all actions have shape (B, T, V), and the tensors (B, T)."""
    if q_t.ndim != 3:
        raise ValueError(f"q_t must have shape (B, T, V), got {tuple(q_t.shape)}")
    check_shapes(q_t.shape[:2], **tensors)
