"""Defaults of :class:`agents.DoubleDQN` that depend on what it learns from: data only."""

from __future__ import annotations

from typing import Any, NamedTuple

SAME = "as on sequences"


class Default(NamedTuple):
    """Value of an argument that was left at None.

    Attributes:
        sequences: With a causal encoder, on whole episodes of tokens; units as in :class:`agents.DoubleDQN`.
        transitions: On any other environment: that of Stable-Baselines3's ``DQN``.
        language_models: With a language model as the trunk; :data:`SAME` is that on sequences.
    """

    sequences: Any
    transitions: Any
    language_models: Any = SAME


DEFAULTS: dict[str, Default] = {
    "learning_rate": Default(2e-3, 1e-4, 1e-3),
    "buffer_size": Default(100_000, 1_000_000),
    "learning_starts": Default(1_000, 100),
    "batch_size": Default(None, 32, 64),  # None: see default_batch_size
    "tau": Default(0.01, 1.0),
    "train_freq": Default(1, 4),
    "updates_per_step": Default(0.02, None, 0.04),  # None: gradient_steps=1 for each train_freq, as DQN does
    "dueling": Default(True, None),  # None: wherever the policy is one of ours
    "prioritized_replay": Default(True, None),  # None: wherever the replay buffer is one of ours
    "exploration": Default("ucb", "epsilon"),
    "exploration_final_eps": Default(0.02, 0.05),
    "target_update_interval": Default(1, 10_000),
    "loss": Default(None, "huber", "huber"),  # None: cross-entropy where the range of returns is known
    "keep_best": Default(True, False, False),
    "self_imitation": Default(True, False, False),
    "priority_beta": Default(0.0, 0.4, 0.4),
    "priority_beta_final": Default(0.0, 1.0, 1.0),
}
Q_LAMBDA = 0.9, 0.0
"""λ on sequences at the start of the training and at its end, where neither ``n_steps`` nor ``lower_bound`` carries
rewards over several tokens: first they reach the first token at once, in the end targets suffer less from what
exploration did later."""
ENCODER = {"n_layers": 1, "n_gram": 2}
"""Arguments of an attention encoder on sequences, unless ``policy_kwargs`` say; its own defaults are 2 and 1."""
BATCH_TOKENS, BATCH_ROWS = 1_024, (16, 64)
"""About how many tokens an update reads on sequences, and between how many episodes that may be."""


def default_batch_size(context_length: int) -> int:
    """Episodes of an update on sequences: as many as make up :data:`BATCH_TOKENS`, so that it costs about the same.

    Args:
        context_length: Most tokens of an episode.
    """
    fewest, most = BATCH_ROWS
    return min(max(BATCH_TOKENS // context_length, fewest), most)


def defaults_of(path: str) -> dict[str, Any]:
    """The defaults of a field of :class:`Default`, given its name."""
    values = {name: getattr(default, path) for name, default in DEFAULTS.items()}
    return {name: DEFAULTS[name].sequences if value is SAME else value for name, value in values.items()}


def with_defaults(path: str, arguments: dict[str, Any], from_file: bool = False) -> dict[str, Any]:
    """The arguments, with defaults in place of None.

    Args:
        path: Name of a field of :class:`Default`.
        arguments: Values of all arguments in :data:`DEFAULTS`.
        from_file: Whether a file is being read, which names all arguments that existed when it was written.
    """
    defaults = defaults_of(path) | (BEFORE if from_file else {})
    return {name: defaults[name] if arguments[name] is None else arguments[name] for name in DEFAULTS}


BEFORE: dict[str, Any] = {
    **{"loss": "huber", "keep_best": False, "best_share": 0.0, "priority_beta_final": 1.0},
    "self_imitation": False,
}
"""What arguments were before they existed: files of models and of runs that do not name them are from that time."""


def as_before(arguments: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a run, as its own file names them, with what the defaults behind them were when it was written.

    Args:
        arguments: Name → value; a run of today names all of today's arguments, and they are left alone.
    """
    if "loss" in arguments:
        return {"self_imitation": False, **arguments}
    completed = {**BEFORE, **arguments}
    completed["policy_kwargs"] = {"n_layers": 2, "n_gram": 1, **(arguments.get("policy_kwargs") or {})}
    if arguments.get("q_lambda") is None and arguments.get("n_steps", 1) == 1:
        completed["q_lambda"] = 0.0
    if arguments.get("exploration") == "ucb":
        completed["exploration_kwargs"] = {"coefficient": 0.02, **(arguments.get("exploration_kwargs") or {})}
    return completed
