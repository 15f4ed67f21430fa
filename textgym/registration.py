"""One table: id → task, arguments, reward threshold."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import gymnasium as gym


@dataclass(frozen=True)
class EnvRow:
    """One registered environment.

    Attributes:
        id: Gymnasium id.
        task: Name of the task in :data:`textgym.tasks.TASKS`.
        kwargs: Arguments of the task that differ from its defaults; plain JSON values.
        reward_threshold: Mean return from which the task counts as solved.
    """

    id: str
    task: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    reward_threshold: float | None = None


ENVIRONMENTS: tuple[EnvRow, ...] = (
    EnvRow("TextGen-v0", "text_generation"),
    EnvRow("TextGen/Copy-v0", "copy", reward_threshold=0.95),
    EnvRow("TextGen/Reverse-v0", "reverse", reward_threshold=0.95),
    EnvRow("TextGen/Sort-v0", "sort", reward_threshold=0.95),
)


def register_all() -> None:
    """Register every id with Gymnasium; doing so twice changes nothing."""
    for row in ENVIRONMENTS:
        if row.id not in gym.registry:
            gym.register(
                id=row.id,
                entry_point="textgym.env:TextGenEnv",
                vector_entry_point="textgym.vector_env:TextGenVectorEnv",
                kwargs={"task": row.task, **row.kwargs},
                reward_threshold=row.reward_threshold,
            )


def env_ids() -> list[str]:
    """Every registered id of this package."""
    return [row.id for row in ENVIRONMENTS]


@dataclass(frozen=True)
class References:
    """Mean returns that give a score its meaning, for an id with its default arguments.

    Attributes:
        random: A policy that draws every token uniformly from the legal ones.
        blind: The best found policy that never sees the prompt.
        best: The highest attainable, or the best known.
        sources: How each of the three was obtained.
    """

    random: float
    blind: float
    best: float
    sources: dict[str, str]

    def normalise(self, score: float) -> float:
        """``(score - random) / (best - random)``: 0 for the random policy, 1 for the best."""
        return (score - self.random) / (self.best - self.random)


@cache
def _reference_table() -> dict[str, dict[str, Any]]:
    return json.loads(resources.files("textgym").joinpath("references.json").read_text("utf-8"))


def references(env_id: str) -> References | None:
    """Reference scores of an id (``"textgym:"`` in front is ignored); None where none have been measured."""
    entry = _reference_table().get(env_id.removeprefix("textgym:"))
    return None if entry is None else References(**entry)
