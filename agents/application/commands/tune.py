"""``textgym tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agents.application.options import EnvArgs, SetArgs
from agents.saving.arguments import checked_env_id, parse_assignments
from agents.saving.files import CommandError


def tune(
    target: Annotated[str, typer.Argument(metavar="ID_OR_STUDY", help="Environment, or the folder of a study.")],
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials in total, earlier ones included.", show_default="20")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Environment steps of a run.", show_default="20000")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of a trial.", show_default="1")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the study.", show_default="0")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, a process each.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study; resumed if there is one.", show_default="tune/<ID>")
    ] = None,
    space: Annotated[
        Path | None, typer.Option(help="YAML file: NAME: {low, high, log, type}, or NAME: [choices].")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="gp or random.", show_default="gp")] = None,
    stopping: Annotated[
        str | None, typer.Option(help="End bad runs early: median or halving.", show_default="none")
    ] = None,
    engine: Annotated[str, typer.Option(help="Parallel runs through loky or ray.")] = "loky",
    n_envs: Annotated[int | None, typer.Option(min=1, help="Parallel environments.", show_default="preset")] = None,
    env_arg: EnvArgs = None,
    set_: SetArgs = None,
    figures: Annotated[Path | None, typer.Option(help="Draw the study's figures into this folder.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the file with the best arguments alone.")] = False,
) -> None:
    """Search for good arguments of DoubleDQN, or go on with a study, or report on one (a folder without --trials)."""
    from agents.application import tune as command

    options = {"seeds": seeds, "seed": seed, "sampler": sampler, "stopping": stopping}
    given = {name: value for name, value in options.items() if value is not None}
    if Path(target).exists():
        extra = {"steps": steps, "out": out, "space": space, "n-envs": n_envs, "env-arg": env_arg, "set": set_, **given}
        names = [f"--{name}" for name, value in extra.items() if value]
        if names:
            raise CommandError(f"a study that exists takes no {', '.join(names)}: it goes on as it was begun")
        study = command.open_study(target)
    else:
        objective = command.TrainObjective(
            env=checked_env_id(target),
            env_args=parse_assignments("--env-arg", env_arg or []),
            agent=parse_assignments("--set", set_ or []),
            steps=20_000 if steps is None else steps,
            n_envs=n_envs,
        )
        folder = out or Path("tune") / objective.env.replace("/", "-")
        study = command.new_study(objective, folder, space, jobs, **given)
        trials = 20 if trials is None else trials
    console = Console(quiet=quiet)
    if trials is not None:
        command.tune(study, trials, n_jobs=jobs, engine=engine, console=console)
    command.report(study, console)
    if figures is not None:
        for path in command.draw(study, figures):
            console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    if quiet:
        print(command.best_file(study))
