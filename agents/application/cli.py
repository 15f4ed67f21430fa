"""The ``textgym`` command: list, play, train, tune, validate, export, report, doctor.

Heavy modules are imported inside the commands, so that ``--help`` and ``list`` answer at once.
"""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from agents.saving.arguments import checked_env_id, one_line, parse_assignments
from agents.saving.files import CommandError, write_json, write_text, writing

if TYPE_CHECKING:
    from agents.application.train import TrainResult

app = typer.Typer(
    help="Reinforcement learning of text generation at token level.",
    pretty_exceptions_enable=False,
    add_completion=False,
)

EnvArgs = Annotated[
    list[str] | None, typer.Option("--env-arg", metavar="KEY=VALUE", help="Argument of the environment (YAML value).")
]
SetArgs = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Argument of DoubleDQN (YAML value); dots reach inside: policy_kwargs.features_dim=32.",
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Open a .zip although it may hold code that runs when it is opened.")
]
Device = Annotated[str | None, typer.Option(help="Torch device: auto, cpu, cuda …")]


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks (anywhere on the command line).")] = False,
) -> None:
    """Reinforcement learning of text generation at token level."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    pages: Annotated[Path | None, typer.Option(help="Write a Markdown page for every task to this folder.")] = None,
) -> None:
    """Show every environment: vocabulary, budget, context, reference scores."""
    if markdown or pages is not None:
        from textgym.documentation import markdown_table, task_pages

        if pages is not None:
            with writing("--pages", pages, "folder"):
                pages.mkdir(parents=True, exist_ok=True)
                for name, page in task_pages().items():
                    write_text(pages / name, page)
        if markdown:
            print(markdown_table())
        return
    rows = [_describe(env_id) for env_id in _env_ids()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("id", box=None, pad_edge=False)
    for name in ("vocabulary", "budget", "context", "random", "blind", "best"):
        table.add_column(name, justify="right", no_wrap=True)
    table.columns[0].no_wrap = True
    for row in rows:
        known = row["references"] or {}
        scores = (f"{known[name]:.3f}" if name in known else "–" for name in ("random", "blind", "best"))
        table.add_row(
            row["id"],
            *("–" if row[name] is None else str(row[name]) for name in ("vocabulary", "budget", "context")),
            *scores,
        )
    Console().print(table)


def _env_ids() -> list[str]:
    from textgym import env_ids

    return env_ids()


def _describe(env_id: str) -> dict[str, Any]:
    import gymnasium as gym

    from textgym import references
    from textgym.documentation import task_summary

    spec = gym.spec(env_id)
    known = references(env_id)
    return {
        "id": env_id,
        **task_summary(**spec.kwargs),
        "reward_threshold": spec.reward_threshold,
        "references": None
        if known is None
        else {"random": known.random, "blind": known.blind, "best": known.best, "sources": known.sources},
    }


@app.command()
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


@app.command()
def train(
    context: typer.Context,
    env_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="Environment; left out, that of --config.", show_default=False)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Environment steps.", show_default="the id's preset")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so many minutes, if the steps are not used up by then.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything.", show_default="0")] = None,
    n_envs: Annotated[int | None, typer.Option(help="Parallel environments.", show_default="the id's preset")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Run folder, new or empty.", show_default="runs/<ID>-<time>")
    ] = None,
    env_arg: EnvArgs = None,
    set_: SetArgs = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with settings, such as a run's config.yaml; options go over it.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Torch threads.", show_default="1")] = None,
    device: Device = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the run folder alone.")] = False,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Go on with a run that was stopped or killed; there is no ID then."),
    ] = None,
    checkpoint_seconds: Annotated[
        float | None, typer.Option(min=0.0, help="Least seconds between two checkpoints.", show_default="30")
    ] = None,
    from_text: Annotated[Path | None, typer.Option(help="Learn from a text file; there is no ID then.")] = None,
    level: Annotated[str, typer.Option(help="Tokens of --from-text: char or word.")] = "char",
    vocabulary: Annotated[
        int | None, typer.Option(help="Tokens of --from-text at most.", show_default="256 or 2000")
    ] = None,
    window: Annotated[int, typer.Option(help="Tokens of an episode of --from-text.")] = 64,
    from_demonstrations: Annotated[
        int | None, typer.Option(min=1, help="First learn from so many demonstrations; then --steps, if given.")
    ] = None,
    noise: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the demonstrated tokens that are wrong.")
    ] = 0.0,
    objective: Annotated[
        str | None, typer.Option(help="td, cql, ilql, mc, crr or bc.", show_default="td on texts, else ilql")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes through texts or demonstrations.")] = None,
) -> None:
    """Train DoubleDQN on an environment, on texts or on both, and leave a run folder."""
    if env_id is not None:  # before torch is imported: a typing error should be answered at once
        env_id = checked_env_id(env_id)
    agent = parse_assignments("--set", set_ or [])
    env_args = parse_assignments("--env-arg", env_arg or [])
    command = shlex.join(["textgym", *_arguments])
    console = None if quiet else Console()
    if resume is not None:
        _refuse_options("--resume RUN goes on as the run was begun: it takes no", context)
        from agents.application.learn_texts import resume_any

        _ended(resume_any(resume, console, checkpoint_seconds), quiet)
        return
    offline = None
    if from_text is not None or from_demonstrations is not None:
        from agents.application.learn_texts import OfflineSettings, learn_corpus, pretrain

        offline = OfflineSettings(
            from_text, level, vocabulary, window, from_demonstrations, noise, objective, epochs, minutes
        )
        if from_text is not None:
            if env_id is not None or steps is not None:
                raise CommandError("--from-text takes no ID and no --steps: a text is no environment to go on in")
            options = {"seed": seed, "threads": threads, "device": device}
            given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
            given |= {"console": console, "command": command, "checkpoint_seconds": checkpoint_seconds}
            _ended(learn_corpus(offline, agent, run_dir, **given), quiet)
            return
    from agents.application.train import train as run
    from agents.saving.settings import resolve_settings

    settings = resolve_settings(
        env_id,
        config,
        env_args,
        agent=agent,
        steps=steps,
        minutes=minutes,
        seed=seed,
        n_envs=n_envs,
        threads=threads,
        device=device,
    )
    if offline is not None:
        online: dict[str, Any] = {"console": console, "command": command, "checkpoint_seconds": checkpoint_seconds}
        result = pretrain(settings, offline, steps is not None, run_dir, **online)
    else:
        result = run(settings, run_dir, console=console, command=command, checkpoint_seconds=checkpoint_seconds)
    _ended(result, quiet)


def _refuse_options(message: str, context: typer.Context) -> None:
    """Raise unless the command line has no other options than those that a resumed run takes."""
    given = [name for name in context.params if _is_given(context, name) and name not in _WITH_RESUME]
    if given:
        named = ", ".join("ID" if name == "env_id" else f"--{name.strip('_').replace('_', '-')}" for name in given)
        raise CommandError(f"{message} {named}")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


_WITH_RESUME = ("resume", "quiet", "checkpoint_seconds")


def _ended(result: TrainResult, quiet: bool) -> None:
    if quiet:
        print(result.folder)
    if result.interrupted:
        raise typer.Exit(130)


@app.command()
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


@app.command()
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
    )
    if json_file is not None:
        with writing("--json", json_file):
            write_json(json_file, as_json(scores, result))


@app.command()
def export(
    path: Annotated[Path, typer.Argument(metavar="RUN_OR_MODEL", help="Run folder, checkpoint, or model file (.zip).")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write the model, a new or an empty folder.")],
    env: Annotated[str | None, typer.Option(help="Environment.", show_default="the run's own")] = None,
    env_arg: EnvArgs = None,
    trust: Trust = False,
) -> None:
    """Write a model that is safe to share and to open: config.json, model.safetensors, tokenizer.json."""
    if env is not None:
        env = checked_env_id(env)
    from agents.application.validate import export

    print(f"wrote {export(path, folder, env, parse_assignments('--env-arg', env_arg or []), trust)}")


@app.command()
def report(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RUN_OR_RESULTS...", help="Run folders, results of benchmarks, timings.")
    ],
    out: Annotated[Path, typer.Option(help="The page, one file that opens without a network.")] = Path("report.html"),
    figures: Annotated[
        Path | None, typer.Option(help="Write its figures as PNG and SVG into this folder too (needs matplotlib).")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Fresh episodes to look into, for each run.")] = 36,
) -> None:
    """Write a page about training runs and benchmark results: curves, statistics, every token's values."""
    from benchmarks.report import report as write  # the one import that points the other way

    print(f"wrote {write(paths, out, figures, episodes)}")


_arguments: list[str] = []
"""The command line, for the record in a run's configuration."""


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show versions, threads, devices and optional extras, and what is missing; exit code 1 if TextGym cannot run."""
    from agents.application.doctor import diagnose

    found = diagnose()
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for name in ("python", "platform", "cpus", "torch_threads"):
            table.add_row(name.replace("_", " "), str(found[name]))
        table.add_row("devices", ", ".join(found["devices"]))
        table.add_row("packages", ", ".join(f"{name} {version}" for name, version in found["packages"].items()))
        for extra, lines in found["extras"].items():
            table.add_row(f"extra {extra}", "complete" if not lines else f"[yellow]{'; '.join(lines)}[/yellow]")
        for tool, where in found["tools"].items():
            table.add_row(tool, where)
        Console().print(table)
        for problem in found["problems"]:
            print(f"textgym: error: {problem}", file=sys.stderr)
        print("TextGym cannot run." if found["problems"] else "All that TextGym needs is there.")
    if found["problems"]:
        raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 if all went well, 2 if the user has to change something, 130 after Ctrl-C, else 1.

    Args:
        arguments: The command line without the program's name; None for the process's own.

    Raises:
        SystemExit: Always.
    """
    _arguments[:] = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in _arguments
    given = [argument for argument in _arguments if argument != "--debug"]
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.showwarning = _show_warning
            # Not standalone: typer would frame its errors in boxes of several lines. Returns the code of typer.Exit.
            code = app(args=given, prog_name="textgym", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        if debug:
            raise
        code = _explain(error)
    raise SystemExit(code or 0)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Those that are meant for users, in one line."""
    if issubclass(category, UserWarning):
        print(f"textgym: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _explain(error: Exception) -> int:
    """Print an error in one line and return the exit code."""
    if isinstance(error, CommandError):
        message, code = one_line(error), 2
    elif hasattr(error, "format_message"):  # typer's own errors, whichever click it brings along
        message, code = " ".join(error.format_message().split()) + _value_given(error), 2
    else:
        message, code = f"{type(error).__name__}: {one_line(error)} (--debug shows where)", 1
    print(f"textgym: error: {message}", file=sys.stderr)
    return code


def _value_given(error: Exception) -> str:
    """What stood after the option that typer complains about, where its message does not say it."""
    names = getattr(getattr(error, "param", None), "opts", ())
    for argument, following in zip(_arguments, [*_arguments[1:], ""], strict=True):
        name, assigned, value = argument.partition("=")
        if name in names and (assigned or following) and "requires an argument" not in str(error):
            given = value if assigned else following
            return "" if repr(given) in str(error) else f", got {given!r}"
    return ""


if __name__ == "__main__":
    main()
