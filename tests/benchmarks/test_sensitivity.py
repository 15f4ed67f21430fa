"""The page about the defaults."""

from dataclasses import asdict
from pathlib import Path

import pytest

from agents.application.report.effects import effects, normalised_area
from agents.saving.json_lines import read
from agents.saving.results import ablations_in, load_results
from benchmarks.cells import SEEDS
from benchmarks.changes import ABLATION_TASKS, FACTORS, SMALL_TASKS
from benchmarks.sensitivity import ablation_markdown, described, markdown, variants
from benchmarks.sweep import SWEEPS

ROOT = Path(__file__).parents[2]


def result(cell, score):
    return {
        "name": cell.name,
        "cell": asdict(cell),
        "curve": [[0, 0.0, -9.0], [10, 1.0, score], [20, 2.0, score + 0.2]],
        "score": score,
    }


def test_effects_are_paired_by_task_and_seed():
    cells = SWEEPS["defaults"]
    size = len(cells) // (len(FACTORS) + 1)
    base = [result(cell, number) for number, cell in enumerate(cells[:size])]
    first = [
        result(cell, number + (0.5 if cell.seed == 10 else 0.1)) for number, cell in enumerate(cells[size : 2 * size])
    ]
    of_base, of_first = effects([*base, *first], described("defaults"))
    assert (of_base.difference, of_base.error) == (0, 0)
    assert list(of_base.by_task) == [task for task, _, _ in SMALL_TASKS]
    assert of_base.by_task[SMALL_TASKS[0][0]] == pytest.approx(0.6)  # seeds score 0 and 1, and 0.1 more at the end
    assert (of_first.name, of_first.pairs) == (FACTORS[0][0], size)
    assert of_first.difference == pytest.approx(0.3)
    assert of_first.error == pytest.approx(0.2 * (size / (size - 1)) ** 0.5 / size**0.5)
    with pytest.raises(ValueError, match="results must hold the base of the sweep 'defaults'"):
        effects(first, described("defaults"))


def test_every_claim_is_tested_on_the_same_tasks_seeds_and_steps():
    of = variants("ablate")
    assert {cell.name for cells in of.values() for cell in cells} == {cell.name for cell in SWEEPS["ablate"]}
    expected = [(task, seed, steps) for seed in SEEDS for task, steps in ABLATION_TASKS]
    for cells in of.values():
        assert [(cell.task, cell.seed, cell.budget_steps) for cell in cells] == expected
    # An unfinished sweep has whole comparisons: all variants of a task and seed come one after another.
    assert [(cell.task, cell.seed) for cell in SWEEPS["ablate"][: len(of)]] == [expected[0][:2]] * len(of)
    with pytest.raises(ValueError, match="without arguments"):
        normalised_area(result(SWEEPS["defaults"][0], 1.0))


def test_the_page_is_what_the_results_say():
    """Made by ``python -m benchmarks sensitivity``, never by hand."""
    written = (ROOT / "docs" / "defaults.md").read_text("utf-8")
    assert markdown(effects(load_results(ROOT / "results" / "defaults.jsonl"), described("defaults"))) == written


def test_the_page_about_the_parts_is_what_the_results_say():
    found = effects(load_results(ROOT / "results" / "ablate.jsonl"), described("ablate"))
    assert [effect.pairs for effect in found] == [len(ABLATION_TASKS) * len(SEEDS)] * len(variants("ablate"))
    assert ablation_markdown(found) == (ROOT / "docs" / "ablation.md").read_text("utf-8")


@pytest.mark.parametrize("sweep", ["ablate", "defaults"])
def test_a_file_says_what_its_sweep_compares(sweep):
    assert ablations_in(read(ROOT / "results" / f"{sweep}.jsonl")) == [described(sweep)]
