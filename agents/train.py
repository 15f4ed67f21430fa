"""Training with a run folder: configuration, progress, checkpoints, texts, and a final evaluation.

``python -m agents.train`` is ``textgym train``.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

from agents.callbacks import LogProgress, ProgressDisplay, SampleTexts, SaveCheckpoint, StopWhen, save_model
from agents.double_dqn import DoubleDQN
from agents.options import (
    checked_agent_arguments,
    checked_env_id,
    constructor_arguments,
    make_env,
    merge,
    one_line,
)
from agents.presets import PRESETS, Preset
from agents.runs import (
    CHECKPOINT,
    CONFIG,
    MODEL,
    RESULT,
    SAMPLES,
    CommandError,
    create_run_folder,
    plain,
    read_yaml_mapping,
    versions,
    write_json,
    write_text,
    write_yaml,
)
from agents.validate import FRESH_SEED, EvaluationResult, Scores, as_json, evaluate, report, sample_line, score

EVALUATION_EPISODES = 256
DEFAULT_THREADS = 1
"""Torch threads. The networks are small: two threads on two cores that other processes used as well took ten to fifty
times as long as one (they wait for each other), and one gives the same numbers on every machine."""
_N_SAMPLES = 4
_RECORDED = ("versions", "command", "offline")
"""Keys of ``config.yaml`` that tell about the run without deciding what it does."""


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides what a training run does; ``config.yaml`` is this.

    Attributes:
        env: Id of the environment.
        env_args: Its arguments.
        agent: All arguments of :class:`agents.DoubleDQN`.
        steps: Environment steps.
        minutes: Stop after so many minutes, if the steps are not used up by then; None for no limit.
        n_envs: Parallel environments.
        seed: Seed of everything; training rows are seeded ``seed`` to ``seed + n_envs - 1``.
        threads: Torch threads.
        device: Torch device.
    """

    env: str
    env_args: dict[str, Any]
    agent: dict[str, Any]
    steps: int
    minutes: float | None
    n_envs: int
    seed: int
    threads: int
    device: str

    @property
    def fresh_seed(self) -> int:
        """Seed of evaluation rows, beyond all training seeds."""
        return self.seed + max(FRESH_SEED, self.n_envs)


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        folder: The run folder.
        interrupted: Whether Ctrl-C ended it; the model is saved, but not evaluated.
        scores: The final evaluation; None if interrupted.
    """

    folder: Path
    interrupted: bool
    scores: Scores | None


def resolve_settings(
    env: str | None = None, config: str | Path | None = None, env_args: dict[str, Any] | None = None, **options: Any
) -> TrainSettings:
    """Settings from, each over the one before: the id's preset, a configuration file, the options.

    Args:
        env: Id of the environment; None to take the configuration's.
        config: A YAML file with keys of :class:`TrainSettings`, such as an earlier run's ``config.yaml``.
        env_args: Arguments of the environment.
        **options: Other attributes of :class:`TrainSettings`; None where not given.

    Raises:
        CommandError: If a key is unknown or a value out of range.
    """
    fields = TrainSettings.__dataclass_fields__
    file = {} if config is None else read_yaml_mapping(config)
    for key in file:
        if key not in fields and key not in _RECORDED:
            raise CommandError(f"--config {config} has the unknown key {key!r}; accepted: {', '.join(fields)}")
    for key in ("env_args", "agent"):
        if not isinstance(file.get(key, {}), dict):
            raise CommandError(f"--config {config}: {key} must be a mapping of names to values, got {file[key]!r}")
    env = env if env is not None else file.get("env")
    if env is None:
        raise CommandError("ID must name an environment (or --config a file that has one); see 'textgym list'")
    env = checked_env_id(env)
    if "env" in file and checked_env_id(file["env"]) != env:
        raise CommandError(f"ID must be that of --config, {file['env']}, got {env}")
    preset = PRESETS.get(env, Preset())
    given = {key: value for key, value in options.items() if value is not None and key != "agent"}
    base = {"steps": preset.steps, "n_envs": preset.n_envs, "minutes": None, "seed": 0, "device": "auto"}
    values = {**base, "threads": DEFAULT_THREADS, **{key: file[key] for key in file if key in fields}, **given}
    values["env"] = env
    values["env_args"] = merge(file.get("env_args", {}), env_args or {})
    agent = merge({} if "agent" in file else preset.kwargs, file.get("agent", {}), options.get("agent") or {})
    values["agent"] = checked_agent_arguments(agent)
    for name, least in (("steps", 1), ("n_envs", 1), ("threads", 1), ("seed", 0)):
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise CommandError(f"--{name.replace('_', '-')} must be an integer of at least {least}, got {value!r}")
    minutes = values["minutes"]
    if minutes is not None and not (isinstance(minutes, (int, float)) and minutes > 0):
        raise CommandError(f"--minutes must be greater than 0, got {minutes!r}")
    return TrainSettings(**values)


def train(
    settings: TrainSettings,
    run_dir: str | Path | None = None,
    *,
    console: Console | None = None,
    command: str | None = None,
    prepare: Callable[[DoubleDQN], None] | None = None,
    recorded: dict[str, Any] | None = None,
) -> TrainResult:
    """Train :class:`agents.DoubleDQN` and leave a run folder.

    Sets the number of torch threads of the process.

    Args:
        settings: What to do.
        run_dir: The run folder, new or empty; None for ``runs/<id>-<time>``.
        console: Where to show progress and texts; None for nowhere.
        command: The command line, to be noted in the configuration.
        prepare: What to do with the model before the first step, such as pretraining it.
        recorded: What else to note in the configuration.

    Raises:
        CommandError: If the environment or the agent refuses its arguments, or the folder has content.
    """
    console = Console(quiet=True) if console is None else console
    torch.set_num_threads(settings.threads)
    env = make_env(settings.env, settings.n_envs, settings.seed, settings.env_args)
    model = _make_model(settings, env)
    folder = create_run_folder(run_dir, settings.env)
    write_yaml(folder / CONFIG, plain(vars(settings)) | (recorded or {}) | {"versions": versions(), "command": command})
    model.set_logger(configure(str(folder), ["csv", "tensorboard"]))
    console.print(
        f"Training on {settings.env}: {settings.steps:,} steps in {settings.n_envs} environments, "
        f"{settings.threads} thread{'s' if settings.threads > 1 else ''}, {model.device}; run folder {folder}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )

    if prepare is not None:
        prepare(model)
    samples: list[str] = []

    def show(steps: int, result: EvaluationResult) -> None:
        texts = [f"Greedy samples after {steps:,} steps:"]
        texts += [sample_line(result, index) for index in range(len(result.returns))]
        samples.append("\n".join(texts) + "\n")
        write_text(folder / SAMPLES, "\n".join(samples))
        console.print(samples[-1], highlight=False, markup=False, soft_wrap=True)

    limit = None if settings.minutes is None else settings.minutes * 60.0
    started = time.perf_counter()
    sample_env = make_env(settings.env, _N_SAMPLES, settings.fresh_seed, settings.env_args)
    sampler = SampleTexts(sample_env, max(1, settings.steps // 4), _N_SAMPLES, settings.fresh_seed, show)
    display = ProgressDisplay(settings.steps, console, limit)
    with _interrupt_flag() as interrupted:
        callbacks: list[BaseCallback] = [
            StopWhen(lambda: interrupted.is_set() or (limit is not None and time.perf_counter() - started > limit)),
            display,
            sampler,
            LogProgress(max(1, settings.steps // 100)),
            SaveCheckpoint(folder / CHECKPOINT, max(1, settings.steps // 10)),
        ]
        try:
            # log_interval=None: LogProgress writes the log.
            model.learn(settings.steps, callbacks, log_interval=None)  # type: ignore[arg-type]
        finally:
            display.close()
    seconds = time.perf_counter() - started
    save_model(model, folder / MODEL)
    model.logger.close()
    if interrupted.is_set():
        console.print(
            f"Stopped after {model.num_timesteps:,} steps; the model is in {folder / MODEL}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        return TrainResult(folder, True, None)

    rows = make_env(settings.env, 64, settings.fresh_seed, settings.env_args)
    result = evaluate(model, rows, EVALUATION_EPISODES, seed=settings.fresh_seed)
    scores = score(result, None if settings.env_args else settings.env)
    speed = {
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "train_seconds": round(seconds, 1),
        "steps_per_second": round(model.num_timesteps / seconds, 1),
        "updates_per_second": round(model._n_updates / seconds, 1),
    }
    write_json(folder / RESULT, {**as_json(scores), "evaluation_seed": settings.fresh_seed, **speed})
    console.print(
        f"Trained {model.num_timesteps:,} steps and {model._n_updates:,} updates in {seconds:.0f} s. Greedy on "
        f"{len(result.returns)} fresh episodes (best, median, worst below):\n\n{report(result, scores)}\n\n"
        f"Run folder: {folder}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    for used in (env, sample_env, rows):
        used.close()
    return TrainResult(folder, False, scores)


def _make_model(settings: TrainSettings, env: Any) -> DoubleDQN:
    try:
        torch.device("cpu" if settings.device == "auto" else settings.device)
    except RuntimeError:
        raise CommandError(f"--device must be auto, cpu, cuda, cuda:1 …, got {settings.device!r}") from None
    arguments = constructor_arguments(settings.agent)
    try:
        return DoubleDQN("PerformerPolicy", env, seed=settings.seed, device=settings.device, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise CommandError(f"--set: {one_line(error)}") from error


@contextlib.contextmanager
def _interrupt_flag() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second one interrupts as usual."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag  # signals are the main thread's business
        return
    previous = signal.getsignal(signal.SIGINT)

    def handle(signum: int, frame: Any) -> None:
        flag.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, handle)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)


if __name__ == "__main__":
    import sys

    from agents.cli import main

    main(["train", *sys.argv[1:]])
