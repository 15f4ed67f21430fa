"""A learning run as data, and grids of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

SEEDS = (0, 1, 2)
REVERSE = "TextGen/Reverse-v0"
TEXTGEN = "TextGen-v0"


@dataclass(frozen=True)
class Cell:
    """One learning run.

    Attributes:
        agent: A name of :data:`benchmarks.baselines.AGENTS`.
        task: Id of the environment.
        seed: Seed of the agent and of its environments.
        env_kwargs: Arguments of the environment; plain JSON values.
        agent_kwargs: Arguments of the agent's constructor that differ from the benchmark's; plain JSON values.
        budget_steps: Most environment steps (≥ 1); None for the agent's own default, see
            :func:`benchmarks.baselines.default_steps`.
        budget_seconds: Most seconds of processor time in training, on one thread, evaluations not counted (> 0);
            None for no limit.
        evaluations: Evaluations spread evenly over the budget, beside one before the first step (≥ 1).
        eval_episodes: Episodes in an evaluation (≥ 1).
    """

    agent: str
    task: str
    seed: int
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    agent_kwargs: dict[str, Any] = field(default_factory=dict)
    budget_steps: int | None = None
    budget_seconds: float | None = None
    evaluations: int = 20
    eval_episodes: int = 128

    @property
    def name(self) -> str:
        """What it is called in files, which says what the cell is, and changes whenever its definition does."""
        definition = json.dumps(asdict(self), sort_keys=True)
        digest = hashlib.sha256(definition.encode()).hexdigest()[:8]
        return f"{self.task.replace('/', '-')}_{self.agent}_seed{self.seed}_{digest}"


def grid(agents: Iterable[str], task: str, seeds: Iterable[int] = SEEDS, **budget: Any) -> tuple[Cell, ...]:
    """Cells of every agent with every seed, seed by seed, so that an unfinished sweep has all agents."""
    agents = tuple(agents)
    return tuple(Cell(agent, task, seed, **budget) for seed in seeds for agent in agents)
