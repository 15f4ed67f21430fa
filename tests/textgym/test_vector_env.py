"""The batched environment's own contracts, on small symbolic tasks."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

import textgym
from textgym.random import RowStreams
from textgym.tasks.base import Replies
from textgym.tasks.reverse import Reverse


def make(num_envs=2, **kwargs):
    kwargs = {"task": "reverse", "length": 3, "vocab_size": 4} | kwargs
    return textgym.TextGenVectorEnv(num_envs, **kwargs)


def test_dense_and_sparse_rewards_by_hand():
    dense, sparse = make(1), make(1, dense=False)
    prompt = dense.reset(seed=0)[0][0, :3]
    sparse.reset(seed=0)
    right = [*prompt[::-1], 4]
    assert [dense.step([a])[1][0] for a in right] == pytest.approx([0.25] * 4)
    assert [sparse.step([a])[1][0] for a in right] == [0, 0, 0, 1]
    # A wrong second symbol costs a quarter in the dense variant and everything in the sparse one.
    for env, expected in ((dense, [0.25, 0, 0.25, 0.25]), (sparse, [0, 0, 0, 0])):
        prompt = env.episodes.tokens[0, :3]
        wrong = [prompt[2], (prompt[1] + 1) % 4, prompt[0], 4]
        assert [env.step([a])[1][0] for a in wrong] == pytest.approx(expected)


def test_eos_and_budget_terminate_and_the_row_restarts_at_once():
    env = make(2)
    first, _ = env.reset(seed=0)
    for step in range(5):
        observations, _, terminated, truncated, infos = env.step([0, 4 if step == 0 else 1])
        assert list(terminated) == [step == 4, step == 0]
        assert not truncated.any()
    assert np.array_equal(infos["final_obs"][0], [*first[0, :3], 0, 0, 0, 0, 0])
    assert (observations[0, 3:] == env.task.pad_id).all()
    assert list(infos["_final_obs"]) == [True, False]


def test_max_episode_steps_truncates():
    env = gym.make_vec("TextGen/Reverse-v0", num_envs=3, max_episode_steps=2)
    env.reset(seed=0)
    env.step(np.zeros(3, int))
    _, _, terminated, truncated, infos = env.step(np.array([0, 0, 15]))
    assert list(terminated) == [False, False, True]
    assert list(truncated) == [True, True, False]
    assert infos["_final_obs"].all()


def test_reset_mask_and_seed_list():
    env = make(3)
    first, _ = env.reset(seed=0)
    second, _ = env.reset(options={"reset_mask": np.array([False, True, False])})
    assert np.array_equal(first[[0, 2]], second[[0, 2]]) and not np.array_equal(first[1], second[1])
    listed, _ = env.reset(seed=[2, 1, 0])
    assert np.array_equal(listed, first[::-1])
    assert not np.array_equal(env.reset()[0], listed)


def test_unseeded_environments_differ():
    assert not np.array_equal(make(8).reset()[0], make(8).reset()[0])


def test_global_random_state_is_left_alone():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    env = make(4)
    env.reset(seed=1)
    env.step(np.zeros(4, int))
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_all_legal_masks_are_one_broadcast_element():
    env = gym.make_vec("TextGen/Reverse-v0", num_envs=1024).unwrapped
    _, infos = env.reset(seed=0)
    assert infos["action_mask"].strides == (0, 0) and infos["action_mask"].dtype == np.int8
    assert env.action_masks().strides == (0, 0)
    with pytest.raises(ValueError):
        env.action_masks()[0, 0] = False


def test_rewards_of_what_is_not_done():
    """Legal or not, each action's reward is the one that a copy of the environment pays for it."""
    env = textgym.TextGenVectorEnv(2, "json", properties=1, masked=True, max_episode_steps=3)
    env.reset(seed=0)
    everything = np.tile(np.arange(env.task.vocab_size), (2, 1))
    for _ in range(3):
        before, asked = env.get_state(), env.rewards_of(everything)
        for action in range(env.task.vocab_size):
            rewards = env.step(np.full(2, action))[1]
            env.set_state(before)
            assert np.array_equal(asked[:, action], rewards)
        env.step(env.action_masks().argmax(axis=1))
    with pytest.raises(ValueError, match=r"integers of shape \(2, 3\), got int64 of shape \(1, 3\)"):
        env.rewards_of([[0, 1, 2]])
    with pytest.raises(ValueError, match="actions must lie in"):
        env.rewards_of([[0], [-1]])
    with pytest.raises(ValueError, match=r"of shape \(\)"):
        env.rewards_of(3)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 5], r"actions must lie in \[0, 5\), got 5"),
        ([-1, 0], r"actions must lie in \[0, 5\), got -1"),
        ([0], r"integers of shape \(2,\), got int64 of shape \(1,\)"),
        ([0.5, 1.0], "float64"),
    ],
)
def test_bad_actions(actions, message):
    env = make(2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(actions)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"length": 0}, ValueError, "length must be an integer of at least 1, got 0"),
        ({"vocab_size": 2.5}, ValueError, "vocab_size must be an integer of at least 1, got 2.5"),
        ({"lenght": 3}, TypeError, r"Reverse does not take \['lenght'\]; it takes \['length', 'vocab_size', 'dense'\]"),
        ({"task": "revers"}, ValueError, "task must be one of"),
        ({"render_mode": "html"}, ValueError, "render_mode must be one of"),
        ({"num_envs": 0}, ValueError, "num_envs must be at least 1, got 0"),
        ({"max_episode_steps": 0}, ValueError, "max_episode_steps must be at least 1"),
    ],
)
def test_bad_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        make(**kwargs)


def test_step_before_reset_and_after_the_end():
    with pytest.raises(gym.error.ResetNeeded):
        make(1).step([0])
    env = textgym.TextGenEnv("reverse", length=2, vocab_size=3)
    env.reset(seed=0)
    env.step(3)
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        env.step(0)


class Dialogue(Reverse):
    """A three-turn task for the machinery: even tokens are illegal at odd steps, and the environment echoes."""

    masked = True

    def __init__(self):
        super().__init__(length=2, vocab_size=4)
        self.context_length = 2 + 2 * self.max_new_tokens

    def allowed(self, episodes):
        return np.where(episodes.steps[:, None] % 2 == 1, np.arange(5) % 2 == 1, True)

    def reply(self, episodes, actions):
        return Replies(np.stack([actions, actions], axis=1), np.where(actions == 1, 1, 0))

    def finished(self, episodes, actions):
        return actions == 3

    def forfeit_reward(self, episodes):
        return -0.5


def test_masks_replies_and_early_ends():
    env = textgym.TextGenVectorEnv(3, Dialogue())
    env.reset(seed=0)
    _, _, terminated, _, _ = env.step([1, 0, 3])
    assert list(terminated) == [False, False, True]
    assert list(env.episodes.lengths) == [4, 3, 2]  # row 0 was answered, row 1 was not, row 2 starts again
    assert list(env.episodes.tokens[0, 2:4]) == [1, 1]
    assert env.action_masks()[:, 0].tolist() == [False, False, True]
    _, rewards, terminated, _, infos = env.step([2, 1, 0])
    assert list(terminated) == [True, False, False]
    assert rewards[0] == -0.5
    assert list(infos["final_info"]["illegal_action"]) == [True, False, False]

    single = textgym.TextGenEnv(Dialogue())
    single.reset(seed=0)
    single.step(1)
    _, reward, terminated, _, info = single.step(2)
    assert (reward, terminated, info["illegal_action"]) == (-0.5, True, True)
    assert single.action_masks().dtype == np.bool_


def test_vector_wrapper_statistics():
    env = gym.wrappers.vector.RecordEpisodeStatistics(make(4))
    env.reset(seed=0)
    lengths = []
    for _ in range(12):
        infos = env.step(np.zeros(4, int))[-1]
        if "episode" in infos:
            lengths += infos["episode"]["l"][infos["_episode"]].tolist()
    assert lengths == [5] * 8


def test_streams_do_not_depend_on_neighbours():
    keys, numbers = np.arange(5, dtype=np.uint64), np.arange(5)
    together = RowStreams(keys, numbers).integers(1000, (7,))
    alone = np.concatenate([RowStreams(keys[i : i + 1], numbers[i : i + 1]).integers(1000, (7,)) for i in range(5)])
    assert np.array_equal(together, alone)
    draws = RowStreams(np.arange(20_000, dtype=np.uint64), np.zeros(20_000, np.int64)).integers(10, (5,))
    counts = np.stack([np.bincount(column, minlength=10) for column in draws.T])
    assert ((counts - 2000) ** 2 / 2000).sum(axis=1).max() < 30  # chi-squared, 9 degrees of freedom: p < 0.0005


def test_prompts_are_uniform_over_episodes_of_one_row():
    env = make(1)
    env.reset(seed=0)
    seen = {tuple(env.reset()[0][0, :3]) for _ in range(1000)}
    assert len(seen) == 64  # all of 4 ** 3


def test_import_is_light():
    code = "import sys, textgym; print([m for m in ('torch', 'transformers', 'symspellpy') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_make_without_import_and_in_a_worker():
    code = (
        "import gymnasium as gym; from functools import partial;"
        "make = partial(gym.make, 'textgym:TextGen/Reverse-v0');"
        "envs = gym.vector.AsyncVectorEnv([make, make], context='spawn');"
        "print(envs.reset(seed=0)[0].shape); envs.close()"
    )
    guarded = f"if __name__ == '__main__':\n    {code}"
    assert subprocess.check_output([sys.executable, "-c", guarded], text=True).strip() == "(2, 14)"


def test_registration_is_idempotent():
    before = len(gym.registry)
    textgym.register_all()
    assert len(gym.registry) == before
