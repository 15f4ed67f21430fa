"""Callbacks for any SB3 ``learn``: sample texts, a progress display, atomic checkpoints, a stop from outside."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from agents.double_dqn.evaluation import EvaluationResult, evaluate, sample_line
from agents.saving.files import atomic_write

_RATE_WINDOW_S = 5.0
_REFRESH_S = 0.25


class PeriodicCallback(BaseCallback):
    """Calls :meth:`act` every so many environment steps, counted from the first step of all: a resumed run agrees.

    Args:
        every: Environment steps between two calls (≥ 1).
        verbose: As in SB3.

    Raises:
        ValueError: If ``every`` is below 1.
    """

    def __init__(self, every: int, verbose: int = 0) -> None:
        super().__init__(verbose)
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.every = every
        self._next = every

    def _on_training_start(self) -> None:
        self._next = self.every * (1 + self.num_timesteps // self.every)

    def _on_step(self) -> bool:
        if self.num_timesteps >= self._next:
            self._next += self.every * (1 + (self.num_timesteps - self._next) // self.every)
            self.act()
        return True

    @abstractmethod
    def act(self) -> None:
        """What is to be done; subclasses say."""


class LogProgress(PeriodicCallback):
    """Writes a row of the log every so many environment steps, and one at the end, however long episodes are.

    For ``learn(..., log_interval=None)``, which writes none by itself.
    """

    def act(self) -> None:
        """Write the row, unless it is the last one, which comes after the last update."""
        if self.num_timesteps < self.locals["total_timesteps"]:
            self.model.dump_logs()

    def _on_training_end(self) -> None:
        self.model.dump_logs()


class SampleTexts(PeriodicCallback):
    """Shows what the agent writes now: the same prompts each time, so that progress can be read.

    The texts go to TensorBoard (``samples/texts``) and to ``show``; their mean return to ``samples/mean_return``.

    Args:
        env: An environment of its own, with at least one row; not the training environment.
        every: Environment steps between two looks (≥ 1).
        n_samples: Number of texts (≥ 1).
        seed: Seed of the prompts.
        show: Called with the environment steps so far and the episodes; None prints nothing.
        at_ends: Whether to look before the first step and after the last update too.

    Raises:
        ValueError: If ``every`` or ``n_samples`` is below 1.
    """

    def __init__(
        self,
        env: VecEnv,
        every: int,
        n_samples: int = 4,
        seed: int = 0,
        show: Callable[[int, EvaluationResult], None] | None = None,
        at_ends: bool = True,
    ) -> None:
        super().__init__(every)
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, got {n_samples}")
        self.env, self.n_samples, self.seed, self.show, self.at_ends = env, n_samples, seed, show, at_ends

    def _on_training_start(self) -> None:
        super()._on_training_start()
        if self.at_ends and self.num_timesteps == 0:
            self._look()

    def _on_training_end(self) -> None:
        if self.at_ends:
            self._look()

    def act(self) -> None:
        """Write the texts and show them; not at the last step, which the look at the end follows."""
        if not (self.at_ends and self.num_timesteps >= self.locals["total_timesteps"]):
            self._look()

    def _look(self) -> None:
        result = evaluate(self.model, self.env, self.n_samples, seed=self.seed)
        lines = [sample_line(result, index) for index in range(self.n_samples)]
        # TensorBoard reads Markdown, where four spaces in front keep lines apart.
        text = "\n".join(f"    {line}" for line in lines)
        self.logger.record("samples/texts", text, exclude=("csv", "stdout", "log", "json"))
        self.logger.record("samples/mean_return", float(result.returns.mean()), exclude="csv")
        if self.show is not None:
            self.show(self.num_timesteps, result)


class StopWhen(BaseCallback):
    """Ends training, as if its steps were used up, once ``condition`` is true.

    Args:
        condition: Asked after every step of the environment.
    """

    def __init__(self, condition: Callable[[], bool]) -> None:
        super().__init__()
        self.condition = condition

    def _on_step(self) -> bool:
        return not self.condition()


class ProgressDisplay(BaseCallback):
    """A live line: steps, mean return, steps/s, updates/s, time left; without a terminal, a line every tenth.

    Args:
        total_steps: Environment steps of the whole training.
        console: Where to draw; what else is printed there during training appears above the line.
        time_limit: Seconds after which training will be stopped from outside; None if it won't.
    """

    def __init__(self, total_steps: int, console: Console, time_limit: float | None = None) -> None:
        super().__init__()
        self.total_steps, self.console, self.time_limit = total_steps, console, time_limit
        self._progress: Progress | None = None
        self._marks: deque[tuple[float, int, int]] = deque()
        self._started = self._drawn = 0.0
        self._first_step = 0
        self._next_line = 0.1

    def _on_training_start(self) -> None:
        self._started = time.perf_counter()
        self._first_step = self.locals["total_timesteps"] - self.total_steps  # not 0 in a second learn()
        self._mark()
        if self.console.is_terminal:
            self._progress = Progress(
                BarColumn(bar_width=24), TextColumn("{task.description}"), console=self.console, auto_refresh=False
            )
            self._progress.add_task(self.line(), total=self.total_steps)
            self._progress.start()

    def _on_step(self) -> bool:
        now = time.perf_counter()
        if now - self._drawn >= _REFRESH_S:
            self._drawn = now
            self._mark()
            if self._progress is not None:
                self._draw(self._progress)
        done = (self.num_timesteps - self._first_step) / self.total_steps
        if self._progress is None and done >= self._next_line:
            self._next_line = np.floor(done * 10) / 10 + 0.1
            self.console.print(self.line(), highlight=False, soft_wrap=True)
        return True

    def _on_training_end(self) -> None:
        self.close()

    def close(self) -> None:
        """Leave the last state of the line on the screen; also after an exception."""
        if self._progress is not None:
            self._mark()
            self._draw(self._progress)
            self._progress.stop()
            self._progress = None

    def _draw(self, progress: Progress) -> None:
        done = self.num_timesteps - self._first_step
        progress.update(progress.task_ids[0], description=self.line(), completed=done, refresh=True)

    def _mark(self) -> None:
        self._marks.append((time.perf_counter(), self.num_timesteps, self._updates()))
        while self._marks[-1][0] - self._marks[0][0] > _RATE_WINDOW_S and len(self._marks) > 2:
            self._marks.popleft()

    def _updates(self) -> int:
        return int(getattr(self.model, "_n_updates", 0))

    def line(self) -> str:
        """The figures now, in one line; rates are those of the last five seconds."""
        then, steps_then, updates_then = self._marks[0]
        now = time.perf_counter()
        seconds = max(now - then, 1e-9)
        steps_rate = (self.num_timesteps - steps_then) / seconds
        updates_rate = (self._updates() - updates_then) / seconds
        remaining = self.total_steps - (self.num_timesteps - self._first_step)
        left = remaining / steps_rate if steps_rate > 0 else float("inf")
        if self.time_limit is not None:
            left = min(left, self.time_limit - (now - self._started))
        episodes: Any = self.model.ep_info_buffer
        mean = f"{np.mean([episode['r'] for episode in episodes]):.3f}" if episodes else "–"
        nats = getattr(getattr(self.model, "_path", None), "nats", None)  # of a steered language model
        divergence = f"KL {np.mean(nats):.2f} nats a text  " if nats else ""
        return (
            f"{self.num_timesteps:,}/{self._first_step + self.total_steps:,} steps  return {mean}  {divergence}"
            f"{steps_rate:,.0f} steps/s  {updates_rate:,.0f} updates/s  {_clock(left)} left"
        )


def save_model(model: Any, path: str | Path) -> None:
    """Save an SB3 model atomically, under exactly this name (``.zip``)."""
    with atomic_write(path) as temporary:
        model.save(temporary)


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "–:––"
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"
