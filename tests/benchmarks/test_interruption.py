"""Sweeps that are killed, and sweeps on Ray: cells really run, so these tests are slow."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from agents.saving.json_lines import read
from agents.saving.results import read_results
from benchmarks.cells import Cell
from benchmarks.run import run_cells

ROOT = Path(__file__).parents[2]
PROC = Path("/proc")
BUDGET = {"budget_steps": 1_024, "evaluations": 2, "eval_episodes": 16}
CELLS = tuple(
    Cell(agent, "TextGen/Reverse-v0", seed, {"length": 2, "vocab_size": 3}, **BUDGET)
    for agent in ("ours", "ppo-mlp")
    for seed in (0, 1)
)
SCRIPT = """
import sys
from pathlib import Path
from benchmarks.run import run_cells
from tests.benchmarks.test_interruption import CELLS
sys.exit(bool(run_cells(CELLS, Path(sys.argv[1]), jobs=2)))
"""


def start(file, mark):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TEXTGYM_MARK": mark, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(file)], env=environment, cwd=ROOT)


def alive(mark):
    """Processes that were started below :func:`start`, and have not ended."""
    found = []
    for path in PROC.glob("[0-9]*"):
        try:
            inside = f"TEXTGYM_MARK={mark}".encode() in (path / "environ").read_bytes()
            ended = (path / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if inside and not ended:
            found.append(path.name)
    return found


def cells_alive(mark):
    return any(b"benchmarks.cell" in (PROC / number / "cmdline").read_bytes() for number in alive(mark))


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


def timeless(result):
    """A result without what depends on the clock and on the machine."""
    kept = {
        name: value for name, value in result.items() if "seconds" not in name and name not in ("started", "machine")
    }
    return kept | {"curve": [[steps, score] for steps, _, score in result["curve"]]}


def results(file):
    assert sorted(record["name"] for record in read(file)) == sorted(cell.name for cell in CELLS), "each once"
    return [timeless(result) for result in read_results(file).values()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    file = tmp_path_factory.mktemp("undisturbed") / "sweep.jsonl"
    assert run_cells(CELLS, file) == []
    return results(file)


@pytest.mark.slow
@pytest.mark.skipif(not PROC.is_dir(), reason="looks for processes in /proc")
def test_a_sweep_that_is_killed_five_times_has_every_cell_once_with_the_same_scores(tmp_path, undisturbed):
    moments, mark = random.Random(0), uuid.uuid4().hex
    for _ in range(5):
        process = start(tmp_path / "sweep.jsonl", mark)
        assert wait_until(lambda process=process: cells_alive(mark) or process.poll() is not None, 300)
        time.sleep(moments.uniform(0.0, 8.0) if process.poll() is None else 0.0)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert wait_until(lambda: not alive(mark), 60), "a cell outlived its sweep"
    assert start(tmp_path / "sweep.jsonl", mark).wait() == 0
    assert results(tmp_path / "sweep.jsonl") == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.jsonl"]


@pytest.mark.slow
def test_a_sweep_on_ray_finishes_though_a_worker_is_killed(tmp_path, undisturbed):
    pytest.importorskip("ray", reason="Ray is not installed")
    killed = []

    def workers():
        found = []
        for path in PROC.glob("[0-9]*"):
            try:
                if b"ray::PoolActor.run_batch" in (path / "cmdline").read_bytes():
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def kill_one():
        if wait_until(lambda: len(workers()) == 2, 300):
            killed.append(workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill_one)
    thread.start()
    finished = []
    file = tmp_path / "sweep.jsonl"
    assert run_cells(CELLS, file, 2, lambda cell, result: finished.append(cell.name), engine="ray") == []
    thread.join()
    assert killed and sorted(finished) == sorted(cell.name for cell in CELLS)
    assert results(file) == undisturbed
