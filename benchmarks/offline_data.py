"""What the offline benchmark learns from: noisy demonstrations, and real English that every Python brings along."""

from __future__ import annotations

import ast
import sysconfig
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.offline import TextEpisodes, TextRow, text_to_episodes
from agents.vec_env import make_vec_env
from benchmarks.keyword_search import best_text
from textgym import TextGenVectorEnv, demonstrations
from textgym.language_models import NGramLM
from textgym.tasks.base import Task
from textgym.tasks.keywords import Keywords

FIRST_SEED = 2_000_000
"""Demonstrations have prompts of their own: far from the seeds of training and of evaluation."""
_SEED_STRIDE = 100_000
_SEARCH_WIDTH = 4
_CHUNK = 1_000


def task_of(task_id: str, env_kwargs: dict[str, Any]) -> Task:
    """The task of an id."""
    task: Task = make_vec_env(task_id, 1, seed=0, env_kwargs=env_kwargs).get_attr("task")[0]
    return task


def noisy_demonstrations(task_id: str, env_kwargs: dict[str, Any], n: int, noise: float, seed: int) -> TextEpisodes:
    """Episodes of a task's oracle (for Keywords, the best texts of a beam search) with random tokens in them.

    Args:
        task_id: Id of the environment.
        env_kwargs: Its arguments.
        n: Number of episodes.
        noise: Share of the tokens that are replaced by ones drawn uniformly.
        seed: Other seeds have other prompts.
    """
    task, first = task_of(task_id, env_kwargs), FIRST_SEED + _SEED_STRIDE * seed
    if isinstance(task, Keywords):
        return text_to_episodes(_searched(task, n, noise, first), task, reward="environment")
    return text_to_episodes(demonstrations(task_id, n, first, noise, **env_kwargs), task)


def _searched(task: Keywords, n: int, noise: float, first_seed: int) -> list[TextRow]:
    random, rows = np.random.default_rng(first_seed), []
    seeds = range(first_seed, first_seed + n)
    prompts, _ = TextGenVectorEnv(n, task).reset(seed=list(seeds))
    for seed, prompt in zip(seeds, prompts[:, : task.prompt_length], strict=True):
        words, _ = best_text(task, prompt[: task.n_keywords], _SEARCH_WIDTH)
        text = np.append(words, task.eos_id)[: task.max_new_tokens]
        text = np.where(random.random(len(text)) < noise, random.integers(task.vocab_size, size=len(text)), text)
        ends = np.flatnonzero(text == task.eos_id)
        rows.append(
            TextRow(
                "", "", seed=seed, prompt_tokens=prompt, completion_tokens=text[: ends[0] + 1] if len(ends) else text
            )
        )
    return rows


def standard_library_prose(limit: int | None = None) -> str:
    """English that comes with Python: the language reference that ``help()`` shows, and docstrings, a line each.

    Args:
        limit: Characters at most; None for all, somewhat more than a million.
    """
    from pydoc_data.topics import topics

    found = [" ".join(topics[name].split()) for name in sorted(topics)]
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes in old strings
            tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.append(" ".join((ast.get_docstring(node) or "").split()))
    # Mixed, so that the end, which is held out, is of the same kind as the rest.
    np.random.default_rng(0).shuffle(found)
    return "\n".join(filter(None, found))[:limit]


def ngram_scores(model: NGramLM, tokens: NDArray[np.integer], ignore: int | None = None) -> dict[str, float]:
    """Accuracy of the likeliest next token, and perplexity, over a stream of tokens.

    Args:
        model: The model.
        tokens: The stream, shape ``(n,)``.
        ignore: A token that does not count where the stream has it.
    """
    reach = max(model.order - 1, 1)
    places = np.arange(reach, len(tokens))
    if ignore is not None:
        places = places[tokens[places] != ignore]
    hits, likelihood = 0, 0.0
    for start in range(0, len(places), _CHUNK):
        chosen = places[start : start + _CHUNK]
        prefixes = tokens[chosen[:, None] + np.arange(-reach, 0)]
        log_probs = model.log_probs(prefixes, np.full(len(chosen), reach))
        hits += int((log_probs.argmax(axis=1) == tokens[chosen]).sum())
        likelihood += float(log_probs[np.arange(len(chosen)), tokens[chosen]].sum(dtype=np.float64))
    return {"agreement": hits / len(places), "perplexity": float(np.exp(-likelihood / len(places)))}
