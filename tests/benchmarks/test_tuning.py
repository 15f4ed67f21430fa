"""The comparison of samplers: cells as objectives of a study, its figures and its JSON."""

import json

import numpy as np
import pytest

from agents.hyperparam_opt import Space, Study
from benchmarks.baselines import AGENTS
from benchmarks.cells import REVERSE
from benchmarks.spaces import SPACES
from benchmarks.tuning import CellObjective, draw, measure

TINY = {"length": 2, "vocab_size": 3}


def objective(agent, steps=64):
    return CellObjective(agent, REVERSE, TINY, budget_steps=steps, eval_episodes=16)


def test_spaces_are_valid_and_cover_every_agent():
    assert set(SPACES) == set(AGENTS)
    for data in SPACES.values():
        Space(data).sample(np.random.default_rng(0))


@pytest.mark.parametrize("agent", ["ppo-mlp", "dqn-mlp", "ours"])
def test_any_agent_can_be_tuned(agent):
    space = {"ppo-mlp": {"n_steps": [16, 32]}, "dqn-mlp": {"tau": [0.5, 1.0]}, "ours": {"tau": [0.5, 1.0]}}[agent]
    study = Study(space, objective(agent, 256), seeds=1, stopping="median")
    study.run(1)
    (run,) = study.runs
    assert run.state == "finished", run.error
    assert 0 <= run.score <= 1 and [step for step, _ in run.reports] == list(range(1, 1 + len(run.reports)))
    assert len(run.reports) == 3


def test_measure_resumes_and_draws(tmp_path):
    results = [measure([objective("ours")], tmp_path, trials=2, seeds=[0], confirm=1) for _ in range(2)]
    first, again = results
    assert [(s["sampler"], len(s["scores"]), len(s["fresh_scores"])) for s in first["studies"]] == [
        ("gp", 2, 1),
        ("random", 2, 1),
    ]
    assert first["studies"][0]["scores"] == first["studies"][1]["scores"], "the first five points are the same"
    assert again["summary"] == first["summary"] and json.loads(json.dumps(first)) == first
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    draw(first, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5_000
