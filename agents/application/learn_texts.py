"""The work behind ``textgym train --from-demonstrations``, and resuming, whatever a run began with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from agents.application.learn_corpus import OF_CORPUS, CorpusRun, resume_corpus
from agents.application.offline_settings import OfflineSettings, explained, shown_progress, tell
from agents.application.resume import read_run
from agents.application.run_folder import CONFIG
from agents.application.train import TrainResult, resume_run, train
from agents.double_dqn import DoubleDQN
from agents.offline.learner import TextCheckpoints
from agents.offline.learning import learn_from_text
from agents.offline.losses import OF_LOGITS
from agents.saving.arguments import one_line
from agents.saving.files import CommandError
from agents.saving.settings import TrainSettings, resolve_settings
from textgym import demonstrations

DEMONSTRATION_SEED = 2_000_000
"""Demonstrations have prompts of their own: far from the seeds of training and of evaluation."""


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
        with explained():
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
        tell(console, result, objective)

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


def resume_any(
    folder: Path, console: Console | None = None, checkpoint_seconds: float | None = None, trust: bool = False
) -> TrainResult:
    """Go on with a run, whether it began with texts, with demonstrations or with neither.

    Raises:
        CommandError: See :func:`agents.application.train.resume_run`; or if the text file is another one now.
    """
    config = read_run(folder)
    began = config.get("offline")
    if not began:
        return resume_run(folder, console=console, checkpoint_seconds=checkpoint_seconds, trust=trust)
    try:
        offline = OfflineSettings(**began)
        if offline.text is not None:
            learning = CorpusRun(replace(offline, text=Path(offline.text)), *(config[key] for key in OF_CORPUS))
            return resume_corpus(learning, folder, console, checkpoint_seconds)
    except (TypeError, KeyError) as error:
        raise CommandError(f"{folder / CONFIG} must be as 'textgym train' wrote it: {one_line(error)}") from None
    settings = resolve_settings(config=folder / CONFIG, steps=1)
    options: dict[str, Any] = {"console": console, "resume": True, "checkpoint_seconds": checkpoint_seconds}
    return pretrain(settings, offline, True, folder, **options)
