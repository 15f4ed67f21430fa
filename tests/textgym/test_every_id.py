"""What holds for every registered id: a new row of the table is tested by being there."""

import json
import pickle
import warnings
from copy import deepcopy

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import textgym
from textgym.spaces import TokenSequence

IDS = textgym.env_ids()


@pytest.fixture(params=IDS)
def env_id(request):
    return request.param


def legal_actions(masks, generator):
    """A uniformly random legal action a row."""
    return np.where(masks, generator.random(masks.shape), -1.0).argmax(axis=-1)


def test_gymnasium_check_env(env_id):
    env = gym.make(env_id)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The checker asks that spec'd environments offer rgb_array, ansi and human: it builds each of them.
        check_env(env.unwrapped)


def test_sb3_check_env(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(gym.make(env_id).unwrapped)


def test_spaces(env_id):
    env = gym.make(env_id)
    observation_space, task = env.observation_space, env.unwrapped.task
    assert isinstance(observation_space, TokenSequence)
    assert env.action_space == gym.spaces.Discrete(task.vocab_size)
    assert observation_space.pad_id == task.pad_id >= task.vocab_size > task.eos_id
    assert observation_space.shape == (task.context_length,)


@pytest.mark.parametrize("seed", [0, 7])
def test_single_env_and_row_of_the_batch_agree(env_id, seed):
    """A single env seeded seed + i and row i of the batch seeded seed: the same, over several episodes."""
    n, generator = 5, np.random.default_rng(seed)
    batch = gym.make_vec(env_id, num_envs=n)
    singles = [gym.make(env_id) for _ in range(n)]
    observations, infos = batch.reset(seed=seed)
    for row, single in enumerate(singles):
        observation, info = single.reset(seed=seed + row)
        assert np.array_equal(observation, observations[row])
        assert np.array_equal(info["action_mask"], infos["action_mask"][row])
    ended = np.zeros(n, int)
    for _ in range(max(60, 2 * batch.unwrapped.task.max_new_tokens)):
        actions = legal_actions(batch.unwrapped.action_masks(), generator)
        others = generator.integers(batch.unwrapped.task.vocab_size, size=n)  # legal or not
        asked = batch.unwrapped.rewards_of(np.stack([others, actions], axis=1))
        observations, rewards, terminated, truncated, infos = batch.step(actions)
        assert np.array_equal(asked[:, 1], rewards)
        for row, single in enumerate(singles):
            observation, reward, single_terminated, single_truncated, info = single.step(actions[row])
            assert (reward, single_terminated, single_truncated) == (
                rewards[row],
                terminated[row],
                truncated[row],
            )
            if single_terminated:
                assert np.array_equal(observation, infos["final_obs"][row])
                observation, info = single.reset()
                ended[row] += 1
            assert np.array_equal(observation, observations[row])
            assert np.array_equal(info["action_mask"], infos["action_mask"][row])
    assert ended.min() >= 2


def test_invariants_of_an_episode(env_id):
    """The prefix grows by what was written, rewards are finite, returns stay in range, a mask admits a token."""
    generator = np.random.default_rng(3)
    envs = gym.make_vec(env_id, num_envs=16).unwrapped
    low, high = envs.task.reward_range
    observations, _ = envs.reset(seed=1)
    returns = np.zeros(16)
    for _ in range(80):
        assert envs.action_masks().any(axis=1).all()
        lengths = textgym.sequence_lengths(observations, envs.task.pad_id)
        assert np.array_equal(lengths, envs.episodes.lengths)
        actions = legal_actions(envs.action_masks(), generator)
        new, rewards, terminated, _, infos = envs.step(actions)
        last = np.where(terminated[:, None], infos.get("final_obs", new), new)
        for row in range(16):
            assert np.array_equal(last[row, : lengths[row]], observations[row, : lengths[row]])
            assert last[row, lengths[row]] == actions[row]
            assert envs.observation_space.contains(new)
        returns += rewards
        assert np.isfinite(rewards).all()
        assert (returns[terminated] >= low - 1e-9).all() and (returns[terminated] <= high + 1e-9).all()
        returns[terminated] = 0
        observations = new


def test_oracle_earns_the_best_return(env_id):
    envs = gym.make_vec(env_id, num_envs=32).unwrapped
    task = envs.task
    envs.reset(seed=0)
    if task.oracle(envs.episodes) is None:
        assert "search" in textgym.references(env_id).sources["best"]
        return
    returns, running = np.zeros(32), np.ones(32, bool)
    while running.any():
        _, rewards, terminated, _, _ = envs.step(task.oracle(envs.episodes))
        returns += rewards * running
        running &= ~terminated
    # Where a secret is hidden, the scripted player's mean over all secrets is met up to the luck of 32 of them.
    tolerance = 1e-9 if task.deterministic else 4 * returns.std() / np.sqrt(32)
    assert returns.mean() == pytest.approx(textgym.references(env_id).best, abs=tolerance)


def test_spec_round_trip_through_json(env_id):
    spec = gym.make(env_id).spec
    again = gym.make(gym.envs.registration.EnvSpec.from_json(spec.to_json()))
    first, _ = gym.make(env_id).reset(seed=5)
    second, _ = again.reset(seed=5)
    assert np.array_equal(first, second)
    json.dumps(spec.kwargs)


def test_state_round_trip(env_id):
    """set_state brings back everything that decides what comes next."""
    generator = np.random.default_rng(0)
    envs = gym.make_vec(env_id, num_envs=4).unwrapped
    envs.reset(seed=9)
    for _ in range(5):
        envs.step(legal_actions(envs.action_masks(), generator))
    state = envs.get_state()
    actions = [legal_actions(envs.action_masks(), generator) for _ in range(1)]
    after = [envs.step(action)[:3] for action in actions * 12]
    other = gym.make_vec(env_id, num_envs=4).unwrapped
    other.set_state(state)
    for expected in after:
        got = other.step(actions[0])[:3]
        assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_render(env_id, mode):
    env = gym.make(env_id, render_mode=mode)
    _, info = env.reset(seed=0)
    env.step(env.action_space.sample(info["action_mask"]))
    frame = env.render()
    if mode == "ansi":
        assert "return" in frame
    else:
        assert frame.dtype == np.uint8 and frame.ndim == 3 and len(np.unique(frame)) > 2


def test_render_human_prints(env_id, capsys):
    env = gym.make(env_id, render_mode="human")
    env.reset(seed=0)
    assert "return" in capsys.readouterr().out


def test_references(env_id):
    references = textgym.references(env_id)
    assert 0 <= references.random < references.blind < references.best <= 1
    assert set(references.sources) == {"random", "blind", "best"}
    assert references.normalise(references.best) == 1 and references.normalise(references.random) == 0


def test_a_pickled_environment_goes_on_alike(env_id):
    """In mid-episode; loky and Ray pickle with cloudpickle, `copy.deepcopy` by the same protocol."""
    for env, n in ((gym.make(env_id), None), (gym.make_vec(env_id, num_envs=2), 2)):
        generator = np.random.default_rng(0)
        _, info = env.reset(seed=7)
        for _ in range(2):
            action = legal_actions(np.asarray(info["action_mask"]), generator)
            _, _, *ended, info = env.step(action)
            if n is None and any(ended):
                _, info = env.reset()
        action = legal_actions(np.asarray(info["action_mask"]), generator)
        copies = [pickle.loads(pickle.dumps(env)), cloudpickle.loads(cloudpickle.dumps(env)), deepcopy(env)]
        expected = env.step(action)
        for copy in copies:
            observation, reward, terminated, truncated, other = copy.step(action)
            np.testing.assert_array_equal(observation, expected[0])
            np.testing.assert_array_equal((reward, terminated, truncated), expected[1:4])
            np.testing.assert_array_equal(other["action_mask"], expected[4]["action_mask"])
