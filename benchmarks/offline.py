"""``python -m benchmarks.offline``: what is learned from text alone, and what it is worth before an environment.

Three experiments on one thread, each of which keeps a line for each run in ``results/offline.jsonl`` and never
repeats it; seconds and minutes are those of the processor, so that other work on the machine does not count:

* ``demonstrations``: 10,000 demonstrations with wrong tokens in them, every objective beside behaviour cloning.
* ``pretrain``: 2,000 clean demonstrations before a sparse task that exploration alone does not solve, with rehearsal
  of them online and without.
* ``corpus``: the next character and word of real English, beside bigram and trigram models.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from agents.application.learn_corpus import CORPUS_KWARGS
from agents.double_dqn import DoubleDQN
from agents.double_dqn.evaluation import evaluate
from agents.offline import OBJECTIVES, OfflineProgress, TextEpisodes, learn_from_text, text_to_episodes
from agents.offline.corpus import build_vocabulary, split_corpus
from agents.offline.likelihood import score_texts
from agents.saving.arguments import constructor_arguments
from agents.saving.json_lines import append, by_name
from agents.vec_env import TextGenVecEnv, make_vec_env
from benchmarks.offline_data import ngram_scores, noisy_demonstrations, standard_library_prose
from benchmarks.run import EVALUATION_SEED
from textgym import TextGenVectorEnv, demonstrations
from textgym.language_models import NGramLM

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
Out = Annotated[Path, typer.Option(help="File of the results, JSON lines.")]
RESULTS = Path("results/offline.jsonl")
Seeds = Annotated[int, typer.Option(min=1, help="Seeds 0 to SEEDS - 1.")]

AGENT: dict[str, Any] = {"learning_rate": 3e-3, "device": "cpu"}
EVALUATION_EPISODES = 256
REVERSE = "TextGen/Reverse-v0"
TASKS: dict[str, dict[str, Any]] = {
    REVERSE: {},
    "TextGen/Sort-v0": {},
    "TextGen/Keywords-v0": {"keywords": 2, "vocab_size": 300, "max_new_tokens": 8},
}
NOISES = (0.3,)
"""The right token is the most frequent one by far, so that greedy cloning filters this noise by itself, in the end."""
UPDATES = {REVERSE: 120, "TextGen/Sort-v0": 240, "TextGen/Keywords-v0": 600}
"""So many that the best objective is close to its end; the returns on the way say how fast each is."""
N_DEMONSTRATIONS, EVALUATIONS = 10_000, 6
SPARSE = {"length": 5, "dense": False}
N_CLEAN, CLEAN_UPDATES, ONLINE_STEPS = 2_000, 300, 8_000
PRETRAINED = ("demonstrations", "nothing", "no rehearsal")
CORPUS_UPDATES_LIMIT = 1_000_000
TEST_TOKENS = 20_000


@app.command("demonstrations")
def demonstrations_command(
    seeds: Seeds = 3,
    only: Annotated[str, typer.Option(help="Objectives, with commas between.")] = "",
    task: Annotated[str, typer.Option(help="Ids that contain this.")] = "",
    out: Out = RESULTS,
) -> None:
    """Every objective on noisy demonstrations of three tasks; greedy returns on fresh prompts."""
    torch.set_num_threads(1)
    objectives = only.split(",") if only else OBJECTIVES
    results = []
    for seed in range(seeds):
        for task_id, env_kwargs in TASKS.items():
            if task not in task_id:
                continue
            for noise in NOISES:
                data: list[TextEpisodes] = []  # made when a run needs it, once for all objectives
                for objective in objectives:
                    name = f"demonstrations_{task_id.rpartition('/')[2]}_{noise}_{objective}_seed{seed}"

                    def run(
                        task_id: str = task_id,
                        env_kwargs: dict[str, Any] = env_kwargs,
                        noise: float = noise,
                        objective: str = objective,
                        seed: int = seed,
                        data: list[TextEpisodes] = data,
                    ) -> dict[str, Any]:
                        if not data:
                            data.append(noisy_demonstrations(task_id, env_kwargs, N_DEMONSTRATIONS, noise, seed))
                        return learn_demonstrations(task_id, env_kwargs, noise, objective, seed, data[0])

                    results.append(_kept(out, name, run))
    table = Table(
        title=f"{N_DEMONSTRATIONS:,} demonstrations: greedy return at the end (mean of {EVALUATIONS} looks on the way)"
    )
    for column in ("task", "noise", "data", *objectives, "best"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task_id in dict.fromkeys(result["task"] for result in results):
        for noise in NOISES:
            rows = [r for r in results if r["task"] == task_id and r["noise"] == noise]
            final = {o: fmean(r["score"] for r in rows if r["objective"] == o) for o in objectives}
            area = {o: fmean(fmean(r["curve"]) for r in rows if r["objective"] == o) for o in objectives}
            cells = [f"{final[o]:.3f} ({area[o]:.3f})" for o in objectives]
            best = max(objectives, key=lambda o, final=final, area=area: (round(final[o], 3), area[o]))
            table.add_row(task_id, f"{noise:.0%}", f"{fmean(r['data_return'] for r in rows):.3f}", *cells, best)
    Console().print(table)


def learn_demonstrations(
    task_id: str, env_kwargs: dict[str, Any], noise: float, objective: str, seed: int, data: TextEpisodes
) -> dict[str, Any]:
    """One run of the first experiment."""
    env = make_vec_env(task_id, 1, seed=seed, env_kwargs=env_kwargs)
    model = DoubleDQN("PerformerPolicy", env, seed=seed, **AGENT)
    curve: list[float] = []
    updates = UPDATES[task_id]

    def look(progress: OfflineProgress) -> None:
        if progress.update * EVALUATIONS % updates == 0:
            curve.append(greedy_return(model, task_id, env_kwargs))
            model.policy.set_training_mode(True)

    seconds = _learn(model, data, objective=objective, steps=updates, batch_size=64, callback=look)
    return {
        "task": task_id,
        "env_kwargs": env_kwargs,
        "noise": noise,
        "objective": objective,
        "seed": seed,
        "data_return": float(data.rewards.sum(axis=1).mean()),
        "updates": updates,
        "curve": curve,
        "score": curve[-1],
        "seconds": seconds,
    }


@app.command()
def pretrain(
    seeds: Seeds = 3,
    only: Annotated[str, typer.Option(help="Of these (--only 'nothing,no rehearsal'), with commas between.")] = "",
    out: Out = RESULTS,
) -> None:
    """A sparse task, 5 symbols of 15 reversed, with and without demonstrations before it."""
    torch.set_num_threads(1)
    results = []
    for before in only.split(",") if only else PRETRAINED:
        for seed in range(seeds):
            name = f"pretrain_{before.replace(' ', '_')}_seed{seed}"
            results.append(_kept(out, name, partial(pretrain_then_online, before, seed)))
    table = Table(title=f"sparse Reverse, {N_CLEAN:,} demonstrations, then {ONLINE_STEPS:,} steps: greedy return")
    for column in ("before", "after the demonstrations", "after the environment", "seconds"):
        table.add_column(column, justify="left" if column == "before" else "right")
    for before in dict.fromkeys(result["before"] for result in results):
        rows = [result for result in results if result["before"] == before]
        cells = (", ".join(f"{row[key]:.3f}" for row in rows) for key in ("offline", "score"))
        table.add_row(before, *cells, f"{fmean(row['seconds'] for row in rows):.0f}")
    Console().print(table)


def pretrain_then_online(before: str, seed: int) -> dict[str, Any]:
    """One run of the second experiment.

    Args:
        before: What comes before the environment: ``"demonstrations"``; ``"nothing"``; or ``"no rehearsal"``: the
            demonstrations, which are then left to be pushed out of replay.
        seed: Of the agent and of the demonstrations.
    """
    env = make_vec_env(REVERSE, 32, seed=seed, env_kwargs=SPARSE)
    shown = before != "nothing"
    early: dict[str, Any] = {"learning_starts": 0, "exploration_initial_eps": 0.02} if shown else {}
    model = DoubleDQN("PerformerPolicy", env, seed=seed, **AGENT, **early)
    started, offline = time.process_time(), 0.0
    if shown:
        data = demonstrations(REVERSE, N_CLEAN, 2_000_000 + 100_000 * seed, **SPARSE)
        _learn(model, data, steps=CLEAN_UPDATES, rehearsal=0.0 if before == "no rehearsal" else None)
        offline = greedy_return(model, REVERSE, SPARSE)
    model.learn(ONLINE_STEPS)
    seconds = time.process_time() - started
    score = greedy_return(model, REVERSE, SPARSE)
    return {"before": before, "seed": seed, "offline": offline, "score": score, "seconds": seconds}


@app.command()
def corpus(
    minutes: Annotated[float, typer.Option(min=0.01, help="Training time of each network.")] = 5.0,
    characters: Annotated[int | None, typer.Option(help="Characters of the corpus; all by default.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the networks.")] = 0,
    out: Out = RESULTS,
) -> None:
    """The next token of the standard library's documentation: held-out accuracy beside bigrams and trigrams."""
    torch.set_num_threads(1)
    results = []
    for level in ("char", "word"):
        for method in ("bigram", "trigram", "td", "bc"):
            name = f"corpus_{level}_{method}" + (f"_{characters}" if characters else "")
            if method in OBJECTIVES:
                name += f"_{minutes:g}min_seed{seed}"

            def run(level: str = level, method: str = method) -> dict[str, Any]:
                return foretell(level, method, minutes, characters, seed)

            results.append(_kept(out, name, run))
    table = Table(
        title=f"held-out next token of the standard library's documentation; networks: {minutes:g} minutes each"
    )
    for column in ("level", "method", "accuracy", "perplexity", "seconds"):
        table.add_column(column, justify="left" if column in ("level", "method") else "right")
    for row in results:
        figures = f"{row['agreement']:.1%}", f"{row['perplexity']:.2f}", f"{row['seconds']:.0f}"
        table.add_row(row["level"], row["method"], *figures)
    Console().print(table)


def foretell(level: str, method: str, minutes: float, characters: int | None, seed: int) -> dict[str, Any]:
    """One run of the third experiment."""
    text = standard_library_prose(characters)
    learned, held_out = split_corpus(text)
    vocabulary = build_vocabulary(learned, level)
    learned, held_out = vocabulary.normalise(learned), vocabulary.normalise(held_out)
    tokenizer, started = vocabulary.tokenizer, time.process_time()
    stream = np.array(tokenizer.encode(held_out)[:TEST_TOKENS])
    result: dict[str, Any] = {"level": level, "method": method, "characters": len(text), "test_tokens": len(stream)}
    if method not in OBJECTIVES:
        model = NGramLM([learned], tokenizer, order=2 if method == "bigram" else 3)
        scores = ngram_scores(model, stream, vocabulary.unknown_id)
        return result | scores | {"seconds": time.process_time() - started}
    task = vocabulary.task()
    episodes, test = (
        text_to_episodes([part], task, window=vocabulary.window)
        for part in (learned, tokenizer.decode(stream.tolist()))
    )
    arguments = constructor_arguments(CORPUS_KWARGS | {"buffer_size": int(episodes.n_actions.sum())})
    env = TextGenVecEnv(TextGenVectorEnv(1, task))
    agent = DoubleDQN("PerformerPolicy", env, seed=seed, device="cpu", **arguments)
    began, updates = time.process_time(), 0

    def share_left() -> float:
        return max(0.0, 1.0 - (time.process_time() - began) / (60 * minutes))

    def enough(progress: OfflineProgress) -> bool:
        nonlocal updates
        updates = progress.update
        return share_left() > 0

    other_reward = None if method == "bc" else 0.0
    seconds = _learn(
        agent,
        episodes,
        objective=method,
        steps=CORPUS_UPDATES_LIMIT,
        other_reward=other_reward,
        learning_rate=lambda _: float(agent.lr_schedule(share_left())),
        callback=enough,
    )
    scores = score_texts(agent, test, vocabulary.unknown_id).summary()
    return result | scores | {"minutes": minutes, "seed": seed, "updates": updates, "seconds": seconds}


def greedy_return(model: DoubleDQN, task_id: str, env_kwargs: dict[str, Any]) -> float:
    """Mean greedy return over fresh prompts, the same ones at every call."""
    env = make_vec_env(task_id, EVALUATION_EPISODES, env_kwargs=env_kwargs)
    return float(evaluate(model, env, EVALUATION_EPISODES, seed=EVALUATION_SEED).returns.mean())


def _learn(model: DoubleDQN, data: Any, **options: Any) -> float:
    """Learn from text; the seconds it took."""
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="objective '(bc|crr)' leaves")
        learn_from_text(model, data, **options)
    return time.process_time() - started


def _kept(file: Path, name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of that name in the file, from there or from a run that adds it."""
    if (kept := by_name(file).get(name)) is not None:
        return kept
    result = {"name": name, **run()}
    append(file, result)
    headline = result.get("score", result.get("agreement"))
    Console(stderr=True).print(f"{headline:7.3f}  {name}: {result['seconds']:.0f} s", soft_wrap=True)
    return result


if __name__ == "__main__":
    app()
