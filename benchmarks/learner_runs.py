"""Updates a second of one learner, and of several that share each batch."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from agents.distributed import Actors
from benchmarks.actor_runs import make_model

_TEXTS = 2_000
_AT_ONCE = 10  # updates in one order


@dataclass(frozen=True)
class Updates:
    """What was measured.

    Attributes:
        n_learners: Learners (≥ 1).
        engine: Where the others ran.
        batch_size: Episodes of all of them in an update.
        features_dim: Width of the network, of two layers.
        n_parameters: Numbers in the network, each of which has a gradient to send.
        updates_per_second: Median over the calls of ``train``.
    """

    n_learners: int
    engine: str
    batch_size: int
    features_dim: int
    n_parameters: int
    updates_per_second: float


def measure_updates(n_learners: int, engine: str, batch_size: int, features_dim: int, seconds: float) -> Updates:
    """Train on texts that are there already, for so many seconds after a first call.

    Args:
        n_learners: Learners (≥ 1).
        engine: See :class:`agents.distributed.Actors`.
        batch_size: Episodes in an update (≥ ``n_learners``).
        features_dim: Width of the network.
        seconds: How long (> 0).
    """
    options: dict[str, Any] = {"batch_size": batch_size, "learning_starts": 10**9}
    model = make_model(0.0, 64, policy_kwargs={"features_dim": features_dim, "n_layers": 2}, **options)
    while model.replay_buffer.n_episodes < _TEXTS:
        model.learn(4_096, log_interval=None, reset_num_timesteps=False)
    times: list[float] = []
    with Actors(model, 1, engine, n_learners=n_learners) as actors:
        if actors.learners is not None:
            actors.learners.begin_learning(None)
        model.train(_AT_ONCE, batch_size)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until or not times:
            started = time.perf_counter()
            model.train(_AT_ONCE, batch_size)
            times.append(time.perf_counter() - started)
    n_parameters = sum(parameter.numel() for parameter in model.q_net.parameters())
    rate = _AT_ONCE / sorted(times)[len(times) // 2]
    return Updates(n_learners, engine, batch_size, features_dim, n_parameters, round(rate, 2))


def compare(engine: str, n_learners: int, seconds: float) -> dict[str, Any]:
    """One learner and several, for batches and networks of two sizes each."""
    rows = []
    for batch_size in (64, 512):
        for features_dim in (32, 128):
            one, many = (measure_updates(n, engine, batch_size, features_dim, seconds) for n in (1, n_learners))
            ratio = round(many.updates_per_second / one.updates_per_second, 2)
            print(
                f"batch {batch_size}, {one.n_parameters:,} parameters: {one.updates_per_second} updates/s, with "
                f"{n_learners} learners {many.updates_per_second} ({ratio} times)"
            )
            rows.append({"one": asdict(one), "many": asdict(many), "ratio": ratio})
    return {"n_learners": n_learners, "rows": rows}
