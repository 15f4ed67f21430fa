"""Passkey: where the key stands, among which decoys, and what is paid."""

import re
from itertools import pairwise

import numpy as np
import pytest

import textgym
from textgym.english import load_english
from textgym.tasks.passkey import Passkey


@pytest.mark.parametrize(
    ("context_length", "digits", "decoys"), [(46, 5, 3), (256, 5, 3), (16, 1, 1), (200, 12, 7), (8192, 5, 7)]
)
def test_prompts_and_answers(context_length, digits, decoys):
    n = 40 if context_length < 1000 else 3
    envs = textgym.TextGenVectorEnv(n, task="passkey", context_length=context_length, digits=digits, decoys=decoys)
    envs.reset(seed=0)
    for row in range(n):
        prompt = envs.episodes.prompt(row)
        assert len(prompt) == context_length - digits
        text = envs.task.decode(prompt)
        assert text.endswith(" what is the pass key")
        names = re.findall(rf"the (\w+ \w+) is((?: \d){{{digits}}})", text)
        assert len(names) == len({name for name, _ in names}) == decoys + 1
        assert sum(word.isdigit() for word in text.split()) == digits * (decoys + 1)
        key = [int(digit) for digit in dict(names)["pass key"].split()]
        assert envs.episodes.columns["target"][row].tolist() == key


def test_the_key_may_stand_anywhere():
    envs = textgym.TextGenVectorEnv(3000, task="passkey", context_length=64, digits=2, decoys=1)
    envs.reset(seed=0)
    task = envs.task
    ids = {task.token_text(token): token for token in range(task.pad_id)}
    tokens = envs.episodes.tokens[:, :57]
    names_it = (tokens[:, :-2] == ids["pass"]) & (tokens[:, 1:-1] == ids["key"]) & (tokens[:, 2:] == ids["is"])
    # 57 words before the question in two parts of 28: 23 places for "the pass key is 1 2" in each.
    places = np.unique(names_it.argmax(axis=1) - 1)
    assert places.tolist() == [*range(0, 23), *range(28, 51)]


def test_filler_reads_like_english():
    """Nearly all of its word pairs have been counted in English; of the same words, shuffled, far fewer have."""
    english = load_english(1000)
    counted = set(zip(english.first.tolist(), english.second.tolist(), strict=True))
    envs = textgym.TextGenVectorEnv(8, task="passkey", context_length=1000, decoys=1)
    envs.reset(seed=0)
    words = (envs.episodes.tokens[:, :-10] - 11).ravel()
    shuffled = np.random.default_rng(0).permutation(words)
    shares = [np.mean([pair in counted for pair in pairwise(text.tolist())]) for text in (words, shuffled)]
    assert shares[0] > 0.9 and shares[1] < 0.7


def test_dense_and_sparse_rewards():
    for dense, rewards in ((True, [0.5, 0.0]), (False, [0.0, 0.0])):
        envs = textgym.TextGenVectorEnv(1, task="passkey", context_length=64, digits=2, dense=dense)
        envs.reset(seed=0)
        first, second = envs.episodes.columns["target"][0].tolist()
        paid = [envs.step(np.array([action])) for action in (first, (second + 1) % 10)]
        assert [step[1][0] for step in paid] == rewards and [step[2][0] for step in paid] == [False, True]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"digits": 0}, "digits must be an integer of at least 1, got 0"),
        ({"decoys": 0}, "decoys must be an integer of at least 1, got 0"),
        ({"decoys": 8}, "decoys must be at most 7, got 8"),
        ({"context_length": 45}, "context_length must be an integer of at least 46, got 45"),
        ({"context_length": 131_073}, "context_length must be at most 131072, got 131073"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Passkey(**kwargs)
