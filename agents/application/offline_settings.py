"""What ``--from-text`` and ``--from-demonstrations`` have in common: settings, progress and words."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from agents.application.train import say
from agents.offline.learner import OfflineProgress, TextCheckpoints
from agents.offline.learning import OfflineResult
from agents.offline.losses import OBJECTIVES, OF_LOGITS
from agents.saving.arguments import one_line
from agents.saving.files import CommandError, plain


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
def explained() -> Iterator[None]:
    """What is wrong with the user's input becomes a CommandError; the warning about logits is told by the command."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="objective '(bc|crr)' leaves")
            yield
    except ValueError as error:
        raise CommandError(one_line(error)) from error


def tell(console: Console | None, result: OfflineResult, objective: str) -> None:
    """Say what was learned."""
    note = "; the Q-values are logits now, not returns" if objective in OF_LOGITS else ""
    say(
        console,
        f"Learned from {result.episodes:,} texts of {result.actions:,} tokens in {result.updates:,} updates "
        f"({objective}): loss {result.first_loss:.3f} → {result.loss:.3f}{note}",
    )
