"""The table of agents and tasks, by hand where it can be, and the README's copy of it."""

from pathlib import Path

import pytest

from agents.application.report.data import Comparison
from agents.saving.results import load_results
from benchmarks.leaderboard import duel_table, markdown, score_table, speed_table
from tests.agents.test_report import result
from textgym import references

ROOT = Path(__file__).parents[2]
REVERSE, SORT = "TextGen/Reverse-v0", "TextGen/Sort-v0"


@pytest.fixture(scope="module")
def comparison():
    """Ours solves both tasks in 2,000 steps, PPO takes ten times as many for a tenth; nobody's third task counts."""

    def runs(agent, task, top, steps):
        known = references(task)
        scores = [known.random + share * (known.best - known.random) for share in (0.0, top / 2, top)]
        return [result(agent, task, seed, scores, steps) for seed in range(3)]

    ours = [*runs("ours", REVERSE, 1.0, 1_000), *runs("ours", SORT, 0.8, 1_000)]
    ppo = [*runs("ppo-mlp", REVERSE, 0.1, 10_000), *runs("ppo-mlp", SORT, 0.9, 10_000)]
    return Comparison([*ours, *ppo, *runs("ours", "TextGen/Copy-v0", 1.0, 1_000)])


def cells(table, start):
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_scores_at_equal_time_and_at_equal_steps(comparison):
    by_time, by_steps = score_table(comparison, 1), score_table(comparison, 0)
    assert cells(by_time, "agent")[2:] == ["`Reverse`", "`Sort`"], "only tasks that all have played"
    assert cells(by_time, "**DoubleDQN") == ["**DoubleDQN (ours)**", "0.90 (0.90–0.90)", "**1.00**", "0.80"]
    assert cells(by_time, "PPO + MLP") == ["PPO + MLP", "0.50 (0.50–0.50)", "0.10", "**0.90**"]
    # After our 2,000 steps, of its 20,000: a fifth of the way to its first evaluation.
    assert cells(by_steps, "PPO + MLP")[2:] == ["0.01", "0.09"]
    assert by_time.index("DoubleDQN") < by_time.index("PPO"), "the best first"


def test_duels_and_speeds(comparison):
    against, by_time, by_steps, time, steps = cells(duel_table(comparison), "PPO + MLP")
    assert (against, by_time, by_steps) == ("PPO + MLP", "0.50 (0.50–0.50)", "1.00 (1.00–1.00)")
    # Reverse: ours after 4 s, the other not within 4 s; Sort: ours not within 4 s, the other after 4 s.
    assert time == "1.0×, 2 tasks" and steps == "10.0×, 2 tasks"
    assert cells(speed_table(comparison), "DoubleDQN") == ["DoubleDQN (ours)", "500", "500"]


def test_the_page_and_what_is_missing(comparison):
    page = markdown(comparison.results)
    assert "## At equal time" in page and "## At equal steps" in page and "seeds: 3." in page
    assert all(len(line) <= 120 for line in page.splitlines() if not line.startswith("|"))
    with pytest.raises(ValueError, match="results must hold a task with reference scores that every agent has played"):
        markdown([result("ours", REVERSE), result("ppo-mlp", SORT)])


def test_the_readme_and_the_page_say_what_the_results_say():
    found = Comparison(load_results(ROOT / "results" / "table.jsonl"))
    assert score_table(found, 1) in (ROOT / "README.md").read_text("utf-8")
    assert markdown(found.results) == (ROOT / "docs" / "table.md").read_text("utf-8")
