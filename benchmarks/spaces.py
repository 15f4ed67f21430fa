"""What is searched when an agent is tuned: the arguments that each is known to be sensitive to. Data only."""

from __future__ import annotations

from typing import Any

from agents.tuning import DEFAULT_SPACE

_GAMMA: list[float] = [0.9, 0.99, 1.0]
_LEARNING_RATE: dict[str, Any] = {"low": 5e-5, "high": 5e-3, "log": True}
_OURS: dict[str, Any] = {
    **DEFAULT_SPACE,
    # Without the ends of the default space at which a trial takes minutes.
    "updates_per_step": {"low": 0.005, "high": 0.08, "log": True},
    "policy_kwargs.features_dim": [32, 64],
}
_OURS_ENCODER: dict[str, Any] = {
    "learning_rate": {"low": 2e-4, "high": 1e-2, "log": True},
    "updates_per_step": {"low": 0.005, "high": 0.08, "log": True},
    "tau": {"low": 2e-3, "high": 0.1, "log": True},
    "n_steps": [1, 3],
    "exploration": ["ucb", "epsilon", "boltzmann"],
    "gamma": _GAMMA,
}
_PPO: dict[str, Any] = {
    "learning_rate": _LEARNING_RATE,
    "n_steps": [16, 32, 64, 128],
    "batch_size": [64, 128, 256, 512],
    "n_epochs": {"low": 1, "high": 10, "log": True},
    "ent_coef": {"low": 1e-4, "high": 0.1, "log": True},
    "gae_lambda": {"low": 0.8, "high": 1.0},
    "gamma": _GAMMA,
}
_A2C: dict[str, Any] = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "n_steps": [4, 8, 16, 32],
    "ent_coef": {"low": 1e-4, "high": 0.1, "log": True},
    "gae_lambda": {"low": 0.8, "high": 1.0},
    "vf_coef": {"low": 0.1, "high": 1.0},
    "gamma": _GAMMA,
}
_DQN: dict[str, Any] = {
    "learning_rate": _LEARNING_RATE,
    "batch_size": [32, 64, 128, 256],
    "gradient_steps": {"low": 1, "high": 16, "log": True},
    "target_update_interval": {"low": 100, "high": 10_000, "log": True},
    "exploration_fraction": {"low": 0.05, "high": 0.5},
    "gamma": _GAMMA,
}
_COMPRESSED: dict[str, Any] = {
    "latent_dim": [4, 8, 16, 32],
    "auxiliary_coefficient": {"low": 0.01, "high": 10.0, "log": True},
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
}
SPACES: dict[str, dict[str, Any]] = {
    "ours": _OURS,
    "ours-transformer": _OURS_ENCODER,
    "ours-gru": _OURS_ENCODER,
    "ours-transitions": _DQN | {"n_steps": [1, 3]},
    "ours-mlp": _DQN | {"n_steps": [1, 3]},
    "ours-compressed": _COMPRESSED,
    "ppo-performer": _PPO,
    "ppo-mlp": _PPO,
    "maskable-ppo-mlp": _PPO,
    "recurrent-ppo-mlp": _PPO,
    "a2c-performer": _A2C,
    "a2c-mlp": _A2C,
    "dqn-performer": _DQN,
    "dqn-mlp": _DQN,
    "qrdqn-performer": _DQN,
    "qrdqn-mlp": _DQN,
}
"""Agent → its space, in the form of :class:`agents.hyperparam_opt.Space`; six or seven dimensions for each."""
TABLE_SPACES: dict[str, dict[str, Any]] = SPACES | {"ours": _OURS_ENCODER}
"""The same for agents of the table. Ours has neither a size of the network to choose, as no other agent has, nor the
return lower bound, which games with a hidden secret do not allow."""
SEARCH_SPACE: dict[str, Any] = {
    "learning_rate": {"low": 7e-4, "high": 6e-3, "log": True},
    "updates_per_step": {"low": 0.008, "high": 0.06, "log": True},
    "tau": {"low": 2e-3, "high": 0.1, "log": True},
    "q_lambda": [0.0, 0.5, 0.9],
    "gamma": [0.97, 0.99, 1.0],
    "priority_alpha": [0.0, 0.6, 0.9],
    "best_share": [0.0, 0.1, 0.3],
    "exploration_kwargs.coefficient": {"low": 0.02, "high": 0.3, "log": True},
    "policy_kwargs.n_layers": [1, 2],
    "policy_kwargs.n_gram": [1, 2, 3],
    "policy_kwargs.features_dim": [32, 64, 128],
    "policy_kwargs.feature_map": ["softmax", "relu"],
}
"""What decides how much our agent learns in a few seconds, for ``python -m benchmarks tune-defaults``; λ falls from the
value here to 0."""
