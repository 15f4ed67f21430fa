"""Cells really run, in processes of their own; the sweep is tiny."""

from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from agents.saving.json_lines import append, read
from agents.saving.results import load_results, read_results
from benchmarks.__main__ import app
from benchmarks.baselines import default_steps, make_agent
from benchmarks.cells import Cell
from benchmarks.changes import ablation
from benchmarks.figures import learning_curves, summarise
from benchmarks.learning import LearningCurve, evaluate, run_cell
from benchmarks.progress import START_SECONDS, SweepProgress
from benchmarks.run import run_cells
from benchmarks.sweep import SWEEPS, TABLE_AGENTS

TASK = "TextGen/Reverse-v0"
BUDGET = {"budget_steps": 256, "evaluations": 4, "eval_episodes": 16}
SMALL = {"length": 2, "vocab_size": 3}
CELLS = (
    Cell("ours", TASK, 0, SMALL, {"learning_starts": 64}, **BUDGET),
    Cell("ppo-mlp", TASK, 0, SMALL, **BUDGET),
    Cell("ppo-mlp", TASK, 1, SMALL, **BUDGET),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("results") / "tiny.jsonl"
    assert run_cells(CELLS, file, jobs=2) == []
    return file


def test_each_cell_leaves_one_whole_line_and_nothing_else(file: Path) -> None:
    assert list(file.parent.iterdir()) == [file]
    assert sorted(record["name"] for record in read(file)) == sorted(cell.name for cell in CELLS)
    results = read_results(file)
    for cell in CELLS:
        result = results[cell.name]
        assert Cell(**result["cell"]) == cell
        assert result["env_steps"] >= 256 and result["updates"] > 0
        assert result["machine"]["threads"] == 1 and "torch" in result["versions"]
        curve = np.array(result["curve"])
        assert len(curve) == 1 + cell.evaluations and curve[0, 0] == 0
        assert (np.diff(curve[:, 1]) > 0).all() and ((curve[:, 2] >= 0) & (curve[:, 2] <= 1)).all()
        assert result["score"] == curve[-1, 2]


def test_a_finished_cell_is_not_rerun_and_half_a_line_is_no_result(file: Path, tmp_path: Path) -> None:
    *whole, last = file.read_bytes().splitlines(keepends=True)
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(b"".join(whole) + last[:-40])
    assert len(load_results(torn)) == 2
    ran = []
    assert run_cells(CELLS, torn, on_finish=lambda cell, result: ran.append((cell.name, result))) == []
    expected = read(file)[-1]
    assert ran == [(expected["name"], read(torn)[-1])]
    assert torn.read_bytes().splitlines(keepends=True)[:-1] == whole, "what had finished is as it was"
    assert read(torn)[-1]["score"] == expected["score"]


def test_a_failing_cell_is_reported_and_does_not_stop_the_others(tmp_path: Path) -> None:
    bad = Cell("ours", TASK, 0, {"length": 0}, budget_steps=10)
    assert run_cells([bad], tmp_path / "bad.jsonl") == [bad]
    assert "ValueError: length must be an integer of at least 1, got 0" in (tmp_path / f"{bad.name}.log").read_text()
    assert not (tmp_path / "bad.jsonl").exists()


def test_seconds_end_a_run_and_evaluations_do_not_count() -> None:
    cell = replace(CELLS[1], budget_steps=None, budget_seconds=0.3, evaluations=3, eval_episodes=512)
    result = run_cell(cell)
    assert 0.3 <= result["seconds"] < 1.5
    assert result["curve"][-1][1] == result["seconds"] and result["evaluation_seconds"] > 0
    # The start, the end, the shares between, and 2,000, 4,000 … steps, so that fast and slow agents can be compared.
    steps = [point[0] for point in result["curve"]]
    assert len(steps) <= 1 + cell.evaluations + max(0.0, np.log2(steps[-1] / 1_000))


def test_with_seconds_alone_schedules_follow_the_clock() -> None:
    cell = Cell("dqn-mlp", TASK, 0, SMALL, {"learning_starts": 64}, None, 1.0, 1, 8)
    model = make_agent(cell)
    curve = LearningCurve(cell, default_steps(cell))
    model.learn(curve.steps, callback=curve)
    assert model._current_progress_remaining < 0.3  # measured against a billion steps, it would be 1
    assert model.exploration_rate == model.exploration_final_eps


def test_evaluation_is_greedy_on_the_same_fresh_episodes() -> None:
    model = make_agent(CELLS[0])
    assert evaluate(model, CELLS[0]) == evaluate(model, CELLS[0])
    # Many episodes of an untrained agent, one by one: rows that end early must not count their next episode.
    assert 0 <= evaluate(model, replace(CELLS[0], eval_episodes=500)) <= 1


def test_curves_become_a_picture_and_a_table(file: Path, tmp_path: Path) -> None:
    results = load_results(file)
    path = tmp_path / "docs" / "curves.png"
    learning_curves(results, path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 20_000
    assert [entry.name for entry in path.parent.iterdir()] == ["curves.png"]
    (rows,) = summarise(results).values()
    assert [(row["agent"], row["seeds"]) for row in rows] == [("ours", 1), ("ppo-mlp", 2)]


def test_the_commands(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SWEEPS, "tiny", CELLS)
    (tmp_path / "tiny.jsonl").write_bytes(file.read_bytes())
    runner = CliRunner()
    ran = runner.invoke(app, ["run", "tiny", "--only", "ours", "--out", str(tmp_path)])
    assert ran.exit_code == 0 and "1/1" in ran.output and "ours" in ran.output
    drawn = runner.invoke(app, ["figure", str(tmp_path), "--out", str(tmp_path / "curves.svg")])
    assert drawn.exit_code == 0 and (tmp_path / "curves.svg").read_text().startswith("<?xml")


def test_the_ablation_runs_what_is_missing_and_says_what_came_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, single = ablation()["base"], ablation()["single in place of Double Q"][:1]
    for cell, score in [*((cell, 0.75) for cell in base), (single[0], 0.25)]:
        cost = {"env_steps": 9, "seconds": 1.0, "evaluation_seconds": 0.0}
        result = {"name": cell.name, "cell": asdict(cell), "score": score, "curve": [[0, 0, 0], [9, 1, score]], **cost}
        append(tmp_path / "ablate.jsonl", result)
    monkeypatch.setitem(SWEEPS, "ablate", (*base, *single))
    monkeypatch.setenv("COLUMNS", "200")
    page = tmp_path / "ablation.md"
    ran = CliRunner().invoke(app, ["ablate", "--out", str(tmp_path), "--page", str(page)])
    assert ran.exit_code == 0, ran.output
    (line,) = [line for line in ran.output.splitlines() if "single in place of Double Q" in line]
    assert "-0.528" in line and line.count("–") == 3, "0.5 normalised on the one task, none on the others"
    (row,) = [line for line in page.read_text("utf-8").splitlines() if line.startswith("| single in place of")]
    assert row.endswith("| 0.209 ↓ |  |  |  | -0.528 |"), "one pair has no error"


def test_the_live_table_knows_what_runs_and_how_long_the_rest_takes() -> None:
    now = [0.0]
    cells = [replace(CELLS[1], seed=seed, budget_seconds=20.0) for seed in range(4)]
    console = Console(file=StringIO(), width=120)
    progress = SweepProgress("tiny", cells, [], 2, console, lambda: now[0])
    assert progress.running == cells[:2] and progress.left() == 2 * (20 + START_SECONDS)
    now[0] = 10.0
    assert progress.left() == (4 * (20 + START_SECONDS) - 2 * 10) / 2
    done = {"cell": asdict(cells[1]), "score": 0.5, "env_steps": 9, "seconds": 4.0, "evaluation_seconds": 1.0}
    progress.finish(cells[1], done)
    assert progress.running == [cells[0], cells[2]]
    assert progress.expected(cells[3]) == 5 + START_SECONDS, "as its like did"
    progress.finish(cells[0], None)
    assert progress.left() == 2 * (5 + START_SECONDS) / 2
    console.print(progress)
    shown = console.file.getvalue()
    assert "tiny: 2/4 cells, 0:10 so far, 0:15 left, 1 failed" in shown and "0.500" in shown and "runs" in shown
    unknown = SweepProgress("tiny", [CELLS[0]], [], 1, console)
    assert unknown.left() is None
    with unknown:
        unknown.finish(CELLS[0], None)
    assert unknown.left() == 0


def test_errors_of_the_commands_name_what_is_accepted(tmp_path: Path) -> None:
    runner = CliRunner()
    for arguments, message in (
        (["run", "nothing"], f"SWEEP must be one of {', '.join(SWEEPS)}, got 'nothing'"),
        (["run", "quick", "--only", "sarsa"], "--only must match a cell of 'quick'"),
        (["run", "quick", "--engine", "dask", "--out", str(tmp_path)], "engine must be one of local, ray, got 'dask'"),
        (["tune-agents", "--only", "sarsa"], f"--only must match one of {', '.join(TABLE_AGENTS)}, got 'sarsa'"),
        (["figure", str(tmp_path)], "path must hold results"),
    ):
        result = runner.invoke(app, arguments)
        assert isinstance(result.exception, ValueError) and message in str(result.exception)
