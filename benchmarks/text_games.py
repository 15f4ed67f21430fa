"""Agents on other libraries' games: ``python -m benchmarks.text_games [--steps 5000] [--seeds 3] [--json FILE]``.

Stable-Baselines3's PPO and DoubleDQN train on games of GEM and TextArena, each for the same steps, and play
greedily on fresh seeds beside random actions. It needs ``pip install gem-llm==0.1.0 textarena==0.7.4``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from agents import DoubleDQN
from agents.saving.files import versions
from agents.saving.json_lines import append
from textgym.adapters.text_games import from_gem, from_textarena
from textgym.tokenizers import CharacterTokenizer
from textgym.wrappers import TokenizeObservation

GAMES: dict[str, Callable[[], gym.Env[Any, Any]]] = {
    "GEM `game:FifteenPuzzle-v0-easy`": lambda: from_gem(
        "game:FifteenPuzzle-v0-easy",
        [f"\\boxed{{{move}}}" for move in ("up", "down", "left", "right")],
        CharacterTokenizer("_123 \n"),
        context_length=32,
    ),
    "TextArena `Blackjack-v0`": lambda: from_textarena(
        "Blackjack-v0", ["[hit]", "[stand]"], CharacterTokenizer("0123456789AJQK: \n"), context_length=32
    ),
    "TextArena `FrozenLake-v0`": lambda: from_textarena(
        "FrozenLake-v0", ["[up]", "[down]", "[left]", "[right]"], CharacterTokenizer("PHG |\n"), context_length=300
    ),
}
"""What is trained on: the end of the last reply, as characters; those that say nothing are unknown to the tokenizer."""
LIMIT = 100
"""Steps of an episode, after which it is cut."""
_N_ENVS = 8
_EPISODES = 200


def ppo(envs: Any, seed: int) -> BaseAlgorithm:
    """PPO with shorter rollouts and a higher rate than its defaults, which are meant for longer runs."""
    return PPO("MlpPolicy", envs, n_steps=64, batch_size=64, learning_rate=1e-3, seed=seed, device="cpu")


def double_dqn(envs: Any, seed: int) -> BaseAlgorithm:
    """DoubleDQN that begins to learn after 500 steps, at the same rate."""
    return DoubleDQN("MlpPolicy", envs, learning_starts=500, learning_rate=1e-3, seed=seed, device="cpu")


def cut(make: Callable[[], gym.Env[Any, Any]]) -> gym.Env[Any, Any]:
    """A game whose episodes end after :data:`LIMIT` steps, with token ids as categories: agents see them one-hot."""
    env = make()
    assert isinstance(env, TokenizeObservation)
    space = spaces.MultiDiscrete(np.full(env.context_length, env.pad_id + 1))
    return gym.wrappers.TransformObservation(gym.wrappers.TimeLimit(env, LIMIT), np.int64, space)


def random_return(make: Callable[[], gym.Env[Any, Any]], episodes: int = _EPISODES) -> float:
    """Mean return of random actions."""
    env, total = cut(make), 0.0
    env.action_space.seed(0)
    for seed in range(episodes):
        env.reset(seed=seed)
        over = False
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total += float(reward)
            over = terminated or truncated
    return total / episodes


def trained_return(
    make: Callable[[], gym.Env[Any, Any]],
    agent: Callable[[Any, int], BaseAlgorithm],
    steps: int,
    seed: int,
    episodes: int = _EPISODES,
) -> tuple[float, float]:
    """Mean return on fresh seeds after training, greedily, and the seconds that training took."""
    envs = make_vec_env(lambda: cut(make), n_envs=_N_ENVS, seed=seed)
    begun = time.perf_counter()
    model = agent(envs, seed).learn(steps)
    seconds = time.perf_counter() - begun
    fresh = make_vec_env(lambda: cut(make), n_envs=_N_ENVS, seed=10_000)
    mean, _ = evaluate_policy(model, fresh, n_eval_episodes=episodes)
    return float(np.mean(mean)), seconds


def measure(steps: int, seeds: int, episodes: int = _EPISODES) -> dict[str, Any]:
    """All games: random return, and mean, range and seconds of each agent."""
    rows = {}
    for name, make in GAMES.items():
        row: dict[str, Any] = {"random": random_return(make, episodes)}
        for label, agent in (("PPO", ppo), ("DoubleDQN", double_dqn)):
            runs = [trained_return(make, agent, steps, seed, episodes) for seed in range(seeds)]
            row[label] = {"returns": [mean for mean, _ in runs], "seconds": round(sum(s for _, s in runs) / seeds, 1)}
        rows[name] = row
    return {"name": "text games", "steps": steps, "episodes": episodes, "games": rows, "versions": versions()}


def table(result: dict[str, Any]) -> str:
    """A measurement as Markdown: the mean over the seeds, their range, and the seconds of a run."""
    lines = ["| game | random | PPO | DoubleDQN |", "|---|---:|---:|---:|"]
    for name, row in result["games"].items():
        cells = [
            f"{np.mean(returns := row[label]['returns']):.2f} ({min(returns):.2f}–{max(returns):.2f}), "
            f"{row[label]['seconds']:.0f} s"
            for label in ("PPO", "DoubleDQN")
        ]
        lines.append(f"| {name} | {row['random']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5_000, help="environment steps of each run")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each agent on each game")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the record to JSON lines")
    given = parser.parse_args(arguments)
    for name in ("steps", "seeds"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(given, name)}")
    torch.set_num_threads(1)
    result = measure(given.steps, given.seeds)
    if given.json is not None:
        append(given.json, result)
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
