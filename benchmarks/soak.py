"""A long run under watch: memory, file handles and replay must be flat after warm-up.

``python -m benchmarks.soak --task TextGen-v0 --steps 2000000`` trains the agent of that task's preset, and samples the
process as it goes: resident memory, the memory that Python itself has allocated where ``--trace`` is given, open files,
threads, and what replay holds. It prints a verdict in one line and leaves the curve as a line of JSON.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from agents.application.callbacks import PeriodicCallback
from agents.double_dqn import DoubleDQN
from agents.saving.arguments import constructor_arguments, make_env
from agents.saving.checkpoint import SaveCheckpoints
from agents.saving.files import versions
from agents.saving.json_lines import append
from agents.saving.settings import resolve_settings

TOLERANCE = 0.05
"""How much memory may differ from its level after warm-up."""
WARM_UP = 0.1
"""Share of the steps after which everything should have reached its size, unless replay takes longer to fill."""
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096  # not on Windows


def resident_bytes() -> int:
    """Resident memory of this process; Linux alone tells it so cheaply."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def open_files() -> int:
    """Open file handles of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


class Watch(PeriodicCallback):
    """Samples the process every so many environment steps.

    Attributes:
        rows: The samples, in order.
    """

    def __init__(self, every: int) -> None:
        super().__init__(every)
        self.rows: list[dict[str, Any]] = []
        self._started = time.perf_counter()

    def act(self) -> None:
        """Take a sample; a collection first, so that it shows what is in use and not what is about to be freed."""
        gc.collect()
        replay = self.model.replay_buffer  # type: ignore[attr-defined]
        row = {
            "steps": self.num_timesteps,
            "seconds": round(time.perf_counter() - self._started, 1),
            "resident_bytes": resident_bytes(),
            "open_files": open_files(),
            "replay_steps": replay.size(),
            "replay_episodes": replay.n_episodes,
            "replay_bytes": replay.nbytes,
            "updates": self.model._n_updates,
        }
        if tracemalloc.is_tracing():
            row["traced_bytes"] = tracemalloc.get_traced_memory()[0]
        self.rows.append(row)


def judge(rows: list[dict[str, Any]], capacity: int, total: int, learning_starts: int = 0) -> dict[str, Any]:
    """Whether a curve is flat after warm-up.

    Warm-up ends when :data:`WARM_UP` of the steps are done, updates are well under way, and replay is full, if it ever
    is. What replay holds is meant to grow until then, and is left out of the memory that is judged; on its own, it may
    grow with the most episodes that it has held, of which there are more as they become shorter.

    Args:
        rows: Samples of :class:`Watch`.
        capacity: Steps that replay holds at most.
        total: Environment steps of the whole run.
        learning_starts: Environment steps before the first update, which loads a good part of torch.
    """
    full = [row["steps"] for row in rows if row["replay_steps"] >= 0.95 * capacity]
    begin = max(WARM_UP * total, 2 * learning_starts, full[0] if full else 0)
    after = [row for row in rows if row["steps"] >= begin]
    if len(after) < 3:
        return {
            "flat": None,
            "reason": f"too short: {len(after)} samples after warm-up, which ends at {begin:.0f} steps",
        }
    resident = np.array([row["resident_bytes"] - row["replay_bytes"] for row in after], float)
    growth = float(resident.max() / resident[0] - 1)
    files = {row["open_files"] for row in after}
    replay = np.array([row["replay_bytes"] for row in after], float)
    most_episodes = np.maximum.accumulate([row["replay_episodes"] for row in after])
    replay_growth = float((replay / replay[0] / (most_episodes / max(1, most_episodes[0]))).max() - 1)
    wrapped = rows[-1]["steps"] > capacity and rows[-1]["replay_steps"] <= capacity
    return {
        "flat": growth <= TOLERANCE and len(files) == 1 and (not full or replay_growth <= TOLERANCE),
        "warm_up_steps": int(begin),
        "resident_growth": round(growth, 4),
        "resident_first": int(resident[0]),
        "resident_most": int(resident.max()),
        "open_files": sorted(files),
        "replay_growth": round(replay_growth, 4),
        "replay_wrapped": wrapped,
    }


def soak(
    task: str,
    steps: int,
    samples: int = 100,
    seed: int = 0,
    agent: dict[str, Any] | None = None,
    checkpoints: Path | None = None,
) -> dict[str, Any]:
    """Train for a while and watch the process.

    Args:
        task: Id of the environment; its preset decides the rest.
        steps: Environment steps.
        samples: Number of samples.
        seed: Seed of everything.
        agent: Arguments of :class:`agents.DoubleDQN` over those of the preset.
        checkpoints: Folder for checkpoints, which are part of a real run; None for none.

    Returns:
        Settings, samples and verdict.
    """
    settings = resolve_settings(task, steps=steps, seed=seed, agent=agent or {}, device="cpu")
    torch.set_num_threads(settings.threads)
    env = make_env(settings.env, settings.n_envs, seed, settings.env_args)
    model = DoubleDQN("PerformerPolicy", env, seed=seed, device="cpu", **constructor_arguments(settings.agent))
    watch = Watch(max(1, steps // samples))
    callbacks: list[BaseCallback] = [watch]
    if checkpoints is not None:
        callbacks.insert(0, SaveCheckpoints(checkpoints))
    started = time.perf_counter()
    model.learn(steps, callbacks, log_interval=None)
    seconds = time.perf_counter() - started
    env.close()
    return {
        "name": task,
        "task": task,
        "steps": steps,
        "seed": seed,
        "n_envs": settings.n_envs,
        "buffer_size": model.buffer_size,
        "seconds": round(seconds, 1),
        "verdict": judge(watch.rows, model.buffer_size, steps, model.learning_starts),
        "versions": versions(),
        "samples": watch.rows,
    }


def sentence(result: dict[str, Any]) -> str:
    """The verdict in one line."""
    verdict = result["verdict"]
    head = f"{result['task']}, {result['steps']:,} steps in {result['seconds']:.0f} s: "
    if verdict["flat"] is None:
        return head + verdict["reason"]
    wrapped = "replay has wrapped" if verdict["replay_wrapped"] else "replay was never full"
    return head + (
        f"{'flat' if verdict['flat'] else 'NOT FLAT'}; resident memory {verdict['resident_first'] / 2**20:.0f} MiB "
        f"after {verdict['warm_up_steps']:,} steps, {verdict['resident_growth']:+.1%} at most since; open files "
        f"{', '.join(map(str, verdict['open_files']))}; {wrapped}"
    )


def limit_memory(mebibytes: int) -> None:
    """Let the process fail rather than take more address space than it has now and this much on top."""
    import resource

    now = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
    resource.setrlimit(resource.RLIMIT_AS, (now + mebibytes * 2**20, now + mebibytes * 2**20))


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 if everything stayed flat, or the run was too short to tell, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="TextGen-v0", help="id of the environment")
    parser.add_argument("--steps", type=int, default=2_000_000, help="environment steps")
    parser.add_argument("--samples", type=int, default=100, help="samples of the process")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything")
    parser.add_argument("--memory", type=int, help="MiB that the process may take on top of what it has at the start")
    parser.add_argument("--trace", action="store_true", help="record Python's own allocations, too; much slower")
    parser.add_argument("--checkpoints", type=Path, help="folder for checkpoints; none are written without it")
    parser.add_argument("--out", type=Path, default=Path("results") / "soak.jsonl", help="JSON lines")
    given = parser.parse_args(arguments)
    if not Path("/proc/self/statm").is_file():
        parser.error("this script reads memory and open files from /proc, which this system does not have")
    for name in ("steps", "samples"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(given, name)}")
    if given.memory is not None:
        limit_memory(given.memory)
    if given.trace:
        tracemalloc.start()
    result = soak(given.task, given.steps, given.samples, given.seed, checkpoints=given.checkpoints)
    append(given.out, result)
    print(f"{sentence(result)}; {given.out}")
    return 1 if result["verdict"]["flat"] is False else 0


if __name__ == "__main__":
    sys.exit(main())
