"""Which point to try next: a pure function of the trials so far and the seed, so that a study can be resumed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from agents.tuning.records import Trial
from agents.tuning.space import Params, Space

SAMPLERS = ("gp", "random")


def random_point(space: Space, number: int, seed: int) -> Params:
    """The point of a trial in random search."""
    return space.sample(np.random.default_rng([seed, number]))


def gp_point(space: Space, number: int, seed: int, told: Sequence[Trial], pending: Sequence[Params]) -> Params:
    """The point that promises the largest expected improvement under a Gaussian process.

    The process (scikit-optimize's: Matérn 5/2 with a length scale for each dimension, and noise) is fitted anew to all
    trials. Pending points are told as well, with the best score so far: the constant liar's optimistic lie
    (hal-00732512), which keeps points that run at the same time apart. A failed trial counts as the worst score seen.

    Args:
        space: What is searched.
        number: Number of the trial that is asked for.
        seed: Seed of the study.
        told: Trials whose scores are known; at least one.
        pending: Points that are being tried.
    """
    from skopt import Optimizer

    costs = [-score for score in scores_for_model(told)]
    points = [space.to_skopt(trial.params) for trial in told] + [space.to_skopt(params) for params in pending]
    # random_state: without it scikit-optimize would draw from NumPy's global state. "MES" does so regardless.
    state = int(np.random.default_rng([seed, number, 1]).integers(2**31))
    optimizer = Optimizer(space.skopt_dimensions(), "GP", n_initial_points=1, acq_func="EI", random_state=state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kernels at their bounds, and of a small space that has been seen in full
        optimizer.tell(points, costs + [min(costs)] * len(pending))
        return space.from_skopt(optimizer.ask())


def scores_for_model(trials: Sequence[Trial]) -> list[float]:
    """Scores of trials; the worst one seen in place of a missing one, 0 if all are missing."""
    known = [trial.score for trial in trials if trial.score is not None]
    worst = min(known, default=0.0)
    return [worst if trial.score is None else trial.score for trial in trials]
