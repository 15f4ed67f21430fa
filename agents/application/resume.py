"""Taking up a run folder again: its settings, its newest checkpoint, and what to do when it has ended already."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agents.application.run_folder import CHECKPOINTS, CONFIG, read_result
from agents.double_dqn.evaluation import Scores
from agents.saving.arguments import one_line
from agents.saving.checkpoint_folder import CheckpointFolder
from agents.saving.files import CommandError, read_yaml_mapping, versions
from agents.saving.state_file import StateFileError
from textgym.rewards import RewardError


def read_run(folder: Path) -> dict[str, Any]:
    """The configuration of a run folder.

    Raises:
        CommandError: If the folder is none of ``textgym train``.
    """
    if not (folder / CONFIG).is_file():
        raise CommandError(f"--resume must name a run folder of 'textgym train', got {folder}, which has no {CONFIG}")
    return read_yaml_mapping(folder / CONFIG)


def newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint of a run folder that is whole; None where none was written before the run was killed.

    Raises:
        CommandError: If there are some, and all are damaged.
    """
    try:
        found = CheckpointFolder(folder / CHECKPOINTS).load()
    except StateFileError as error:
        raise CommandError(one_line(error)) from None
    return None if found is None else found[1]


def finished_scores(folder: Path) -> Scores | None:
    """The final evaluation of a run that has ended; None where it has not."""
    result = read_result(folder)
    return None if result is None else Scores.from_json(result)


def changed_versions(config: dict[str, Any]) -> str | None:
    """Which versions are others than those that a run began with: bits may differ then. None if there are none."""
    began = config.get("versions")
    if not isinstance(began, dict):
        began = {}
    others = [f"{name} {began.get(name)} → {now}" for name, now in versions().items() if began.get(name) != now]
    return ", ".join(others) or None


@contextlib.contextmanager
def interrupt_flag() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C, or a request to end, sets; the second one interrupts as usual."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag  # signals are the main thread's business
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(signum: int, frame: Any) -> None:
        flag.set()
        signal.signal(signum, previous[signal.Signals(signum)])

    for number in previous:
        signal.signal(number, handle)
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def reward_errors() -> Iterator[None]:
    """What the user's reward does wrong becomes one line."""
    try:
        yield
    except RewardError as error:
        raise CommandError(one_line(error)) from error


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """A full disk or a read-only folder becomes one line that says what is left and how to go on."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and folder.resolve() not in Path(str(error.filename)).resolve().parents:
            raise  # a file of the environment's or of the user's
        files = [
            *CheckpointFolder(folder / CHECKPOINTS).files(),
            *CheckpointFolder(folder / CHECKPOINTS, "text").files(),
        ]
        kept = f"the last checkpoint, {files[0].name}, is intact" if files else "there is no checkpoint yet"
        raise CommandError(
            f"can't write to the run folder {folder}: {error.strerror or error}; {kept}; once that is mended, "
            f"'textgym train --resume {folder}' goes on"
        ) from error
