"""A queue in place of a run through actors: what throughput to expect, and what is the limit.

Actors act, each report takes its time on the way, and learners put reports into replay, learn, and send weights. The
order of events is that of :meth:`agents.distributed.Actors.collect`; nothing is random.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from benchmarks.actor_runs import Costs

GIGABYTE = 1e9
LATENCY_SECONDS = 1e-3
"""Of one exchange of gradients between machines."""


@dataclass(frozen=True)
class Layout:
    """A run on some machines.

    Attributes:
        n_actors: Actors (≥ 1), each on a core of its own.
        n_learners: Learners (≥ 1), each with a shard of replay and its share of the actors, in step with one another.
        rows: Environments of an actor.
        vector_steps: Steps of a report.
        updates_per_step: Updates of the network for an environment step of the whole run.
        reward_seconds: For a text; an actor scores its texts one after the other.
        max_staleness: See :class:`agents.distributed.Actors`; at least 1.
        weights_every: Likewise.
        bandwidth: Bytes a second, of every machine.
    """

    n_actors: int
    n_learners: int = 1
    rows: int = 16
    vector_steps: int = 8
    updates_per_step: float = 0.04
    reward_seconds: float = 0.0
    max_staleness: int = 1000
    weights_every: int = 10
    bandwidth: float = GIGABYTE


@dataclass(frozen=True)
class Expected:
    """What the queue says.

    Attributes:
        texts_per_second: Of the whole run.
        updates_per_second: Of the network, to which all learners contribute.
        actors_busy: Share of the time in which an actor acts.
        learner_busy: Share of the time in which a learner works.
        bytes_per_second: Through the busiest machine, a learner's.
    """

    texts_per_second: float
    updates_per_second: float
    actors_busy: float
    learner_busy: float
    bytes_per_second: float

    @property
    def limit(self) -> str:
        """What is used up; ``"staleness"`` where both wait for each other, because no weights may be older."""
        if self.learner_busy > 0.9:
            return "learner"
        return "actors" if self.actors_busy > 0.9 else "staleness"


def exchange_seconds(costs: Costs, layout: Layout) -> float:
    """Averaging gradients among the learners: a ring sends nearly twice the weights, and each hop waits once."""
    if layout.n_learners == 1:
        return 0.0
    hops = 2 * (layout.n_learners - 1)
    return hops / layout.n_learners * costs.weights_bytes / layout.bandwidth + LATENCY_SECONDS


def simulate(costs: Costs, layout: Layout, reports: int = 4000) -> Expected:
    """Follow one learner and its actors; the others do the same at the same time.

    A batch is shared out, so that an update costs each of M learners an M-th of its time, and the exchange.

    Args:
        costs: What the parts cost.
        layout: How many there are.
        reports: How many reports of this learner's actors to follow; the first fifth is not counted.
    """
    n_actors = max(1, round(layout.n_actors / layout.n_learners))
    texts = layout.rows * layout.vector_steps / costs.tokens_per_text
    acting = layout.vector_steps * costs.step_seconds + texts * layout.reward_seconds
    on_the_way = costs.message_seconds + texts * costs.episode_bytes / layout.bandwidth
    update = costs.update_seconds / layout.n_learners + exchange_seconds(costs, layout)
    # One learner's reports are an M-th of all: the others' steps bring updates, too.
    due_per_report = layout.rows * layout.vector_steps * layout.updates_per_step * layout.n_learners
    sending = costs.weights_bytes / layout.bandwidth

    now = working = due = 0.0
    updates = stored = sent = 0
    pickled = -1  # version of the weights that lie ready
    versions = [0] * n_actors
    idle, coming = list(range(n_actors)), list[tuple[float, int]]()
    start = (0.0, 0, 0, 0.0, 0)

    def dispatch(soon: int) -> None:
        nonlocal now, working, pickled, sent
        for actor in [*idle]:
            version = updates if updates - versions[actor] >= layout.weights_every else versions[actor]
            if soon and updates + soon - version > layout.max_staleness:
                continue
            if version != versions[actor]:
                seconds = sending + (costs.weights_seconds if pickled != updates else 0.0)
                now, working, pickled, sent = now + seconds, working + seconds, updates, sent + 1
            versions[actor] = version
            idle.remove(actor)
            heapq.heappush(coming, (now + acting + on_the_way, actor))

    while stored < reports:
        dispatch(0)
        while True:
            now = max(now, coming[0][0])
            while coming and coming[0][0] <= now:
                idle.append(heapq.heappop(coming)[1])
                now, working = now + costs.store_seconds, working + costs.store_seconds
                stored, due = stored + 1, due + due_per_report
            if not any(updates + int(due) - versions[actor] > layout.max_staleness for _, actor in coming):
                break
        dispatch(int(due))
        now, working = now + int(due) * update, working + int(due) * update
        updates, due = updates + int(due), due - int(due)
        if not start[1] and stored >= reports // 5:
            start = (now, stored, updates, working, sent)
    elapsed = now - start[0]
    of_this = (stored - start[1]) / elapsed
    return Expected(
        of_this * texts * layout.n_learners,
        (updates - start[2]) / elapsed,
        min(1.0, of_this * acting / n_actors),
        (working - start[3]) / elapsed,
        of_this * texts * costs.episode_bytes
        + (sent - start[4]) / elapsed * costs.weights_bytes
        + (updates - start[2]) / elapsed * 2 * (layout.n_learners > 1) * costs.weights_bytes,
    )
