"""``textgym validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from agents.application.options import Device, EnvArgs, Trust
from agents.saving.arguments import checked_env_id, parse_assignments
from agents.saving.files import CommandError, write_json, writing


def validate(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_MODEL", help="Run folder, exported model, model file (.zip), or language model."
        ),
    ],
    env: Annotated[str | None, typer.Option(help="Environment.", show_default="the run's own")] = None,
    episodes: Annotated[int, typer.Option(help="Number of episodes.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of the first row of episodes; not one of training.")] = 10_000,
    env_arg: EnvArgs = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write scores and all episodes there.")
    ] = None,
    device: Device = None,
    text: Annotated[
        Path | None, typer.Option(help="Instead, see how well the model foretells this file: a text a line.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Of a steered language model: its folder.", show_default="where it was")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            help="Of a steered language model: sample among tokens of this share; 1: all.", show_default="greedy"
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of a language model: sample at this temperature.", show_default="greedy")
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="Of a language model: its tokens in an episode, replies included.", show_default="256"),
    ] = None,
    max_message_tokens: Annotated[
        int | None, typer.Option(help="Of a language model: its tokens in a message.", show_default="no other limit")
    ] = None,
    trust: Trust = False,
) -> None:
    """Evaluate a model greedily on fresh seeds: mean, IQM, 95 % intervals, normalised score, texts.

    A folder with a causal language model of transformers (what TRL's trainers save) plays in messages.
    """
    if env is not None:
        env = checked_env_id(env)
    env_args = parse_assignments("--env-arg", env_arg) if env_arg else None
    if text is not None:
        from agents.application.validate_text import validate_text

        options: dict[str, Any] = {"device": device or "auto", "json_file": json_file, "trust": trust}
        validate_text(path, text, env, env_args, console=Console(), **options)
        return
    from agents.application import validate as own
    from agents.application import validate_language_model as other

    shared: dict[str, Any] = {"episodes": episodes, "seed": seed, "device": device or "auto", "console": Console()}
    of_writing: dict[str, Any] = {
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "max_message_tokens": max_message_tokens,
    }
    writing_options = {name: value for name, value in of_writing.items() if value is not None}
    if other.is_language_model(path):
        for name, given in (("--model", model), ("--top-p", top_p)):
            if given is not None:
                raise CommandError(f"{name} is for steered language models; RUN_OR_MODEL is one on its own, got {path}")
        result, scores = other.validate_language_model(path, env, env_args, **shared, **writing_options)
    elif writing_options:
        name = f"--{next(iter(writing_options)).replace('_', '-')}"
        raise CommandError(f"{name} is for language models; RUN_OR_MODEL is none of transformers, got {path}")
    else:
        result, scores = own.validate(
            path, env_id=env, env_args=env_args, trust=trust, language_model=model, top_p=top_p, **shared
        )
    if json_file is not None:
        with writing("--json", json_file):
            write_json(json_file, own.as_json(scores, result))
