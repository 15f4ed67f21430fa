"""Where the checkpoints of a run are, and how often one is written."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.saving.state_file import StateFileError, read_state, write_state

DEFAULT_SECONDS = 30.0
"""Seconds of training between two checkpoints, at least."""
_LARGEST_SHARE = 0.01
"""Share of the time that checkpoints may take: a large replay makes them rarer."""
_KEPT = 2


class TrainingInterrupted(Exception):  # no error: the user's wish
    """Training has been stopped from outside, and a checkpoint holds it."""


class CheckpointError(ValueError):
    """A checkpoint that does not fit the model."""


class CheckpointFolder:
    """The last two checkpoints of a run; one of them is complete at every moment.

    Args:
        path: The folder; it is made when the first checkpoint is written.
        prefix: What their names begin with: ``"step"`` counts steps in an environment.
    """

    def __init__(self, path: str | Path, prefix: str = "step") -> None:
        self.path = Path(path)
        self.prefix = prefix

    def files(self) -> list[Path]:
        """The checkpoints, newest first; a write that a kill cut short has left none."""
        return sorted(self.path.glob(f"{self.prefix}-*.safetensors"), reverse=True)

    def save(self, number: int, value: dict[str, Any]) -> Path:
        """Write a checkpoint and remove all but the last two.

        Args:
            number: Of steps, or updates, so far.
            value: What to write, see :func:`agents.saving.state_file.write_state`.

        Raises:
            OSError: If it can't be written; the earlier ones are still there.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / f"{self.prefix}-{number:012d}.safetensors"
        write_state(path, value)
        leftovers = [old for old in self.path.glob(f".{self.prefix}-*.tmp*") if old.is_file()]
        for old in [*self.files()[_KEPT:], *leftovers]:
            old.unlink(missing_ok=True)
        return path

    def load(self) -> tuple[Path, Any] | None:
        """The newest checkpoint that is whole, and its content; None where there is none.

        A damaged one gives a warning, and the one before it is read.

        Raises:
            StateFileError: If there are checkpoints, and all are damaged.
        """
        files = self.files()
        errors = []
        for path in files:
            try:
                value = read_state(path)
            except StateFileError as error:
                errors.append(str(error))
                continue
            for problem in errors:
                warnings.warn(f"{problem}; the checkpoint before it, {path.name}, is used instead", stacklevel=2)
            return path, value
        if errors:
            raise StateFileError(f"no checkpoint in {self.path} can be read: {'; '.join(errors)}")
        return None


class CheckpointWriter:
    """Writes checkpoints when they are due, or when training is to stop.

    Args:
        folder: Where they go.
        every_seconds: Least seconds between two; None for :data:`DEFAULT_SECONDS`, and more where writing one takes
            long, so that they take less than a hundredth of the time. 0 writes one at every chance.
        stop: Asked at every chance; if it says yes, a checkpoint is written and training ends with
            :class:`TrainingInterrupted`. None never stops.
        elapsed: Seconds of training before this process began.

    Raises:
        ValueError: If ``every_seconds`` is negative.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        every_seconds: float | None = None,
        stop: Callable[[], bool] | None = None,
        elapsed: float = 0.0,
    ) -> None:
        if every_seconds is not None and not every_seconds >= 0:
            raise ValueError(f"every_seconds must be at least 0, got {every_seconds}")
        self.folder, self.every_seconds, self.stop, self.elapsed = folder, every_seconds, stop, elapsed
        self._interval = DEFAULT_SECONDS if every_seconds is None else every_seconds
        self.start()

    def start(self) -> None:
        """Training begins now."""
        self._started = self._saved = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, in all processes."""
        return self.elapsed + time.perf_counter() - self._started

    def save_if_due(self, save: Callable[[], Any]) -> None:
        """Call ``save``, which calls :meth:`write`, if it is time.

        Raises:
            TrainingInterrupted: After it, if training is to stop.
        """
        stopped = self.stop is not None and self.stop()
        if stopped or time.perf_counter() - self._saved >= self._interval:
            save()
        if stopped:
            raise TrainingInterrupted

    def write(self, number: int, content: Callable[[], dict[str, Any]]) -> Path:
        """Write a checkpoint now; ``"elapsed"`` is added to its content."""
        started, seconds = time.perf_counter(), self.seconds
        path = self.folder.save(number, {**content(), "elapsed": seconds})
        self._saved = time.perf_counter()
        if self.every_seconds is None:
            self._interval = max(DEFAULT_SECONDS, (self._saved - started) / _LARGEST_SHARE)
        return path
