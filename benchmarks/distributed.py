"""One run through actors: slow rewards, kills, what the parts cost, and what more machines would give.

``python -m benchmarks.distributed rewards`` compares 16 actors with one where a reward takes 50 ms a text.
``python -m benchmarks.distributed chaos --minutes 2`` kills actors and the learner at random.
``python -m benchmarks.distributed scale`` measures what the parts cost, compares a queue with runs made here, and
follows it to 1,000 actors and 16 learners.
``python -m benchmarks.distributed learners`` compares the updates a second of two learners with those of one; give it a
free core for each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from agents.distributed.actors import ENGINES
from agents.saving.files import versions
from agents.saving.json_lines import append
from benchmarks.actor_chaos import chaos, learn
from benchmarks.actor_queue import Layout, simulate
from benchmarks.actor_runs import Measured, costs, make_model, measure
from benchmarks.learner_runs import compare

_RUN: dict[str, Any] = {"max_staleness": 1000, "weights_every": 20, "vector_steps": 8}
_ROWS = 64


def rewards(engine: str, n_actors: int, seconds: float, reward_seconds: float) -> dict[str, Any]:
    """Texts a second of one actor and of many, with a reward that sleeps for each text."""
    runs = [measure(make_model(reward_seconds, _ROWS), n, engine, seconds, cpus=0.1, **_RUN) for n in (1, n_actors)]
    for run in runs:
        print(line(run))
    ratio = runs[1].texts_per_second / runs[0].texts_per_second
    print(f"{n_actors} actors make {ratio:.1f} times the texts of one")
    return {"ratio": round(ratio, 2), "reward_seconds": reward_seconds, "runs": [asdict(run) for run in runs]}


def scale(engine: str, seconds: float) -> dict[str, Any]:
    """Costs, the queue beside runs made here, and the queue where there is nothing to run on."""
    found = costs(_ROWS, _RUN["vector_steps"], engine)
    print(found.as_dict())
    checks = []
    for n_actors, reward_seconds, updates_per_step in ((1, 0.05, 0.01), (4, 0.05, 0.01), (2, 0.0, 0.2)):
        model = make_model(reward_seconds, _ROWS, updates_per_step=updates_per_step)
        run = measure(model, n_actors, engine, seconds, cpus=0.1, **_RUN)
        layout = Layout(n_actors, 1, _ROWS, _RUN["vector_steps"], updates_per_step, reward_seconds)
        expected = simulate(replace(found, tokens_per_text=run.tokens_per_text), layout)
        error = expected.texts_per_second / run.texts_per_second - 1
        print(f"{line(run)}; the queue says {expected.texts_per_second:.1f} ({error:+.0%})")
        checks.append({**asdict(run), "expected": expected.texts_per_second, "error": round(error, 3)})
    free = costs(_ROWS, _RUN["vector_steps"], engine, clock=time.process_time)
    print(f"on a core that is free: {free.as_dict()}")
    rows = []
    for reward_seconds, updates_per_step in ((0.0, 0.04), (0.05, 0.04), (0.05, 0.004)):
        for n_actors in (8, 64, 1000):
            for n_learners in (n for n in (1, 4, 16) if n <= n_actors):
                layout = Layout(n_actors, n_learners, _ROWS, _RUN["vector_steps"], updates_per_step, reward_seconds)
                expected = simulate(free, layout)
                rows.append({**asdict(layout), **asdict(expected), "limit": expected.limit})
                print(table_row(rows[-1]))
    return {"costs": found.as_dict(), "free": free.as_dict(), "checks": checks, "scale": rows}


def table_row(row: dict[str, Any]) -> str:
    """A row of the table in ``docs/scale.md``."""
    cells = (
        f"{row['reward_seconds'] * 1000:.0f} ms",
        f"{row['updates_per_step']}",
        f"{row['n_actors']:,}",
        f"{row['n_learners']}",
        f"{row['texts_per_second']:,.0f}",
        f"{row['updates_per_second']:,.0f}",
        f"{row['actors_busy']:.0%}",
        f"{row['learner_busy']:.0%}",
        f"{row['bytes_per_second'] / 1e6:.1f}",
        row["limit"],
    )
    return f"| {' | '.join(cells)} |"


def line(run: Measured) -> str:
    """A run in one line."""
    rates = f"{run.texts_per_second:.1f} texts/s, {run.updates_per_second:.1f} updates/s"
    staleness = f"staleness {run.staleness:.0f} (at most {run.staleness_max})"
    return f"{run.n_actors} actors, {run.engine}: {rates}, {staleness}, learner waited {run.waiting:.0%}"


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 1 where ``chaos`` did not pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", choices=("rewards", "chaos", "scale", "learners", "learner"), help="learner is chaos's own"
    )
    parser.add_argument("folder", nargs="?", type=Path, help="of chaos; a temporary one without it")
    parser.add_argument("--engine", choices=ENGINES, default="threads", help="where actors run")
    parser.add_argument("--actors", type=int, default=None, help="actors; 16 for rewards, 4 for chaos")
    parser.add_argument("--learners", type=int, default=None, help="learners; 2 for learners, 1 for chaos")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long a run is measured")
    parser.add_argument("--reward-seconds", type=float, default=0.05, help="of a text, for rewards")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long chaos kills")
    parser.add_argument("--episodes", type=int, default=None, help="promise of chaos; 1,500 a minute")
    parser.add_argument("--kill-every", type=float, default=10.0, help="mean seconds between kills of actors")
    parser.add_argument(
        "--kill-learner-every", type=float, default=20.0, help="mean seconds between kills of the learner"
    )
    parser.add_argument("--until", type=float, default=0.0, help="when a learner stops to kill, seconds since 1970")
    parser.add_argument("--out", type=Path, default=Path("results") / "distributed.jsonl", help="JSON lines")
    given = parser.parse_args(arguments)
    for name in ("seconds", "minutes", "kill_every", "kill_learner_every"):
        if not getattr(given, name) > 0:
            parser.error(f"--{name.replace('_', '-')} must be greater than 0, got {getattr(given, name)}")
    n_actors = given.actors if given.actors is not None else {"rewards": 16}.get(given.what, 4)
    if n_actors < 1:
        parser.error(f"--actors must be at least 1, got {n_actors}")
    n_learners = given.learners if given.learners is not None else {"learners": 2}.get(given.what, 1)
    if n_learners < 1:
        parser.error(f"--learners must be at least 1, got {n_learners}")
    if n_learners > 1 and given.what in ("rewards", "scale"):
        parser.error(f"--learners must be 1 for {given.what}, got {n_learners}")
    promised = given.episodes if given.episodes is not None else round(1500 * given.minutes)
    torch.set_num_threads(1)
    if given.what == "learner":
        return learn(given.folder, given.engine, n_actors, promised, given.kill_every, given.until, n_learners)
    if given.what == "rewards":
        result = rewards(given.engine, n_actors, given.seconds, given.reward_seconds)
    elif given.what == "learners":
        result = compare(given.engine, n_learners, given.seconds)
    elif given.what == "scale":
        result = scale(given.engine, given.seconds)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            folder = given.folder or Path(temporary) / "chaos"
            kills = given.kill_every, given.kill_learner_every
            result = chaos(folder, given.minutes, given.engine, n_actors, promised, *kills, n_learners=n_learners)
        print(result)
    append(
        given.out, {"name": f"{given.what}-{given.engine}", "engine": given.engine, **result, "versions": versions()}
    )
    return 0 if result.get("passed", True) else 1


if __name__ == "__main__":
    sys.exit(main())
