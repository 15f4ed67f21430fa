"""``python -m benchmarks.star_graph``: the path-star task, ours beside cloning and MaskablePPO.

All get the same encoder (with ``--plain``, from the usual weights rather than ``mimetic`` ones), the same processor
seconds on one thread and the same fresh prompts for evaluation. Cloning learns from the oracle's paths, the other two
from the environment alone. Results are JSON lines, one a run; of several with the same name, the last counts.
"""

from __future__ import annotations

import json
import platform
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from agents import DoubleDQN, TransformerExtractor, learn_from_text, make_vec_env, validate
from agents.saving.files import versions
from agents.saving.json_lines import append
from benchmarks.baselines import PPO_ARGUMENTS, UNLIMITED_STEPS
from benchmarks.clock import TrainingClock, let_schedules_follow
from benchmarks.run import EVALUATION_SEED
from textgym import demonstrations

TASK = "TextGen/StarGraph-v0"
DEFAULT_OUTPUT = Path("results/star_graph.jsonl")
AGENTS = ("ours", "cloning", "ppo")
EVALUATION_EPISODES = 1_024
EVALUATIONS = 8
N_ENVS = 64
DEMONSTRATIONS = 60_000


def learning_rate(progress: float) -> float:
    """Learning rate of ours and, as it has no end, the constant one of cloning, given the remaining progress."""
    return 2e-3 * min(1.0, 3 * progress)


OURS: dict[str, Any] = {
    "learning_rate": learning_rate,
    "batch_size": 32,
    "gamma": 1.0,
    "q_lambda": 1.0,  # Monte Carlo: what an arm is worth, not what the network thinks of it
    "best_share": 0.4,  # else one success in `degree`: a supervised probe stayed at chance without more of them
    "prioritized_replay": False,
    "dueling": False,
    "updates_per_step": 0.012,  # together with the two above, in place of 0.03: left chance on seed 0; not told apart
    "exploration": "epsilon",
    "exploration_initial_eps": 1.0,
    "exploration_final_eps": 0.5,
}
"""Arguments of ours; cloning has the learning rate and the batch size, too."""


def encoder_arguments(path_length: int, mimetic: bool) -> dict[str, Any]:
    """A layer for each edge of a path, and one that reads what the others found."""
    shape = {"n_layers": path_length, "n_heads": 1, "feedforward_mult": 2, "n_gram": 2}
    return {"features_dim": 64, "mimetic": mimetic, **shape}


class SuccessRates(BaseCallback):
    """Evaluates as the seconds of training go by, and ends the training when they are over.

    Args:
        budget: Processor seconds of training.
        success_rate: Evaluates the agent.

    Attributes:
        curve: Seconds and success rate of each evaluation.
    """

    def __init__(self, budget: float, success_rate: Callable[[], float]) -> None:
        super().__init__()
        self.budget, self.success_rate = budget, success_rate
        self.curve: list[tuple[float, float]] = []
        self.clock = TrainingClock()

    def record(self) -> None:
        """Evaluate now."""
        seconds = round(self.clock.seconds(), 1)
        with self.clock.stopped():
            self.curve.append((seconds, self.success_rate()))

    def share(self) -> float:
        """Evaluate if it is time to; the share of the seconds that is used."""
        share = self.clock.seconds() / self.budget
        if share < 1 and share * EVALUATIONS >= len(self.curve) + 1:
            self.record()
        return share

    def _on_step(self) -> bool:
        share = self.share()
        let_schedules_follow(self.model, share)
        return share < 1


def run(
    agent: str,
    degree: int = 5,
    path_length: int = 5,
    nodes: int = 50,
    masked: bool = True,
    mimetic: bool = True,
    seed: int = 0,
    seconds: float = 600.0,
) -> dict[str, Any]:
    """Train an agent for so many processor seconds, and evaluate it greedily on fresh prompts.

    Args:
        agent: One of :data:`AGENTS`.
        degree: Argument of the task.
        path_length: Argument of the task.
        nodes: Argument of the task.
        masked: Argument of the task.
        mimetic: Argument of the encoder.
        seed: Seed of the training.
        seconds: Processor seconds (> 0).

    Returns:
        Plain JSON values.

    Raises:
        ValueError: If the agent is unknown, the seconds are not positive, or an argument of the task is out of range.
    """
    if agent not in AGENTS:
        raise ValueError(f"agent must be one of {', '.join(AGENTS)}, got {agent!r}")
    if seconds <= 0:
        raise ValueError(f"seconds must be positive, got {seconds}")
    task = {"degree": degree, "path_length": path_length, "nodes": nodes, "masked": masked}
    env = make_vec_env(TASK, n_envs=N_ENVS, seed=seed, env_kwargs=task)
    unseen = make_vec_env(TASK, n_envs=256, env_kwargs=task)
    encoder = encoder_arguments(path_length, mimetic)
    model: BaseAlgorithm
    if agent == "ppo":
        extractor = {"features_extractor_class": TransformerExtractor, "features_extractor_kwargs": encoder}
        algorithm = MaskablePPO if masked else PPO
        policy_kwargs = {**extractor, "net_arch": []}
        model = algorithm("MlpPolicy", env, seed=seed, device="cpu", policy_kwargs=policy_kwargs, **PPO_ARGUMENTS)
    else:
        own: dict[str, Any] = {**OURS, "buffer_size": DEMONSTRATIONS * path_length}
        model = DoubleDQN("TransformerPolicy", env, seed=seed, device="cpu", policy_kwargs=encoder, **own)
    texts = demonstrations(TASK, DEMONSTRATIONS, seed=seed, **task) if agent == "cloning" else None

    def success_rate() -> float:
        returns = validate.evaluate(model, unseen, EVALUATION_EPISODES, seed=EVALUATION_SEED).returns
        return float(returns.mean())

    rates = SuccessRates(seconds, success_rate)
    if agent == "cloning":
        assert isinstance(model, DoubleDQN)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that logits are no values, which nobody takes them for here
            learn_from_text(
                model, texts, objective="bc", steps=UNLIMITED_STEPS, callback=lambda _progress: rates.share() < 1
            )
    else:
        model.learn(UNLIMITED_STEPS, callback=rates)
    rates.record()
    env.close()
    unseen.close()
    start = "mimetic" if mimetic else "plain"
    return {
        "name": f"{agent}_{start}_degree{degree}_path{path_length}_nodes{nodes}_masked{masked:d}_seed{seed}",
        "agent": agent,
        **task,
        "mimetic": mimetic,
        "seed": seed,
        "budget_seconds": seconds,
        "seconds": rates.curve[-1][0],
        "steps": model.num_timesteps,
        "texts": DEMONSTRATIONS if agent == "cloning" else model.num_timesteps // path_length,
        "success_rate": rates.curve[-1][1],
        "episodes": EVALUATION_EPISODES,
        "curve": rates.curve,
        "threads": torch.get_num_threads(),
        "machine": platform.platform(),
        "versions": versions(),
    }


def main(
    degree: Annotated[int, typer.Option(min=2, help="Arms of the star.")] = 5,
    path_length: Annotated[int, typer.Option(min=2, help="Nodes of a path, the centre included.")] = 5,
    nodes: Annotated[int, typer.Option(help="Number of different labels.")] = 50,
    unmasked: Annotated[bool, typer.Option("--unmasked", help="Every token is legal in every state.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="The encoder starts from its usual weights.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the training.")] = 0,
    seconds: Annotated[float, typer.Option(help="Processor seconds of each run.")] = 600.0,
    only: Annotated[str, typer.Option(help=f"One of: {', '.join(AGENTS)}; all of them unless given.")] = "",
    out: Annotated[Path, typer.Option(help="JSON lines.")] = DEFAULT_OUTPUT,
) -> None:
    """Run ours, cloning and PPO, one after the other; each is saved once it is finished."""
    torch.set_num_threads(1)
    for agent in [only] if only else AGENTS:
        result = run(agent, degree, path_length, nodes, not unmasked, not plain, seed, seconds)
        print(json.dumps(result), flush=True)
        append(out, result)


if __name__ == "__main__":
    typer.run(main)
