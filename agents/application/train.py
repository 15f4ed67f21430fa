"""Training with a run folder: configuration, progress, checkpoints, texts, and a final evaluation."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback

from agents.application.callbacks import LogProgress, ProgressDisplay, SampleTexts, StopWhen, save_model
from agents.application.resume import (
    changed_versions,
    disk_errors,
    finished_scores,
    interrupt_flag,
    newest_checkpoint,
    read_run,
    reward_errors,
)
from agents.application.run_folder import (
    CHECKPOINTS,
    CONFIG,
    MODEL,
    MODEL_FOLDER,
    RESULT,
    SAMPLES,
    create_run_folder,
    trained_in,
)
from agents.application.run_log import open_log
from agents.application.steered_texts import compare
from agents.application.validate import as_json, report
from agents.distributed import ActorDied, Actors, LearnerDied
from agents.double_dqn import DoubleDQN
from agents.double_dqn.evaluation import EvaluationResult, Scores, evaluate, sample_line, score
from agents.saving.arguments import (
    constructor_arguments,
    make_env,
    one_line,
)
from agents.saving.checkpoint import SaveCheckpoints
from agents.saving.checkpoint_folder import CheckpointError, TrainingInterrupted
from agents.saving.export import export_model
from agents.saving.files import CommandError, plain, write_json, write_text
from agents.saving.named_rewards import check_trust, is_named
from agents.saving.settings import EVALUATION_EPISODES, TrainSettings, resolve_settings

_N_SAMPLES = 4


Prepare = Callable[[DoubleDQN, Path, Callable[[], bool]], None]
"""What is done with a new model before its first step, given the folder for checkpoints, and whether to stop."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        folder: The run folder.
        interrupted: Whether Ctrl-C ended it; a checkpoint holds it.
        scores: The final evaluation; None if interrupted.
    """

    folder: Path
    interrupted: bool
    scores: Scores | None


def train(
    settings: TrainSettings,
    run_dir: str | Path | None = None,
    *,
    console: Console | None = None,
    command: str | None = None,
    prepare: Prepare | None = None,
    recorded: dict[str, Any] | None = None,
    resume: bool = False,
    checkpoint_seconds: float | None = None,
    trust: bool = False,
) -> TrainResult:
    """Train :class:`agents.DoubleDQN` and leave a run folder.

    Sets the number of torch threads of the process. Ctrl-C writes a checkpoint before the next step.

    Args:
        settings: What to do.
        run_dir: The run folder, new or empty; None for ``runs/<id>-<time>``.
        console: Where to show progress and texts; None for nowhere.
        command: The command line, to be noted in the configuration.
        prepare: What to do with the model before the first step, such as pretraining it; not after a checkpoint of
            training. Given whether to stop, it may raise :class:`agents.saving.checkpoint_folder.TrainingInterrupted`.
        recorded: What else to note in the configuration.
        resume: Whether ``run_dir`` is the folder of a run with the same settings that was stopped or killed: it goes
            on from its newest checkpoint, or from its beginning where it has none. See :func:`resume_run`.
        checkpoint_seconds: See :class:`agents.saving.checkpoint.SaveCheckpoints`.
        trust: With ``resume``: whether to import the reward that the folder's configuration names, if it names one.

    Raises:
        CommandError: If the environment or the agent refuses its arguments, the folder has content, or it can't be
            written to; or if the user's reward fails.
        agents.double_dqn.health.NumericalError: If a loss becomes NaN or infinite.
    """
    console = Console(quiet=True) if console is None else console
    torch.set_num_threads(settings.threads)
    if resume and not trust:
        for env_args in (settings.env_args, settings.eval_args):
            check_trust(env_args, Path(str(run_dir)) / CONFIG)
    env = make_env(settings.env, settings.n_envs, settings.seed, settings.env_args)
    model = _make_model(settings, env)
    with _actors(settings, model):
        saved = None
        if resume:
            assert run_dir is not None
            folder = Path(run_dir)
            saved = newest_checkpoint(folder)
        else:
            config = {**plain(vars(settings)), **(recorded or {}), "command": command}
            folder = create_run_folder(run_dir, settings.env, config)
        with disk_errors(folder), reward_errors():
            return _run(settings, model, folder, saved, console, prepare, checkpoint_seconds)


def resume_run(
    folder: str | Path,
    *,
    console: Console | None = None,
    checkpoint_seconds: float | None = None,
    prepare: Prepare | None = None,
    trust: bool = False,
) -> TrainResult:
    """Go on with a run that was stopped or killed; it ends as if it had not been, bit for bit on the same versions.

    A run that has ended is left alone.

    Args:
        folder: Its run folder.
        console: See :func:`train`.
        checkpoint_seconds: Likewise.
        prepare: Likewise.
        trust: Likewise.

    Raises:
        CommandError: If the folder is no run folder, or none of its checkpoints can be read.
    """
    folder = Path(folder)
    config = read_run(folder)
    scores = finished_scores(folder)
    if scores is not None:
        say(console, f"The run in {folder} has ended: mean return {scores.mean:.3f}; see {folder / RESULT}")
        return TrainResult(folder, False, scores)
    others = changed_versions(config)
    if others is not None:
        say(console, f"Other versions than at the beginning, so bits may differ: {others}")
    steps = config.get("steps")
    settings = resolve_settings(config=folder / CONFIG, steps=1 if steps == 0 else None)
    return train(
        replace(settings, steps=steps) if steps == 0 else settings,
        folder,
        console=console,
        resume=True,
        checkpoint_seconds=checkpoint_seconds,
        prepare=prepare,
        trust=trust,
    )


def _run(
    settings: TrainSettings,
    model: DoubleDQN,
    folder: Path,
    saved: dict[str, Any] | None,
    console: Console,
    prepare: Prepare | None,
    checkpoint_seconds: float | None,
) -> TrainResult:
    """Train from the beginning, or from a checkpoint; evaluate; write everything."""
    done = 0 if saved is None else int(saved["state"]["counters"]["num_timesteps"])
    model.set_logger(open_log(folder, None if saved is None else min(done, settings.steps - 1)))
    threads = f"{settings.threads} thread{'s' if settings.threads > 1 else ''}"
    say(
        console,
        f"Training on {settings.env}: {settings.steps:,} steps in {settings.n_envs} environments, {threads}, "
        f"{model.device}{_who(settings)}; run folder {folder}" + (f"; going on after {done:,} steps" if saved else ""),
    )
    samples: list[str] = [] if saved is None else list(saved["extra"].get("samples", ()))

    def show(steps: int, result: EvaluationResult) -> None:
        texts = [f"Greedy samples after {steps:,} steps:"]
        texts += [sample_line(result, index) for index in range(len(result.returns))]
        samples.append("\n".join(texts) + "\n")
        write_text(folder / SAMPLES, "\n".join(samples))
        say(console, samples[-1])

    limit = math.inf if settings.minutes is None else settings.minutes * 60.0
    sample_env = make_env(settings.env, _N_SAMPLES, settings.fresh_seed, settings.fresh_args)
    again = f"'textgym train --resume {folder}{' --trust' if is_named(settings.env_args) else ''}' goes on"
    display = ProgressDisplay(settings.steps, console, None if settings.minutes is None else limit)
    with interrupt_flag() as interrupted:
        if prepare is not None and saved is None:
            try:
                prepare(model, folder / CHECKPOINTS, interrupted.is_set)
            except TrainingInterrupted:
                say(console, f"Stopped before the first step; {again}")
                model.logger.close()
                sample_env.close()
                return TrainResult(folder, True, None)
        started = time.perf_counter()
        checkpoints = SaveCheckpoints(
            folder / CHECKPOINTS, checkpoint_seconds, saved, interrupted.is_set, lambda: {"samples": samples}
        )
        started -= checkpoints.elapsed
        callbacks: list[BaseCallback] = [
            checkpoints,  # first: it puts a resumed model in its place before the others look at it
            StopWhen(lambda: time.perf_counter() - started > limit),
            display,
            SampleTexts(sample_env, max(1, settings.steps // 4), _N_SAMPLES, settings.fresh_seed, show),
            LogProgress(max(1, settings.steps // 100)),
        ]
        try:
            # log_interval=None: LogProgress writes the log.
            model.learn(settings.steps, callbacks, log_interval=None)
        except TrainingInterrupted:
            display.close()
            say(console, f"Stopped after {model.num_timesteps:,} steps; {again}")
            return TrainResult(folder, True, None)
        except (ActorDied, LearnerDied) as error:
            raise CommandError(
                f"{one_line(error)}; once that is mended, 'textgym train --resume {folder}' goes on"
            ) from error
        except CheckpointError as error:
            raise CommandError(f"the checkpoint in {folder} must fit its {CONFIG}: {one_line(error)}") from error
        finally:
            display.close()
            model.logger.close()
            sample_env.close()
    seconds = time.perf_counter() - started
    save_model(model, folder / MODEL)
    export_model(model, folder / MODEL_FOLDER, trained_in(vars(settings)))

    if settings.policy == "LanguageModelPolicy":
        say(console, compare(model, settings.env, settings.fresh_args, settings.fresh_seed).save(folder).shown())
    rows = make_env(settings.env, 64, settings.fresh_seed, settings.fresh_args)
    result = evaluate(model, rows, EVALUATION_EPISODES, seed=settings.fresh_seed)
    rows.close()
    scores = score(result, None if settings.env_args else settings.env)
    speed = {
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "train_seconds": round(seconds, 1),
        "steps_per_second": round(model.num_timesteps / seconds, 1),
        "updates_per_second": round(model._n_updates / seconds, 1),
    }
    write_json(folder / RESULT, {**as_json(scores), "evaluation_seed": settings.fresh_seed, **speed})
    say(
        console,
        f"Trained {model.num_timesteps:,} steps and {model._n_updates:,} updates in {seconds:.0f} s. Greedy on "
        f"{len(result.returns)} fresh episodes (best, median, worst below):\n\n{report(result, scores)}\n\n"
        f"Run folder: {folder}",
    )
    if model.env is not None:
        model.env.close()
    return TrainResult(folder, False, scores)


def say(console: Console | None, text: str) -> None:
    """Print a text as it is, if there is anywhere to print it."""
    if console is not None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def _make_model(settings: TrainSettings, env: Any) -> DoubleDQN:
    try:
        torch.device("cpu" if settings.device == "auto" else settings.device)
    except (RuntimeError, TypeError):
        raise CommandError(f"--device must be auto, cpu, cuda, cuda:1 …, got {settings.device!r}") from None
    arguments = constructor_arguments(settings.agent)
    try:
        return DoubleDQN(settings.policy, env, seed=settings.seed, device=settings.device, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise CommandError(f"--set: {one_line(error)}") from error


def _actors(settings: TrainSettings, model: DoubleDQN) -> contextlib.AbstractContextManager[Any]:
    """The actors that the settings ask for, who act in the model's place until they are closed."""
    if settings.actors is None:
        return contextlib.nullcontext()
    try:
        return Actors(model, **settings.actors)
    except (TypeError, ValueError, ConnectionError) as error:
        raise CommandError(f"--engine {settings.actors['engine']}: {one_line(error)}") from error


def _who(settings: TrainSettings) -> str:
    if settings.actors is None:
        return ""
    n_learners = settings.actors.get("n_learners", 1)
    learners = f" for {n_learners} learners" if n_learners > 1 else ""
    return f", {settings.actors.get('n_actors', 1)} actors{learners} through {settings.actors['engine']}"
