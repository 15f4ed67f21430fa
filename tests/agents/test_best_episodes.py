"""The best episodes: which they are, that replay never drops them, draws them in full, and keeps them in its state."""

import numpy as np
import pytest

from agents import DoubleDQN, make_vec_env
from agents.replay import EpisodeReplayBuffer
from agents.replay.best_episodes import BestEpisodes
from agents.replay.episode_store import FinishedEpisodes
from textgym import TokenSequence


def finished(prompts, rewards) -> FinishedEpisodes:
    """Episodes of one prompt token and as many actions as rewards; the actions are 0, 1, 2 …"""
    rewards = np.asarray(rewards, np.float32)
    m, n = rewards.shape
    tokens = np.concatenate([np.asarray(prompts)[:, None], np.tile(np.arange(n), (m, 1))], axis=1)
    positions = np.tile(np.arange(1, n + 1), (m, 1))
    full = np.full(m, n)
    return FinishedEpisodes(tokens, full + 1, positions, full, rewards, np.ones(m, bool), None)


def test_which_they_are_by_hand():
    best = BestEpisodes(max_steps=6)  # three episodes of two actions
    best.offer(np.array([0, 1]), finished([7, 8], [[0, 0], [0, 0]]))
    assert len(best) == 0  # nothing is better than the worst
    best.offer(np.array([2, 3, 4]), finished([7, 7, 8], [[0, 1], [1, 0], [0, 0.5]]))
    assert best.ids.tolist() == [2, 4]  # of equals with the same prompt, the first
    best.offer(np.array([5, 6]), finished([8, 9], [[0, 0.75], [0, 0.25]]))
    assert best.ids.tolist() == [2, 5, 6]  # 5 takes the place of 4
    best.offer(np.array([7]), finished([6], [[0.5, 0]]))
    assert best.ids.tolist() == [2, 5, 7]  # no room for four: the one that earned least goes
    best.offer(np.array([8]), finished([5], [[0.25, 0.25]]))
    assert best.ids.tolist() == [2, 5, 8]  # of equals, the older one
    best.move(np.array([2]), np.array([9]))
    assert best.ids.tolist() == [5, 8, 9]
    best.forget_before(6)
    assert best.ids.tolist() == [8, 9]
    other = BestEpisodes(max_steps=6)
    other.set_state(best.get_state())
    for either in (best, other):
        either.offer(np.array([10, 11]), finished([7, 4], [[0, 1], [0, 2]]))
        assert either.ids.tolist() == [8, 9, 11]  # prompt 7 is known to be worth 1
    best.offer(np.array([12]), finished([3], np.ones((1, 7))))
    assert best.ids.tolist() == [8, 9, 11]  # alone too long


def buffer(size=40, share=0.5, **kwargs) -> EpisodeReplayBuffer:
    from gymnasium import spaces

    space = TokenSequence(3, 11, 11)
    return EpisodeReplayBuffer(
        size, space, spaces.Discrete(8), "cpu", seed=0, best_share=share, **{"keep_best": True, **kwargs}
    )


def add(replay: EpisodeReplayBuffer, prompt: int, last_reward: float, masks=None) -> None:
    replay.add_episode([prompt, 1, 2], [1, 2], [0.0, last_reward], True, masks)


@pytest.mark.parametrize("prioritized", [True, False])
def test_replay_never_drops_them_and_draws_each_of_them(prioritized):
    replay = buffer(prioritized=prioritized)
    generator = np.random.default_rng(0)
    add(replay, 8, 0.0)
    add(replay, 9, 1.0, np.tile(np.arange(8) < 5, (3, 1)))
    add(replay, 10, 0.5)
    for n in range(200):
        add(replay, int(generator.integers(8)), 0.0)
        assert replay.size() <= 40
        batch = replay.sample(8)
        drawn = batch.tokens[:, 0].tolist()
        assert {9, 10} <= set(drawn) and len(drawn) == 8, n
        row = drawn.index(9)
        assert batch.rewards[row].tolist() == [0.0, 1.0] and batch.actions[row].tolist() == [1, 2]
        assert batch.action_masks[row].tolist() == np.tile(np.arange(8) < 5, (3, 1)).tolist()
        assert batch.weights[-2:].tolist() == [1.0, 1.0]
        replay.update_priorities(batch.indices, np.full(8, 0.1))


def test_as_many_as_the_share_says_and_never_all():
    replay = buffer(400, share=0.25)
    add(replay, 0, 0.0)
    for prompt in range(1, 11):
        add(replay, prompt, 1.0)
    for _ in range(150):
        add(replay, 0, 0.0)
    for size, n_best in ((16, 4), (8, 2), (2, 0), (1, 0)):  # 0.5 of an episode is rounded to the even number
        counts = [(replay.sample(size).tokens[-n_best:, 0] > 0).all() for _ in range(20)] if n_best else [True]
        assert all(counts)
        assert len(replay.sample(size).indices) == size
    without = buffer(40, share=0.0, keep_best=False)
    for prompt in range(11):
        add(without, prompt, 1.0)
    assert len(without._best) == 0


def test_priorities_move_along():
    replay = buffer(16)
    add(replay, 8, 0.0)
    add(replay, 9, 1.0)
    replay.update_priorities(np.array([0, 1]), np.array([1e-3, 5.0]))
    for _ in range(40):
        add(replay, 0, 0.0)
        (number,) = replay._best.ids
        priority = replay._tree.get(replay._store.slots(np.array([number])))[0]
        assert priority == pytest.approx(5.0**0.6, rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_buffers_too_small_for_anything_still_work(size):
    replay = buffer(size)
    for prompt in range(10):
        add(replay, prompt, float(prompt))
        assert replay.n_episodes >= 1
        replay.sample(4)


def test_a_state_goes_on_bit_for_bit():
    one, generator = buffer(), np.random.default_rng(1)
    for _ in range(60):
        add(one, int(generator.integers(10)), float(generator.random()))
    two = buffer()
    two.set_state(one.get_state())
    for _ in range(60):
        prompt, reward = int(generator.integers(10)), float(generator.random())
        batches = []
        for replay in (one, two):
            add(replay, prompt, reward)
            batches.append(replay.sample(6))
        assert np.array_equal(batches[0].indices, batches[1].indices)
        assert batches[0].tokens.equal(batches[1].tokens)
    older = one.get_state()
    del older["best"]
    buffer().set_state(older)


def test_bad_shares():
    with pytest.raises(ValueError, match=r"best_share must be at least 0 and less than 1, got 1\.0"):
        buffer(share=1.0)
    with pytest.raises(ValueError, match=r"best_share must be 0 without keep_best=True, got 0\.5"):
        buffer(keep_best=False)
    env = make_vec_env("TextGen/Reverse-v0", n_envs=2)
    with pytest.raises(ValueError, match=r"best_share needs keep_best=True, got best_share=0\.5"):
        DoubleDQN("PerformerPolicy", env, best_share=0.5, keep_best=False)
    with pytest.raises(ValueError, match=r"best_share must be in \[0, 0.9\], got 1"):
        DoubleDQN("PerformerPolicy", env, best_share=1)
    with pytest.raises(ValueError, match="keep_best=True needs whole episodes, got MlpPolicy"):
        DoubleDQN("MlpPolicy", "CartPole-v1", keep_best=True)


def test_kept_without_a_share_they_are_drawn_by_priority_alone():
    replay = buffer(share=0.0)
    add(replay, 8, 0.0)
    add(replay, 9, 1.0)
    for _ in range(60):
        add(replay, 0, 0.0)
    (number,) = replay._best.ids
    replay.update_priorities(np.arange(replay._store.first_id, replay._store.end_id), np.zeros(replay.n_episodes))
    replay.update_priorities(np.array([number]), np.array([1e9]))
    assert set(replay.sample(64).indices.tolist()) == {number}


def test_importance_weights_can_be_left_out():
    env = make_vec_env("TextGen/Reverse-v0", n_envs=8, env_kwargs={"length": 2, "vocab_size": 4})
    model = DoubleDQN("PerformerPolicy", env, priority_beta=0.0, priority_beta_final=0.0, updates_per_step=0.1, seed=0)
    betas, sample = [], model._path.sample
    model._path.sample = lambda size, beta: betas.append(beta) or sample(size, beta)
    model.learn(1_200)
    assert betas and set(betas) == {0.0} and (sample(16, 0.0).weights == 1).all()
