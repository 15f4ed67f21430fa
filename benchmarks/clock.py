"""Processor seconds of training, without those of the evaluations between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from stable_baselines3.common.base_class import BaseAlgorithm


class TrainingClock:
    """Counts processor seconds from its making on, and stands still where it is told to.

    On one thread they are those of a clock on a machine that does nothing else, and a machine that is shared takes none
    of them away.

    Attributes:
        stopped_seconds: Seconds that it stood still for.
    """

    def __init__(self) -> None:
        self.stopped_seconds = 0.0
        self._started = time.process_time()

    def seconds(self) -> float:
        """Seconds so far."""
        return time.process_time() - self._started - self.stopped_seconds

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """A block whose seconds do not count."""
        began = time.process_time()
        try:
            yield
        finally:
            self.stopped_seconds += time.process_time() - began


def let_schedules_follow(model: BaseAlgorithm, share: float) -> None:
    """Tell an agent that so much of its budget is used: SB3 measures progress against a total number of steps.

    Args:
        model: The agent.
        share: Share of the budget, in [0, 1]; at 0, nothing is known yet, and nothing is changed.
    """
    if share > 0:
        model._total_timesteps = max(1, round(model.num_timesteps / share))
