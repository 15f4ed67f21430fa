"""The work behind ``textgym validate RUN --text FILE``: how well a model foretells texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from agents.application.loading import load_model
from agents.application.run_folder import find_model
from agents.offline.corpus import load_vocabulary
from agents.offline.episodes import text_to_episodes
from agents.offline.likelihood import TextScores, continue_prompts, score_texts
from agents.offline.rows import read_text
from agents.saving.arguments import make_env, one_line
from agents.saving.files import CommandError, plain, write_json, writing
from agents.saving.named_rewards import without_reward
from textgym.tasks.base import Task

_EXAMPLES = 4
_WIDTH = 60


def validate_text(
    path: str | Path,
    text: str | Path,
    env_id: str | None = None,
    env_args: dict[str, Any] | None = None,
    *,
    device: str = "auto",
    json_file: Path | None = None,
    console: Console | None = None,
    trust: bool = False,
) -> TextScores:
    """Compare a model's Q-values with the texts of a file.

    Args:
        path: A run folder or a model file.
        text: The file. Of a model that learned from a corpus, plain text. Otherwise a text a line: its prompt and its
            completion divided by a tab, and a second tab before its reward, where there is one; or the lines of a
            ``.jsonl`` file with ``prompt``, ``completion`` and, if any, ``reward``.
        env_id: The environment whose tokens the model speaks; None for the run's own.
        env_args: Its arguments; None for the run's own.
        device: Torch device.
        json_file: Where to write the scores; None for nowhere.
        console: Where to print; None for nowhere.
        trust: See :func:`agents.application.loading.load_model`.

    Raises:
        CommandError: If an argument is wrong, or a file can't be read.
    """
    model_path, config = find_model(path)
    vocabulary = load_vocabulary(model_path if model_path.is_dir() else model_path.parent)
    task: Task
    ignore = None
    try:
        if vocabulary is not None and env_id is None:
            task = vocabulary.task()
            ignore = vocabulary.unknown_id
            data: list[Any] = [vocabulary.normalise(read_text(text))]
        else:
            env_id = env_id if env_id is not None else (config or {}).get("env")
            if env_id is None:
                raise CommandError(f"--env must name the environment: no config.yaml lies beside {model_path}")
            own = (config or {}).get("env_args", {}) if (config or {}).get("env") == env_id else {}
            given = without_reward(own) if env_args is None else env_args
            task = make_env(env_id, 1, 0, given).get_attr("task")[0]
            data = _read_lines(Path(text))
        episodes = text_to_episodes(data, task, window=vocabulary.window if ignore is not None and vocabulary else None)
        model = load_model(model_path, device, trust)
        if model.action_space.n != task.vocab_size or model.observation_space.shape != (task.context_length,):  # type: ignore[attr-defined]
            raise CommandError(
                f"the model was trained on {model.observation_space}, {model.action_space}; the texts' task has "
                f"{task.vocab_size} actions and a context of {task.context_length}"
            )
        scores = score_texts(model, episodes, ignore)
    except ValueError as error:
        raise CommandError(f"--text {text}: {one_line(error)}") from error
    order = np.argsort(-scores.log_likelihoods, kind="stable")
    n = min(_EXAMPLES, len(order) // 2) or 1
    chosen = np.unique(np.concatenate([order[:n], order[-n:]]))
    chosen = chosen[np.argsort(-scores.log_likelihoods[chosen], kind="stable")]
    written = continue_prompts(model, task, episodes, chosen)
    examples = []
    for number, continuation in zip(chosen.tolist(), written, strict=True):
        start = episodes.action_positions[number, 0]
        examples.append(
            {
                "log_likelihood": float(scores.log_likelihoods[number]),
                "foretold": float(scores.agreements[number]),
                "return": float(scores.returns[number]),
                "prompt": task.decode(episodes.tokens[number, :start]),
                "text": task.decode(episodes.tokens[number, start:]),
                "model": continuation,
            }
        )
    if console is not None:
        _print(console, scores, examples)
    if json_file is not None:
        with writing("--json", json_file):
            write_json(json_file, plain(scores.summary()) | {"examples": examples})
    return scores


def _read_lines(path: Path) -> list[Any]:
    """Rows of a text file: JSON, or columns between tabs, or whole texts."""
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    rows: list[Any] = []
    for number, line in enumerate(lines):
        try:
            if path.suffix == ".jsonl":
                rows.append(json.loads(line))
                continue
            prompt, *rest = line.split("\t")
            rows.append((prompt, rest[0], *map(float, rest[1:2])) if rest else line)
        except ValueError as error:
            raise ValueError(f"line {number + 1} can't be read ({error}): {line[:40]!r}") from None
    return rows


def _print(console: Console, scores: TextScores, examples: list[dict[str, Any]]) -> None:
    console.print(
        f"{scores.texts:,} texts, {scores.actions:,} tokens: {scores.agreement:.1%} are the greedy action; perplexity "
        f"{scores.perplexity:.2f} of softmax(Q / {scores.temperature:.3g}); mean return {scores.mean_return:.3f}, mean "
        f"value {scores.mean_value:.3f}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, title="likeliest and least likely texts", title_justify="left")
    for name in ("log p", "foretold", "return"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("prompt", "text", "what the model writes"):
        table.add_column(name, overflow="fold", max_width=_WIDTH)
    for one in examples:
        texts = (one[name].replace("\n", "⏎")[:_WIDTH] for name in ("prompt", "text", "model"))
        table.add_row(
            f"{one['log_likelihood']:.2f}", f"{one['foretold']:.0%}", f"{one['return']:.3f}", *map(_plain, texts)
        )
    console.print(table)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
