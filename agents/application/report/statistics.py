"""Statistics of a report: pure functions of arrays, after rliable (arXiv:2108.13264) and Kaplan and Meier (1958).

A *stratum* is the scores of one agent on one task, one of each run; the bootstrap draws runs anew within each stratum.
It is done here, with a generator that is passed in, because rliable's draws from NumPy's global random state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import trim_mean

Scores = NDArray[np.float64]
RESAMPLES = 2_000
_LEVELS = (0.025, 0.975)


class Estimate(NamedTuple):
    """A statistic and its 95 % percentile bootstrap interval."""

    value: float
    low: float
    high: float


class Reached(NamedTuple):
    """When a run first reached a threshold.

    Attributes:
        at: Seconds or environment steps of the first evaluation that did; where none did, of the last one.
        solved: Whether one did. Otherwise ``at`` is *censored*: the time is at least that, and nobody knows how much.
    """

    at: float
    solved: bool


class Sooner(NamedTuple):
    """How many times sooner one agent gets somewhere than another.

    Attributes:
        ratio: Geometric mean over tasks of the other's median time divided by the agent's; NaN where there is none.
        tasks: Tasks in it.
        at_least: Of them, those that the other never solved: its time is longer than it was watched for.
        at_most: Of them, those that the agent itself never solved.
        neither: Tasks that neither solved, which say nothing and are not in the ratio.
    """

    ratio: float
    tasks: int
    at_least: int
    at_most: int
    neither: int


def iqm(scores: Scores, axis: int | None = None) -> NDArray[np.float64]:
    """Interquartile mean: the mean without the lowest and the highest quarter, rounded down to whole scores.

    Args:
        scores: Any shape, at least one score along ``axis``.
        axis: The axis to reduce; None for all scores together.
    """
    return np.asarray(trim_mean(scores, 0.25, axis=axis))


def resample(strata: Sequence[Scores], random: np.random.Generator, n: int = RESAMPLES) -> list[Scores]:
    """Bootstrap samples: runs drawn with replacement, within each stratum.

    Args:
        strata: Scores of shape ``(runs, ...)`` each.
        random: Where the draws come from.
        n: Number of samples.

    Returns:
        Arrays ``(n, runs, ...)``, one for each stratum.
    """
    return [scores[random.integers(len(scores), size=(n, len(scores)))] for scores in strata]


def interval(statistics: Scores, axis: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper end of the 95 % percentile interval along ``axis``."""
    low, high = np.quantile(statistics, _LEVELS, axis=axis)
    return low, high


def aggregate_iqm(strata: Sequence[Scores], random: np.random.Generator) -> Estimate:
    """Interquartile mean over all runs of all tasks, with its stratified bootstrap interval.

    Args:
        strata: Normalised scores ``(runs,)`` of each task.
        random: For the bootstrap.
    """
    low, high = interval(iqm(np.concatenate(resample(strata, random), axis=1), axis=1))
    return Estimate(float(iqm(np.concatenate(strata))), float(low), float(high))


def curve_iqm(curves: Scores, random: np.random.Generator) -> tuple[Scores, Scores, Scores]:
    """Interquartile mean over runs at every point of a learning curve, with its bootstrap interval.

    Args:
        curves: Scores ``(runs, points)``.
        random: For the bootstrap, which draws whole runs.

    Returns:
        The mean, and the lower and the upper end, each ``(points,)``.
    """
    (samples,) = resample([curves], random)
    return iqm(curves, axis=0), *interval(iqm(samples, axis=1))


def performance_profile(
    strata: Sequence[Scores], thresholds: Scores, random: np.random.Generator
) -> tuple[Scores, Scores, Scores]:
    """Share of runs whose score is at least τ, for every threshold τ; each task counts the same.

    Args:
        strata: Normalised scores ``(runs,)`` of each task.
        thresholds: The τ, shape ``(m,)``.
        random: For the bootstrap.

    Returns:
        The share, and the lower and the upper end of its interval, each ``(m,)``.
    """
    share = _mean_over_strata(strata, lambda scores: (scores[..., None] >= thresholds).mean(axis=-2))
    samples = _mean_over_strata(
        resample(strata, random), lambda scores: np.stack([(scores >= tau).mean(axis=1) for tau in thresholds], axis=-1)
    )
    return share, *interval(samples)


def probability_of_improvement(
    ours: Sequence[Scores], other: Sequence[Scores], random: np.random.Generator
) -> Estimate:
    """Probability that a run of ours scores higher than one of the other's on the same task; a tie counts half.

    The mean over tasks of Mann and Whitney's U, divided by the number of pairs. An interval above 0.5 says that ours is
    better more often than not; it does not say by how much.

    Args:
        ours: Scores ``(runs,)`` of each task.
        other: Those of the other agent, on the same tasks in the same order.
        random: For the bootstrap.

    Raises:
        ValueError: If the numbers of tasks differ.
    """
    if len(ours) != len(other):
        raise ValueError(f"other must have scores of {len(ours)} tasks, as ours has, got {len(other)}")

    def wins(pairs: Sequence[tuple[Scores, Scores]]) -> NDArray[np.float64]:
        gaps = [one[..., :, None] - two[..., None, :] for one, two in pairs]  # (..., our runs, other runs)
        return np.mean([((gap > 0) + 0.5 * (gap == 0)).mean(axis=(-2, -1)) for gap in gaps], axis=0)

    samples = wins(list(zip(resample(ours, random), resample(other, random), strict=True)))
    low, high = interval(samples)
    return Estimate(float(wins(list(zip(ours, other, strict=True)))), float(low), float(high))


def first_reached(curve: ArrayLike, threshold: float, column: int) -> Reached:
    """When a learning curve first reached a threshold, to the precision of its evaluations.

    Args:
        curve: Rows of environment steps, seconds and score.
        threshold: The score.
        column: 0 for environment steps, 1 for seconds.
    """
    points = np.asarray(curve, np.float64)
    reached = np.flatnonzero(points[:, 2] >= threshold)
    return Reached(float(points[reached[0] if reached.size else -1, column]), bool(reached.size))


def median_time(runs: Sequence[Reached]) -> float | None:
    """Kaplan and Meier's median: when the estimated share of runs that are not there yet first falls to one half.

    A run that was never seen to get there counts as not there for as long as it was watched, and is left out of the
    count from then on; to drop it, or to take its last moment for a success, would flatter slow agents.

    Args:
        runs: At least one.

    Returns:
        The median; None where the share never falls that far.
    """
    waiting = 1.0
    for moment in sorted({run.at for run in runs if run.solved}):
        at_risk = sum(run.at >= moment for run in runs)
        waiting *= 1.0 - sum(run.solved and run.at == moment for run in runs) / at_risk
        if waiting <= 0.5 + 1e-12:
            return moment
    return None


def sooner(pairs: Sequence[tuple[Sequence[Reached], Sequence[Reached]]], floor: float) -> Sooner:
    """Compare two agents' median times; a run that never got there is censored, not dropped.

    Where one agent has no median, the longest that it was watched for stands in its place, which is a bound.

    Args:
        pairs: For each task, the runs of the agent and those of the other.
        floor: The least time that counts, because a ratio has no use for 0.
    """
    logs, at_least, at_most, neither = [], 0, 0, 0
    for agent, other in pairs:
        mine, theirs = median_time(agent), median_time(other)
        if mine is None and theirs is None:
            neither += 1
            continue
        at_most += mine is None
        at_least += theirs is None
        mine = max(run.at for run in agent) if mine is None else mine
        theirs = max(run.at for run in other) if theirs is None else theirs
        logs.append(np.log(max(theirs, floor)) - np.log(max(mine, floor)))
    ratio = float(np.exp(np.mean(logs))) if logs else float("nan")
    return Sooner(ratio, len(logs), at_least, at_most, neither)


def _mean_over_strata(strata: Sequence[Scores], statistic: Callable[[Scores], Scores]) -> Scores:
    return np.mean([statistic(scores) for scores in strata], axis=0)
