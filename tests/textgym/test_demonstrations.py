import sys

import gymnasium as gym
import numpy as np
import pytest

import textgym
from textgym import Demonstration, demonstrations

WITHOUT_ORACLE = ("TextGen-v0", "TextGen/Keywords")
IDS = [env_id for env_id in textgym.env_ids() if "Hard" not in env_id and not env_id.startswith(WITHOUT_ORACLE)]


def test_prompt_completion_reward():
    shown = list(demonstrations("TextGen/Reverse-v0", n=3, seed=5, length=4, vocab_size=6))
    for prompt, completion, reward in shown:
        assert completion.split() == prompt.split()[::-1] and reward == 1.0
    assert isinstance(shown[0], Demonstration)
    assert shown[0].completion_tokens.tolist() == [*shown[0].prompt_tokens[::-1].tolist(), 6]  # and EOS
    assert shown[0].is_action.all()


@pytest.mark.parametrize("env_id", IDS)
def test_every_demonstration_replays_in_the_single_environment(env_id):
    """Demonstration i is the episode of seed + i, noise and replies included."""
    env = gym.make(env_id)
    for number, shown in enumerate(demonstrations(env_id, n=3, seed=11, error_rate=0.3)):
        observation, _ = env.reset(seed=11 + number)
        start, total, terminated = len(shown.prompt_tokens), 0.0, False
        assert np.array_equal(observation[:start], shown.prompt_tokens)
        for action in shown.completion_tokens[shown.is_action]:
            assert not terminated
            observation, reward, terminated, _, info = env.step(action)
            assert "illegal_action" not in info
            total += reward
        assert terminated and total == pytest.approx(shown.reward)
        assert np.array_equal(observation[start : start + len(shown.completion_tokens)], shown.completion_tokens)
        assert shown.prompt == env.unwrapped.task.decode(shown.prompt_tokens)


def test_they_depend_on_their_own_number_alone():
    few = list(demonstrations("TextGen/Wordle-Easy-v0", n=3, seed=2, error_rate=0.5))
    many = demonstrations("TextGen/Wordle-Easy-v0", n=300, seed=0, error_rate=0.5)
    assert len(many) == 300
    all_of_them = list(many)
    assert len(all_of_them) == 300
    for one, other in zip(few, all_of_them[2:5], strict=True):
        assert tuple(one) == tuple(other) and np.array_equal(one.completion_tokens, other.completion_tokens)
    assert [tuple(one) for one in many] == [tuple(one) for one in all_of_them]


def test_error_rate():
    """Copy's oracle is right at every position, whatever stands before: what differs from the prompt is noise."""
    length, symbols, rate = 10, 3, 0.4
    wrong = written = 0
    for shown in demonstrations("TextGen/Copy-v0", n=600, seed=0, error_rate=rate, length=length, vocab_size=symbols):
        tokens = shown.completion_tokens[:length]
        written += len(tokens)
        wrong += (tokens != shown.prompt_tokens[: len(tokens)]).sum()
    expected = rate * symbols / (symbols + 1)  # one of the four legal tokens is the right one
    assert abs(wrong / written - expected) < 4 * np.sqrt(expected * (1 - expected) / written)
    rewards = [shown.reward for shown in demonstrations("TextGen/Copy-v0", n=50, error_rate=1.0)]
    assert np.mean(rewards) < 0.2


def test_noise_is_legal_where_there_are_masks():
    for shown in demonstrations("TextGen/Json-Easy-v0", n=50, error_rate=0.8):
        assert shown.is_action.all() and shown.reward >= 0.0


def test_dataset():
    shown = demonstrations("TextGen/Hangman-Easy-v0", n=5, seed=1)
    dataset = shown.to_dataset()
    assert dataset.column_names == [
        "prompt",
        "completion",
        "reward",
        "prompt_tokens",
        "completion_tokens",
        "is_action",
    ]
    for row, one in zip(dataset, shown, strict=True):
        assert (row["prompt"], row["completion"], row["reward"]) == tuple(one)
        assert row["completion_tokens"] == one.completion_tokens.tolist()
        assert 0 < sum(row["is_action"]) < len(row["is_action"])  # the environment's replies stand between


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: demonstrations("TextGen-v0", 3), "TextGen-v0 has no oracle to take demonstrations from: pick a task"),
        (lambda: demonstrations("TextGen/Copy-v0", 0), "n must be an integer of at least 1, got 0"),
        (lambda: demonstrations("TextGen/Copy-v0", 1, error_rate=1.5), r"error_rate must lie in \[0, 1\], got 1.5"),
        (lambda: demonstrations("CartPole-v1", 1), r"id must be one of textgym.env_ids\(\), got 'CartPole-v1'"),
        (lambda: demonstrations("TextGen/Copy-v0", 1, length=0), "length must be an integer of at least 1"),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_missing_datasets_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"to_dataset\(\) needs the package datasets: pip install datasets"):
        demonstrations("TextGen/Copy-v0", 1).to_dataset()
