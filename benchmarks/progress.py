"""The live table of a sweep: what runs, what has finished, and how long the rest will take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agents.saving.results import Result
from benchmarks.cells import Cell

START_SECONDS = 10.0
"""What a process needs before its training begins, and for what is not in its result."""
_SHOWN = 6
_BAR_WIDTH = 40


class SweepProgress:
    """Shows a sweep as it runs; where the console is no terminal, a line for each cell that finishes.

    Use it as a context manager, and call :meth:`finish` for every cell.

    Args:
        name: Name of the sweep.
        cells: All its cells, in the order in which they are begun.
        results: Results of those that have finished already.
        jobs: Cells that run at a time (≥ 1).
        console: Where to show it.
        clock: Seconds; something else for tests.
    """

    def __init__(
        self,
        name: str,
        cells: Sequence[Cell],
        results: Iterable[Result],
        jobs: int,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.cells, self.jobs, self.console, self.clock = name, list(cells), jobs, console, clock
        self._seconds: dict[tuple[str, str], list[float]] = {}
        self._waiting: dict[str, Cell] = {cell.name: cell for cell in cells}
        for result in results:
            self._count(Cell(**result["cell"]), result)
        self._finished: deque[tuple[Cell, Result | None]] = deque(maxlen=_SHOWN)
        self._failed = 0
        self._begun: dict[str, float] = {}
        self._started = clock()
        self._begin()
        self._live = Live(self, console=console, refresh_per_second=2) if console.is_terminal else None

    def __enter__(self) -> SweepProgress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            self.console.print(self._words(), highlight=False)

    def finish(self, cell: Cell, result: Result | None) -> None:
        """Take note that a cell has finished; None in place of its result says that it failed."""
        if result is None:
            self._waiting.pop(cell.name, None)
            self._failed += 1
        else:
            self._count(cell, result)
        self._begun.pop(cell.name, None)
        self._begin()
        self._finished.append((cell, result))
        if self._live is None:
            self.console.print(_line(cell, result), soft_wrap=True, highlight=False)

    @property
    def running(self) -> list[Cell]:
        """The cells that run: the first of those that have not finished, because they are begun in their order."""
        return [self._waiting[name] for name in self._begun]

    def expected(self, cell: Cell) -> float | None:
        """Seconds that a cell takes: as its like did, else its budget, else the mean; None if nothing is known."""
        if known := self._seconds.get((cell.task, cell.agent)):
            return fmean(known)
        if cell.budget_seconds is not None:
            return cell.budget_seconds + START_SECONDS
        everything = [seconds for group in self._seconds.values() for seconds in group]
        return fmean(everything) if everything else None

    def left(self) -> float | None:
        """Seconds until all cells have finished; None as long as nothing is known of some."""
        expected = {name: self.expected(cell) for name, cell in self._waiting.items()}
        if None in expected.values():
            return None
        now = self.clock()
        waits = [
            max(0.0, (seconds or 0.0) - (now - self._begun[name] if name in self._begun else 0.0))
            for name, seconds in expected.items()
        ]
        # Not less than the longest of them: the last cells do not use all workers.
        return max(sum(waits) / self.jobs, max(waits, default=0.0))

    def _count(self, cell: Cell, result: Result) -> None:
        self._waiting.pop(cell.name, None)
        seconds = result["seconds"] + result["evaluation_seconds"] + START_SECONDS
        self._seconds.setdefault((cell.task, cell.agent), []).append(seconds)

    def _begin(self) -> None:
        for name in list(self._waiting)[: self.jobs]:
            self._begun.setdefault(name, self.clock())

    @property
    def _done(self) -> int:
        return len(self.cells) - len(self._waiting)

    def _words(self) -> str:
        left = self.left()
        words = f"{self.name}: {self._done}/{len(self.cells)} cells, {_duration(self.clock() - self._started)} so far"
        if self._waiting:
            words += f", {'?' if left is None else _duration(left)} left"
        return words + (f", {self._failed} failed" if self._failed else "")

    def __rich__(self) -> Group:
        now = self.clock()
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for cell, result in self._finished:
            state = Text("failed", "red") if result is None else Text(f"{result['score']:.3f}", "green")
            cost = "" if result is None else f"{result['env_steps']:,} steps, {_duration(result['seconds'])}"
            table.add_row(state, cell.task, cell.agent, f"seed {cell.seed}", cost)
        for cell in self.running:
            expected, spent = self.expected(cell), now - self._begun[cell.name]
            cost = _duration(spent) + ("" if expected is None else f" of {_duration(expected)}")
            table.add_row(Text("runs", "yellow"), cell.task, cell.agent, f"seed {cell.seed}", cost)
        return Group(Text(self._words(), "bold"), ProgressBar(len(self.cells), self._done, width=_BAR_WIDTH), table)


def _line(cell: Cell, result: Result | None) -> str:
    if result is None:
        return f"[red]failed[/]  {cell.name}: see its .log beside the results"
    return (
        f"{result['score']:7.3f}  {cell.name}: {result['env_steps']:,} steps, {result['seconds']:.0f} s and "
        f"{result['evaluation_seconds']:.0f} s of evaluation"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
