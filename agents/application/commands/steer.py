"""``textgym steer``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from agents.application.commands.train import ended, resume_command
from agents.application.options import Device, SetArgs, TrustReward, command_line
from agents.saving.arguments import parse_assignments
from agents.saving.files import CommandError


def steer(
    context: typer.Context,
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with a causal language model and its tokenizer.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="Text file, a prompt a line.")] = None,
    reward: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="reward(prompts, completions, **columns), from 0 to 1 each."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so many minutes.", show_default="10, or no limit with --tokens")
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens to train for.", show_default="100000")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "--run-dir", help="Run folder, new or empty.", show_default="runs/<time>")
    ] = None,
    length: Annotated[int, typer.Option(help="Tokens of a text at most.")] = 32,
    held_out: Annotated[
        int | None, typer.Option(help="Prompts that are kept for the samples.", show_default="a tenth")
    ] = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Each token earns the change of the reward: for one that costs little time.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of everything.", show_default="0")] = None,
    n_envs: Annotated[int | None, typer.Option(help="Texts at a time.", show_default="32")] = None,
    set_: SetArgs = None,
    threads: Annotated[int | None, typer.Option(help="Torch threads.", show_default="1")] = None,
    device: Device = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the run folder alone.")] = False,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with a run that was stopped or killed.")
    ] = None,
    checkpoint_seconds: Annotated[
        float | None, typer.Option(min=0.0, help="Least seconds between two checkpoints.", show_default="30")
    ] = None,
    trust: TrustReward = False,
) -> None:
    """Steer a language model by a reward: it stays as it is, and a small head learns what its tokens are worth."""
    console = None if quiet else Console()
    if resume is not None:
        resume_command(context, resume, console, checkpoint_seconds, trust)
        return
    given = {"--model": model, "--prompts": prompts, "--reward": reward}
    if missing := [name for name, value in given.items() if value is None]:
        raise CommandError(f"textgym steer needs {', '.join(missing)} (or --resume RUN)")
    agent = parse_assignments("--set", set_ or [])
    from agents.application.steer import Steering
    from agents.application.steer import steer as run

    assert model is not None and prompts is not None and reward is not None
    options: dict[str, Any] = {"seed": seed, "n_envs": n_envs, "threads": threads, "device": device}
    result = run(
        Steering(model, prompts, reward, length, held_out, dense),
        tokens=tokens,
        minutes=minutes,
        out=out,
        agent=agent,
        console=console,
        command=shlex.join(["textgym", *command_line]),
        checkpoint_seconds=checkpoint_seconds,
        **options,
    )
    ended(result, quiet)
