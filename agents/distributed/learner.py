"""A learner other than the first: a shard of replay and a copy of the network, in a process of its own."""

from __future__ import annotations

import hashlib
import io
import os
import signal
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from stable_baselines3.common.logger import Logger
from torch import Tensor

from agents.distributed.group import Group, Place
from agents.double_dqn.double_dqn import DoubleDQN
from agents.replay.episode_store import FinishedEpisodes
from agents.replay.episodes import EpisodeBatch
from agents.replay.shards import Contents, fill, resize

COUNTERS = (
    "num_timesteps",
    "_n_updates",
    "_current_progress_remaining",
    "_env_steps_collected",
    "_steps_since_target_update",
)
"""What decides an update beside the weights and the rows, and what learner 0 alone counts."""


class Begin(NamedTuple):
    """Order to take a model and a shard; the answer is the number of episodes in it.

    Attributes:
        archive: The model, saved.
        buffer_size: Actions that the shard holds.
        shard: Its state; None for a new one.
        contents: Episodes of a new one.
    """

    archive: bytes
    buffer_size: int
    shard: dict[str, Any] | None
    contents: Contents | None


class Train(NamedTuple):
    """Order to make updates, together with all others.

    Attributes:
        gradient_steps: How many.
        rows: Episodes of this learner in each.
        counters: Values of :data:`COUNTERS`.
    """

    gradient_steps: int
    rows: int
    counters: dict[str, Any]


class Tell(NamedTuple):
    """Order to send the shard's state, and :func:`digest`."""


def run(place: Place) -> None:
    """Join the others, and follow learner 0's orders until it ends this process, or an error does, which it is told."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is learner 0's business
    torch.set_num_threads(place.n_threads)
    wait = timedelta(seconds=place.timeout)
    store = dist.TCPStore(place.host, place.port, is_master=False, timeout=wait)
    store.set(f"joined/{place.number}", str(os.getpid()))
    try:
        learner = Learner(Group(store, place), place)
        while True:
            learner.follow(*learner.group.take())
    except Exception as error:
        store.set(f"failed/{place.number}", "")
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        store.compare_set("error", "", f"learner {place.number} failed: {what}")
        raise


class Learner:
    """What runs in that process.

    Args:
        group: Its end of the process group.
        place: Which learner it is.
    """

    model: DoubleDQN

    def __init__(self, group: Group, place: Place) -> None:
        self.group, self.place = group, place
        self._rows = 0

    def follow(self, order: Any, episodes: Sequence[FinishedEpisodes]) -> None:
        """Put new episodes into the shard, and do what is asked."""
        for block in episodes:
            self.model.replay_buffer._append(block)
        if isinstance(order, Begin):
            self._begin(order)
        elif isinstance(order, Train):
            for name, value in order.counters.items():
                setattr(self.model, name, value)
            self._rows = order.rows
            self.model.train(order.gradient_steps, order.rows)
        else:
            assert isinstance(order, Tell), order
            self.group.gather((self.model.replay_buffer.get_state(), digest(self.model)))

    def _begin(self, order: Begin) -> None:
        self.model = model = DoubleDQN.load(io.BytesIO(order.archive), None, self.place.device)
        model.tensorboard_log, model.verbose, model.learners = None, 0, self
        model.set_logger(Logger(None, []))
        replay = model.replay_buffer
        if order.shard is None:
            seed = None if model.seed is None else [model.seed, self.place.number, model._n_updates]
            replay.generator = np.random.default_rng(seed)
        else:
            replay.set_state(order.shard)
        resize(replay, order.buffer_size)
        if order.contents is not None:
            fill(replay, order.contents)
        self.group.gather(replay.n_episodes)

    # ------------------------------------------------------------------ what the model calls

    def begin(self, gradient_steps: int, batch_size: int) -> int:
        """Rows of this learner: those of the order."""
        return self._rows

    def average_gradients(self, parameters: Sequence[Tensor], batch: EpisodeBatch) -> None:
        """See :meth:`agents.distributed.group.Group.average_gradients`."""
        self.group.average_gradients(parameters, batch.valid.sum())


def digest(model: DoubleDQN) -> str:
    """Checksum of all weights and of the optimizer's state."""
    checksum = hashlib.sha256()
    optimizer = model.policy.optimizer.state_dict()["state"]
    for _, values in [("", model.policy.state_dict()), *sorted(optimizer.items())]:
        for name, value in sorted(values.items()):
            checksum.update(name.encode())
            checksum.update(torch.as_tensor(value).detach().cpu().contiguous().numpy().tobytes())
    return checksum.hexdigest()
