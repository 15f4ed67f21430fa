"""The work behind ``textgym tune``: a folder with a study, its best arguments as YAML, and its figures."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agents.saving.arguments import one_line
from agents.saving.files import CommandError, read_yaml_mapping, write_text, writing
from agents.tuning.objective import DEFAULT_SPACE, TrainObjective, as_yaml
from agents.tuning.records import FAILED, FINISHED, STOPPED, Run, StudyFile, Trial
from agents.tuning.space import Params, Space
from agents.tuning.study import STUDY, Study

BEST, ZOO = "best.yaml", "zoo.yaml"


def new_study(
    objective: TrainObjective, folder: str | Path, space: str | Path | None = None, batch: int = 1, **options: Any
) -> Study:
    """A study of our agent in a folder; the one that is there is resumed.

    Args:
        objective: What is run.
        folder: The folder.
        space: A YAML file with a search space; None for :data:`agents.tuning.objective.DEFAULT_SPACE`.
        batch: Trials asked for at a time, unless the study that is there has its own number.
        **options: Other arguments of :class:`agents.hyperparam_opt.Study`.

    Raises:
        CommandError: If the space or an option is wrong, or the folder holds another study.
    """
    path = Path(folder) / STUDY
    with _as_command_errors():
        made = Space(DEFAULT_SPACE if space is None else read_yaml_mapping(space))
        objective.check(made)
        objective.settings({}, 0)
        header, _ = StudyFile(path).read()
        return Study(made, objective, path, batch=header["batch"] if header else batch, **options)


def open_study(folder: str | Path) -> Study:
    """The study in a folder, with the settings that it was begun with.

    Raises:
        CommandError: If there is none, or its file is damaged.
    """
    with _as_command_errors():
        path = Path(folder) / STUDY if Path(folder).is_dir() else Path(folder)
        header, _ = StudyFile(path).read()
        if header is None:
            raise CommandError(
                f"{folder} must be a folder that 'textgym tune' wrote, or its {STUDY}; it holds no study"
            )
        known = {item.name for item in fields(TrainObjective)}
        described = header["objective"]
        if not isinstance(described, dict) or not known <= described.keys():
            raise CommandError(f"{path} must be a study of 'textgym tune', got one of {described!r}")
        objective = TrainObjective(**{name: described[name] for name in known})
        options = {key: header[key] for key in ("seeds", "seed", "sampler", "n_initial", "batch", "stopping")}
        return Study(header["space"], objective, path, **options)


def tune(study: Study, trials: int, *, n_jobs: int = 1, engine: str = "loky", console: Console) -> None:
    """Run a study with a live line, and write its best arguments after every trial.

    Raises:
        CommandError: If an argument is wrong.
        KeyboardInterrupt: After Ctrl-C; what has finished is in the study.
    """
    folder = _folder(study)
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with _as_command_errors(), Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(_best_line(study), total=trials * len(study.seeds), completed=len(study.runs))
        known = len(study.trials)

        def on_run(run: Run) -> None:
            nonlocal known
            progress.update(bar, advance=1, description=_best_line(study))
            done = study.trials
            if len(done) == known:
                return
            known = len(done)
            trial = next(trial for trial in done if trial.number == run.trial)
            console.print(trial_line(trial), highlight=False, markup=False, soft_wrap=True)
            if study.best is not None and study.best.number == trial.number:
                write_best(study)

        try:
            with writing("--out", folder, "folder"):
                study.run(trials, n_jobs, engine, on_run)
        except KeyboardInterrupt:
            console.print(
                f"Stopped after {known} of {trials} trials; the same command, or 'textgym tune {folder} --trials "
                f"{trials}', goes on",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            raise
    write_best(study)


def best_file(study: Study) -> Path:
    """Where the best arguments are, once a trial has a score."""
    return _folder(study) / BEST


def write_best(study: Study) -> None:
    """Write ``best.yaml``, for ``textgym train --config``, and ``zoo.yaml``, for RL Zoo; nothing without a score."""
    best, objective = study.best, study.objective
    if best is None:
        return
    assert isinstance(objective, TrainObjective)
    comments = (
        f"textgym tune: trial {best.number}, the best of {len(study.trials)}; mean return {best.score:.4g} with "
        f"seeds {', '.join(map(str, study.seeds))}.",
        "The best of many scores is partly luck: train with other seeds to see what it is worth.",
    )
    write_text(best_file(study), as_yaml(objective.train_config(best.params, study.space), *comments))
    zoo = objective.zoo_config(best.params, study.space)
    if zoo is not None:
        write_text(_folder(study) / ZOO, as_yaml(zoo, *comments))


def report(study: Study, console: Console) -> None:
    """Print the best trials, and how many failed or were stopped."""
    trials = study.trials
    ranked = sorted((trial for trial in trials if trial.score is not None), key=lambda trial: -(trial.score or 0.0))
    whole = [trial for trial in ranked if trial.state == FINISHED] or ranked
    states = [trial.state for trial in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in (FINISHED, STOPPED, FAILED) if state in states)
    lines = [
        f"{len(trials)} trials{': ' if counts else ''}{counts}; {len(study.seeds)} seed(s) a trial, {study.sampler}"
    ]
    lines += [trial_line(trial) for trial in whole[:5]]
    failed = [trial for trial in trials if trial.error is not None]
    lines += [trial_line(trial) for trial in failed[:3]]
    if whole:
        lines.append(f"Train with the best: textgym train --config {best_file(study)} --seed {study.seeds[-1] + 1000}")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def draw(study: Study, folder: str | Path) -> list[Path]:
    """Draw the study's figures into a folder.

    Raises:
        CommandError: If matplotlib is missing, or there is nothing to draw yet.
    """
    try:
        from agents.tuning.figures import draw_study
    except ImportError as error:
        raise CommandError(f"--figures needs matplotlib: pip install matplotlib ({one_line(error)})") from None
    with _as_command_errors(), writing("--figures", folder, "folder"):
        return draw_study(study, folder)


def trial_line(trial: Trial) -> str:
    """One trial in one line: number, score, the seeds' scores (* where stopped early), parameters, or the error."""
    score = "failed" if trial.score is None else f"{trial.score:.3f}"
    mark = " (stopped early)" if trial.state == STOPPED else ""
    scores = " ".join(
        "–" if run.score is None else f"{run.score:.3f}{'*' if run.state == STOPPED else ''}" for run in trial.runs
    )
    seeds = f" [{scores}]" if len(trial.runs) > 1 else ""
    error = f"; {trial.error}" if trial.error else ""
    return f"trial {trial.number:3d}  {score}{mark}{seeds}  {params_text(trial.params)}{error}"


def params_text(params: Params) -> str:
    """Parameters in one line."""
    return " ".join(f"{name}={value}" for name, value in params.items())


def _best_line(study: Study) -> str:
    best = study.best
    return (
        "no score yet" if best is None else f"best {best.score:.3f} in trial {best.number}: {params_text(best.params)}"
    )


def _folder(study: Study) -> Path:
    assert study.path is not None
    return study.path.parent


@contextmanager
def _as_command_errors() -> Iterator[None]:
    """Errors of values and of files as errors of the command line; warnings in one line."""

    def show(message: Warning | str, *rest: Any, **options: Any) -> None:
        Console(stderr=True).print(f"textgym: warning: {message}", highlight=False, markup=False, soft_wrap=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield
        except (ValueError, OSError) as error:
            raise CommandError(one_line(error)) from error
