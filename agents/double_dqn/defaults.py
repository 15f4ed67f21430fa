"""Defaults of :class:`agents.DoubleDQN` that depend on what it learns from: data only."""

from __future__ import annotations

from typing import Any, NamedTuple


class Default(NamedTuple):
    """Value of an argument that was left at None.

    Attributes:
        sequences: With a causal encoder, on whole episodes of tokens; units as in :class:`agents.DoubleDQN`.
        transitions: On any other environment: that of Stable-Baselines3's ``DQN``.
    """

    sequences: Any
    transitions: Any


DEFAULTS: dict[str, Default] = {
    "learning_rate": Default(1e-3, 1e-4),
    "buffer_size": Default(100_000, 1_000_000),
    "learning_starts": Default(1_000, 100),
    "batch_size": Default(64, 32),
    "tau": Default(0.01, 1.0),
    "train_freq": Default(1, 4),
    "updates_per_step": Default(0.04, None),  # None: gradient_steps=1 for each train_freq, as DQN does
    "dueling": Default(True, None),  # None: wherever the policy is one of ours
    "prioritized_replay": Default(True, None),  # None: wherever the replay buffer is one of ours
    "exploration": Default("ucb", "epsilon"),
    "exploration_final_eps": Default(0.02, 0.05),
    "target_update_interval": Default(1, 10_000),
    "loss": Default("huber", "huber"),
    "keep_best": Default(False, False),
    "priority_beta_final": Default(1.0, 1.0),
}


def with_defaults(path: str, arguments: dict[str, Any], from_file: bool = False) -> dict[str, Any]:
    """The arguments, with defaults in place of None.

    Args:
        path: ``"sequences"`` or ``"transitions"``.
        arguments: Values of all arguments in :data:`DEFAULTS`.
        from_file: Whether a file is being read, which names all arguments that existed when it was written.
    """
    arguments = {name: BEFORE.get(name) if from_file and value is None else value for name, value in arguments.items()}
    return {
        name: getattr(default, path) if arguments[name] is None else arguments[name]
        for name, default in DEFAULTS.items()
    }


BEFORE: dict[str, Any] = {"loss": "huber", "keep_best": False, "best_share": 0.0, "priority_beta_final": 1.0}
"""What arguments were before they existed: files of models and of runs that do not name them are from that time."""
