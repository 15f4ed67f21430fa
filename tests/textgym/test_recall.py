"""Recall: every key once, the value asked for, and what is paid."""

import numpy as np
import pytest

import textgym
from textgym.tasks.recall import Recall


@pytest.mark.parametrize(
    ("pairs", "value_length", "keys"), [(1, 1, None), (4, 2, None), (5, 3, 9), (20, 2, 20), (2729, 2, None)]
)
def test_prompts_and_answers(pairs, value_length, keys):
    n = 50 if pairs < 100 else 2
    envs = textgym.TextGenVectorEnv(n, task="recall", pairs=pairs, value_length=value_length, keys=keys)
    envs.reset(seed=0)
    assert envs.task.context_length == pairs * (1 + value_length) + 2 + value_length
    for row in range(n):
        texts = [envs.task.token_text(token) for token in envs.episodes.prompt(row).tolist()]
        assert texts[-2] == "?"
        table = {}
        for start in range(0, len(texts) - 2, 1 + value_length):
            assert texts[start] not in table
            table[texts[start]] = texts[start + 1 : start + 1 + value_length]
        assert len(table) == pairs
        assert all(key[0] == "k" and int(key[1:]) < (keys or pairs) for key in table)
        answer = [envs.task.token_text(token) for token in envs.episodes.columns["target"][row].tolist()]
        assert answer == table[texts[-1]]


def test_contexts_of_the_documentation():
    assert [Recall(pairs=pairs).context_length for pairs in (4, 8, 340, 2729)] == [16, 28, 1024, 8191]


def test_every_place_is_asked_for():
    envs = textgym.TextGenVectorEnv(2000, task="recall", pairs=4)
    envs.reset(seed=0)
    tokens = envs.episodes.tokens
    places = (tokens[:, 0:12:3] == tokens[:, 13:14]).argmax(axis=1)
    assert np.bincount(places, minlength=4).min() > 420  # 500 ± 4 standard deviations


@pytest.mark.parametrize(
    ("dense", "written", "rewards"),
    [
        (True, ("right", "right"), [0.5, 0.5]),
        (True, ("wrong", "right"), [0.0, 0.5]),
        (True, ("eos",), [0.0]),
        (False, ("right", "right"), [0.0, 1.0]),
        (False, ("right", "wrong"), [0.0, 0.0]),
        (False, ("right", "eos"), [0.0, 0.0]),
        (False, ("eos",), [0.0]),
    ],
)
def test_rewards(dense, written, rewards):
    envs = textgym.TextGenVectorEnv(1, task="recall", pairs=4, dense=dense)
    envs.reset(seed=0)
    target = envs.episodes.columns["target"][0].copy()
    for step, (kind, reward) in enumerate(zip(written, rewards, strict=True)):
        action = {"right": target[step], "wrong": (target[step] + 1) % 8, "eos": 8}[kind]
        _, paid, terminated, _, _ = envs.step(np.array([action]))
        assert paid[0] == reward
        assert terminated[0] == (step == len(written) - 1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"pairs": 0}, "pairs must be an integer of at least 1, got 0"),
        ({"value_length": 0}, "value_length must be an integer of at least 1, got 0"),
        ({"vocab_size": 0}, "vocab_size must be an integer of at least 1, got 0"),
        ({"pairs": 5, "keys": 4}, "keys must be an integer of at least 5, got 4"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Recall(**kwargs)
