"""``textgym play``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agents.application.options import EnvArgs, Trust
from agents.saving.arguments import checked_env_id, parse_assignments


def play(
    target: Annotated[
        str, typer.Argument(metavar="ID_OR_MODEL", help="Environment (see 'textgym list'), run folder or model.")
    ],
    seed: Annotated[int | None, typer.Option(help="Seed of the prompts.", min=0)] = None,
    env_arg: EnvArgs = None,
    trust: Trust = False,
) -> None:
    """Write the completions yourself, token by token, and see what they earn; a model says what it would write."""
    from agents.application.play import play as play_episodes

    env_args = parse_assignments("--env-arg", env_arg or [])
    if Path(target).exists():
        from agents.application.play import play_with

        play_with(Path(target), env_args, seed, sys.stdin, Console(), trust)
        return
    play_episodes(checked_env_id(target), env_args, seed, sys.stdin, Console())
