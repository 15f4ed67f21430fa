"""Linear or softmax attention: which of them is faster, from a table of timings."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch


class Timing(NamedTuple):
    """Time of training with both kinds of attention, forwards and backwards.

    Attributes:
        device: Kind of the device.
        head_dim: Width of a head.
        length: Tokens of a sequence.
        linear: Time with linear attention; only its ratio to the next counts.
        softmax: Time with softmax attention, in the same unit.
        measured: Whether it was measured here, with this code.
    """

    device: str
    head_dim: int
    length: int
    linear: float
    softmax: float
    measured: bool


TIMINGS = (
    # Microseconds a token of whole updates, one core, two layers of 4 heads: results/scaling.jsonl.
    Timing("cpu", 16, 128, 17.5, 16.3, measured=True),
    Timing("cpu", 16, 256, 17.1, 20.1, measured=True),
    Timing("cpu", 16, 512, 17.5, 30.3, measured=True),
    Timing("cpu", 16, 1_024, 17.4, 40.4, measured=True),
    Timing("cpu", 16, 2_048, 17.6, 60.2, measured=True),
    Timing("cpu", 16, 4_096, 17.6, 98.1, measured=True),
    Timing("cpu", 16, 8_192, 17.6, 175.8, measured=True),
    # Milliseconds of attention alone, in bfloat16, on a GB200: flash-linear-attention's chunk_retention beside
    # FlashAttention-2, as its README gives them (commit 01c4202). Not measured here, not this code, no narrow heads.
    Timing("cuda", 64, 1_024, 0.898, 0.477, measured=False),
    Timing("cuda", 128, 2_048, 1.047, 0.902, measured=False),
    Timing("cuda", 128, 4_096, 3.459, 10.815, measured=False),
    Timing("cuda", 128, 8_192, 2.618, 15.371, measured=False),
    Timing("cuda", 128, 16_384, 2.122, 19.960, measured=False),
)
"""The first CUDA figures of ``python -m benchmarks.gpu`` shall take the place of the published ones."""
_WIDTH_WEIGHT = 0.25  # the length decides, and the width between entries as near


def nearest_timing(length: int, head_dim: int, device: torch.device | str = "cpu") -> Timing:
    """The entry of :data:`TIMINGS` that is nearest; arguments and errors are those of :func:`fastest_attention`."""
    for name, value in (("length", length), ("head_dim", head_dim)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    kind = torch.device(device).type
    known = [timing for timing in TIMINGS if timing.device == kind]
    if not known:
        kinds = sorted({timing.device for timing in TIMINGS})
        raise ValueError(f"device must be of a kind that has been timed, {' or '.join(kinds)}, got {str(device)!r}")

    def distance(timing: Timing) -> float:
        return abs(math.log2(timing.length / length)) + _WIDTH_WEIGHT * abs(math.log2(timing.head_dim / head_dim))

    return min(known, key=distance)


def fastest_attention(length: int, head_dim: int, device: torch.device | str = "cpu") -> Literal["linear", "softmax"]:
    """Which attention trains faster: ``"linear"``, the Performer's, or ``"softmax"``, the Transformer's.

    Only training is compared. Acting with linear attention costs the same at every length, with softmax attention it
    grows with the text.

    Args:
        length: Tokens of a sequence (≥ 1).
        head_dim: Width of a head, ``features_dim // n_heads`` (≥ 1).
        device: Where.

    Raises:
        ValueError: If an argument is out of range, or nothing has been timed on such a device.

    Example:
        >>> fastest_attention(64, 16, "cpu"), fastest_attention(4_096, 16, "cpu")
        ('softmax', 'linear')
    """
    timing = nearest_timing(length, head_dim, device)
    return "linear" if timing.linear <= timing.softmax else "softmax"
