"""A sweep that changes one thing of the agent at a time: a part of it, or an argument."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.cells import REVERSE, SEEDS, Cell

BASE: dict[str, Any] = {
    "learning_rate": 2e-3,
    "updates_per_step": 0.02,
    "exploration": "ucb",
    "exploration_kwargs": {"coefficient": 0.1},
    "lower_bound": False,
    "n_steps": 1,
    "q_lambda": {"start": 0.9, "end": 0.0},
    "loss": "cross_entropy",
    "double_q": True,
    "dueling": True,
    "prioritized_replay": True,
    "priority_alpha": 0.6,
    "priority_beta": 0.0,
    "priority_beta_final": 0.0,
    "self_imitation": True,
    "tau": 0.01,
    "gamma": 0.99,
    "policy_kwargs": {"feature_map": "softmax", "features_dim": 64, "n_layers": 1, "n_gram": 2},
}
"""Today's defaults; everything is said, so that cells outlive them."""
_NO_LAMBDA: dict[str, Any] = {"q_lambda": None}  # which the agent takes as 0 where rewards are carried otherwise
_COOLING: dict[str, Any] = {"initial_temperature": 0.02, "final_temperature": 5e-4, "fraction": 0.9}
ABLATION: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("base", "ours", {}),
    ("single in place of Double Q", "ours", {"double_q": False}),
    ("uniform in place of prioritized replay", "ours", {"prioritized_replay": False}),
    ("no dueling heads", "ours", {"dueling": False}),
    ("Huber loss in place of cross-entropy", "ours", {"loss": "huber"}),
    ("one-step targets in place of Q(λ)", "ours", {"q_lambda": 0.0}),
    ("3-step returns in place of Q(λ)", "ours", {"n_steps": 3} | _NO_LAMBDA),
    ("return lower bound in place of Q(λ)", "ours", {"lower_bound": True} | _NO_LAMBDA),
    ("no imitation of rare successes", "ours", {"self_imitation": False}),
    ("ε-greedy in place of UCB", "ours", {"exploration": "epsilon", "exploration_kwargs": {}}),
    ("Boltzmann in place of UCB", "ours", {"exploration": "boltzmann", "exploration_kwargs": _COOLING}),
    ("no look back (n_gram 1)", "ours", {"policy_kwargs": {"n_gram": 1}}),
    ("softmax attention in place of the Performer", "ours-transformer", {}),
    ("GRU in place of the Performer", "ours-gru", {}),
    ("half the updates", "ours", {"updates_per_step": 0.01}),
    ("twice the updates", "ours", {"updates_per_step": 0.04}),
    ("2 layers", "ours", {"policy_kwargs": {"n_layers": 2}}),
    ("width 128", "ours", {"policy_kwargs": {"features_dim": 128}}),
)
"""What is tested, the agent, and its arguments that differ from :data:`BASE`."""
_NOT_OF_ENCODER = {
    "ours-transformer": ("feature_map",),
    "ours-gru": ("feature_map", "n_gram"),
}
ABLATION_TASKS: tuple[tuple[str, int], ...] = (
    (REVERSE, 20_000),
    ("TextGen/Sort-v0", 20_000),
    ("TextGen/Addition-v0", 20_000),
    ("TextGen/Brackets-Sparse-v0", 30_000),
)
"""Task and environment steps: dense and sparse rewards; all deterministic, for the lower bound.

216 cells, some ten seconds each. Chance succeeds once in 120 episodes of the sparse task, so that it can tell agents
apart within its steps. A task that nobody learns in so many steps, as ``Keywords-Easy`` in the table, could not.
"""


def ablation(seeds: Iterable[int] = SEEDS) -> dict[str, tuple[Cell, ...]]:
    """Variant → its cells, on every task; what an encoder has not is left out."""
    variants = {}
    for name, agent, change in ABLATION:
        arguments = _changed(change)
        for unknown in _NOT_OF_ENCODER.get(agent, ()):
            del arguments["policy_kwargs"][unknown]
        variants[name] = tuple(
            Cell(agent, task, seed, agent_kwargs=arguments, budget_steps=steps)
            for seed in seeds
            for task, steps in ABLATION_TASKS
        )
    return variants


def _changed(change: dict[str, Any]) -> dict[str, Any]:
    """The base with a change; of ``policy_kwargs`` only what it names."""
    policy = BASE["policy_kwargs"] | change.get("policy_kwargs", {})
    return BASE | change | {"policy_kwargs": policy}
