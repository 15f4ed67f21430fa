"""The work behind ``textgym steer``: a language model, prompts and a reward become an environment and an agent."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from agents.application.resume import reward_errors
from agents.application.train import TrainResult, train
from agents.pruning.language_model import load_language_model
from agents.saving.arguments import merge, one_line
from agents.saving.files import CommandError, reason_of
from agents.saving.named_rewards import named_reward
from agents.saving.presets import DENSE_STEERING
from agents.saving.settings import TrainSettings, resolve_settings
from textgym.language_models import HuggingFaceLM
from textgym.rewards import RewardError, call_reward

ENV = "TextGen-v0"
DEFAULT_TOKENS, DEFAULT_MINUTES = 100_000, 10.0
_MOST_HELD_OUT = 64
_CHECKPOINTS = 3  # two are kept, and a third is written before the older one goes


@dataclass(frozen=True)
class Steering:
    """What is to be steered, and by what.

    Attributes:
        model: Folder with a causal language model and its tokenizer, pruned or not.
        prompts: Text file, a prompt a line.
        reward: ``module:function``, with TRL's signature and returns in [0, 1].
        length: Tokens of a text at most (≥ 1).
        held_out: Prompts that are kept for evaluation (≥ 0); None for a tenth, and at most 64.
        dense: Whether each token earns the change of the reward, which is then asked for texts that are not finished,
            with every candidate for the next token: see :data:`agents.saving.presets.DENSE_STEERING`.
    """

    model: Path
    prompts: Path
    reward: str
    length: int = 32
    held_out: int | None = None
    dense: bool = False


def steer(
    steering: Steering,
    *,
    tokens: int | None = None,
    minutes: float | None = None,
    out: Path | None = None,
    agent: dict[str, Any] | None = None,
    console: Console | None = None,
    command: str | None = None,
    checkpoint_seconds: float | None = None,
    **options: Any,
) -> TrainResult:
    """Learn what the tokens of a language model are worth, and leave a run folder with samples, plain and steered.

    Args:
        steering: The model, the prompts, the reward.
        tokens: Tokens to train for; None for 100,000.
        minutes: Stop after so many minutes; None for 10 where ``tokens`` are not given, else for no limit.
        out: The run folder, see :func:`agents.application.train.train`.
        agent: Arguments of :class:`agents.DoubleDQN`.
        console: See :func:`agents.application.train.train`.
        command: Likewise.
        checkpoint_seconds: Likewise.
        **options: ``seed``, ``n_envs``, ``threads`` and ``device`` of :class:`agents.saving.settings.TrainSettings`.

    Raises:
        CommandError: If an argument is wrong, the reward fails, or there is no room on the disk.
    """
    if minutes is None and tokens is None:
        minutes = DEFAULT_MINUTES
    options |= {"steps": tokens or DEFAULT_TOKENS, "minutes": minutes}
    settings = steering_settings(steering, agent or {}, out, **options)
    kept: dict[str, Any] = {"command": command, "checkpoint_seconds": checkpoint_seconds}
    return train(settings, out, console=console, **kept)


def steering_settings(
    steering: Steering, agent: dict[str, Any], out: Path | None = None, **options: Any
) -> TrainSettings:
    """The environment and the agent, checked as far as that goes before any training; see :func:`steer`.

    Raises:
        CommandError: See :func:`steer`.
    """
    model = _checked_model(steering.model)
    prompts, held_out = _split(read_prompts(steering.prompts), steering.held_out, options.get("seed") or 0)
    width = _checked_width(model, prompts + held_out, steering)
    _try_reward(steering.reward, prompts)
    folder = str(steering.model.resolve())
    arguments = merge({"gamma": 1.0}, DENSE_STEERING if steering.dense else {}, agent)
    arguments["policy_kwargs"] = {
        **(arguments.get("policy_kwargs") or {}),
        "model": folder,
        "fingerprint": model.fingerprint,
    }
    settings = resolve_settings(
        ENV,
        env_args={
            "prompts": prompts,
            "reward": steering.reward,
            "tokenizer": folder,
            "max_new_tokens": steering.length,
            "context_length": width,
            **({"dense": True} if steering.dense else {}),
        },
        agent=arguments,
        policy="LanguageModelPolicy",
        eval_args={"prompts": held_out, **({"dense": False} if steering.dense else {})},
        **options,
    )
    _check_room(model, settings, Path.cwd() if out is None else out.absolute())
    return settings


def read_prompts(path: Path) -> list[str]:
    """The lines of a text file that are not blank, each once.

    Raises:
        CommandError: If it can't be read, or holds none.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--prompts must be a UTF-8 text file, got {path}: {reason_of(error)}") from None
    prompts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not prompts:
        raise CommandError(f"--prompts must hold a prompt a line, got {path}, which is blank")
    return prompts


def _split(prompts: list[str], held_out: int | None, seed: int) -> tuple[list[str], list[str]]:
    """Those to train on, and those to evaluate on; a single prompt is both."""
    if held_out is None:
        held_out = min(_MOST_HELD_OUT, -(-len(prompts) // 10), len(prompts) - 1)
    if not 0 <= held_out < len(prompts):
        raise CommandError(
            f"--held-out must be from 0 to {len(prompts) - 1}, one less than the prompts, got {held_out}"
        )
    if held_out == 0:
        return prompts, prompts
    chosen = set(np.random.default_rng(seed).permutation(len(prompts))[:held_out].tolist())
    return (
        [prompt for number, prompt in enumerate(prompts) if number not in chosen],
        [prompt for number, prompt in enumerate(prompts) if number in chosen],
    )


def _checked_model(path: Path) -> HuggingFaceLM:
    try:
        return load_language_model(path)
    except Exception as error:  # transformers, tokenizers and safetensors each fail in their own ways
        raise CommandError(
            f"--model must be a folder with a causal language model and its tokenizer, got {path}: "
            f"{one_line(error)[:300]}"
        ) from error


def _checked_width(model: HuggingFaceLM, prompts: list[str], steering: Steering) -> int:
    """Tokens of an observation, the separator included."""
    if steering.length < 1:
        raise CommandError(f"--length must be at least 1, got {steering.length}")
    lengths = [len(model.tokenizer.encode(prompt)) for prompt in prompts]
    longest = max(lengths)
    if 1 + longest + steering.length > model.context_length:
        raise CommandError(
            f"--length must leave room for the prompts in the {model.context_length} tokens that the model reads: "
            f"BOS, {longest} of the prompt {prompts[lengths.index(longest)][:40]!r} and {steering.length} are too many"
        )
    return longest + 1 + steering.length


def _try_reward(name: str, prompts: list[str]) -> None:
    """Ask the reward once before training: for an empty text, which a model may write, and for some words."""
    try:
        reward = named_reward(name)
    except CommandError as error:
        raise CommandError(f"--reward: {one_line(error)}") from error
    shown = [prompts[0], prompts[0]]
    with reward_errors():
        rewards = call_reward(reward, shown, ["", prompts[-1]], {})
        if rewards.min() < 0 or rewards.max() > 1:
            wrong = rewards[(rewards < 0) | (rewards > 1)][0]
            raise RewardError(f"reward {name!r} must return numbers in [0, 1], got {wrong}: scale it")


def _check_room(model: HuggingFaceLM, settings: TrainSettings, folder: Path) -> None:
    """Refuse what would fill the disk: replay holds the model's states, and a checkpoint holds replay."""
    tokens = min(settings.agent["buffer_size"], settings.steps)
    policy = settings.agent["policy_kwargs"]
    candidate_bytes = 8 if policy.get("candidate_rewards") else 6
    token_bytes = 2 * model.hidden_dim + candidate_bytes * (policy.get("candidates", 20) + 1) + 32
    needed = _CHECKPOINTS * tokens * token_bytes
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise CommandError(
            f"the disk must have {needed / 1e9:.1f} GB for checkpoints of {tokens:,} tokens, got {free / 1e9:.1f} GB; "
            "--set buffer_size=N keeps fewer tokens"
        )
