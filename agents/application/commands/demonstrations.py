"""``textgym demonstrations``."""

from __future__ import annotations

from typing import Annotated

import typer

from agents.application.options import EnvArgs
from agents.saving.arguments import checked_env_id, one_line, parse_assignments
from agents.saving.files import CommandError


def demonstrations(
    env: Annotated[str, typer.Argument(metavar="ID", help="Environment, one whose task has an oracle.")],
    out: Annotated[str, typer.Option(metavar="NAME", help="Minari's name for the data set: textgym/reverse-v0.")],
    n: Annotated[int, typer.Option("-n", min=1, help="Episodes.")] = 1000,
    noise: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the tokens that are replaced by random legal ones.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode.")] = 0,
    env_arg: EnvArgs = None,
) -> None:
    """Write episodes of the task's oracle as a Minari data set (extra: minari)."""
    env = checked_env_id(env)
    from textgym import demonstrations
    from textgym.adapters.minari import write_minari

    try:
        shown = demonstrations(env, n, seed, noise, **parse_assignments("--env-arg", env_arg or []))
        dataset = write_minari(out, shown)
    except (ModuleNotFoundError, TypeError, ValueError) as error:
        raise CommandError(one_line(error)) from error
    print(
        f"wrote {dataset.total_episodes:,} episodes, {dataset.total_steps:,} steps: {dataset.storage.data_path.parent}"
    )
