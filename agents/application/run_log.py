"""The two logs of a run folder that grow in place, ``progress.csv`` and TensorBoard's, begun or continued."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from stable_baselines3.common.logger import CSVOutputFormat, Logger, TensorBoardOutputFormat
from torch.utils.tensorboard import SummaryWriter

from agents.saving.files import write_text

PROGRESS = "progress.csv"
_STEPS = "time/total_timesteps"


def open_log(folder: Path, from_step: int | None = None) -> Logger:
    """A logger that writes to both.

    Args:
        folder: The run folder.
        from_step: Continue the logs that are there: rows of later steps, which a run wrote that was killed after its
            last checkpoint, are dropped. None begins new ones.
    """
    return Logger(str(folder), [_ContinuedCSV(folder / PROGRESS, from_step), _TensorBoard(folder, from_step)])


class _ContinuedCSV(CSVOutputFormat):
    def __init__(self, path: Path, from_step: int | None) -> None:
        keys, rows = ([], []) if from_step is None or not path.is_file() else _rows_until(path, from_step)
        text = io.StringIO()
        if keys:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerows([keys, *rows])
        write_text(path, text.getvalue())
        self.file = path.open("r+", encoding="utf-8")
        self.file.seek(0, io.SEEK_END)
        self.keys, self.separator, self.quotechar = keys, ",", '"'


class _TensorBoard(TensorBoardOutputFormat):
    def __init__(self, folder: Path, from_step: int | None) -> None:
        self.writer = SummaryWriter(str(folder), purge_step=None if from_step is None else from_step + 1)
        self._is_closed = False


def _rows_until(path: Path, step: int) -> tuple[list[str], list[list[str]]]:
    """Header and rows up to a step; a row that a kill cut short is dropped."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    if not lines or _STEPS not in lines[0]:
        return [], []
    place = lines[0].index(_STEPS)
    whole = [row for row in lines[1:] if len(row) == len(lines[0]) and row[place].isdecimal()]
    return lines[0], [row for row in whole if int(row[place]) <= step]
