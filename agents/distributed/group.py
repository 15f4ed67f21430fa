"""What learners tell each other: orders from learner 0, gradients of all, shards back to learner 0."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

_PATIENCE = timedelta(days=365)
"""For the next order, while actors act. A learner 0 that is gone is noticed at once: the connection breaks."""


class Place(NamedTuple):
    """Where a learner belongs.

    Attributes:
        host: Where learner 0 keeps the store by which all find each other.
        port: Its port.
        number: Number of the learner, from 0.
        n_learners: How many there are.
        timeout: Seconds for which one learner waits for another in the middle of something.
        device: Torch device of this learner.
        n_threads: Torch threads of this learner.
        backend: Who carries gradients: ``"gloo"``, or ``"nccl"`` where each learner has a GPU of its own.
    """

    host: str
    port: int
    number: int
    n_learners: int
    timeout: float
    device: str
    n_threads: int
    backend: str


class Group:
    """A learner's end of the process group; all learners must make the same calls in the same order.

    Args:
        store: What they find each other by.
        place: Which of them this is.

    Raises:
        ValueError: If this process is in a process group of somebody else's.
    """

    def __init__(self, store: dist.Store, place: Place) -> None:
        check_free()
        self.number, self.n_learners = place.number, place.n_learners
        timeout = timedelta(seconds=place.timeout)
        dist.init_process_group(
            "gloo",
            store=dist.PrefixStore("group", store),
            rank=place.number,
            world_size=place.n_learners,
            timeout=timeout,
        )
        # Learner 0 waits for those that are to take an order, and no longer than for anything else.
        self._orders = dist.new_group(backend="gloo", timeout=_PATIENCE if place.number else timeout)
        self._gradients = dist.new_group(backend="nccl", timeout=timeout) if place.backend == "nccl" else None

    def give(self, orders: Sequence[Any]) -> None:
        """Learner 0's: an order for each learner; its own is ignored."""
        dist.scatter_object_list([None], list(orders), src=0, group=self._orders)

    def take(self) -> Any:
        """The others': the next order."""
        orders: list[Any] = [None]
        dist.scatter_object_list(orders, None, src=0, group=self._orders)
        return orders[0]

    def gather(self, answer: Any) -> list[Any]:
        """The answers of all learners, by number, at learner 0; elsewhere nothing."""
        answers: list[Any] = [None] * self.n_learners if self.number == 0 else []
        dist.gather_object(answer, answers or None, dst=0)
        return answers

    def average_gradients(self, parameters: Sequence[Tensor], weight: float | Tensor) -> None:
        """Put the mean of all learners' gradients in the place of each one's, in one message.

        A loss is a mean over tokens, and learners have different numbers of them: weighed by these, the mean of the
        gradients is the gradient of the loss of all rows together. Torch's ``DistributedDataParallel`` would weigh all
        learners alike, and hooks into ``forward``, which is not how the loss asks the network. Networks here are small,
        so one flat bucket at the end costs less than overlapping several with the backward pass.

        Args:
            parameters: Those of the network, the same on all learners.
            weight: Of this learner's loss: tokens that it is a mean of (> 0).
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = [gradient.flatten() for gradient in gradients]
        bucket = torch.cat([*flat, flat[0].new_ones(1)]) * weight
        if self._gradients is None:
            bucket = bucket.cpu()
        dist.all_reduce(bucket, group=self._gradients)
        mean = (bucket[:-1] / bucket[-1]).to(flat[0].device)
        parts = mean.split([len(gradient) for gradient in flat])
        torch._foreach_copy_(
            gradients, [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
        )

    def close(self) -> None:
        """Leave the group."""
        dist.destroy_process_group()


def check_free() -> None:
    """Raise unless this process is in no process group.

    Raises:
        ValueError: If it is.
    """
    if dist.is_initialized():
        raise ValueError("n_learners must be 1 in a process that is in a torch.distributed process group already")
