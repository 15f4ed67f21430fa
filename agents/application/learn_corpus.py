"""The work behind ``textgym train --from-text``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from agents.application.callbacks import save_model
from agents.application.offline_settings import OfflineSettings, explained, shown_progress, tell
from agents.application.resume import disk_errors, interrupt_flag
from agents.application.run_folder import CHECKPOINTS, MODEL, MODEL_FOLDER, RESULT, create_run_folder
from agents.application.train import TrainResult, say
from agents.double_dqn import DoubleDQN
from agents.offline.corpus import Vocabulary, build_vocabulary, split_corpus
from agents.offline.episodes import TextEpisodes, text_to_episodes
from agents.offline.learner import TextCheckpoints
from agents.offline.learning import learn_from_text
from agents.offline.likelihood import score_texts
from agents.offline.losses import OF_LOGITS
from agents.offline.rows import read_text
from agents.saving.arguments import agent_defaults, check_agent_arguments, constructor_arguments, merge, one_line
from agents.saving.checkpoint_folder import TrainingInterrupted
from agents.saving.export import export_model
from agents.saving.files import CommandError, plain, write_json
from agents.saving.settings import DEFAULT_THREADS
from agents.vec_env import TextGenVecEnv
from textgym import TextGenVectorEnv

CORPUS_KWARGS: dict[str, Any] = {
    "gamma": 0.0,
    "learning_rate": {"start": 2e-3, "end": 0.0},
}
"""Arguments of the agent that differ from its defaults on a corpus; see :mod:`agents.offline.corpus`."""


@dataclass(frozen=True)
class CorpusRun:
    """What decides how a text file is learned from: ``config.yaml`` is this."""

    offline: OfflineSettings
    agent: dict[str, Any]
    seed: int
    threads: int
    device: str
    sha256: str


OF_CORPUS = ("agent", "seed", "threads", "device", "sha256")


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
    check_agent_arguments(agent or {})
    arguments = agent_defaults() | merge(CORPUS_KWARGS, agent or {})
    if (agent or {}).get("buffer_size") is None:
        arguments["buffer_size"] = int(corpus.learned.n_actions.sum())
    located = replace(offline, text=offline.text.resolve())
    run = CorpusRun(located, plain(arguments), seed, threads, device, corpus.sha256)
    model = _corpus_model(run, corpus)
    config = {"offline": located.recorded(), **{key: getattr(run, key) for key in OF_CORPUS}, "command": command}
    folder = create_run_folder(run_dir, f"text-{offline.text.stem}", config)
    corpus.vocabulary.save(folder)
    return _learn_corpus(run, corpus, model, folder, console, checkpoint_seconds)


def resume_corpus(
    run: CorpusRun, folder: Path, console: Console | None, checkpoint_seconds: float | None
) -> TrainResult:
    """Go on with a run of :func:`learn_corpus`.

    Raises:
        CommandError: If the text has changed.
    """
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
    with explained():
        text = read_text(offline.text)
        parts = split_corpus(text)
        vocabulary = build_vocabulary(parts[0], offline.level, offline.vocabulary, offline.window)
        task = vocabulary.task()
        learned, held_out = (
            text_to_episodes([vocabulary.normalise(part)], task, window=vocabulary.window) for part in parts
        )
    return _Corpus(vocabulary, learned, held_out, hashlib.sha256(text.encode()).hexdigest())


def _corpus_model(run: CorpusRun, corpus: _Corpus) -> DoubleDQN:
    env = TextGenVecEnv(TextGenVectorEnv(1, corpus.vocabulary.task()))
    arguments = constructor_arguments(run.agent)
    try:
        return DoubleDQN("PerformerPolicy", env, seed=run.seed, device=run.device, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise CommandError(f"--set: {one_line(error)}") from error


def _learn_corpus(
    run: CorpusRun,
    corpus: _Corpus,
    model: DoubleDQN,
    folder: Path,
    console: Console | None,
    checkpoint_seconds: float | None,
) -> TrainResult:
    offline, vocabulary = run.offline, corpus.vocabulary
    objective = offline.objective or "td"
    with disk_errors(folder), interrupt_flag() as interrupted, explained():
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
    tell(console, result, objective)
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
