"""The path-star benchmark, for fractions of a second."""

import pytest

from benchmarks import star_graph


@pytest.mark.parametrize("agent", star_graph.AGENTS)
def test_every_agent_stops_in_time(agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(star_graph, "DEMONSTRATIONS", 200)
    monkeypatch.setattr(star_graph, "EVALUATION_EPISODES", 256)
    row = star_graph.run(agent, degree=2, path_length=2, nodes=5, seconds=0.2)
    assert (row["agent"], row["degree"], row["seed"]) == (agent, 2, 0)
    assert 0.2 <= row["seconds"] < 5
    assert row["curve"][-1] == (row["seconds"], row["success_rate"])
    assert 0.3 <= row["success_rate"] <= 1  # one of two arms


def test_errors() -> None:
    with pytest.raises(ValueError, match="agent must be one of ours, cloning, ppo, got 'dqn'"):
        star_graph.run("dqn")
    with pytest.raises(ValueError, match="seconds must be positive, got 0"):
        star_graph.run("ours", seconds=0)
