"""The work behind ``textgym train --from-text`` and ``--from-demonstrations``."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from agents.application.callbacks import save_model
from agents.application.resume import disk_errors, interrupt_flag, read_run
from agents.application.run_folder import CHECKPOINTS, CONFIG, MODEL, MODEL_FOLDER, RESULT, create_run_folder
from agents.application.train import TrainResult, resume_run, say, train
from agents.double_dqn import DoubleDQN
from agents.offline.corpus import Vocabulary, build_vocabulary, split_corpus
from agents.offline.episodes import TextEpisodes, text_to_episodes
from agents.offline.learner import OfflineProgress, TextCheckpoints
from agents.offline.learning import OfflineResult, learn_from_text
from agents.offline.likelihood import score_texts
from agents.offline.losses import OBJECTIVES, OF_LOGITS
from agents.offline.rows import read_text
from agents.saving.arguments import checked_agent_arguments, constructor_arguments, merge, one_line
from agents.saving.checkpoint_folder import TrainingInterrupted
from agents.saving.export import export_model
from agents.saving.files import CommandError, plain, write_json
from agents.saving.settings import DEFAULT_THREADS, TrainSettings, resolve_settings
from agents.vec_env import TextGenVecEnv
from textgym import TextGenVectorEnv, demonstrations

DEMONSTRATION_SEED = 2_000_000
"""Demonstrations have prompts of their own: far from the seeds of training and of evaluation."""
CORPUS_KWARGS: dict[str, Any] = {
    "gamma": 0.0,
    "learning_rate": {"start": 2e-3, "end": 0.0},
}
"""Arguments of the agent that differ from its defaults on a corpus; see :mod:`agents.offline.corpus`."""


@dataclass(frozen=True)
class OfflineSettings:
    """What is learned before, or without, an environment.

    Attributes:
        text: A text file; None to learn from demonstrations.
        level: Of a text file: ``"char"`` or ``"word"``.
        vocabulary: Of a text file: symbols at most; None for 256 characters or 2,000 words.
        window: Of a text file: tokens of an episode.
        demonstrations: Number of demonstrations; None to learn from a text file.
        noise: Share of the demonstrated tokens that are replaced by random ones, in [0, 1].
        objective: See :func:`agents.offline.learn_from_text`; None for ``"td"`` on a text file, else ``"ilql"``.
        epochs: Passes through the data; None for as many as ``minutes`` allow, and 10 without these.
        minutes: Stop after so many minutes.
    """

    text: Path | None = None
    level: str = "char"
    vocabulary: int | None = None
    window: int = 64
    demonstrations: int | None = None
    noise: float = 0.0
    objective: str | None = None
    epochs: float | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.demonstrations is None):
            raise CommandError("--from-text and --from-demonstrations exclude one another, and one of them is needed")
        if self.objective is not None and self.objective not in OBJECTIVES:
            raise CommandError(f"--objective must be one of {', '.join(OBJECTIVES)}, got {self.objective!r}")
        for name, value in (("epochs", self.epochs), ("minutes", self.minutes)):
            if value is not None and not value > 0:
                raise CommandError(f"--{name} must be greater than 0, got {value}")

    @property
    def passes(self) -> float:
        """Passes through the data, if nothing stops the learning before."""
        return self.epochs if self.epochs is not None else (10.0 if self.minutes is None else 1_000.0)

    def recorded(self) -> dict[str, Any]:
        """Plain values, for ``config.yaml``."""
        return plain({name: value for name, value in asdict(self).items() if value is not None})


def pretrain(
    settings: TrainSettings,
    offline: OfflineSettings,
    online: bool,
    run_dir: Path | None = None,
    *,
    console: Console | None = None,
    command: str | None = None,
    resume: bool = False,
    checkpoint_seconds: float | None = None,
) -> TrainResult:
    """Learn from demonstrations of the environment, then in it, and leave a run folder.

    Args:
        settings: The environment and the agent, as for :func:`agents.application.train.train`.
        offline: The demonstrations.
        online: Whether to go on with ``settings.steps`` in the environment; otherwise there are none.
        run_dir: See :func:`agents.application.train.train`.
        console: Likewise.
        command: Likewise.
        resume: Whether to go on with the run in ``run_dir``, see
            :func:`agents.train.resume_run`; then ``online`` is what it was.
        checkpoint_seconds: See :func:`agents.application.train.train`.

    Raises:
        CommandError: If an argument is out of range, or the environment has no oracle.
    """
    objective = offline.objective or "ilql"
    if online and objective in OF_LOGITS:
        raise CommandError(
            f"--objective must leave values to go on online with --steps (td, cql, ilql, mc), got {objective!r}"
        )
    assert offline.demonstrations is not None
    try:
        shown = demonstrations(
            settings.env,
            offline.demonstrations,
            DEMONSTRATION_SEED + settings.seed,
            offline.noise,
            **settings.env_args,
        )
    except ValueError as error:
        raise CommandError(f"--from-demonstrations: {one_line(error)}") from None

    def prepare(model: DoubleDQN, folder: Path, stop: Callable[[], bool]) -> None:
        with _explained():
            checkpoints = TextCheckpoints(folder, checkpoint_seconds, stop)
            with shown_progress(checkpoints, console, offline.minutes) as callback:
                result = learn_from_text(
                    model,
                    shown,
                    objective=objective,
                    epochs=offline.passes,
                    callback=callback,
                    checkpoints=checkpoints,
                )
        _tell(console, result, objective)

    if resume:
        assert run_dir is not None
        return resume_run(run_dir, console=console, checkpoint_seconds=checkpoint_seconds, prepare=prepare)
    if not online:
        settings = replace(settings, steps=0)
    return train(
        settings,
        run_dir,
        console=console,
        command=command,
        prepare=prepare,
        recorded={"offline": offline.recorded()},
        checkpoint_seconds=checkpoint_seconds,
    )


def resume_any(folder: Path, console: Console | None = None, checkpoint_seconds: float | None = None) -> TrainResult:
    """Go on with a run, whether it began with texts, with demonstrations or with neither.

    Raises:
        CommandError: See :func:`agents.application.train.resume_run`; or if the text file is another one now.
    """
    config = read_run(folder)
    began = config.get("offline")
    if not began:
        return resume_run(folder, console=console, checkpoint_seconds=checkpoint_seconds)
    try:
        offline = OfflineSettings(**began)
        if offline.text is not None:
            learning = _CorpusRun(replace(offline, text=Path(offline.text)), *(config[key] for key in _OF_CORPUS))
            return _resume_corpus(learning, folder, console, checkpoint_seconds)
    except (TypeError, KeyError) as error:
        raise CommandError(f"{folder / CONFIG} must be as 'textgym train' wrote it: {one_line(error)}") from None
    settings = resolve_settings(config=folder / CONFIG, steps=1)
    options: dict[str, Any] = {"console": console, "resume": True, "checkpoint_seconds": checkpoint_seconds}
    return pretrain(settings, offline, True, folder, **options)


@dataclass(frozen=True)
class _CorpusRun:
    """What decides how a text file is learned from: ``config.yaml`` is this."""

    offline: OfflineSettings
    agent: dict[str, Any]
    seed: int
    threads: int
    device: str
    sha256: str


_OF_CORPUS = ("agent", "seed", "threads", "device", "sha256")


def learn_corpus(
    offline: OfflineSettings,
    agent: dict[str, Any] | None = None,
    run_dir: Path | None = None,
    *,
    seed: int = 0,
    threads: int = DEFAULT_THREADS,
    device: str = "auto",
    console: Console | None = None,
    command: str | None = None,
    checkpoint_seconds: float | None = None,
) -> TrainResult:
    """Learn to foretell a text file's next token, and leave a run folder.

    The last twentieth of the file is held out, and tells how good the result is.

    Args:
        offline: The file, and how to learn from it.
        agent: Arguments of :class:`agents.DoubleDQN` over :data:`CORPUS_KWARGS`.
        run_dir: See :func:`agents.application.train.train`.
        seed: Seed of everything.
        threads: Torch threads.
        device: Torch device.
        console: Where to show progress; None for nowhere.
        command: The command line, to be noted in the configuration.
        checkpoint_seconds: See :func:`agents.application.train.train`.

    Raises:
        CommandError: If an argument is out of range, or the file can't be read.
    """
    assert offline.text is not None
    torch.set_num_threads(threads)
    corpus = _read_corpus(offline)
    arguments = checked_agent_arguments(merge(CORPUS_KWARGS, agent or {}))
    if (agent or {}).get("buffer_size") is None:
        arguments["buffer_size"] = int(corpus.learned.n_actions.sum())
    located = replace(offline, text=offline.text.resolve())
    run = _CorpusRun(located, plain(arguments), seed, threads, device, corpus.sha256)
    model = _corpus_model(run, corpus)
    config = {"offline": located.recorded(), **{key: getattr(run, key) for key in _OF_CORPUS}, "command": command}
    folder = create_run_folder(run_dir, f"text-{offline.text.stem}", config)
    corpus.vocabulary.save(folder)
    return _learn_corpus(run, corpus, model, folder, console, checkpoint_seconds)


def _resume_corpus(
    run: _CorpusRun, folder: Path, console: Console | None, checkpoint_seconds: float | None
) -> TrainResult:
    if (folder / RESULT).is_file():
        say(console, f"The run in {folder} has ended; see {folder / RESULT}")
        return TrainResult(folder, False, None)
    torch.set_num_threads(run.threads)
    corpus = _read_corpus(run.offline)
    if corpus.sha256 != run.sha256:
        raise CommandError(f"--resume must find the text that the run began with, and {run.offline.text} has changed")
    return _learn_corpus(run, corpus, _corpus_model(run, corpus), folder, console, checkpoint_seconds)


@dataclass(frozen=True)
class _Corpus:
    vocabulary: Vocabulary
    learned: TextEpisodes
    held_out: TextEpisodes
    sha256: str


def _read_corpus(offline: OfflineSettings) -> _Corpus:
    assert offline.text is not None
    with _explained():
        text = read_text(offline.text)
        parts = split_corpus(text)
        vocabulary = build_vocabulary(parts[0], offline.level, offline.vocabulary, offline.window)
        task = vocabulary.task()
        learned, held_out = (
            text_to_episodes([vocabulary.normalise(part)], task, window=vocabulary.window) for part in parts
        )
    return _Corpus(vocabulary, learned, held_out, hashlib.sha256(text.encode()).hexdigest())


def _corpus_model(run: _CorpusRun, corpus: _Corpus) -> DoubleDQN:
    env = TextGenVecEnv(TextGenVectorEnv(1, corpus.vocabulary.task()))
    arguments = constructor_arguments(run.agent)
    try:
        return DoubleDQN("PerformerPolicy", env, seed=run.seed, device=run.device, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise CommandError(f"--set: {one_line(error)}") from error


def _learn_corpus(
    run: _CorpusRun,
    corpus: _Corpus,
    model: DoubleDQN,
    folder: Path,
    console: Console | None,
    checkpoint_seconds: float | None,
) -> TrainResult:
    offline, vocabulary = run.offline, corpus.vocabulary
    objective = offline.objective or "td"
    with disk_errors(folder), interrupt_flag() as interrupted, _explained():
        checkpoints = TextCheckpoints(folder / CHECKPOINTS, checkpoint_seconds, interrupted.is_set)
        try:
            with shown_progress(checkpoints, console, offline.minutes) as callback:
                result = learn_from_text(
                    model,
                    corpus.learned,
                    objective=objective,
                    epochs=offline.passes,
                    learning_rate=decaying_rate(model, checkpoints, offline.minutes),
                    other_reward=None if objective in OF_LOGITS else 0.0,
                    callback=callback,
                    checkpoints=checkpoints,
                )
        except TrainingInterrupted:
            say(console, f"Stopped; 'textgym train --resume {folder}' goes on")
            return TrainResult(folder, True, None)
        seconds = round(checkpoints.seconds, 1)
        save_model(model, folder / MODEL)
        vocabulary.save(export_model(model, folder / MODEL_FOLDER))
        scores = score_texts(model, corpus.held_out, ignore=vocabulary.unknown_id).summary()
        write_json(folder / RESULT, {"held_out": scores, "learned": asdict(result), "train_seconds": seconds})
    _tell(console, result, objective)
    say(
        console,
        f"Held out: {scores['actions']:,} tokens, {scores['agreement']:.1%} foretold, perplexity "
        f"{scores['perplexity']:.2f} at temperature {scores['temperature']:.3g}\n\nRun folder: {folder}",
    )
    assert model.env is not None
    model.env.close()
    return TrainResult(folder, False, None)


def decaying_rate(model: DoubleDQN, checkpoints: TextCheckpoints, minutes: float | None) -> Callable[[float], float]:
    """The model's schedule of the learning rate, over the passes through the data or the minutes, what ends first."""
    if minutes is None:
        return model.lr_schedule
    return lambda remaining: float(
        model.lr_schedule(min(remaining, max(0.0, 1.0 - checkpoints.seconds / (60 * minutes))))
    )


@contextlib.contextmanager
def shown_progress(
    checkpoints: TextCheckpoints, console: Console | None, minutes: float | None = None
) -> Iterator[Callable[[OfflineProgress], bool | None]]:
    """A callback that draws a bar, and stops after so many minutes."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=console is None, transient=True) as progress:
        bar = progress.add_task("offline", total=1.0)

        def callback(now: OfflineProgress) -> bool:
            minutes_so_far = checkpoints.seconds / 60
            share = now.update / now.updates
            if minutes is not None:
                share = max(share, minutes_so_far / minutes)
            text = f"offline, update {now.update:,}, loss {now.loss:.3f}, mean value {now.q_mean:.3f}"
            progress.update(bar, completed=share, description=text)
            return minutes is None or minutes_so_far < minutes

        yield callback


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """What is wrong with the user's input becomes a CommandError; the warning about logits is told by the command."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="objective '(bc|crr)' leaves")
            yield
    except ValueError as error:
        raise CommandError(one_line(error)) from error


def _tell(console: Console | None, result: OfflineResult, objective: str) -> None:
    note = "; the Q-values are logits now, not returns" if objective in OF_LOGITS else ""
    say(
        console,
        f"Learned from {result.episodes:,} texts of {result.actions:,} tokens in {result.updates:,} updates "
        f"({objective}): loss {result.first_loss:.3f} → {result.loss:.3f}{note}",
    )
