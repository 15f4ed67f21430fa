"""Cheap tricks, tried on every registered id: none may earn more than the bound that its task states."""

import gymnasium as gym
import numpy as np
import pytest

import textgym

N_PROMPTS = 256
N_REPEATED = 12


@pytest.fixture(scope="module", params=textgym.env_ids())
def envs(request):
    return gym.make_vec(request.param, num_envs=N_PROMPTS).unwrapped


def play(envs, choose):
    """Returns of one episode a row; a choice that is not legal becomes EOS, or else the first legal token."""
    envs.reset(seed=0)
    rows = np.arange(envs.num_envs)
    returns, running = np.zeros(envs.num_envs), np.ones(envs.num_envs, bool)
    while running.any():
        actions, masks = choose(envs.episodes), envs.action_masks()
        instead = np.where(masks[:, envs.task.eos_id], envs.task.eos_id, masks.argmax(axis=1))
        actions = np.where(masks[rows, actions], actions, instead)
        _, rewards, terminated, _, _ = envs.step(actions)
        returns += rewards * running
        running &= ~terminated
    return returns


def follow(texts, eos_id):
    """A policy that writes a given text in each row, then EOS."""
    plan = np.full((len(texts), max(map(len, texts)) + 1), eos_id)
    for row, text in enumerate(texts):
        plan[row, : len(text)] = text
    rows = np.arange(len(texts))
    return lambda episodes: plan[rows, np.minimum(episodes.steps, plan.shape[1] - 1)]


def assert_bounded(envs, name, returns):
    task = envs.task
    if name in task.cheats_that_solve:
        return
    tolerance = 4 * returns.std() / np.sqrt(len(returns)) + 1e-9  # the bound is one of the mean over all prompts
    assert returns.mean() <= task.cheat_bound + tolerance, f"{type(task).__name__}, {name}: {returns.mean():.3f}"


def test_bound_leaves_room_for_solving(envs):
    assert 0 <= envs.task.cheat_bound < 0.9 * envs.task.reward_range[1]


def test_only_eos(envs):
    assert_bounded(envs, "only EOS", play(envs, lambda episodes: np.full(N_PROMPTS, envs.task.eos_id)))


def test_one_token_repeated(envs):
    task = envs.task
    tokens = np.setdiff1d(np.linspace(0, task.vocab_size - 1, N_REPEATED).astype(int), [task.eos_id])
    for token in tokens:
        assert_bounded(envs, "token repeated", play(envs, lambda episodes, token=token: np.full(N_PROMPTS, token)))


def test_prompt_copied(envs):
    task, episodes = envs.task, envs.episodes
    envs.reset(seed=0)
    prompts = [episodes.prompt(row) for row in range(N_PROMPTS)]
    texts = [prompt[prompt < task.vocab_size][: task.max_new_tokens].tolist() for prompt in prompts]
    assert_bounded(envs, "prompt copied", play(envs, follow(texts, task.eos_id)))


def test_answer_shuffled(envs):
    """The oracle's tokens, moved around in a circle by a random distance, so that none stays where it was."""
    task, generator = envs.task, np.random.default_rng(0)
    envs.reset(seed=0)
    if task.oracle(envs.episodes) is None:
        pytest.skip("no oracle is known")
    written = []

    def watch(episodes):
        written.append(np.where(episodes.steps == len(written), task.oracle(episodes), task.eos_id))
        return written[-1]

    play(envs, watch)
    texts, plan = [], np.array(written).T
    for row in plan.tolist():
        text = row[: row.index(task.eos_id)] if task.eos_id in row else row
        texts.append(np.roll(text, generator.integers(1, len(text))).tolist() if len(text) > 1 else text)
    has_order = np.array([len(text) > 1 for text in texts])
    if has_order.any():
        assert_bounded(envs, "answer shuffled", play(envs, follow(texts, task.eos_id))[has_order])


def test_random_tokens(envs):
    generator = np.random.default_rng(0)

    def choose(episodes):
        masks = envs.action_masks()
        return np.where(masks, generator.random(masks.shape), -1.0).argmax(axis=1)

    assert_bounded(envs, "random tokens", play(envs, choose))
