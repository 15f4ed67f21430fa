"""Addition: sums, carries, both orders of the answer, and what is paid."""

import numpy as np
import pytest

import textgym
from textgym.tasks.addition import Addition


def make(num_envs=1, **kwargs):
    return textgym.TextGenVectorEnv(num_envs, task="addition", **kwargs)


def find(envs, prompt):
    """The row whose prompt reads so."""
    texts = [envs.task.decode(envs.episodes.prompt(row)) for row in range(envs.num_envs)]
    return texts.index(prompt)


def write(envs, row, text):
    """Rewards of one row for a text; ``$`` is EOS."""
    rewards = []
    for character in text:
        action = 10 if character == "$" else int(character)
        rewards.append(float(envs.step(np.full(envs.num_envs, action))[1][row]))
    return rewards


@pytest.mark.parametrize("carry", [True, False])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("digits", [1, 3, 12])
def test_oracle_writes_the_sum(digits, reverse, carry):
    envs = make(300, digits=digits, carry=carry, least_significant_first=reverse)
    envs.reset(seed=0)
    lengths = set()
    for row in range(300):
        first, second = map(int, envs.task.decode(envs.episodes.prompt(row)).removesuffix("=").split("+"))
        lengths |= {len(str(first)), len(str(second))}
        answer = str(first + second)[:: -1 if reverse else 1]
        target = envs.episodes.columns["target"][row]
        assert target[: len(answer) + 1].tolist() == [*map(int, answer), 10]
        assert (target[len(answer) + 1 :] == -1).all()
        if not carry:
            pairs = zip(str(first)[::-1], str(second)[::-1], strict=False)
            assert all(int(a) + int(b) <= 9 for a, b in pairs)
    assert lengths == set(range(1, digits + 1))


def test_digits_are_uniform():
    envs = make(4000, digits=1)
    envs.reset(seed=1)
    counts = np.bincount(envs.episodes.tokens[:, 0], minlength=10)
    assert len(counts) == 10 and counts.min() > 330 and counts.max() < 470  # 400 ± 3.7 standard deviations


def test_dense_rewards_of_a_hand_made_answer():
    for text, rewards in {"15$": [1, 1, 1], "25$": [0, 1, 1], "1$": [1, 0], "115": [1, 0, 0], "$": [0]}.items():
        envs = make(4000, digits=1)
        envs.reset(seed=0)
        assert np.allclose(write(envs, find(envs, "8+7="), text), np.array(rewards) / 3)


def test_sparse_pays_the_exact_sum_only():
    envs = make(4000, digits=1, dense=False)
    for text, rewards in {"9$": [0, 1], "09$": [0, 0, 0], "99$": [0, 0, 0], "8$": [0, 0]}.items():
        envs.reset(seed=0)
        assert write(envs, find(envs, "4+5="), text) == rewards


def test_the_budget_ends_an_episode():
    envs = make(1, digits=2)
    envs.reset(seed=0)
    ended = [bool(envs.step(np.array([0]))[2][0]) for _ in range(4)]
    assert ended == [False, False, False, True]


@pytest.mark.parametrize("digits", [0, -1, 1.5, True])
def test_wrong_digits(digits):
    with pytest.raises(ValueError, match="digits must be an integer of at least 1"):
        Addition(digits=digits)
