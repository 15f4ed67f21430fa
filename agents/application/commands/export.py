"""``textgym export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agents.application.options import EnvArgs, Trust
from agents.saving.arguments import checked_env_id, parse_assignments


def export(
    path: Annotated[Path, typer.Argument(metavar="RUN_OR_MODEL", help="Run folder, checkpoint, or model file (.zip).")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write the model, a new or an empty folder.")],
    env: Annotated[str | None, typer.Option(help="Environment.", show_default="the run's own")] = None,
    env_arg: EnvArgs = None,
    license_id: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="Licence that its card names, such as mit.")
    ] = None,
    trust: Trust = False,
) -> None:
    """Write a model that is safe to share and to open: config.json, model.safetensors, tokenizer.json, README.md."""
    if env is not None:
        env = checked_env_id(env)
    from agents.application.validate import export

    env_args = parse_assignments("--env-arg", env_arg or [])
    print(f"wrote {export(path, folder, env, env_args, trust, license_id)}")
