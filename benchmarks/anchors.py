"""``python -m benchmarks.anchors``: DoubleDQN beside SB3's DQN on environments that everybody knows.

Both get the same environments, the same networks and the same budget: RL Zoo's hyperparameters of DQN for CartPole and
Acrobot, which were tuned for SB3's DQN, and plain ones for a MinAtar game (arXiv:1903.03176), ``pip install minatar``.
Ours has its enhancements on top, untuned. Results are JSON lines, one a run; of several with the same name, the last
counts.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from agents import DoubleDQN
from agents.saving.files import versions
from agents.saving.json_lines import append

DEFAULT_OUTPUT = Path("results/anchors.jsonl")
EVALUATION_EPISODES = 100
EVALUATION_SEED = 1_000_000
_EVALUATION_ROWS = 10
_MINATAR_STEP_LIMIT = 1_000  # the game itself has none

ENHANCEMENTS: dict[str, Any] = {"double_q": True, "dueling": True, "prioritized_replay": True, "n_steps": 3}
"""What ours has on top."""


class MinAtar(gym.Env[NDArray[np.uint8], np.int64]):
    """A MinAtar game with its minimal actions; observations are ``(channels, 10, 10)``, 0 or 1.

    Args:
        game: ``"breakout"``, ``"asterix"`` …

    Raises:
        ImportError: If the package ``minatar`` is missing.
    """

    def __init__(self, game: str = "breakout") -> None:
        try:
            minatar = importlib.import_module("minatar")
        except ImportError as error:
            raise ImportError("MinAtar games need the package minatar: pip install minatar") from error
        self.game = minatar.Environment(game)
        self.actions = self.game.minimal_action_set()
        height, width, channels = self.game.state_shape()
        # uint8 with a maximum of 1 is no image to SB3, so nothing is divided by 255.
        self.observation_space = spaces.Box(0, 1, (channels, height, width), np.uint8)
        self.action_space = spaces.Discrete(len(self.actions))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start a new game; a seed goes to the game's own random state."""
        super().reset(seed=seed)
        if seed is not None:
            self.game.seed(seed)
        self.game.reset()
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Act once."""
        reward, terminated = self.game.act(self.actions[int(action)])
        return self._observation(), float(reward), bool(terminated), False, {}

    def _observation(self) -> NDArray[np.uint8]:
        return self.game.state().transpose(2, 0, 1).astype(np.uint8)


class MinAtarExtractor(BaseFeaturesExtractor):
    """The convolution of the MinAtar paper: 16 filters of 3 × 3, and a layer of 128.

    Args:
        observation_space: That of :class:`MinAtar`.
    """

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, features_dim=128)
        channels, height, width = observation_space.shape
        filtered = 16 * (height - 2) * (width - 2)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, kernel_size=3), nn.ReLU(), nn.Flatten(), nn.Linear(filtered, 128), nn.ReLU()
        )

    def forward(self, observations: Tensor) -> Tensor:
        """``(B, channels, 10, 10)`` → ``(B, 128)``."""
        return self.layers(observations)


@dataclass(frozen=True)
class Anchor:
    """A task with the hyperparameters that both agents get.

    Attributes:
        env: Makes the environment.
        steps: Environment steps of training.
        arguments: Arguments of ``DQN`` and of ``DoubleDQN``.
    """

    env: Callable[[], gym.Env[Any, Any]]
    steps: int
    arguments: dict[str, Any]


ANCHORS: dict[str, Anchor] = {
    "CartPole-v1": Anchor(
        lambda: gym.make("CartPole-v1"),
        50_000,
        {
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1_000,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    ),
    "Acrobot-v1": Anchor(
        lambda: gym.make("Acrobot-v1"),
        100_000,
        {
            "learning_rate": 6.3e-4,
            "batch_size": 128,
            "buffer_size": 50_000,
            "learning_starts": 0,
            "target_update_interval": 250,
            "train_freq": 4,
            "gradient_steps": -1,
            "exploration_fraction": 0.12,
            "exploration_final_eps": 0.1,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    ),
    "MinAtar-breakout": Anchor(
        lambda: TimeLimit(MinAtar("breakout"), _MINATAR_STEP_LIMIT),
        150_000,
        {
            "learning_rate": 2.5e-4,
            "batch_size": 32,
            "buffer_size": 100_000,
            "learning_starts": 5_000,
            "target_update_interval": 1_000,
            "train_freq": 4,
            "gradient_steps": 1,
            "exploration_fraction": 0.5,
            "exploration_final_eps": 0.05,
            "policy_kwargs": {"net_arch": [], "features_extractor_class": MinAtarExtractor},
        },
    ),
}

AGENTS: dict[str, tuple[type[DQN], dict[str, Any]]] = {"sb3-dqn": (DQN, {}), "ours": (DoubleDQN, ENHANCEMENTS)}
"""Class of each agent, and what it gets beside the anchor's arguments."""


def run(
    task: str, agent: str, seed: int, steps: int | None = None, episodes: int = EVALUATION_EPISODES
) -> dict[str, Any]:
    """Train an agent, and evaluate it deterministically on fresh episodes, the same ones for every agent.

    Args:
        task: Key of :data:`ANCHORS`.
        agent: Key of :data:`AGENTS`.
        seed: Seed of the training.
        steps: Environment steps; None for the anchor's.
        episodes: Episodes of the evaluation.

    Returns:
        Plain JSON values: returns, budget, seconds and versions.

    Raises:
        ValueError: If the task or the agent is unknown.
        ImportError: If the task needs a package that is missing.
    """
    for name, value, accepted in (("task", task, ANCHORS), ("agent", agent, AGENTS)):
        if value not in accepted:
            raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r}")
    anchor, (agent_class, extra) = ANCHORS[task], AGENTS[agent]
    env = make_vec_env(anchor.env, 1, seed=seed)
    model = agent_class("MlpPolicy", env, seed=seed, device="cpu", **{**anchor.arguments, **extra})
    started = time.perf_counter()
    model.learn(anchor.steps if steps is None else steps)
    seconds = time.perf_counter() - started
    rows = make_vec_env(anchor.env, min(_EVALUATION_ROWS, episodes), seed=EVALUATION_SEED)
    returns, lengths = evaluate_policy(model, rows, episodes, deterministic=True, return_episode_rewards=True)
    assert isinstance(lengths, list)  # one for each episode
    rows.close()
    env.close()
    return {
        "name": f"{task}_{agent}_seed{seed}",
        "task": task,
        "agent": agent,
        "seed": seed,
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "train_seconds": round(seconds, 1),
        "episodes": len(lengths),
        "mean_return": float(np.mean(returns)),
        "std_return": float(np.std(returns)),
        "enhancements": extra,
        "threads": torch.get_num_threads(),
        "machine": platform.platform(),
        "versions": versions(),
    }


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for, one line after the other; each is saved once it is finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the training (default 0)")
    parser.add_argument("--tasks", nargs="+", choices=ANCHORS, default=list(ANCHORS), help="default: all of them")
    parser.add_argument("--agents", nargs="+", choices=AGENTS, default=list(AGENTS), help="default: both")
    parser.add_argument("--steps", type=int, help="environment steps of each, instead of the anchors' own")
    parser.add_argument("--episodes", type=int, default=EVALUATION_EPISODES, help="of the evaluation (default 100)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUTPUT, help=f"JSON lines (default {DEFAULT_OUTPUT})")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for task in options.tasks:
        try:
            ANCHORS[task].env().close()  # before hours of others, not after them
        except ImportError as error:
            parser.error(f"{task}: {error}; or leave it out with --tasks")
    for seed in options.seeds:
        for task in options.tasks:
            for agent in options.agents:
                result = run(task, agent, seed, options.steps, options.episodes)
                print(json.dumps(result), flush=True)
                append(options.out, result)


if __name__ == "__main__":
    main()
