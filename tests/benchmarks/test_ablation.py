"""The sweep of one change at a time, and its page."""

from dataclasses import asdict
from pathlib import Path

import pytest

from agents import DoubleDQN, make_vec_env
from agents.application.report.effects import effects, normalised_area
from agents.saving.arguments import constructor_arguments
from agents.saving.json_lines import read
from agents.saving.results import ablations_in, load_results
from benchmarks.ablation import described, markdown
from benchmarks.cells import SEEDS, Cell
from benchmarks.changes import ABLATION, ABLATION_TASKS, BASE, ablation
from benchmarks.sweep import SWEEPS
from textgym import references

ROOT = Path(__file__).parents[2]


def result(cell, score):
    return {
        "name": cell.name,
        "cell": asdict(cell),
        "curve": [[0, 0.0, -9.0], [10, 1.0, score], [20, 2.0, score + 0.2]],
        "score": score,
    }


def normalised(cell, share):
    """A run that has this share of the way from random play to the best known score, and 0.2 more of it at the end."""
    known = references(cell.task)
    low, high = (known.random + (known.best - known.random) * of for of in (share, share + 0.2))
    return result(cell, low) | {"curve": [[0, 0.0, -9.0], [10, 1.0, low], [20, 2.0, high]]}


def test_effects_are_paired_by_task_and_seed():
    base_cells, first_cells = list(ablation().values())[:2]
    size = len(base_cells)
    base = [normalised(cell, float(cell.seed)) for cell in base_cells]
    first = [normalised(cell, cell.seed + (0.1, 0.2, 0.3)[cell.seed]) for cell in first_cells]
    of_base, of_first = effects([*base, *first], described())
    assert (of_base.difference, of_base.error) == (0, 0)
    assert list(of_base.by_task) == [task for task, _ in ABLATION_TASKS]
    assert of_base.by_task[ABLATION_TASKS[0][0]] == pytest.approx(
        1.1
    )  # seeds score 0, 1 and 2, and 0.2 more at the end
    assert (of_first.name, of_first.pairs) == (ABLATION[1][0], size)
    assert of_first.difference == pytest.approx(0.2)
    assert of_first.error == pytest.approx((0.1**2 * 2 / 3 * size / (size - 1)) ** 0.5 / size**0.5)
    assert set(of_first.agreed.values()) == {1}
    with pytest.raises(ValueError, match="results must hold the base of the sweep 'ablate'"):
        effects(first, described())


def test_every_claim_is_tested_on_the_same_tasks_seeds_and_steps():
    of = ablation()
    assert {cell.name for cells in of.values() for cell in cells} == {cell.name for cell in SWEEPS["ablate"]}
    expected = [(task, seed, steps) for seed in SEEDS for task, steps in ABLATION_TASKS]
    for cells in of.values():
        assert [(cell.task, cell.seed, cell.budget_steps) for cell in cells] == expected
    # An unfinished sweep has whole comparisons: all variants of a task and seed come one after another.
    assert [(cell.task, cell.seed) for cell in SWEEPS["ablate"][: len(of)]] == [expected[0][:2]] * len(of)
    with pytest.raises(ValueError, match="without arguments"):
        normalised_area(result(Cell("ours", "TextGen/Sort-v0", 0, {"length": 5}), 1.0))


def test_the_page_is_what_the_results_say():
    found = effects(load_results(ROOT / "results" / "ablate.jsonl"), described())
    assert [effect.pairs for effect in found] == [len(ABLATION_TASKS) * len(SEEDS)] * len(ablation())
    assert markdown(found) == (ROOT / "docs" / "ablation.md").read_text("utf-8")


def test_the_file_says_what_its_sweep_compares():
    assert ablations_in(read(ROOT / "results" / "ablate.jsonl")) == [described()]


def test_the_base_is_the_agent_with_its_defaults():
    env = make_vec_env("TextGen/Sort-v0", 2, seed=0)
    base, plain = (DoubleDQN("PerformerPolicy", env, seed=0, **constructor_arguments(given)) for given in (BASE, {}))
    for name in {*BASE} - {"exploration_kwargs", "policy_kwargs", "exploration"}:
        assert str(getattr(base, name)) == str(getattr(plain, name)), name
    assert base.exploration.coefficient == plain.exploration.coefficient
    assert type(base.exploration) is type(plain.exploration)
    assert str(base.policy) == str(plain.policy)
