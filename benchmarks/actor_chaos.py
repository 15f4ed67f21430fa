"""Random kills of actors and learners; the run must end with every episode once.

The learner is a process that writes checkpoints and kills its own actors and the other learners. The watcher kills it,
and starts it again, also after the death of another learner: it goes on from the newest checkpoint. A checkpoint holds
the names and returns of all episodes in replay.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from agents.distributed import Actors, LearnerDied
from agents.saving.checkpoint import SaveCheckpoints
from agents.saving.checkpoint_folder import CheckpointFolder
from agents.saving.files import write_json
from benchmarks.actor_runs import make_model

RESULT, KILLS = "result.json", "kills.jsonl"
ANOTHER_DIED = 3
"""Exit code of a learner that has lost another one."""
_CHECKPOINT_SECONDS = 2.0


class _Episodes(BaseCallback):
    """Names and returns of all episodes in replay; ends the run at the promised number; kills actors now and then."""

    def __init__(self, actors: Actors, promised: int, kill_every: float, until: float, folder: Path, seed: int) -> None:
        super().__init__()
        self.actors, self.promised, self.kill_every, self.until = actors, promised, kill_every, until
        self.folder, self.random = folder, np.random.default_rng(seed)
        self.ids: list[tuple[int, int, int]] = []
        self.returns: list[float] = []
        self._told: list[float] = []
        self._next = time.time() + self.random.exponential(kill_every)
        store = actors.ledger.store

        def watched(report: Any, n_episodes: int) -> Any:
            named = store(report, n_episodes)
            self.ids += named
            self.returns += self._told
            return named

        actors.ledger.store = watched  # type: ignore[method-assign]

    def restore(self, extra: dict[str, Any]) -> None:
        """Take over what a checkpoint tells."""
        self.ids = [tuple(row) for row in np.asarray(extra["ids"]).tolist()]
        self.returns = np.asarray(extra["returns"]).tolist()

    def content(self) -> dict[str, Any]:
        """What goes into a checkpoint."""
        return {"ids": np.array(self.ids, np.int64).reshape(-1, 3), "returns": np.array(self.returns)}

    def _on_step(self) -> bool:
        self._told = [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        if self._next < time.time() < self.until:
            self._next = time.time() + self.random.exponential(self.kill_every)
            self._kill()
        return len(self.ids) < self.promised

    def _kill(self) -> None:
        victim = int(self.random.integers(self.actors.n_actors + self.actors.n_learners - 1))
        if victim >= self.actors.n_actors:
            number = victim - self.actors.n_actors + 1
            note(self.folder, f"learner {number}")
            assert self.actors.learners is not None
            os.kill(self.actors.learners.process_ids[number], signal.SIGKILL)
            return
        process_ids = getattr(self.actors.engine, "process_ids", None)
        if process_ids is None:
            self.actors.engine.kill(victim)
        else:
            with contextlib.suppress(Exception):  # it is being started
                os.kill(process_ids()[victim], signal.SIGKILL)
        note(self.folder, f"actor {victim}")


def note(folder: Path, what: str) -> None:
    """Note a kill."""
    with (folder / KILLS).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"what": what, "time": round(time.time(), 2)}) + "\n")


def learn(
    folder: Path, engine: str, n_actors: int, promised: int, kill_every: float, until: float, n_learners: int = 1
) -> int:
    """The learner's process: go on from the newest checkpoint, and leave the result; its exit code."""
    model = make_model(0.02, 8, buffer_size=10_000_000)
    found = CheckpointFolder(folder / "checkpoint").load()
    saved = None if found is None else found[1]
    options: dict[str, Any] = {"max_staleness": 200, "weights_every": 5, "vector_steps": 8, "timeout": 120}
    with Actors(model, n_actors, engine, n_learners=n_learners, **options) as actors:
        watch = _Episodes(actors, promised, kill_every, until, folder, os.getpid())
        if saved is not None:
            watch.restore(saved["extra"])
        checkpoints = SaveCheckpoints(folder / "checkpoint", _CHECKPOINT_SECONDS, saved, extra=watch.content)
        try:
            model.learn(10**9, [checkpoints, watch], log_interval=None)
        except LearnerDied as death:
            print(death)
            return ANOTHER_DIED
        verdict = judge(model, watch, promised)
        write_json(folder / RESULT, {**verdict, "staleness_max": actors.staleness_max, "ids": watch.ids})
    return 0


def judge(model: Any, watch: _Episodes, promised: int) -> dict[str, Any]:
    """Whether replay holds every named episode once, with the return that was told of it."""
    ids = watch.ids
    numbers: dict[tuple[int, int], list[int]] = {}
    for actor, incarnation, number in ids:
        numbers.setdefault((actor, incarnation), []).append(number)
    stored = model.replay_buffer._store.read(np.arange(model.replay_buffer.n_episodes))
    returns = stored.rewards.sum(axis=1)
    same = len(returns) == len(watch.returns) and bool(np.allclose(returns, watch.returns, atol=1e-4))
    return {
        "episodes": len(ids),
        "promised": promised,
        "in_replay": model.replay_buffer.n_episodes,
        "twice": len(ids) - len(set(ids)),
        "gaps": sum(found != list(range(len(found))) for found in numbers.values()),
        "same_returns": same,
        "processes": len(numbers),
        "updates": model._n_updates,
    }


def chaos(
    folder: Path,
    minutes: float,
    engine: str,
    n_actors: int,
    promised: int,
    kill_every: float,
    kill_learner_every: float,
    seed: int = 0,
    n_learners: int = 1,
) -> dict[str, Any]:
    """Kill actors and learners at random for so many minutes, and wait for the end.

    Args:
        folder: New folder for checkpoints and results.
        minutes: How long there are kills (> 0).
        engine: See :class:`agents.distributed.Actors`.
        n_actors: Actors.
        promised: Episodes at which the run ends.
        kill_every: Mean seconds between two kills of actors.
        kill_learner_every: Mean seconds between two kills of the learner.
        seed: Of the learner's kills.
        n_learners: Learners; those beside the first are killed as the actors are.

    Returns:
        What :func:`judge` says; kills; whether what was in the last checkpoint before each kill of the learner is in
        the end; and ``"passed"``.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    started = time.time()
    until, starts = started + 60 * minutes, 0
    kept: list[list[list[int]]] = []  # names in the newest checkpoint when the learner was killed
    command = [sys.executable, "-m", "benchmarks.distributed", "learner", str(folder)]
    command += ["--engine", engine, "--actors", str(n_actors), "--episodes", str(promised)]
    command += ["--learners", str(n_learners), "--kill-every", str(kill_every), "--until", str(until)]
    while not (folder / RESULT).is_file():
        starts += 1
        process = subprocess.Popen(command)
        checkpoints, moment = CheckpointFolder(folder / "checkpoint"), np.inf
        before = checkpoints.files()[:1]
        while process.poll() is None and not (moment < time.time() < until):
            time.sleep(0.2)
            if moment == np.inf and checkpoints.files()[:1] != before:  # it has come further than the one before it
                moment = time.time() + random.exponential(kill_learner_every)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            note(folder, "learner")
        elif process.returncode not in (0, ANOTHER_DIED):
            return {"passed": False, "error": f"the learner ended with {process.returncode}", "starts": starts}
        if process.returncode:
            found = checkpoints.load()
            kept.append([] if found is None else np.asarray(found[1]["extra"]["ids"]).tolist())
    result = json.loads((folder / RESULT).read_text())
    ids = result.pop("ids")
    kept_all = all(ids[: len(names)] == names for names in kept)
    noted = (folder / KILLS).read_text().splitlines() if (folder / KILLS).exists() else []
    kills = [json.loads(line)["what"] for line in noted]
    result |= {
        "kills_of_actors": sum(what.startswith("actor") for what in kills),
        "kills_of_learner": kills.count("learner"),
        "kills_of_other_learners": sum(what.startswith("learner ") for what in kills),
        "kept_at_kills": [len(names) for names in kept],
        "kept_all": kept_all,
        "seconds": round(time.time() - started, 1),
    }
    passed = result["episodes"] >= promised and result["in_replay"] == result["episodes"] and result["same_returns"]
    return result | {"passed": bool(passed and kept_all and not result["twice"] and not result["gaps"])}
