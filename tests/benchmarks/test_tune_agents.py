"""Tuning of the table's agents: two real trials, and what becomes of them."""

from dataclasses import dataclass

import pytest
import yaml

from agents.hyperparam_opt import Space
from benchmarks import sweep
from benchmarks.spaces import TABLE_SPACES
from benchmarks.sweep import TABLE_AGENTS, tuned
from benchmarks.tune_agents import TableObjective, tune_agent, tune_agents

TASKS = ("TextGen/Copy-Sparse-v0", "TextGen/Classify-Easy-v0")


@dataclass(frozen=True)
class Valley(TableObjective):
    """Something quick in place of training: the defaults earn ``default``, others 1 minus their distance to 1e-3."""

    default: float = 0.0

    def __call__(self, arguments, seed, report):
        return self.default if not arguments else 1.0 - abs(arguments["learning_rate"] - 1e-3)


def test_two_trials_of_a_real_agent_are_resumed_and_written(tmp_path, monkeypatch):
    objective = TableObjective("ppo-mlp", TASKS, seconds=0.2, eval_episodes=16)
    first, again = (tune_agents([objective], 2, tmp_path / "studies", tmp_path / "found") for _ in range(2))
    assert first == again, "nothing is run twice"
    (found,) = first
    assert found.trials == 2 and found.failed == 0 and found.score >= found.default_score
    written = yaml.safe_load((tmp_path / "found" / "ppo-mlp.yaml").read_text())
    assert written["agent_kwargs"] == found.arguments
    monkeypatch.setattr(sweep, "HYPERPARAMETERS", tmp_path / "found")
    assert tuned("ppo-mlp") == found.arguments and tuned("a2c-mlp") == {}


def test_the_defaults_stay_where_nothing_is_better(tmp_path):
    bad = tune_agent(Valley("dqn-mlp", default=2.0), 3, tmp_path)
    assert (bad.arguments, bad.score, bad.default_score) == ({}, 2.0, 2.0)
    good = tune_agent(Valley("a2c-mlp"), 3, tmp_path)
    assert good.score == pytest.approx(1.0 - abs(good.arguments["learning_rate"] - 1e-3)) and good.default_score == 0
    assert set(good.arguments) == set(TABLE_SPACES["a2c-mlp"])


def test_spaces_of_the_table_have_about_the_same_size():
    assert {len(Space(TABLE_SPACES[agent]).names) for agent in TABLE_AGENTS} <= {6, 7}


def test_unknown_agents_and_too_few_trials_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"agent must be one of .*, got 'rainbow'"):
        tune_agents([TableObjective("rainbow")], 2, tmp_path, tmp_path)
    with pytest.raises(ValueError, match="trials must be at least 2, got 1"):
        tune_agent(TableObjective("ours"), 1, tmp_path)
