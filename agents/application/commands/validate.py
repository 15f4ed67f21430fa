"""``textgym validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from agents.application.options import Device, EnvArgs, Trust
from agents.saving.arguments import checked_env_id, parse_assignments
from agents.saving.files import write_json, writing


def validate(
    path: Annotated[
        Path, typer.Argument(metavar="RUN_OR_MODEL", help="Run folder, exported model, or model file (.zip).")
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
    trust: Trust = False,
) -> None:
    """Evaluate a model greedily on fresh seeds: mean, IQM, 95 % intervals, normalised score, texts."""
    if env is not None:
        env = checked_env_id(env)
    env_args = parse_assignments("--env-arg", env_arg) if env_arg else None
    if text is not None:
        from agents.application.validate_text import validate_text

        options: dict[str, Any] = {"device": device or "auto", "json_file": json_file, "trust": trust}
        validate_text(path, text, env, env_args, console=Console(), **options)
        return
    from agents.application.validate import as_json
    from agents.application.validate import validate as run

    result, scores = run(
        path,
        env_id=env,
        env_args=env_args,
        episodes=episodes,
        seed=seed,
        device=device or "auto",
        console=Console(),
        trust=trust,
        language_model=model,
    )
    if json_file is not None:
        with writing("--json", json_file):
            write_json(json_file, as_json(scores, result))
