"""Rules that end a bad run early, from its intermediate scores: plain data, so that they travel to workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Reports = Sequence[tuple[float, float]]
"""Intermediate scores of a run: ``(step, score)``, steps increasing."""

STOPPING = ("median", "halving")
LEAST_RUNS = 4
"""So many other runs must have got to a step before a run can be stopped there."""
HALVING_FACTOR = 3
"""Of the runs that reach a step, successive halving lets the best one in so many go on."""


class StoppedEarly(Exception):
    """Raised inside the objective by ``report``: this run is not worth its budget."""


@dataclass(frozen=True)
class Stopping:
    """Whether a run should be stopped, given what other runs had reached at the same step.

    ``"median"`` stops a run whose best score so far is below the median of the others' scores at that step (the rule of
    Google Vizier, doi:10.1145/3097983.3098043). ``"halving"`` keeps the best third at every step, in the asynchronous
    form of successive halving (arXiv:1810.05934); it wants steps that grow by a factor.

    Attributes:
        rule: ``"median"``, ``"halving"`` or None, which never stops a run.
        others: Reports of other runs.
    """

    rule: str | None
    others: tuple[Reports, ...] = ()

    def should_stop(self, reports: Reports) -> bool:
        """Whether to stop a run with these reports, after the last of them."""
        if self.rule is None:
            return False
        step, score = reports[-1]
        scores = [_score_at(other, step) for other in self.others if other and other[-1][0] >= step]
        reached = [value for value in scores if value is not None]
        if len(reached) < LEAST_RUNS:
            return False
        if self.rule == "median":
            return max(value for _, value in reports) < float(np.median(reached))
        rank = sum(value > score for value in reached)
        return rank >= -(-(len(reached) + 1) // HALVING_FACTOR)


def _score_at(reports: Reports, step: float) -> float | None:
    """The last score at or before a step."""
    return next((score for at, score in reversed(reports) if at <= step), None)
