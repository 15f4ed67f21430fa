import json

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from agents.saving.json_lines import read
from benchmarks import anchors


@pytest.mark.parametrize("agent", anchors.AGENTS)
def test_both_agents_run_with_the_same_budget(agent):
    result = anchors.run("CartPole-v1", agent, seed=1, steps=1_100, episodes=3)
    # Training begins after 1,000 steps, at the next multiple of 256: 1,024 and 1,280.
    assert result["steps"] == 1_280 and result["updates"] == 256 and result["episodes"] == 3
    assert 8 <= result["mean_return"] <= 500 and json.loads(json.dumps(result)) == result


def test_the_command(tmp_path, capsys):
    threads = torch.get_num_threads()
    options = ["--tasks", "CartPole-v1", "--agents", "ours", "--seeds", "0", "3", "--steps", "20", "--episodes", "1"]
    try:
        anchors.main([*options, "--out", str(tmp_path / "out.jsonl")])
    finally:
        torch.set_num_threads(threads)
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == read(tmp_path / "out.jsonl")
    assert [result["seed"] for result in printed] == [0, 3]


def test_a_missing_game_is_a_clear_error(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(__import__("sys").modules, "minatar", None)  # as if it were not installed
    with pytest.raises(SystemExit):
        anchors.main(["--out", str(tmp_path / "out.jsonl")])
    assert "pip install minatar" in capsys.readouterr().err and not (tmp_path / "out.jsonl").exists()


def test_unknown_names():
    with pytest.raises(ValueError, match="task must be one of CartPole-v1"):
        anchors.run("Pong", "ours", 0)
    with pytest.raises(ValueError, match="agent must be one of"):
        anchors.run("CartPole-v1", "ppo", 0)


def test_minatar():
    pytest.importorskip("minatar")
    env = anchors.MinAtar("breakout")
    check_env(env, skip_render_check=True)
    one, two = (anchors.MinAtar("breakout") for _ in range(2))
    observations = [game.reset(seed=5)[0] for game in (one, two)]
    for action in np.random.default_rng(0).integers(env.action_space.n, size=60):
        assert np.array_equal(*observations)
        observations = [game.step(action)[0] for game in (one, two)]
    assert anchors.run("MinAtar-breakout", "ours", seed=0, steps=60, episodes=1)["steps"] == 60
