"""Several learners in the place of one: learner 0's side. It owns the run; the others have a shard of replay each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from agents.distributed.actor import archive_of
from agents.distributed.group import Group, Place, check_free
from agents.distributed.learner import COUNTERS, Begin, Tell, Train, digest
from agents.distributed.processes import LearnerDied, LearnerProcesses
from agents.replay.episode_store import FinishedEpisodes
from agents.replay.episodes import EpisodeBatch
from agents.replay.shards import Contents, deal, fill, join, resize
from textgym.checks import check_at_least

if TYPE_CHECKING:
    from agents.double_dqn.double_dqn import DoubleDQN

_SECONDS_TO_DIE = 5.0
_SECONDS_TO_TELL = 1.0


class Learners:
    """Learners in step with one another, of which the process that calls ``learn`` is number 0.

    While a model learns, its replay is the first shard. Episodes are dealt out in turns, and each learner draws its
    share of every batch from its own shard, whose priorities are its own business. Gradients are averaged by tokens,
    which gives the gradient of the whole batch's loss; all learners then make the same step, so that weights stay equal
    without being sent. When ``learn`` ends, replay is whole again.

    Args:
        model: The model.
        n_learners: How many, with this one (≥ 2).
        processes: Where the others run.
        timeout: Seconds for which learners wait for each other, and for a process to start.

    Raises:
        ValueError: If there are more learners than rows in a batch, or the process is in a process group already.
    """

    def __init__(self, model: DoubleDQN, n_learners: int, processes: LearnerProcesses, timeout: float) -> None:
        check_n_learners(model, n_learners)
        self.model, self.n_learners, self.processes, self.timeout = model, n_learners, processes, timeout
        self._group: Group | None = None  # once the others have joined
        self._store: dist.TCPStore | None = None
        self._outbox: list[list[FinishedEpisodes]] = [[] for _ in range(n_learners)]
        self._n_episodes = [0] * n_learners
        self._updates_left = 0  # of the order that the others follow
        self._talking = False

    @property
    def learning(self) -> bool:
        """Whether replay is in shards."""
        return self.model.learners is self

    @property
    def process_ids(self) -> dict[int, int]:
        """Process of each learner but the first, on its own machine."""
        assert self._store is not None
        return {number: int(self._store.get(f"joined/{number}")) for number in range(1, self.n_learners)}

    def begin_learning(self, shards: Sequence[dict[str, Any]] | None) -> None:
        """Give every learner the model as it is and its shard.

        Args:
            shards: States of all learners' shards, to go on with these; None deals out the model's replay.

        Raises:
            ValueError: If the model rehearses texts.
            LearnerDied: If a learner does not come or goes.
        """
        model = self.model
        if model.rehearsal is not None:
            raise ValueError("n_learners must be 1 for a model that rehearses texts (learn_from_text)")
        if self._group is None:
            self._start()
        replay = model.replay_buffer
        self._buffer_size = replay.buffer_size
        size = max(1, self._buffer_size // self.n_learners)
        nothing = [None] * self.n_learners
        states: Sequence[dict[str, Any] | None] = nothing if shards is None else shards
        parts: Sequence[Contents | None] = nothing
        if shards is None:
            parts = dealt = deal(replay, self.n_learners)
            resize(replay, size)
            fill(replay, dealt[0])
        else:
            replay.set_state(shards[0])
            resize(replay, size)
        archive = archive_of(model)
        model.learners = self
        self._updates_left = 0
        self._outbox = [[] for _ in range(self.n_learners)]
        begins = [Begin(archive, size, *pair) for pair in zip(states, parts, strict=True)]
        self._n_episodes = self._ask(begins, replay.n_episodes)

    def add(self, episodes: FinishedEpisodes) -> None:
        """Deal out episodes that ended."""
        for number in range(self.n_learners):
            first = (number - self.model._episode_num) % self.n_learners
            part = episodes.rows(slice(first, None, self.n_learners))
            if len(part.n_steps) == 0:
                continue
            self._n_episodes[number] += len(part.n_steps)
            if number == 0:
                self.model.replay_buffer._append(part)
            else:
                self._outbox[number].append(part)

    def get_state(self) -> list[dict[str, Any]]:
        """States of the other learners' shards.

        Raises:
            LearnerDied: If a learner is gone.
            RuntimeError: If weights are no longer the same everywhere.
        """
        ours = digest(self.model)
        answers = self._ask([Tell()] * self.n_learners, (None, ours))
        for number, (_, theirs) in enumerate(answers):
            if theirs != ours:
                raise RuntimeError(
                    f"learner {number} has other weights than learner 0 after {self.model._n_updates} updates: "
                    "learners must run on machines of one kind, with the same versions"
                )
        return [shard for shard, _ in answers[1:]]

    def end_learning(self) -> None:
        """Put replay together again; after a death, or in the middle of an update, what is here is all there is."""
        if not self.learning:
            return
        replay = self.model.replay_buffer
        try:
            in_step = self._group is not None and not self._talking and self._updates_left == 0
            shards = self.get_state() if in_step else []
        finally:
            self.model.learners = None
            resize(replay, self._buffer_size)
        join(replay, [replay.get_state(), *shards])

    def close(self) -> None:
        """End the others; replay is put together again if that can be done."""
        try:
            with contextlib.suppress(LearnerDied):
                self.end_learning()
        finally:
            self._leave()

    # ------------------------------------------------------------------ what the model calls

    def begin(self, gradient_steps: int, batch_size: int) -> int:
        """Have all make so many updates together; rows of this learner, 0 as long as a shard is empty."""
        if min(self._n_episodes) == 0:
            return 0
        model, n = self.model, self.n_learners
        rows = [batch_size // n + (number < batch_size % n) for number in range(n)]
        counters = {name: getattr(model, name) for name in COUNTERS}
        self._ask([Train(gradient_steps, share, counters) for share in rows])
        self._updates_left = gradient_steps
        return rows[0]

    def average_gradients(self, parameters: Sequence[Tensor], batch: EpisodeBatch) -> None:
        """See :meth:`agents.distributed.group.Group.average_gradients`.

        Raises:
            LearnerDied: If a learner is gone.
        """
        assert self._group is not None
        with self._noticing_deaths():
            self._group.average_gradients(parameters, batch.valid.sum())
        self._updates_left -= 1

    # ------------------------------------------------------------------ processes

    def _start(self) -> None:
        """Start the others, and wait until all have joined."""
        processes, model = self.processes, self.model
        wait = timedelta(seconds=self.timeout)
        self._store = store = dist.TCPStore(processes.host, 0, is_master=True, timeout=wait, wait_for_workers=False)
        numbers = range(1, self.n_learners)
        places = []
        for number in range(self.n_learners):
            device, backend = processes.device(number, self.n_learners, model.device)
            at = processes.host, store.port, number, self.n_learners, self.timeout
            places.append(Place(*at, device, torch.get_num_threads(), backend))
        for number in numbers:
            processes.start(places[number])
        until = time.monotonic() + self.timeout
        while not store.check([f"joined/{number}" for number in numbers]):
            for number in numbers:
                if (reason := processes.ended(number)) is not None:
                    raise LearnerDied(f"learner {number} ended before it had joined: {reason}")
            if time.monotonic() > until:
                raise LearnerDied(f"not all of {self.n_learners} learners joined within {self.timeout:g} seconds")
            time.sleep(0.05)
        with self._noticing_deaths():
            self._group = Group(store, places[0])

    def _ask(self, orders: Sequence[Any], answer: Any = None) -> list[Any]:
        """Give orders, with the episodes that have come since the last ones; answers, where they have one."""
        assert self._group is not None
        sent, self._outbox = self._outbox, [[] for _ in range(self.n_learners)]
        with self._noticing_deaths():
            self._group.give(list(zip(orders, sent, strict=True)))
            return self._group.gather(answer) if answer is not None else []

    @contextlib.contextmanager
    def _noticing_deaths(self) -> Iterator[None]:
        """A connection that breaks becomes the death of a learner, with its reason; nobody is left in the group."""
        self._talking = True
        try:
            yield
        except RuntimeError as error:
            reason = self._reason() or f"a learner does not answer: {' '.join(str(error).split())}"
            self._leave()
            raise LearnerDied(reason) from error
        self._talking = False

    def _reason(self) -> str | None:
        """Who has died without a word, or else failed first; None where nobody has, soon after a connection broke."""
        assert self._store is not None
        broke = time.monotonic()
        while (seconds := time.monotonic() - broke) < _SECONDS_TO_DIE:
            for number in range(1, self.n_learners):
                reason = self.processes.ended(number)
                if reason is not None and not self._store.check([f"failed/{number}"]):
                    return f"learner {number} died: {reason}"
            if seconds > _SECONDS_TO_TELL and self._store.check(["error"]):
                return self._store.get("error").decode()
            time.sleep(0.02)
        return None

    def _leave(self) -> None:
        self.processes.close()
        if self._group is not None:
            self._group.close()
        self._group = self._store = None
        self._talking = False


def check_n_learners(model: DoubleDQN, n_learners: int) -> None:
    """Raise unless a model can be trained by so many learners.

    Raises:
        ValueError: See :class:`Learners`.
    """
    check_at_least("n_learners", n_learners, 1)
    if n_learners > model.batch_size:
        raise ValueError(
            f"n_learners must be at most batch_size={model.batch_size}, as each draws rows of its own, got {n_learners}"
        )
    if n_learners > 1:
        check_free()
