"""Figures of a study: convergence, partial dependence, parallel coordinates. Needs matplotlib."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray

from agents.saving.files import atomic_write
from agents.tuning.plot_style import PLOT_STYLE
from agents.tuning.records import FAILED, STOPPED, Trial
from agents.tuning.samplers import scores_for_model
from agents.tuning.space import Choice, Params, Range

if TYPE_CHECKING:
    from agents.tuning.study import Study

FORMATS = ("png", "svg")
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#999999"  # Okabe and Ito: apart for colour-blind readers too
_GRID, _BACKGROUND = 40, 200
"""Points on a curve of partial dependence, and random points over which each is averaged."""


def draw_study(study: Study, folder: str | Path) -> list[Path]:
    """Draw every figure as PNG and SVG.

    Args:
        study: The study; at least two of its trials must have a score.
        folder: Where to; it is made.

    Returns:
        The files.

    Raises:
        ValueError: If there are too few trials.
    """
    trials = study.trials
    if sum(trial.score is not None for trial in trials) < 2:
        raise ValueError("figures need at least two trials with a score")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context(PLOT_STYLE):
        figures = {
            "convergence": convergence(study),
            "partial_dependence": partial_dependence(study),
            "parallel_coordinates": parallel_coordinates(study),
        }
        for name, figure in figures.items():
            for suffix in FORMATS:
                path = folder / f"{name}.{suffix}"
                with atomic_write(path) as temporary:
                    # No date in the SVG: the same study gives the same file.
                    metadata = {"Date": None} if suffix == "svg" else None
                    figure.savefig(temporary, dpi=150, facecolor="white", metadata=metadata)
                written.append(path)
    return written


def best_so_far(trials: Sequence[Trial]) -> NDArray[np.float64]:
    """The best score up to each trial, stopped and failed ones left out; NaN before the first, shape (n,)."""
    whole = [trial.score if trial.state not in (FAILED, STOPPED) else None for trial in trials]
    scores = np.array([np.nan if score is None else score for score in whole], np.float64)
    return np.fmax.accumulate(scores)


def convergence(study: Study) -> Figure:
    """Score of every trial, the spread over its seeds, and the best so far."""
    trials = study.trials
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    kinds = (("finished", "o", _BLUE), ("stopped early", "v", _GREY))
    for label, marker, colour in kinds:
        of_kind = [t for t in trials if t.score is not None and (t.state == STOPPED) == (label == "stopped early")]
        if not of_kind:
            continue
        numbers = [trial.number for trial in of_kind]
        for number, trial in zip(numbers, of_kind, strict=True):
            scores = [run.score for run in trial.runs if run.score is not None]
            axes.plot([number, number], [min(scores), max(scores)], color=colour, alpha=0.35, linewidth=2)
        axes.plot(numbers, [t.score or 0.0 for t in of_kind], marker, color=colour, markersize=6, label=label)
    failed = [trial.number for trial in trials if trial.state == FAILED]
    if failed:
        transform = axes.get_xaxis_transform()
        axes.plot(failed, [0.02] * len(failed), "x", color=_ORANGE, transform=transform, label="failed", clip_on=False)
    numbers = [trial.number for trial in trials]
    axes.step(numbers, best_so_far(trials), where="post", color=_ORANGE, linewidth=2, label="best so far", zorder=1)
    if study.sampler == "gp" and study.n_initial < len(trials):
        axes.axvline(study.n_initial - 0.5, color=_GREY, linewidth=1, linestyle="--")
        axes.annotate(
            "random | Gaussian process",
            (study.n_initial - 0.5, 1.0),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            color="#666666",
            fontsize=9,
        )
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("score" if len(study.seeds) == 1 else f"score, mean and range of {len(study.seeds)} seeds")
    figure.legend(frameon=False, loc="outside lower center", ncols=4)
    return figure


def partial_dependence(study: Study) -> Figure:
    """What the model of the scores says of each argument, averaged over the others, and the trials themselves."""
    trials = study.trials
    names = study.space.names
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.6 * columns, 0.6 + 2.7 * rows), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    model = _Surrogate(study)
    scored = [trial for trial in trials if trial.score is not None]
    scores = [trial.score or 0.0 for trial in scored]
    for axes, name in zip(all_axes.flat, names, strict=False):
        grid, mean, spread = model.dependence(name)
        dimension = study.space.dimensions[name]
        axes.plot(
            [_place(dimension, t.params[name]) for t in scored], scores, "o", color=_GREY, markersize=4, alpha=0.6
        )
        if isinstance(dimension, Choice):
            axes.errorbar(range(len(grid)), mean, spread, fmt="s", color=_BLUE, capsize=4)
            axes.set_xlim(-0.5, len(grid) - 0.5)
        else:
            axes.plot(grid, mean, color=_BLUE)
            axes.fill_between(grid, mean - spread, mean + spread, color=_BLUE, alpha=0.18, linewidth=0)
            if dimension.log:
                axes.set_xscale("log")
        _ticks(axes, dimension)
        axes.set_xlabel(name)
    for axes in list(all_axes.flat)[len(names) :]:
        axes.set_visible(False)
    # A process that knows little strays far from any score.
    margin = 0.15 * (max(scores) - min(scores) or 1.0)
    all_axes[0, 0].set_ylim(min(scores) - margin, max(scores) + margin)
    for row in all_axes:
        row[0].set_ylabel("score")
    figure.suptitle("modelled mean ± 1 standard deviation (blue), trials (grey)", fontsize=10, color="#666666")
    return figure


def parallel_coordinates(study: Study) -> Figure:
    """Each trial a line through its arguments to its score, in the colour of the score."""
    scored = sorted((trial for trial in study.trials if trial.score is not None), key=lambda trial: trial.score or 0.0)
    scores = np.array([trial.score for trial in scored], np.float64)
    low, high = float(scores.min()), float(scores.max())
    names = study.space.names
    figure = Figure(figsize=(1.6 + 1.7 * (len(names) + 1), 4.4), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["viridis"]
    normalise = Normalize(low, high if high > low else low + 1.0)
    for trial in scored:
        line = [_share(study.space.dimensions[name], trial.params[name]) for name in names]
        line.append(float(normalise(trial.score or 0.0)))
        best = study.best is not None and trial.number == study.best.number
        axes.plot(line, color=_ORANGE if best else colours(normalise(trial.score or 0.0)), linewidth=3 if best else 1.4,
                  alpha=1.0 if best else 0.75, zorder=3 if best else 2, label="best" if best else None)  # fmt: skip
    for place, name in enumerate(names):
        dimension = study.space.dimensions[name]
        axes.axvline(place, color="#444444", linewidth=1)
        for share, text in _marks(dimension):
            axes.text(place + 0.04, share, text, fontsize=9, va="center", zorder=4, bbox=_BOX)
    axes.axvline(len(names), color="#444444", linewidth=1)
    for share in (0.0, 0.5, 1.0):
        value = normalise.inverse(share)
        axes.text(len(names) + 0.04, share, f"{value:.3g}", fontsize=9, va="center", zorder=4, bbox=_BOX)
    axes.set_xticks(range(len(names) + 1), [*(name.replace(".", ".\n") for name in names), "score"])
    axes.set_xlim(-0.1, len(names) + 0.4)
    axes.yaxis.set_major_locator(NullLocator())
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.grid(False)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    return figure


_BOX = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.0}


class _Surrogate:
    """The Gaussian process of a study, fitted to all of its trials, larger being better."""

    def __init__(self, study: Study) -> None:
        from skopt import Optimizer

        self.space = study.space
        self.random = np.random.default_rng(study.seed)
        points = [self.space.to_skopt(trial.params) for trial in study.trials]
        optimizer = Optimizer(self.space.skopt_dimensions(), "GP", n_initial_points=1, random_state=study.seed)
        self.transform = optimizer.space.transform
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kernels at their bounds, see agents.tuning.samplers
            self.model = optimizer.base_estimator_.fit(self.transform(points), scores_for_model(study.trials))
        self.background = [self.space.sample(self.random) for _ in range(_BACKGROUND)]

    def dependence(self, name: str) -> tuple[list[Any], NDArray[np.float64], NDArray[np.float64]]:
        """Grid of an argument; mean and mean standard deviation of the score there, over random other arguments."""
        grid = _grid(self.space.dimensions[name])
        means, spreads = [], []
        for value in grid:
            points: list[Params] = [{**point, name: value} for point in self.background]
            mean, spread = self.model.predict(self.transform([self.space.to_skopt(p) for p in points]), return_std=True)
            means.append(mean.mean())
            spreads.append(spread.mean())
        return grid, np.array(means), np.array(spreads)


def _grid(dimension: Range | Choice) -> list[Any]:
    if isinstance(dimension, Choice):
        return list(dimension.options)
    low, high = dimension.low, dimension.high
    values = np.geomspace(low, high, _GRID) if dimension.log else np.linspace(low, high, _GRID)
    return list(dict.fromkeys(dimension.rounded(value) for value in values))


def _place(dimension: Range | Choice, value: Any) -> float:
    return dimension.index(value) if isinstance(dimension, Choice) else float(value)


def _share(dimension: Range | Choice, value: Any) -> float:
    """Where a value lies between the ends of its dimension, in [0, 1]."""
    if isinstance(dimension, Choice):
        return dimension.index(value) / (len(dimension.options) - 1)
    scale = np.log if dimension.log else float
    return float((scale(value) - scale(dimension.low)) / (scale(dimension.high) - scale(dimension.low)))


def _marks(dimension: Range | Choice) -> list[tuple[float, str]]:
    """Shares and texts of a few values on an axis."""
    if isinstance(dimension, Choice):
        return [(_share(dimension, option), _short(option)) for option in dimension.options]
    return [(_share(dimension, value), f"{value:g}") for value in _three_values(dimension)]


def _three_values(dimension: Range) -> list[float]:
    """Bounds and a round value near the middle."""
    low, high = dimension.low, dimension.high
    middle = (low * high) ** 0.5 if dimension.log else (low + high) / 2
    return list(dict.fromkeys([low, dimension.rounded(float(f"{middle:.2g}")), high]))


def _ticks(axes: Axes, dimension: Range | Choice) -> None:
    if isinstance(dimension, Choice):
        axes.set_xticks(range(len(dimension.options)), [_short(option) for option in dimension.options])
        return
    ticks = _three_values(dimension)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    labels = axes.get_xticklabels()
    # Inwards, or they would touch those of the panel beside.
    labels[0].set_horizontalalignment("left")
    labels[-1].set_horizontalalignment("right")


def _short(option: Any) -> str:
    text = str(option)
    return text if len(text) <= 14 else f"{text[:13]}…"
