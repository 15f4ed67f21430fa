"""What the README claims of learning, run again: minutes each, so behind the marker that CI selects."""

import pytest

import textgym
from benchmarks.cells import REVERSE, TEXTGEN, Cell
from benchmarks.learning import run_cell

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reverse_is_solved_within_20000_steps_and_ppo_is_far_from_it(seed):
    ours = run_cell(Cell("ours", REVERSE, seed, budget_steps=20_000, evaluations=1))
    ppo = run_cell(Cell("ppo-performer", REVERSE, seed, budget_seconds=ours["seconds"], evaluations=1))
    assert ours["score"] >= 0.95
    assert ppo["score"] < ours["score"] - 0.3


def test_the_main_job_beats_what_ignores_its_prompt():
    references = textgym.references(TEXTGEN)
    score = run_cell(Cell("ours", TEXTGEN, seed=0, evaluations=1))["score"]
    assert references.normalise(score) >= 0.7
    assert references.normalise(score) >= references.normalise(references.blind) + 0.2
