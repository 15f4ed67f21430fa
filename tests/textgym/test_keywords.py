"""Keywords: prompts, the reward against the reward functions it is made of, and the search for the best texts."""

import numpy as np
import pytest

import textgym
from benchmarks.keyword_search import best_text
from textgym.language_models import bigram_model
from textgym.random import RowStreams
from textgym.rewards import Distinctness, Fluency, KeywordCoverage, Product, can_end
from textgym.tasks.keywords import Keywords


def write(envs, words):
    """Rewards of one row's text, token by token."""
    return [float(envs.step(np.array([token]))[1][0]) for token in [*words, envs.task.eos_id]]


def test_prompts_are_different_content_words():
    task = Keywords(keywords=5, max_new_tokens=8, vocab_size=200)
    n = 4000
    prompts = task.prompts(RowStreams(np.arange(n, dtype=np.uint64), np.zeros(n, np.int64)))
    assert (prompts.tokens[:, -1] == task.sep_id).all() and (prompts.lengths == 6).all()
    keywords = prompts.tokens[:, :-1]
    assert all(len(set(row)) == 5 for row in keywords.tolist())
    pool = [number for number in range(100, 200) if can_end(task.model.words[number])]
    counts = np.bincount(keywords.ravel(), minlength=task.n_words)
    assert set(np.flatnonzero(counts)) == set(pool)
    assert np.ptp(counts[pool]) < 8 * np.sqrt(5 * n / len(pool))  # uniform, at every place


def test_reward_is_the_product_of_the_functions_of_text():
    """Random mixtures of keywords, likely words and repetitions, against textgym.rewards on their strings."""
    generator = np.random.default_rng(0)
    envs = textgym.TextGenVectorEnv(64, task="keywords", dense=False)
    envs.reset(seed=0)
    task = envs.task
    keywords = envs.episodes.tokens[:, :3].copy()
    texts, returns = [[] for _ in range(64)], np.zeros(64)
    running = np.ones(64, bool)
    while running.any():
        actions = np.where(generator.random(64) < 0.3, keywords[np.arange(64), generator.integers(3, size=64)], 0)
        actions = np.where(generator.random(64) < 0.5, generator.integers(40, size=64), actions)
        actions = np.where(generator.random(64) < 0.1, task.eos_id, actions)
        _, rewards, terminated, _, _ = envs.step(actions)
        returns += rewards * running
        for row in np.flatnonzero(running & (actions != task.eos_id)):
            texts[row].append(task.model.words[actions[row]])
        running &= ~terminated
    lists = [[task.model.words[word] for word in row] for row in keywords.tolist()]
    reward = Product([KeywordCoverage(), Fluency(bigram_model(1500)), Distinctness()])
    expected = reward([""] * 64, [" ".join(text) for text in texts], keywords=lists)
    assert np.count_nonzero(expected) > 30 and np.allclose(returns, expected, atol=1e-6)


def test_dense_rewards_are_the_changes_of_the_score():
    envs, sparse = (textgym.TextGenVectorEnv(1, task="keywords", keywords=2, dense=dense) for dense in (True, False))
    for env in (envs, sparse):
        env.reset(seed=4)
    first, second = envs.episodes.tokens[0, :2].tolist()
    text = [0, first, 1, second, second]
    paid, at_end = write(envs, text), write(sparse, text)
    assert paid[0] == 0  # without a keyword there is nothing to multiply
    assert paid[1] > 0 and paid[3] > 0 and paid[4] < 0 and paid[5] == 0
    assert at_end[:-1] == [0] * 5 and sum(paid) == pytest.approx(at_end[-1])


def test_search_finds_covering_texts_and_their_exact_rewards():
    envs = textgym.TextGenVectorEnv(3, task="keywords")
    envs.reset(seed=0)
    keywords = envs.episodes.tokens[:, :3].copy()
    found = [best_text(envs.task, row, width=5) for row in keywords]
    returns = np.zeros(3)
    for step in range(12):
        actions = [text[step] if step < len(text) else envs.task.eos_id for text, _ in found]
        returns += envs.step(np.array(actions))[1]
        if all(step >= len(text) for text, _ in found):
            break
    for row, (text, reward) in enumerate(found):
        assert set(keywords[row]) <= set(text) and len(set(text)) == len(text)
        assert returns[row] == pytest.approx(reward) and reward > 0.6


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"keywords": 0}, "keywords must be an integer of at least 1, got 0"),
        ({"keywords": 3, "max_new_tokens": 2}, "max_new_tokens must be an integer of at least 3, got 2"),
        ({"vocab_size": 101, "keywords": 2}, "vocab_size must leave 2 keywords to draw from, got 101"),
        ({"vocab_size": 10**6}, "vocab_size must lie in"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Keywords(**kwargs)
