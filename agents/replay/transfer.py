"""Tensors on their way between main memory and a device: ordered at once, waited for only where values are read."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array as a tensor on a device; on the CPU it shares the array's memory.

    A GPU reads it from pinned memory, in its own time: whoever uses the tensor there comes after that by itself.
    """
    tensor = torch.as_tensor(array)
    if device.type == "cuda":
        # Pinning keeps strides, and a mask that allows everything is one row for all.
        return tensor.contiguous().pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Arriving:
    """A tensor on its way to main memory, from the moment at which this is made.

    Args:
        tensor: Of any shape, on any device. On the CPU it is there already, and shared.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if not tensor.is_cuda:
            self._tensor = tensor.detach().cpu()
            return
        self._tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._tensor.copy_(tensor.detach(), non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(tensor.device))

    def numpy(self) -> NDArray[Any]:
        """The values, after a wait for what the device had to do until this was made, and for nothing after it."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensor.numpy()
