from dataclasses import replace

import numpy as np
import pytest
import torch

from agents import make_vec_env
from agents.application.report.data import GROUPS, group_of
from benchmarks.baselines import (
    AGENTS,
    UNLIMITED_STEPS,
    EmbeddingExtractor,
    ShippedPerformerExtractor,
    default_steps,
    make_agent,
)
from benchmarks.baselines import n_updates as count_updates
from benchmarks.cells import Cell
from benchmarks.learning import run_cell
from benchmarks.spaces import TABLE_SPACES
from benchmarks.sweep import SWEEPS, TABLE_AGENTS, TABLE_SECONDS, TABLE_SEEDS, TABLE_TASKS, TUNING_TASKS
from textgym import TokenSequence, env_ids

SPACE = TokenSequence(8, 5, 5)
REVERSE = {"length": 2, "vocab_size": 3}


def test_every_cell_of_every_sweep_can_be_built_and_has_a_name_of_its_own() -> None:
    for cells in SWEEPS.values():
        assert len({cell.name for cell in cells}) == len(cells)
        for cell in cells:
            assert cell.agent in AGENTS and cell.task in env_ids() and default_steps(cell) >= 1


def test_a_cell_is_renamed_when_its_definition_changes() -> None:
    cell = Cell("ours", "TextGen/Reverse-v0", 0, budget_steps=10)
    assert cell.name == Cell("ours", "TextGen/Reverse-v0", 0, budget_steps=10).name
    assert cell.name != Cell("ours", "TextGen/Reverse-v0", 0, budget_steps=11).name
    assert cell.name != Cell("ours", "TextGen/Reverse-v0", 0, {"length": 2}, budget_steps=10).name


def test_a_cell_without_a_budget_is_rejected() -> None:
    with pytest.raises(ValueError, match="budget_steps or budget_seconds must be given for 'ppo-mlp', got neither"):
        default_steps(Cell("ppo-mlp", "TextGen/Reverse-v0", 0))


def test_an_unknown_agent_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"agent must be one of .*, got 'rainbow'"):
        make_agent(Cell("rainbow", "TextGen/Reverse-v0", 0, budget_steps=1))


def test_embeddings_stand_side_by_side_and_padding_is_zero() -> None:
    extractor = EmbeddingExtractor(SPACE, embedding_dim=4)
    features = extractor(torch.tensor([[1.0, 2.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0]]))  # SB3 hands ids over as floats
    assert features.shape == (1, extractor.features_dim) == (1, 32)
    assert torch.equal(features[0, :4], extractor.embedding.weight[1])
    assert torch.equal(features[0, 8:], torch.zeros(24))


def test_the_shipped_performer_is_causal_and_reads_the_last_token() -> None:
    torch.manual_seed(0)
    extractor = ShippedPerformerExtractor(SPACE, features_dim=16, n_layers=1, n_heads=2).eval()
    short = torch.tensor([[1, 2, 3, 5, 5, 5, 5, 5]])
    batch = torch.cat([short, torch.tensor([[4, 4, 4, 4, 4, 4, 4, 4]])])  # the longer row adds columns of padding
    with torch.no_grad():
        assert torch.allclose(extractor(short)[0], extractor(batch)[0], atol=1e-5)
        assert not torch.allclose(extractor(short), extractor(torch.tensor([[1, 2, 4, 5, 5, 5, 5, 5]])), atol=1e-3)


@pytest.mark.parametrize("agent", AGENTS)
def test_updates_are_counted_by_the_optimizer(agent: str) -> None:
    ppo, a2c = "ppo" in agent, "a2c" in agent
    kwargs = {"n_steps": 8} if a2c else {"learning_starts": 16}
    kwargs = {"n_steps": 8, "batch_size": 32, "n_epochs": 2} if ppo else kwargs
    model = make_agent(Cell(agent, "TextGen/Reverse-v0", 0, REVERSE, kwargs, budget_steps=128))
    assert count_updates(model) == 0
    model.learn(128)
    # Of 128 steps: ours makes 0.02 a step after the first 16; PPO 4 batches twice over; A2C one for 8 steps of 16 rows;
    # all others 4 for each 16 steps.
    sequences = agent in ("ours", "ours-transformer", "ours-gru")
    expected = 2 if sequences else 8 if ppo else 1 if a2c else 28
    assert abs(count_updates(model) - expected) <= 1


@pytest.mark.parametrize("agent", ["maskable-ppo-mlp", "recurrent-ppo-mlp", "qrdqn-mlp", "a2c-performer", "ours-mlp"])
def test_agents_of_every_kind_learn_and_are_evaluated(agent: str) -> None:
    task, budget = "TextGen/Json-Easy-v0", {"budget_seconds": 0.2, "evaluations": 1, "eval_episodes": 8}
    result = run_cell(Cell(agent, task, 0, **budget))
    assert result["env_steps"] > 0 and 0 <= result["score"] <= 1


def test_no_agent_of_the_table_has_help_that_others_lack() -> None:
    cell = Cell("ours", "TextGen-v0", 0, budget_seconds=1.0)
    assert default_steps(cell) == UNLIMITED_STEPS
    plain = make_agent(cell)
    assert plain.n_envs == 64  # whatever the preset of that task
    assert plain.updates_per_step == 0.02 and make_agent(Cell("ours", "TextGen-v0", 0)).updates_per_step == 0.01
    for agent in TABLE_AGENTS:
        found = [cell for cell in SWEEPS["table"] if cell.agent == agent]
        pairs = {(cell.task, cell.seed) for cell in found}
        assert pairs == {(task, seed) for task in TABLE_TASKS for seed in TABLE_SEEDS}
        same = Cell("", "", 0, budget_seconds=TABLE_SECONDS, evaluations=10)
        assert all(replace(cell, agent="", task="", seed=0, agent_kwargs={}) == same for cell in found)
    assert {group_of(task) for task in TABLE_TASKS} == set(GROUPS) - {"planning"}  # which came later
    assert set(TUNING_TASKS) & set(TABLE_TASKS) == {"TextGen/Sort-v0"}  # for all agents alike
    assert set(TABLE_AGENTS) <= set(TABLE_SPACES)


def test_all_agents_see_the_same_environment() -> None:
    cell = Cell("dqn-mlp", "TextGen/Reverse-v0", 3, REVERSE, budget_steps=100)
    env = make_agent(cell).get_env()
    assert env is not None
    expected = make_vec_env(cell.task, n_envs=env.num_envs, seed=3, env_kwargs=REVERSE).reset()
    assert np.array_equal(env.reset(), expected)
