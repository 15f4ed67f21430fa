"""The measurement of the server, in small, and that it notices what is wrong."""

import json

import pytest

from benchmarks.serving import Play, main, measure, sentence, wrong_episodes
from textgym.adapters import TextSteps


def test_a_small_measurement():
    pytest.importorskip("openenv", reason="OpenEnv is not installed")
    result = measure("TextGen/Hangman-v0", sessions=8, steps=400)
    assert result["wrong_episodes"] == result["unanswered"] == result["sessions_left"] == 0
    assert result["steps"] == 400 and result["misdeeds"] >= 10 and result["episodes"] > 8
    assert 0 < result["p50_ms"] <= result["p99_ms"] and result["steps_per_second"] > 0
    assert 0 < result["server_cpu_ms"] < 1000
    assert result["before"]["resident_bytes"] > 10**7
    assert abs(result["after"]["open_files"] - result["before"]["open_files"]) <= 2
    assert sentence(result).startswith("serving TextGen/Hangman-v0, 8 sessions (2 hostile), ")
    json.dumps(result)


@pytest.mark.parametrize(("key", "value"), [("text", "<grey>"), ("tokens", [1])])
def test_a_difference_is_noticed(key, value):
    steps = TextSteps("TextGen/Wordle-v0")
    seen = [{"observation": {"text": steps.reset(3), "tokens": steps.info["tokens"].tolist()}}]
    seen[0] |= {"reward": None, "done": False}
    text, reward, done, _, info = steps.step("s t o n e")
    observation = {"text": text, "tokens": info["tokens"].tolist()}
    for broken in (False, True):
        shown = observation | ({key: value} if broken else {})
        play = Play([(3, ["s t o n e"], [*seen, {"observation": shown, "reward": reward, "done": done}])])
        assert wrong_episodes("TextGen/Wordle-v0", play) == broken
    play = Play([(3, ["s t o n e"], [*seen, {"observation": observation, "reward": reward + 1e-12, "done": done}])])
    assert wrong_episodes("TextGen/Wordle-v0", play) == 1


def test_wrong_arguments(capsys):
    with pytest.raises(SystemExit):
        main(["--sessions", "8", "--steps", "7"])
    assert "--steps must be at least 8, got 7" in capsys.readouterr().err
