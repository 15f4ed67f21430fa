"""Results of benchmarks: JSON lines, one file a sweep, one record a cell; see :mod:`agents.saving.json_lines`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents.saving.json_lines import append, by_name

Result = dict[str, Any]
"""What :func:`benchmarks.learning.run_cell` returns, and a line of a sweep's file holds: the cell's ``name``, the
``cell`` itself, its ``curve`` and ``score``, and what it took."""
SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Ablation:
    """What a sweep that changes one thing at a time compares: a line of its file, so that the file explains itself.

    Attributes:
        name: The sweep's name.
        title: What it is about.
        about: How to read its differences.
        normalised: Whether scores are normalised by the task's references; they are returns otherwise.
        cells: Change → names of its cells, the base first. The cells of all changes are in the same order.
    """

    name: str
    title: str
    about: str
    normalised: bool
    cells: dict[str, list[str]]

    @property
    def base(self) -> str:
        """Name of what the changes are compared with."""
        return next(iter(self.cells))


def describe(path: Path, ablation: Ablation) -> None:
    """Add a sweep's description to its file, unless it is there already."""
    if ablation not in ablations_in(by_name(path).values()):
        append(path, asdict(ablation))


def ablations_in(records: Iterable[Any]) -> list[Ablation]:
    """The descriptions among the records of a file."""
    fields = {field.name for field in dataclasses.fields(Ablation)}
    return [Ablation(**record) for record in records if isinstance(record, dict) and record.keys() == fields]


def files_of(path: Path) -> list[Path]:
    """The files that a path stands for: all below a folder, or one, whose suffix may be left out."""
    if path.is_dir():
        return sorted(file for file in path.rglob(f"*{SUFFIX}") if not file.name.startswith("."))
    return [path if path.exists() else path.with_name(path.name + SUFFIX)]


def is_result(record: Any) -> bool:
    """Whether a record is what came of a cell."""
    return isinstance(record, dict) and {"name", "cell", "curve", "score"} <= record.keys()


def read_results(path: Path) -> dict[str, Result]:
    """Name of a cell → its result, in the order of the names, whatever the order in which they finished.

    Raises:
        ValueError: If the file is damaged.
    """
    return {name: record for name, record in by_name(path).items() if is_result(record)}


def load_results(path: Path) -> list[Result]:
    """Every result of a sweep's file, or of all files below a folder.

    Raises:
        ValueError: If there is none, or a file is damaged.
    """
    results = [result for file in files_of(path) for result in read_results(file).values()]
    if not results:
        raise ValueError(f"path must hold results of 'python -m benchmarks run', found none in {path}")
    return results
