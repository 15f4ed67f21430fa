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
    EnvRow("TextGen/Copy-Sparse-v0", "copy", {"length": 3, "vocab_size": 7, "dense": False}, 0.95),
    EnvRow("TextGen/Reverse-Sparse-v0", "reverse", {"length": 3, "vocab_size": 7, "dense": False}, 0.95),
    EnvRow("TextGen/Sort-Sparse-v0", "sort", {"length": 3, "vocab_size": 7, "dense": False}, 0.95),
    EnvRow("TextGen/Addition-v0", "addition", reward_threshold=0.95),
    EnvRow("TextGen/Addition-Easy-v0", "addition", {"digits": 2, "carry": False}, 0.95),
    EnvRow("TextGen/Addition-Hard-v0", "addition", {"digits": 8}, 0.95),
    EnvRow("TextGen/Addition-Sparse-v0", "addition", {"digits": 2, "dense": False}, 0.95),
    EnvRow("TextGen/Brackets-v0", "brackets", reward_threshold=0.95),
    EnvRow("TextGen/Brackets-Easy-v0", "brackets", {"length": 6, "max_depth": 3}, 0.95),
    EnvRow("TextGen/Brackets-Hard-v0", "brackets", {"length": 48, "kinds": 4, "max_depth": 16}, 0.95),
    EnvRow("TextGen/Brackets-Sparse-v0", "brackets", {"length": 8, "max_depth": 4, "dense": False}, 0.95),
    EnvRow("TextGen/Spelling-v0", "spelling", reward_threshold=0.95),
    EnvRow("TextGen/Spelling-Easy-v0", "spelling", {"edits": 1}, 0.95),
    EnvRow("TextGen/Spelling-Sparse-v0", "spelling", {"edits": 1, "dense": False}, 0.95),
    EnvRow("TextGen/Recall-v0", "recall", reward_threshold=0.95),
    EnvRow("TextGen/Recall-Easy-v0", "recall", {"pairs": 4}, 0.95),
    EnvRow("TextGen/Recall-Hard-v0", "recall", {"pairs": 340}, 0.95),
    EnvRow("TextGen/Recall-Sparse-v0", "recall", {"dense": False}, 0.95),
    EnvRow("TextGen/Passkey-v0", "passkey", reward_threshold=0.95),
    EnvRow("TextGen/Passkey-Easy-v0", "passkey", {"context_length": 64}, 0.95),
    EnvRow("TextGen/Passkey-Hard-v0", "passkey", {"context_length": 2048, "decoys": 7}, 0.95),
    EnvRow("TextGen/Passkey-Sparse-v0", "passkey", {"context_length": 64, "digits": 3, "dense": False}, 0.95),
    EnvRow("TextGen/Arithmetic-v0", "arithmetic", reward_threshold=0.95),
    EnvRow("TextGen/Arithmetic-Easy-v0", "arithmetic", {"numbers": 2}, 0.95),
    EnvRow("TextGen/Arithmetic-Hard-v0", "arithmetic", {"numbers": 5, "max_number": 25, "max_target": 999}, 0.95),
    EnvRow("TextGen/Arithmetic-Sparse-v0", "arithmetic", {"numbers": 2, "dense": False, "masked": True}, 0.95),
    EnvRow("TextGen/Json-v0", "json", reward_threshold=0.95),
    EnvRow("TextGen/Json-Easy-v0", "json", {"properties": 1, "masked": True}, 0.95),
    EnvRow("TextGen/Json-Hard-v0", "json", {"properties": 4, "nested": 2}, 0.95),
    EnvRow("TextGen/Json-Sparse-v0", "json", {"properties": 1, "dense": False, "masked": True}, 0.95),
    EnvRow("TextGen/Sql-v0", "sql", reward_threshold=0.95),
    EnvRow("TextGen/Sql-Easy-v0", "sql", {"levels": [1], "masked": True}, 0.95),
    EnvRow("TextGen/Sql-Hard-v0", "sql", {"levels": [1, 2, 3]}, 0.95),
    EnvRow("TextGen/Sql-Sparse-v0", "sql", {"levels": [1], "dense": False, "masked": True}, 0.95),
    EnvRow("TextGen/GuessNumber-v0", "guess_number", reward_threshold=0.5),
    EnvRow("TextGen/GuessNumber-Easy-v0", "guess_number", {"digits": 1, "guesses": 5}, 0.5),
    EnvRow("TextGen/GuessNumber-Hard-v0", "guess_number", {"digits": 4, "guesses": 20}, 0.4),
    EnvRow("TextGen/Hangman-v0", "hangman", reward_threshold=0.75),
    EnvRow("TextGen/Hangman-Easy-v0", "hangman", {"min_length": 6, "max_length": 9, "max_wrong": 10}, 0.85),
    EnvRow("TextGen/Hangman-Hard-v0", "hangman", {"min_length": 4, "max_length": 4, "max_wrong": 5}, 0.6),
    EnvRow("TextGen/Hangman-Sparse-v0", "hangman", {"dense": False, "masked": True}, 0.55),
    EnvRow("TextGen/Wordle-v0", "wordle", reward_threshold=0.8),
    EnvRow("TextGen/Wordle-Easy-v0", "wordle", {"n_words": 20, "masked": True}, 0.85),
    EnvRow("TextGen/Wordle-Hard-v0", "wordle", {"n_words": 289, "guesses": 4}, 0.75),
    EnvRow("TextGen/Wordle-Sparse-v0", "wordle", {"n_words": 50, "dense": False, "masked": True}, 0.65),
    EnvRow("TextGen/Classify-v0", "classify", reward_threshold=0.9),
    EnvRow("TextGen/Classify-Easy-v0", "classify", {"length": 4, "neutral": False}, 0.95),
    EnvRow("TextGen/Classify-Hard-v0", "classify", {"length": 16}, 0.8),
    EnvRow("TextGen/Keywords-v0", "keywords", reward_threshold=0.6),
    EnvRow("TextGen/Keywords-Easy-v0", "keywords", {"keywords": 1, "vocab_size": 500}, 0.7),
    EnvRow("TextGen/Keywords-Hard-v0", "keywords", {"keywords": 4, "max_new_tokens": 16}, 0.5),
    EnvRow("TextGen/Keywords-Sparse-v0", "keywords", {"keywords": 1, "vocab_size": 500, "dense": False}, 0.7),
    EnvRow("TextGen/Summary-v0", "summary", reward_threshold=0.9),
    EnvRow("TextGen/Summary-Easy-v0", "summary", {"sentences": 3, "facts": 2}, 0.9),
    EnvRow("TextGen/Summary-Hard-v0", "summary", {"sentences": 12, "facts": 5}, 0.9),
    EnvRow("TextGen/Summary-Sparse-v0", "summary", {"sentences": 3, "facts": 2, "dense": False}, 0.9),
    EnvRow("TextGen/Reasoning-v0", "reasoning", reward_threshold=0.9),
    EnvRow("TextGen/Reasoning-Easy-v0", "reasoning", {"config": {"max_terms": 2, "max_digits": 1}}, 0.95),
    EnvRow("TextGen/Reasoning-Hard-v0", "reasoning", {"dataset": "gsm_symbolic"}, 0.5),
    EnvRow("TextGen/StarGraph-v0", "star_graph", reward_threshold=0.95),
    EnvRow("TextGen/StarGraph-Easy-v0", "star_graph", {"degree": 2, "path_length": 3, "nodes": 6}, 0.95),
    EnvRow("TextGen/StarGraph-Hard-v0", "star_graph", {"degree": 10, "path_length": 10, "nodes": 100}, 0.95),
    EnvRow("TextGen/RandomWalks-v0", "random_walks", reward_threshold=0.95),
    EnvRow("TextGen/RandomWalks-Easy-v0", "random_walks", {"nodes": 10, "edge_probability": 0.2}, 0.95),
    EnvRow(
        "TextGen/RandomWalks-Hard-v0", "random_walks", {"nodes": 100, "max_length": 20, "edge_probability": 0.03}, 0.95
    ),
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
