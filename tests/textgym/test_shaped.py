import copy

import gymnasium as gym
import numpy as np
import pytest

from textgym import TextGenEnv, TextGenVectorEnv
from textgym.rewards import EditSimilarity, KeywordCoverage, Length, WeightedSum
from textgym.tasks import make_task
from textgym.tasks.shaped import Shaped
from textgym.tasks.text_generation import TextGeneration

PROMPTS = [{"prompt": "say the", "reference": "the food is good"}, {"prompt": "tell", "reference": "people like it"}]
REWARD = WeightedSum({EditSimilarity(): 1.0, KeywordCoverage(["good"]): 0.5, Length(0, 2): 0.25})  # 0.25 when empty


def text_task():
    return TextGeneration(PROMPTS, reward=REWARD, vocab_size=40, max_new_tokens=5)


def discounted_returns(task, discount, steps=120, n=8):
    """Discounted returns of episodes of random actions, and how often a step before the end was paid."""
    envs = TextGenVectorEnv(n, task)
    envs.reset(seed=3)
    generator = np.random.default_rng(0)
    totals, power, early = np.zeros(n), np.ones(n), 0
    finished: list[list[float]] = [[] for _ in range(n)]
    for _ in range(steps):
        actions = np.where(generator.random(n) < 0.1, task.eos_id, generator.integers(task.vocab_size, size=n))
        _, rewards, ended, _, _ = envs.step(actions)
        totals += power * rewards
        power *= discount
        early += int((rewards[~ended] != 0).sum())
        for row in np.flatnonzero(ended):
            finished[row].append(totals[row])
        totals[ended], power[ended] = 0, 1
    return finished, early


@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize(
    "build",
    [
        text_task,
        lambda: make_task("json", properties=1, dense=False, masked=True),  # illegal actions end episodes
        lambda: make_task("arithmetic", numbers=2, dense=False),
    ],
)
def test_discounted_returns_stay_what_they_were(build, discount):
    plain, _ = discounted_returns(build(), discount)
    shaped, early = discounted_returns(Shaped(build(), discount), discount)
    assert sum(map(len, plain)) > 20
    for before, after in zip(plain, shaped, strict=True):
        assert after == pytest.approx(before, abs=1e-9)
    if isinstance(build(), TextGeneration):
        assert early > 100  # most steps are paid


def test_single_environment_and_batch_agree():
    single, batch = TextGenEnv(Shaped(text_task())), TextGenVectorEnv(2, Shaped(text_task()))
    single.reset(seed=8)
    batch.reset(seed=7)
    for action in (3, 17, 5, 0):
        assert single.step(action)[1] == batch.step(np.array([1, action]))[1][1]


def test_it_is_a_task_like_any_other():
    env = gym.make("TextGen-v0", task=Shaped(text_task()))
    task = env.unwrapped.task
    assert task.tokenizer.vocab_size == 41 and copy.deepcopy(task).vocab_size == 41
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space and task.decode(observation) in ("say the", "tell")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Shaped(make_task("copy")), "task must pay at the end alone, and Copy pays its steps"),
        (lambda: Shaped(make_task("hangman")), "task must pay at the end alone, and Hangman pays its steps"),
        (lambda: Shaped(TextGeneration()), "task must pay at the end alone, and TextGeneration pays its steps"),
        (lambda: Shaped(text_task(), 0), "discount must be above 0 and at most 1, got 0"),
        (lambda: Shaped(text_task(), 1.1), "discount must be above 0 and at most 1, got 1.1"),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
