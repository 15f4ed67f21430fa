"""The work behind ``textgym validate`` and ``textgym export``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.application.resume import reward_errors
from agents.application.run_folder import (
    CONFIG,
    MODEL_FOLDER,
    SAMPLES,
    brief,
    evaluated_in,
    find_model,
    read_result,
    trained_in,
)
from agents.double_dqn import DoubleDQN
from agents.double_dqn.language_models.writer import Writer
from agents.offline.corpus import VOCABULARY
from agents.saving.arguments import checked_env_id, make_env, one_line
from agents.saving.export import check_tokens, export_model
from agents.saving.files import CommandError, plain, write_text, writing
from agents.saving.model_card import check_license, model_card
from agents.saving.named_rewards import check_trust, without_reward
from agents.vec_env import TextGenVecEnv

if TYPE_CHECKING:
    from rich.console import Console
from agents.application.loading import load_model
from agents.double_dqn.evaluation import FRESH_SEED, EvaluationResult, Scores, evaluate, sample_line, score

MOST_ROWS = 64
"""Episodes that are played side by side; with the seed, it decides which ones they are."""


def report(result: EvaluationResult, scores: Scores, n_examples: int = 8) -> str:
    """Scores and a few texts, for people."""
    low, high = scores.mean_interval
    lines = [
        f"mean return  {scores.mean:.3f}  (95 % interval {low:.3f} to {high:.3f}; {scores.episodes} episodes, "
        f"{scores.mean_length:.1f} tokens on average)",
        f"IQM          {scores.iqm:.3f}  (95 % interval {scores.iqm_interval[0]:.3f} to {scores.iqm_interval[1]:.3f})",
    ]
    if scores.normalised is None or scores.normalised_interval is None or scores.references is None:
        lines.append("normalised   unknown: references are measured for registered ids with their default arguments")
    else:
        low, high = scores.normalised_interval
        known = scores.references
        lines.append(
            f"normalised   {scores.normalised:.3f}  (95 % interval {low:.3f} to {high:.3f}; 0 is random, "
            f"{known['random']:.3f}, and 1 the best known, {known['best']:.3f}; blind to the prompt: "
            f"{known['blind']:.3f})"
        )
    lines.append("")
    lines += [sample_line(result, index) for index in result.examples(n_examples)]
    return "\n".join(lines)


def validate(
    path: str | Path,
    *,
    env_id: str | None = None,
    env_args: dict[str, Any] | None = None,
    episodes: int = 256,
    seed: int = FRESH_SEED,
    device: str = "auto",
    console: Console | None = None,
    trust: bool = False,
    language_model: str | Path | None = None,
    top_p: float | None = None,
) -> tuple[EvaluationResult, Scores]:
    """Evaluate a trained model greedily on fresh seeds, or a steered language model by samples.

    Args:
        path: A run folder, an exported model or a model file.
        env_id: The environment; None for the run's own.
        env_args: Its arguments; None for the run's own where the environment is, else the defaults.
        episodes: Number of episodes (≥ 1).
        seed: Row ``i`` is seeded ``seed + i``. The run's own training seeds are refused.
        device: Torch device.
        console: Where to print; None for nowhere.
        trust: See :func:`load_model`; also whether to import the reward that the run names, if it names one.
        language_model: See :func:`load_model`.
        top_p: Draw the texts of a steered language model, see
            :class:`agents.double_dqn.language_models.writer.Writer`; None takes the best token each time.

    Returns:
        The episodes and their scores.

    Raises:
        CommandError: If an argument is wrong, or the model can't be read.
    """
    check_counts(episodes, seed)
    model_path, config = find_model(path)
    if env_id is None and (config is None or "env" not in config):
        raise CommandError(f"--env must name the environment: no config.yaml lies beside {model_path}")
    own = config is not None and env_id in (None, config.get("env"))
    if own:
        assert config is not None
        env_id = config["env"]
        if env_args is None:
            env_args = evaluated_in(config)
            if not trust:
                check_trust(env_args, path)
        if language_model is not None and "tokenizer" in env_args:
            env_args = {**env_args, "tokenizer": str(language_model)}
    assert env_id is not None
    env_id = checked_env_id(env_id)
    n_rows = min(MOST_ROWS, episodes)
    if own and config is not None and isinstance(first := config.get("seed"), int):
        trained = range(first, first + int(config.get("n_envs") or 1))
        if seed < trained.stop and seed + n_rows > trained.start:
            raise CommandError(
                f"--seed must leave out the training seeds {trained.start} to {trained.stop - 1}, got {seed} "
                f"(rows use {seed} to {seed + n_rows - 1})"
            )
    env = make_env(env_id, n_rows, seed, env_args or {})
    model = load_model(model_path, device, trust, language_model)
    _check_spaces(model, env, env_id)
    check_tokens(model_path, env)
    writer = None if top_p is None else _writer(model, seed, top_p)
    with reward_errors():
        result = evaluate(writer or model, env, episodes, seed=seed, deterministic=writer is None)
    env.close()
    scores = score(result, None if env_args else env_id)
    if console is not None:
        how = "greedy" if writer is None else f"top-p {top_p:g}, KL {writer.nats.mean():.2f} nats a text"
        title = f"{model_path} on {described(env_id, env_args)}, {how}, seeds from {seed}"
        print_report(console, title, result, scores)
    return result, scores


def _writer(model: Any, seed: int, top_p: float) -> Writer:
    try:
        return Writer(model, seed=seed, top_p=top_p)
    except ValueError as error:
        name = "--top-p" if one_line(error).startswith("top_p") else "--top-p is for steered language models:"
        raise CommandError(f"{name} {one_line(error).removeprefix('top_p ')}") from None


def check_counts(episodes: int, seed: int) -> None:
    """Raise a CommandError unless there is something to play."""
    if episodes < 1:
        raise CommandError(f"--episodes must be at least 1, got {episodes}")
    if seed < 0:
        raise CommandError(f"--seed must be at least 0, got {seed}")


def described(env_id: str, env_args: Mapping[str, Any] | None) -> str:
    """An environment with its arguments, in a line."""
    return " ".join([env_id, *brief(env_args or {})])


def print_report(console: Console, title: str, result: EvaluationResult, scores: Scores) -> None:
    """Print what was evaluated, and :func:`report`."""
    console.print(title, markup=False, highlight=False, soft_wrap=True)
    console.print(report(result, scores), markup=False, highlight=False, soft_wrap=True)


def export(
    path: str | Path,
    folder: str | Path,
    env_id: str | None = None,
    env_args: dict[str, Any] | None = None,
    trust: bool = False,
    license_id: str | None = None,
) -> Path:
    """Write a model as files that are safe to open, see :mod:`agents.saving.export`, with a model card.

    Args:
        path: A run folder, a checkpoint, an exported model or a model file.
        folder: A new or an empty folder.
        env_id: The environment that it was trained in; None for the run's own.
        env_args: Its arguments, in place of the run's own if ``env_id`` or any of them is given.
        trust: See :func:`load_model`.
        license_id: Licence that the model card names, such as ``"mit"``; None for none.

    Raises:
        CommandError: If the model can't be read, has parts of the user's own, or can't be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CommandError(f"DIR must be a new or an empty folder, got {folder}, which has content")
    try:
        check_license(license_id)
    except ValueError as error:
        raise CommandError(f"--{one_line(error)}") from None
    model_path, config = find_model(path)
    environment: dict[str, Any] | None = None if config is None or "env" not in config else trained_in(config)
    if env_id is not None:
        environment = {"env": env_id, "env_args": env_args or {}}
    elif env_args and environment is not None:
        environment["env_args"] = env_args
    model = load_model(model_path, "cpu", trust)
    if environment is not None:
        env = make_env(environment["env"], 1, 0, without_reward(environment.get("env_args") or {}))
        _check_spaces(model, env, environment["env"])
    scores, texts = _measured(model_path) if env_id is None and not env_args else (None, None)

    def card(content: Mapping[str, Any]) -> str:
        return model_card(content, folder.resolve().name, scores, texts, license_id)

    vocabulary = (model_path if model_path.is_dir() else model_path.parent) / VOCABULARY
    try:
        with writing("DIR", folder, "folder"):
            export_model(model, folder, environment, card)
            if vocabulary.is_file():  # of a model that learned from a text file
                write_text(folder / VOCABULARY, vocabulary.read_text("utf-8"))
    except ValueError as error:
        raise CommandError(f"the model in {model_path} can't be exported: {one_line(error)}") from error
    return folder


def _measured(model_path: Path) -> tuple[Scores | None, str | None]:
    """Scores and last texts of the run that a model was the end of; None where there was none."""
    folder = model_path.parent
    if model_path.name != MODEL_FOLDER or not (folder / CONFIG).is_file():
        return None, None
    result = read_result(folder)
    try:
        texts = (folder / SAMPLES).read_text("utf-8").strip().split("\n\n")[-1].partition("\n")[2]
    except (OSError, UnicodeDecodeError):
        texts = ""
    return None if result is None else Scores.from_json(result), texts or None


def _check_spaces(model: DoubleDQN, env: TextGenVecEnv, env_id: str) -> None:
    if model.observation_space != env.observation_space or model.action_space != env.action_space:
        raise CommandError(
            f"the model was trained on {model.observation_space}, {model.action_space}; --env {env_id} has "
            f"{env.observation_space}, {env.action_space}"
        )


def as_json(scores: Scores, result: EvaluationResult | None = None) -> dict[str, Any]:
    """Scores as plain values, with every episode if ``result`` is given."""
    value = plain(asdict(scores))
    if result is not None:
        rows = zip(result.returns.tolist(), result.lengths.tolist(), result.prompts, result.completions, strict=True)
        value["results"] = [
            {"return": total, "length": length, "prompt": prompt, "completion": completion}
            for total, length, prompt, completion in rows
        ]
    return value
