"""The soak: what it samples, and that its verdict tells a leak from a flat curve."""

import json

import pytest

from benchmarks.soak import judge, main, open_files, sentence, soak

TINY = {"policy_kwargs": {"features_dim": 8, "n_layers": 1}, "learning_starts": 32, "batch_size": 4}


def rows(
    resident=lambda step: 4e8, files=lambda step: 9, replay=lambda step: 0, episodes=lambda step: 30, capacity=300
):
    return [
        {
            "steps": step,
            "resident_bytes": resident(step) + 12 * min(step, capacity) + replay(step),
            "open_files": files(step),
            "replay_steps": min(step, capacity),
            "replay_episodes": episodes(step),
            "replay_bytes": 12 * min(step, capacity) + replay(step),
        }
        for step in range(0, 1000, 20)
    ]


class TestVerdict:
    def test_flat(self):
        verdict = judge(rows(), 300, 1000)
        assert verdict["flat"] and verdict["warm_up_steps"] == 300 and verdict["replay_wrapped"]
        assert verdict["resident_growth"] == 0.0 and verdict["open_files"] == [9]
        assert judge(rows(), 10_000, 1000) == {**verdict, "warm_up_steps": 100, "replay_wrapped": False} | {
            "replay_growth": pytest.approx(2.0)
        }

    @pytest.mark.parametrize(
        "leak",
        [
            {"resident": lambda step: 4e8 + 5e4 * step},
            {"files": lambda step: 9 + (step > 800)},
            {"replay": lambda step: step},
        ],
    )
    def test_a_leak(self, leak):
        assert not judge(rows(**leak), 300, 1000)["flat"]

    def test_replay_holds_more_episodes_when_they_become_shorter(self):
        assert judge(rows(replay=lambda step: step, episodes=lambda step: 10 + step // 20), 300, 1000)["flat"]

    def test_growth_before_the_end_of_warm_up_is_none(self):
        assert judge(rows(resident=lambda step: 4e8 if step >= 300 else 1e8), 300, 1000)["flat"]

    def test_the_first_updates_are_part_of_warm_up(self):
        assert judge(rows(), 300, 1000, learning_starts=200)["warm_up_steps"] == 400

    def test_too_short(self):
        verdict = judge(rows()[:2], 300, 1000)
        assert verdict["flat"] is None and "too short: 0 samples after warm-up" in verdict["reason"]


def test_a_run(tmp_path):
    result = soak("TextGen/Reverse-v0", 1_920, samples=10, agent={**TINY, "buffer_size": 128}, checkpoints=tmp_path)
    samples = result["samples"]
    assert len(samples) == 10 and samples[-1]["steps"] == 1_920 and samples[-1]["updates"] > 0
    assert samples[-1]["replay_steps"] <= 128 and result["verdict"]["replay_wrapped"]
    assert samples[-1]["resident_bytes"] > 10**7 and samples[-1]["open_files"] == open_files()
    assert sentence(result).startswith("TextGen/Reverse-v0, 1,920 steps in ")
    json.dumps(result)


def test_wrong_arguments(capsys):
    with pytest.raises(SystemExit):
        main(["--steps", "0"])
    assert "--steps must be at least 1, got 0" in capsys.readouterr().err
