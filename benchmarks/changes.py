"""Sweeps that change one thing at a time: arguments around a base, and parts of the agent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.cells import REVERSE, SEEDS, TEXTGEN, Cell

BASE: dict[str, Any] = {
    "learning_rate": 2e-3,
    "updates_per_step": 0.04,
    "exploration": "ucb",
    "exploration_kwargs": {"coefficient": 0.02},
    "lower_bound": False,
    "n_steps": 1,
    "double_q": True,
    "dueling": True,
    "priority_alpha": 0.6,
    "tau": 0.01,
    "gamma": 0.99,
    "policy_kwargs": {"feature_map": "softmax", "features_dim": 64, "n_layers": 2, "n_random_features": 32},
}
"""What the sweep of the defaults changes one by one; everything is said, so that its cells outlive the defaults."""
DECAY: dict[str, Any] = {"weight_decay": 1.0, "decoupled_weight_decay": True}
FACTORS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("learning rate 1e-3", {"learning_rate": 1e-3}),
    ("learning rate 4e-3", {"learning_rate": 4e-3}),
    ("feature map relu", {"policy_kwargs": {"feature_map": "relu"}}),
    ("updates_per_step 0.02", {"updates_per_step": 0.02}),
    ("updates_per_step 0.08", {"updates_per_step": 0.08}),
    ("ε-greedy", {"exploration_kwargs": {"coefficient": 0.0}}),
    ("UCB 0.1", {"exploration_kwargs": {"coefficient": 0.1}}),
    ("UCB 0.3", {"exploration_kwargs": {"coefficient": 0.3}}),
    ("Boltzmann", {"exploration": "boltzmann", "exploration_kwargs": {}}),
    ("lower bound", {"lower_bound": True}),
    ("3-step", {"n_steps": 3}),
    ("Q(λ) 0.7", {"q_lambda": 0.7}),
    ("Watkins's Q(λ) 0.7", {"q_lambda": 0.7, "watkins": True}),
    ("uniform replay", {"prioritized_replay": False}),
    ("α 1.0", {"priority_alpha": 1.0}),
    ("τ 0.003", {"tau": 0.003}),
    ("τ 0.03", {"tau": 0.03}),
    ("weight decay 0.1", {"policy_kwargs": {"optimizer_kwargs": DECAY | {"weight_decay": 0.1}}}),
    ("weight decay 1", {"policy_kwargs": {"optimizer_kwargs": DECAY}}),
    ("1 layer", {"policy_kwargs": {"n_layers": 1}}),
    ("3 layers", {"policy_kwargs": {"n_layers": 3}}),
    ("width 32", {"policy_kwargs": {"features_dim": 32}}),
    ("width 128", {"policy_kwargs": {"features_dim": 128}}),
)
"""Name → arguments that differ from :data:`BASE`."""
SMALL_TASKS: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("TextGen/Sort-v0", {"length": 5, "vocab_size": 12}, 12_000),
    ("TextGen/Copy-v0", {"length": 2, "vocab_size": 7, "dense": False}, 24_000),
    ("TextGen/Addition-v0", {"digits": 2}, 16_000),
    (TEXTGEN, {"vocab_size": 300, "max_new_tokens": 6}, 24_000),
)
"""Task, its arguments and environment steps: none of them is a task or a size that a table of results reports."""


def one_at_a_time(seeds: Iterable[int] = (10, 11)) -> tuple[Cell, ...]:
    """Cells of the base and of every factor, on every small task."""
    variants = [BASE]
    for _, change in FACTORS:
        merged = BASE | change
        for name in ("policy_kwargs", "exploration_kwargs"):
            if change.get(name):
                merged[name] = BASE[name] | change[name]
        variants.append(merged)
    return tuple(
        Cell("ours", task, seed, env_kwargs, agent_kwargs, budget_steps=steps)
        for agent_kwargs in variants
        for task, env_kwargs, steps in SMALL_TASKS
        for seed in seeds
    )


ABLATION_BASE: dict[str, Any] = {
    "learning_rate": 1e-3,
    "updates_per_step": 0.04,
    "exploration": "ucb",
    "exploration_kwargs": {"coefficient": 0.02},
    "lower_bound": False,
    "n_steps": 1,
    "q_lambda": None,
    "double_q": True,
    "dueling": True,
    "prioritized_replay": True,
    "tau": 0.01,
    "gamma": 0.99,
}
"""The agent whose parts are taken away, or exchanged, one at a time."""
_EXPLORER: dict[str, Any] = {"exploration_kwargs": {}}
ABLATION: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("base", "ours", {}),
    ("single in place of Double Q", "ours", {"double_q": False}),
    ("uniform in place of prioritized replay", "ours", {"prioritized_replay": False}),
    ("no dueling heads", "ours", {"dueling": False}),
    ("ε-greedy in place of UCB", "ours", {"exploration": "epsilon"} | _EXPLORER),
    ("Boltzmann in place of UCB", "ours", {"exploration": "boltzmann"} | _EXPLORER),
    ("3-step returns", "ours", {"n_steps": 3}),
    ("Peng's Q(λ) 0.7", "ours", {"q_lambda": 0.7}),
    ("return lower bound", "ours", {"lower_bound": True}),
    ("softmax attention in place of the Performer", "ours-transformer", {}),
    ("GRU in place of the Performer", "ours-gru", {}),
    ("transition updates in place of sequences", "ours-transitions", {}),
)
"""What is tested, the agent, and its arguments that differ from :data:`ABLATION_BASE`."""
_SEQUENCES_ONLY = ("updates_per_step", "lower_bound", "tau", "q_lambda")
ABLATION_TASKS: tuple[tuple[str, int], ...] = (
    (REVERSE, 20_000),
    ("TextGen/Sort-v0", 20_000),
    ("TextGen/Addition-v0", 20_000),
    ("TextGen/Brackets-Sparse-v0", 30_000),
)
"""Task and environment steps: dense and sparse rewards; all deterministic, for the lower bound.

144 cells, one to two hours on two cores; those on transitions take six times as long as the others. Chance succeeds
once in 120 episodes of the sparse task, so that it can tell agents apart within its steps. A task that nobody learns in
so many steps, as ``Keywords-Easy`` in the table, could not.
"""


def ablation(seeds: Iterable[int] = SEEDS) -> dict[str, tuple[Cell, ...]]:
    """Variant → its cells, on every task; on transitions, what only sequences know is left to their defaults."""
    variants = {}
    for name, agent, change in ABLATION:
        arguments = ABLATION_BASE | change
        if agent == "ours-transitions":
            arguments = {key: value for key, value in arguments.items() if key not in _SEQUENCES_ONLY}
        variants[name] = tuple(
            Cell(agent, task, seed, agent_kwargs=arguments, budget_steps=steps)
            for seed in seeds
            for task, steps in ABLATION_TASKS
        )
    return variants
