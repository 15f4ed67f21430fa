"""A run folder of ``textgym train``: its training curve, its scores, and what the model thinks of each token."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.application.loading import load_model
from agents.application.report.charts import Line, LineChart, Style
from agents.application.report.figures import AXES, file_key
from agents.application.report.tokens import Episode, play
from agents.application.resume import reward_errors
from agents.application.run_folder import CONFIG, brief, evaluated_in, find_model, read_result
from agents.saving.arguments import checked_env_id, make_env
from agents.saving.files import CommandError
from agents.saving.named_rewards import check_trust
from agents.saving.settings import fresh_seed
from textgym import References, references

_PROGRESS = "progress.csv"
_CURVES = (
    ("rollout/ep_rew_mean", "mean return while exploring", 0),
    ("train/td_error", "mean absolute TD error", 1),
)
_COLUMNS = {"seconds": "time/time_elapsed", "steps": "time/total_timesteps"}


@dataclass(frozen=True)
class Run:
    """What a report shows of a run.

    Attributes:
        folder: Its folder.
        config: Content of ``config.yaml``.
        result: Content of ``result.json``; empty for a run that has not ended.
        progress: Column of ``progress.csv`` → its values, NaN where there is none.
        episodes: Fresh episodes; see :func:`agents.application.report.tokens.play`.
        known: References of the id with its default arguments; None where there are none.
    """

    folder: Path
    config: dict[str, Any]
    result: dict[str, Any]
    progress: dict[str, NDArray[np.float64]]
    episodes: list[Episode]
    known: References | None

    @property
    def title(self) -> str:
        """Id and arguments."""
        arguments = ", ".join(sorted(brief(self.config.get("env_args") or {})))
        return self.config["env"] + (f" ({arguments})" if arguments else "")

    def charts(self) -> dict[int, list[LineChart]]:
        """Column as in :data:`agents.application.report.figures.AXES` → charts of the training."""
        charts: dict[int, list[LineChart]] = {}
        for column, short, label in AXES:
            x = self.progress.get(_COLUMNS[short])
            for name, y_label, slot in _CURVES:
                y = self.progress.get(name)
                if x is None or y is None:
                    continue
                there = np.isfinite(x) & np.isfinite(y)
                if there.sum() < 2:
                    continue
                guides: tuple[tuple[float, str], ...] = ()
                if slot == 0 and self.known is not None:
                    guides = ((self.known.best, "best known"), (self.known.blind, "best without the prompt"))
                line = Line(Style(y_label, slot), x[there], y[there])
                key = file_key("run", self.folder.name, name, short)
                charts.setdefault(column, []).append(
                    LineChart(
                        key, y_label[0].upper() + y_label[1:], label.split(",")[0], y_label, (line,), guides=guides
                    )
                )
        return charts


def is_run(path: Path) -> bool:
    """Whether a folder is one of ``textgym train``."""
    return path.is_dir() and (path / CONFIG).is_file()


def load_run(folder: Path, n_episodes: int, trust: bool = False) -> Run:
    """Read a run folder, and play fresh episodes with its model.

    Args:
        folder: The folder.
        n_episodes: Number of episodes (≥ 1).
        trust: Whether to import the reward that it names, if it names one.

    Raises:
        CommandError: If a file is missing or damaged, or it names a reward and is not trusted.
    """
    model_path, config = find_model(folder)
    if config is None or "env" not in config:
        raise CommandError(f"{folder} must hold a {CONFIG} that names the environment")
    env_id, env_args = checked_env_id(config["env"]), evaluated_in(config)
    if not trust:
        check_trust(env_args, folder)
    model = load_model(model_path, "cpu")
    seed = fresh_seed(config.get("seed"), config.get("n_envs"))
    env = make_env(env_id, n_episodes, seed, env_args)
    if model.observation_space != env.observation_space or model.action_space != env.action_space:
        raise CommandError(f"the model in {folder} must fit {env_id}; it was trained on {model.observation_space}")
    with reward_errors():
        episodes = play(model, env, seed)
    env.close()
    return Run(
        folder,
        {**config, "env": env_id},
        read_result(folder) or {},
        _read_progress(folder / _PROGRESS),
        episodes,
        None if env_args else references(env_id),
    )


def _read_progress(path: Path) -> dict[str, NDArray[np.float64]]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = rows[0].keys() if rows else ()
    return {name: np.array([_number(row.get(name)) for row in rows]) for name in names}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:  # a line that the training is just writing
        return float("nan")
