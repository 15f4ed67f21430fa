"""``python -m benchmarks.steering --model DIR``: what steering a language model is worth, and what it costs.

Every method has the same model, prompts, reward and number of generated tokens, and is then sampled on prompts that no
training saw: mean reward against the KL divergence from the plain model, exact at every token. Beside them stands the
best of n plain samples, whose divergence is at most log n − (n − 1)/n. A line of the results is a point; what is there
already is not measured again. One thread; seconds are those of the processor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from agents.pruning.language_model import load_language_model
from agents.saving.json_lines import append, read
from benchmarks.clock import TrainingClock
from benchmarks.comparison import print_table
from benchmarks.steering_methods import LENGTH, METHODS, Task
from benchmarks.steering_policies import Plain, Policy, Samples, sample
from benchmarks.steering_tasks import REWARDS, judge_by, prompts
from textgym.language_models import HuggingFaceLM
from textgym.rewards import RewardFunction

app = typer.Typer(add_completion=False)
Row = dict[str, Any]
RESULTS = Path("results/steering.jsonl")
BEST_OF = (1, 2, 4, 8, 16)
SEEDS = (0, 1, 2)
TOKENS = 60_000
EVALUATION_SEED = 1_000_000


@app.command()
def main(
    model: Annotated[Path, typer.Option(help="Local directory of a causal language model and its tokenizer.")],
    out: Annotated[Path, typer.Option(help="File of the results, JSON lines.")] = RESULTS,
    only: Annotated[
        str, typer.Option(help="Only cells whose name matches, as in 'ours_*' or '*_positive_seed0'.")
    ] = "*",
    tokens: Annotated[int, typer.Option(min=1, help="That each method may generate in training.")] = TOKENS,
    n_held_out: Annotated[int, typer.Option(min=1, help="Prompts to be sampled on.")] = 64,
    plain_samples: Annotated[int, typer.Option(min=1, help="Plain texts for each of them.")] = 32,
    samples: Annotated[int, typer.Option(min=2, help="Texts for each of them of any other policy.")] = 4,
) -> None:
    """Train every method on every reward with every seed, and sample what it learned on other prompts."""
    torch.set_num_threads(1)
    language_model = load_language_model(model)
    judge_by(language_model)
    training, held_out = prompts()
    held_out = held_out[:: max(1, len(held_out) // n_held_out)][:n_held_out]
    done = {row["cell"] for row in read(out)}
    names = [f"{method}_{reward}_seed{seed}" for seed in SEEDS for reward in REWARDS for method in METHODS]
    wanted = [name for name in names if fnmatch(name, only) and name not in done]
    plain_cells = [f"plain_{reward}" for reward in REWARDS if fnmatch(f"plain_{reward}", only)]
    plain_cells = [name for name in plain_cells if name not in done]
    if plain_cells:
        drawn = sample(
            Plain(language_model), language_model, held_out * plain_samples, LENGTH, EVALUATION_SEED, rows_at_once=128
        )
        for name in plain_cells:
            points = plain_points(drawn, REWARDS[name.removeprefix("plain_")], len(held_out))
            append(out, {"cell": name, "points": points})
            print_table(name, points)
    for name in wanted:
        method, reward, seed = name.split("_")
        task = Task(language_model, REWARDS[reward], training, tokens, int(seed.removeprefix("seed")))
        points, training_clock = [], TrainingClock()
        for point, policy in METHODS[method](task):
            before = training_clock.stopped_seconds
            with training_clock.stopped():
                points.append({"point": point, **measured(policy, language_model, held_out, task.reward, samples)})
            sampling = training_clock.stopped_seconds - before
            points[-1]["tokens/s"] = round(len(held_out) * samples * LENGTH / sampling, 1)
        seconds = round(training_clock.seconds(), 1)
        append(out, {"cell": name, "tokens": tokens, "seconds": seconds, "points": points})
        print_table(name, points)


def measured(
    policy: Policy, model: HuggingFaceLM, held_out: Sequence[str], reward: RewardFunction, samples: int
) -> Row:
    """A point: mean reward of one sample and of the best of several, divergence, and the plain model's perplexity."""
    drawn = sample(policy, model, [*held_out] * samples, LENGTH, EVALUATION_SEED + 1)
    rewards = rewards_of(drawn, reward, len(held_out))
    return {
        "reward": float(rewards.mean()),
        "standard error": float(rewards.mean(axis=0).std(ddof=1) / math.sqrt(len(held_out))),
        f"best of {samples}": best_of(rewards, samples),
        "nats": float(drawn.nats.mean()),
        "perplexity": drawn.perplexity,
    }


def plain_points(drawn: Samples, reward: RewardFunction, n_prompts: int) -> list[Row]:
    """Points of the plain model, and of the best of n of its samples."""
    rewards = rewards_of(drawn, reward, n_prompts)
    return [
        {
            "point": f"best of {n}",
            "reward": best_of(rewards, n),
            "nats": math.log(n) - (n - 1) / n,
            **({"perplexity": drawn.perplexity} if n == 1 else {}),
        }
        for n in BEST_OF
        if n <= len(rewards)
    ]


def rewards_of(drawn: Samples, reward: RewardFunction, n_prompts: int) -> NDArray[np.float64]:
    """Rewards of samples that went through the prompts again and again, shape (samples, prompts)."""
    return np.asarray(reward(drawn.prompts, drawn.texts), np.float64).reshape(-1, n_prompts)


def best_of(rewards: NDArray[np.float64], n: int) -> float:
    """Mean over prompts of the expected largest of n of their samples, drawn without replacement.

    Args:
        rewards: Shape (samples, prompts).
        n: From 1 to the number of samples.
    """
    ordered = np.sort(rewards, axis=0)
    m = len(ordered)
    # The k-th smallest is the largest of n in C(k − 1, n − 1) of C(m, n) choices.
    chances = np.array([math.comb(k, n - 1) / math.comb(m, n) for k in range(m)])
    return float((chances[:, None] * ordered).sum(axis=0).mean())


if __name__ == "__main__":
    app()
