"""Recompute ``textgym/references.json``: what a random, a prompt-blind and the best policy earn on every id.

Run it as ``python -m benchmarks.references [--ids ID ...]``. With ``--ids`` the other entries stay as they are.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import textgym
from agents.saving.files import write_json
from benchmarks.beam_search import best_completion
from benchmarks.keyword_search import best_text
from textgym.tasks.base import Episodes
from textgym.tasks.guess_number import GuessNumber
from textgym.tasks.keywords import Keywords
from textgym.tasks.sort import Sort
from textgym.tasks.star_graph import StarGraph
from textgym.tasks.text_generation import TextGeneration
from textgym.tasks.transduction import Transduction
from textgym.tasks.wordle import Wordle

ROWS = 1024
EPISODES_A_ROW = 20
N_CANDIDATES = 96
N_MUTATIONS = 200
N_SEARCHED = 128

Policy = Callable[[textgym.TextGenVectorEnv], NDArray[np.int64]]


def make(env_id: str) -> textgym.TextGenVectorEnv:
    """``ROWS`` rows of an id."""
    return gym.make_vec(env_id, num_envs=ROWS).unwrapped  # type: ignore[return-value]


def play(envs: textgym.TextGenVectorEnv, policy: Policy, episodes: int = 1) -> NDArray[np.float64]:
    """Returns of each row's first ``episodes`` episodes, shape ``(episodes, ROWS)``: short ones are not favoured."""
    returns = np.zeros((episodes, envs.num_envs))
    number, rows = np.zeros(envs.num_envs, np.int64), np.arange(envs.num_envs)
    while (number < episodes).any():
        counted = number < episodes
        _, rewards, terminated, _, _ = envs.step(policy(envs))
        returns[np.minimum(number, episodes - 1), rows] += rewards * counted
        number += terminated
    return returns


def legal(envs: textgym.TextGenVectorEnv, actions: NDArray[np.integer]) -> NDArray[np.int64]:
    """The actions; where one is not legal, EOS, or else the first legal token."""
    masks, eos = envs.action_masks(), envs.task.eos_id
    instead = np.where(masks[:, eos], eos, masks.argmax(axis=1))
    return np.where(masks[np.arange(len(actions)), actions], actions, instead).astype(np.int64)


def uniform(generator: np.random.Generator) -> Policy:
    """A policy that draws every token uniformly from the legal ones."""

    def choose(envs: textgym.TextGenVectorEnv) -> NDArray[np.int64]:
        if envs.all_legal:
            return generator.integers(envs.task.vocab_size, size=envs.num_envs)
        masks = envs.action_masks()
        return np.where(masks, generator.random(masks.shape), -1.0).argmax(axis=1)

    return choose


def constant(plan: NDArray[np.int64]) -> Policy:
    """A policy that writes the same tokens, shape ``(T,)``, whatever the prompt and the replies."""
    return lambda envs: legal(envs, plan[np.minimum(envs.episodes.steps, len(plan) - 1)])


def oracle(envs: textgym.TextGenVectorEnv) -> NDArray[np.int64]:
    """The task's own best policy."""
    actions = envs.task.oracle(envs.episodes)
    assert actions is not None
    return actions


def random_reference(envs: textgym.TextGenVectorEnv) -> tuple[float, str]:
    """Mean return of uniformly drawn legal tokens."""
    envs.reset(seed=0)
    returns = play(envs, uniform(np.random.default_rng(0)), EPISODES_A_ROW)
    error = returns.std() / math.sqrt(returns.size)
    return float(
        returns.mean()
    ), f"measured: uniform legal tokens, {returns.size:,} episodes, standard error {error:.1g}"


def best_reference(envs: textgym.TextGenVectorEnv) -> tuple[float, str]:
    """Mean return of the oracle."""
    envs.reset(seed=1)
    returns = play(envs, oracle, 1 if envs.task.deterministic else EPISODES_A_ROW)
    if np.ptp(returns) < 1e-9 and abs(returns.max() - envs.task.reward_range[1]) < 1e-9:
        return envs.task.reward_range[1], f"exact: the oracle earned the highest return in {returns.size:,} episodes"
    error = returns.std() / math.sqrt(returns.size)
    return float(returns.mean()), f"measured: the oracle, {returns.size:,} episodes, standard error {error:.1g}"


def blind_reference(envs: textgym.TextGenVectorEnv, candidates: Iterable[NDArray[np.int64]]) -> tuple[float, str]:
    """The best constant text among the candidates and their changes, measured again on prompts of its own."""
    generator = np.random.default_rng(0)
    envs.reset(seed=2)
    start = envs.get_state()  # each text is tried on the same prompts; seeding 1,024 rows anew would cost more

    def score(plan: NDArray[np.int64]) -> float:
        envs.set_state(start)
        return float(play(envs, constant(plan)).mean())

    scored = [(score(plan), plan) for plan in candidates]
    value, best = max(scored, key=lambda pair: pair[0])
    for _ in range(N_MUTATIONS):
        changed, at = best.copy(), int(generator.integers(len(best)))
        if generator.random() < 0.5:
            changed[at] = generator.integers(envs.task.vocab_size)
        else:  # a stretch of another candidate, moved or not: a guess that differs from those before it
            other = scored[generator.integers(len(scored))][1]
            start_at = int(generator.integers(len(other)))
            stretch = other[start_at : start_at + int(generator.integers(1, 8))][: len(best) - at]
            changed[at : at + len(stretch)] = stretch
        mutated = score(changed)
        if mutated > value:
            value, best = mutated, changed
    envs.reset(seed=100_000)
    returns = play(envs, constant(best), EPISODES_A_ROW)
    error = returns.std() / math.sqrt(returns.size)
    return float(returns.mean()), (
        f"search: the best of {len(scored)} constant texts and {N_MUTATIONS} changes to them, "
        f"here {show(envs, best)!r}; {returns.size:,} episodes, standard error {error:.1g}"
    )


def show(envs: textgym.TextGenVectorEnv, plan: NDArray[np.int64]) -> str:
    """A constant text, EOS included."""
    tokens = plan.tolist()
    if envs.task.eos_id in tokens:
        tokens = tokens[: tokens.index(envs.task.eos_id) + 1]
    return envs.task.join([envs.task.token_text(token) for token in tokens])


def constant_answers(envs: textgym.TextGenVectorEnv) -> list[NDArray[np.int64]]:
    """The oracle's most frequent answers over 16 batches of prompts, and its most frequent token at each step."""
    answers: Counter[bytes] = Counter()
    tokens = np.zeros((envs.task.max_new_tokens, envs.task.vocab_size), np.int64)
    for batch in range(16):
        envs.reset(seed=10_000 + batch * ROWS)
        written = np.full((ROWS, envs.task.max_new_tokens), envs.task.eos_id, np.int64)
        running = np.ones(ROWS, np.bool_)
        for step in range(envs.task.max_new_tokens):
            actions = oracle(envs)
            written[running, step] = actions[running]
            np.add.at(tokens[step], actions[running], 1)
            running &= ~envs.step(actions)[2]
            if not running.any():
                break
        answers.update(row.tobytes() for row in written)
    likely = np.where(tokens.sum(axis=1) > 0, tokens.argmax(axis=1), envs.task.eos_id)
    return [likely, *(np.frombuffer(row, np.int64) for row, _ in answers.most_common(N_CANDIDATES))]


def different_words(task: Wordle) -> list[NDArray[np.int64]]:
    """Random sequences of words of the list, none twice: with no word repeated, no guess is wasted."""
    generator = np.random.default_rng(0)
    n_guesses = min(task.guesses, len(task.words))
    draws = (generator.permutation(len(task.words))[:n_guesses] for _ in range(2 * N_CANDIDATES))
    return [task.words[draw].ravel() for draw in draws]


def exact_blind_reference(task: Transduction) -> tuple[float, str]:
    """The best constant answer to a prompt of symbols, by arithmetic."""
    n, v = task.length, task.n_symbols
    if not task.dense:
        # An answer in the order of the prompt has one prompt; a sorted one has all orders of its symbols, the most
        # where the symbols are spread evenly.
        ways = 1
        if isinstance(task, Sort):
            small, large = divmod(n, v)
            ways = math.factorial(n) // (math.factorial(small + 1) ** large * math.factorial(small) ** (v - large))
        return ways / v**n, "exact: the chance of the likeliest answer"
    if not isinstance(task, Sort):
        return (n / v + 1) / (n + 1), "exact: any symbol is right with equal chance at every position, EOS is certain"
    below = np.arange(v + 1) / v
    right = 1.0
    for k in range(1, n + 1):  # P(k-th smallest ≤ x) = P(at least k of n symbols ≤ x)
        at_most = sum(math.comb(n, j) * below**j * (1 - below) ** (n - j) for j in range(k, n + 1))
        right += float(np.diff(at_most).max())
    return right / (n + 1), "exact: the mode of each order statistic, EOS is certain"


def path_references(task: StarGraph) -> dict[str, tuple[float, str]]:
    """A given row of node labels is the path in a star with random labels, by arithmetic: too rarely to be measured."""
    n, k = task.nodes, task.path_length
    return {
        "random": ((n + 1.0) ** -k, f"exact: {k} right tokens of {n + 1} each"),
        "blind": (1 / math.perm(n, k), f"exact: one of the {math.perm(n, k):,} rows of {k} different labels"),
    }


def searched_references(envs: textgym.TextGenVectorEnv) -> dict[str, tuple[float, str]]:
    """Tone on request: beam search for each prompt, and the best of all found texts whatever the prompt."""
    envs.reset(seed=1)
    episodes: Episodes = envs.episodes
    assert isinstance(envs.task, TextGeneration)
    prompts = [envs.task.decode(episodes.prompt(row)) for row in range(N_SEARCHED)]
    found = [best_completion(prompt, prompt.split(":")[0]) for prompt in prompts]
    value = float(np.mean([reward for _, reward in found]))
    texts = [envs.task.tokenizer.encode(text) for text in dict.fromkeys(text for text, _ in found)]
    plans = [np.array([*text, envs.task.eos_id][: envs.task.max_new_tokens]) for text in texts]
    return {
        "blind": blind_reference(envs, plans),
        "best": (value, f"beam search over the reward's own parts, mean over {N_SEARCHED} prompts"),
    }


def keyword_references(envs: textgym.TextGenVectorEnv) -> dict[str, tuple[float, str]]:
    """Texts with given keywords: beam search for each prompt, and the best of all found texts whatever the prompt."""
    envs.reset(seed=1)
    task, episodes = envs.task, envs.episodes
    assert isinstance(task, Keywords)
    found = [best_text(task, episodes.tokens[row, : task.n_keywords]) for row in range(N_SEARCHED)]
    plans = [np.append(text, task.eos_id)[: task.max_new_tokens] for text, _ in found]
    return {
        "blind": blind_reference(envs, plans),
        "best": (
            float(np.mean([reward for _, reward in found])),
            f"beam search over the reward's own parts, mean over {N_SEARCHED} prompts",
        ),
    }


def compute(env_id: str) -> dict[str, Any]:
    """The entry of one id."""
    envs = make(env_id)
    if isinstance(envs.task, StarGraph) and not envs.task.masked:
        entry = path_references(envs.task) | {"best": best_reference(envs)}
        return _as_plain(entry)
    entry = {"random": random_reference(envs)}
    if isinstance(envs.task, TextGeneration):
        entry |= searched_references(envs)
    elif isinstance(envs.task, Keywords):
        entry |= keyword_references(envs)
    elif isinstance(envs.task, GuessNumber):
        different = "exact: different guesses, whatever the answers to them"
        entry |= {"blind": (envs.task.cheat_bound, different), "best": best_reference(envs)}
    elif isinstance(envs.task, Wordle):
        entry |= {"blind": blind_reference(envs, different_words(envs.task)), "best": best_reference(envs)}
    elif isinstance(envs.task, Transduction):
        entry |= {"blind": exact_blind_reference(envs.task), "best": best_reference(envs)}
    else:
        entry |= {"blind": blind_reference(envs, constant_answers(envs)), "best": best_reference(envs)}
    return _as_plain(entry)


def _as_plain(entry: dict[str, tuple[float, str]]) -> dict[str, Any]:
    values = {name: value for name, (value, _) in entry.items()}
    return values | {"sources": {name: source for name, (_, source) in entry.items()}}


def write(path: Path, table: dict[str, dict[str, Any]]) -> None:
    """Replace the file in one step, ids in the order of registration."""
    ordered = {env_id: table[env_id] for env_id in textgym.env_ids() if env_id in table}
    write_json(path, ordered)


def main(arguments: list[str] | None = None) -> None:
    """Compute the entries asked for, write each as soon as it is known, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", nargs="+", choices=textgym.env_ids(), default=textgym.env_ids(), metavar="ID")
    path = Path(str(resources.files("textgym").joinpath("references.json")))
    print(f"{'id':34}{'random':>9}{'blind':>9}{'best':>9}")
    for env_id in parser.parse_args(arguments).ids:
        entry = compute(env_id)
        write(path, json.loads(path.read_text("utf-8")) | {env_id: entry})
        print(f"{env_id:34}{entry['random']:9.4f}{entry['blind']:9.4f}{entry['best']:9.4f}", flush=True)


if __name__ == "__main__":
    main()
