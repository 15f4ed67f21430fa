"""Tuning of the table's agents: two real trials, and what becomes of them."""

from dataclasses import dataclass

import pytest
import yaml

from agents.hyperparam_opt import Space
from agents.saving.json_lines import read
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


def test_a_real_agent_is_tuned_resumed_and_written(tmp_path, monkeypatch):
    objective = TableObjective("ppo-mlp", TASKS, seconds=0.2, eval_episodes=16)
    first, again = (tune_agents([objective], 2, tmp_path / "studies", tmp_path / "found", 0.3) for _ in range(2))
    assert first == again, "nothing is run twice"
    (found,) = first
    assert found.trials == 2 and found.failed == 0 and len(found.finalists) == 3
    assert found.best.score == max(finalist.score for finalist in found.finalists)
    written = yaml.safe_load((tmp_path / "found" / "ppo-mlp.yaml").read_text())
    assert written["agent_kwargs"] == found.best.arguments and written["final_seconds"] == 0.3
    monkeypatch.setattr(sweep, "HYPERPARAMETERS", tmp_path / "found")
    assert tuned("ppo-mlp") == found.best.arguments and tuned("a2c-mlp") == {}


def test_the_defaults_stay_where_nothing_is_better(tmp_path):
    bad = tune_agent(Valley("dqn-mlp", default=2.0), 3, tmp_path)
    assert bad.best == bad.finalists[0] and (bad.best.arguments, bad.best.score) == ({}, 2.0)
    good = tune_agent(Valley("a2c-mlp"), 3, tmp_path)
    assert good.best.score == pytest.approx(1.0 - abs(good.best.arguments["learning_rate"] - 1e-3))
    assert good.best == good.finalists[1] and good.best.trial_score == good.best.score
    assert set(good.best.arguments) == set(TABLE_SPACES["a2c-mlp"])


def test_a_final_that_was_cut_short_goes_on_with_the_next_finalist(tmp_path):
    @dataclass(frozen=True)
    class Dies(Valley):
        """Dies with the second finalist."""

        def __call__(self, arguments, seed, report):
            if seed == 1 and arguments:
                raise KeyboardInterrupt
            return super().__call__(arguments, seed, report)

    with pytest.raises(KeyboardInterrupt):
        tune_agent(Dies("a2c-mlp"), 3, tmp_path)
    (path,) = tmp_path.glob("*_final.jsonl")
    assert [record["arguments"] for record in read(path)] == [{}]


def test_spaces_of_the_table_have_about_the_same_size():
    assert {len(Space(TABLE_SPACES[agent]).names) for agent in TABLE_AGENTS} <= {6, 7}


def test_unknown_agents_and_too_few_trials_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"agent must be one of .*, got 'rainbow'"):
        tune_agents([TableObjective("rainbow")], 2, tmp_path, tmp_path)
    with pytest.raises(ValueError, match="trials must be an integer of at least 1, got 0"):
        tune_agent(TableObjective("ours"), 0, tmp_path)
