"""One cell: an agent learns, and its learning curve is the result."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from agents import make_vec_env, validate
from agents.saving.results import Result
from benchmarks.baselines import default_steps, make_agent, n_updates
from benchmarks.cells import Cell
from benchmarks.clock import TrainingClock, let_schedules_follow
from benchmarks.run import EVALUATION_SEED

FIRST_MILESTONE = 2_000
PACKAGES = ("gymnasium", "numpy", "performer-pytorch", "sb3-contrib", "stable-baselines3", "torch")


def evaluate(model: BaseAlgorithm, cell: Cell) -> float:
    """Mean return of the greedy policy over ``cell.eval_episodes`` fresh episodes, the same ones at every call."""
    env = make_vec_env(cell.task, n_envs=cell.eval_episodes, env_kwargs=cell.env_kwargs)
    result = validate.evaluate(model, env, cell.eval_episodes, seed=EVALUATION_SEED)
    env.close()
    return float(result.returns.mean())


class LearningCurve(BaseCallback):
    """Evaluates as the budget is used up, and stops the training when its seconds are over.

    Seconds are those of :class:`benchmarks.clock.TrainingClock`.

    Where the budget is seconds alone, nobody knows the number of steps, so schedules of off-policy agents (exploration,
    the exponent of prioritized replay) follow the clock: SB3 measures them against the total that is estimated here.
    Such runs are also evaluated at :data:`FIRST_MILESTONE` steps and whenever that number has doubled, so that agents
    of very different speeds can be compared at equal steps.

    Args:
        cell: The cell, with its budget.
        steps: Its environment steps.

    Attributes:
        points: ``[environment steps, processor seconds of training, mean return]`` of each evaluation.
        clock: Counts the seconds of training; it stands still in evaluations.
    """

    def __init__(self, cell: Cell, steps: int) -> None:
        super().__init__()
        self.cell, self.steps = cell, steps
        self.points: list[tuple[int, float, float]] = []
        self.clock = TrainingClock()
        self._due = 1
        seconds_alone = cell.budget_steps is None and cell.budget_seconds is not None
        self._milestone = FIRST_MILESTONE if seconds_alone else steps

    def record(self) -> None:
        """Evaluate now."""
        seconds = self.clock.seconds()
        with self.clock.stopped():
            self.points.append((self.model.num_timesteps, seconds, evaluate(self.model, self.cell)))

    def _on_training_start(self) -> None:
        self.clock = TrainingClock()
        self.record()

    def _on_step(self) -> bool:
        limit = self.cell.budget_seconds
        time_share = 0.0 if limit is None else self.clock.seconds() / limit
        share = max(time_share, self.num_timesteps / self.steps)
        if self.cell.budget_steps is None:
            let_schedules_follow(self.model, time_share)
        due, passed = share * self.cell.evaluations >= self._due, self.num_timesteps >= self._milestone
        if share < 1 and (due or passed):
            self._due += due
            while self.num_timesteps >= self._milestone:
                self._milestone *= 2
            self.record()
        return time_share < 1

    def _on_training_end(self) -> None:
        self.record()


def run_cell(cell: Cell) -> Result:
    """Train and evaluate one cell in this process.

    Returns:
        Plain JSON values: the cell's name, the cell, versions, machine, environment steps, updates, seconds and the
        learning curve.

    Raises:
        ValueError: If the agent is unknown, or the cell has no budget.
    """
    steps = default_steps(cell)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    model = make_agent(cell)
    curve = LearningCurve(cell, steps)
    model.learn(steps, callback=curve)
    final_steps, seconds, score = curve.points[-1]
    return {
        "name": cell.name,
        "cell": asdict(cell),
        "score": score,
        "env_steps": final_steps,
        "updates": n_updates(model),
        "seconds": seconds,
        "evaluation_seconds": curve.clock.stopped_seconds,
        "curve": [list(point) for point in curve.points],
        "started": started,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": {
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "threads": torch.get_num_threads(),
        },
    }
