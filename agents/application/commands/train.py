"""``textgym train``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from agents.application.options import Device, EnvArgs, SetArgs, TrustReward, command_line
from agents.saving.arguments import checked_env_id, parse_assignments
from agents.saving.files import CommandError
from agents.saving.named_rewards import check_trust

if TYPE_CHECKING:
    from agents.application.train import TrainResult


_WITH_RESUME = ("resume", "quiet", "checkpoint_seconds", "trust")


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
    engine: Annotated[
        str | None, typer.Option(help="Who acts: local (this process), threads or ray.", show_default="local")
    ] = None,
    actors: Annotated[
        int | None, typer.Option(help="Actors of --engine, each with --n-envs environments.", show_default="1")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster.", show_default="one started here")] = None,
    max_staleness: Annotated[
        int | None,
        typer.Option(
            help="Most updates that an actor's weights may lag; 0: actors and learner take turns.", show_default="0"
        ),
    ] = None,
    weights_every: Annotated[
        int | None, typer.Option(help="Least updates between two weights for an actor.", show_default="1")
    ] = None,
    actor_steps: Annotated[
        int | None, typer.Option(help="Steps of an actor's environments in a report.", show_default="train_freq")
    ] = None,
    actor_cpus: Annotated[
        float | None, typer.Option(help="Cores that Ray reserves for an actor.", show_default="1")
    ] = None,
    learners: Annotated[
        int | None, typer.Option(help="Learners of --engine, each with a share of replay.", show_default="1")
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Read texts by this pretrained encoder, which stays as it is.")
    ] = None,
    pooling: Annotated[str, typer.Option(help="Of --encoder: mean, cls, or last for causal ones.")] = "mean",
    latent: Annotated[
        int | None, typer.Option(min=1, help="Of --encoder: numbers that an autoencoder leaves of a vector.")
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
    trust: TrustReward = False,
) -> None:
    """Train DoubleDQN on an environment, on texts or on both, and leave a run folder."""
    if env_id is not None:  # before torch is imported: a typing error should be answered at once
        env_id = checked_env_id(env_id)
    agent = parse_assignments("--set", set_ or [])
    env_args = parse_assignments("--env-arg", env_arg or [])
    of_actors = {
        "engine": engine,
        "n_actors": actors,
        "address": address,
        "max_staleness": max_staleness,
        "weights_every": weights_every,
        "vector_steps": actor_steps,
        "cpus": actor_cpus,
        "n_learners": learners,
    }
    acting = {name: value for name, value in of_actors.items() if value is not None}
    policy = None
    if encoder is not None:
        policy = "EncoderPolicy"
        given = {"encoder": str(encoder.resolve()), "pooling": pooling, "latent_dim": latent}
        agent["policy_kwargs"] = {**(agent.get("policy_kwargs") or {}), **given}
    command = shlex.join(["textgym", *command_line])
    console = None if quiet else Console()
    if resume is not None:
        resume_command(context, resume, console, checkpoint_seconds, trust)
        return
    offline = None
    if from_text is not None or from_demonstrations is not None:
        from agents.application.learn_corpus import learn_corpus
        from agents.application.learn_texts import pretrain
        from agents.application.offline_settings import OfflineSettings

        offline = OfflineSettings(
            from_text, level, vocabulary, window, from_demonstrations, noise, objective, epochs, minutes
        )
        if from_text is not None:
            if env_id is not None or steps is not None:
                raise CommandError("--from-text takes no ID and no --steps: a text is no environment to go on in")
            if acting:
                raise CommandError("--from-text takes no --engine and no actors: there is nothing to act in")
            if encoder is not None:
                raise CommandError("--from-text takes no --encoder: its tokens are its own; use --from-demonstrations")
            options = {"seed": seed, "threads": threads, "device": device}
            run_options: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
            run_options |= {"console": console, "command": command, "checkpoint_seconds": checkpoint_seconds}
            ended(learn_corpus(offline, agent, run_dir, **run_options), quiet)
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
        actors=acting or None,
        policy=policy,
    )
    if config is not None and not trust:
        for named in (settings.env_args, settings.eval_args):
            if named.get("reward") != env_args.get("reward"):  # what the command line says is the user's word
                check_trust(named, config)
    if offline is not None:
        if (settings.actors or {}).get("n_learners", 1) > 1:
            raise CommandError("--from-demonstrations takes no --learners: one learner alone rehearses texts")
        online: dict[str, Any] = {"console": console, "command": command, "checkpoint_seconds": checkpoint_seconds}
        result = pretrain(settings, offline, steps is not None, run_dir, **online)
    else:
        result = run(settings, run_dir, console=console, command=command, checkpoint_seconds=checkpoint_seconds)
    ended(result, quiet)


def resume_command(
    context: typer.Context, folder: Path, console: Console | None, checkpoint_seconds: float | None, trust: bool
) -> None:
    """``--resume``, of this command and of others that train."""
    _refuse_options("--resume RUN goes on as the run was begun: it takes no", context)
    from agents.application.learn_texts import resume_any

    ended(resume_any(folder, console, checkpoint_seconds, trust), console is None)


def _refuse_options(message: str, context: typer.Context) -> None:
    """Raise unless the command line has no other options than those that a resumed run takes."""
    given = [name for name in context.params if _is_given(context, name) and name not in _WITH_RESUME]
    if given:
        named = ", ".join("ID" if name == "env_id" else f"--{name.strip('_').replace('_', '-')}" for name in given)
        raise CommandError(f"{message} {named}")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def ended(result: TrainResult, quiet: bool) -> None:
    """What is printed, and the exit code, when training has ended."""
    if quiet:
        print(result.folder)
    if result.interrupted:
        raise typer.Exit(130)
