import pickle
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer

from agents.replay import EpisodeReplayBuffer, sequence_priorities
from textgym.spaces import TokenSequence

V, SEPARATOR, REPLY, PAD, LENGTH = 6, 6, 7, 8, 24


def make_buffer(buffer_size: int = 1000, n_envs: int = 1, **kwargs: Any) -> EpisodeReplayBuffer:
    space = TokenSequence(LENGTH, V, PAD)
    return EpisodeReplayBuffer(buffer_size, space, spaces.Discrete(V), device="cpu", n_envs=n_envs, seed=0, **kwargs)


class Episode:
    """An episode written out by hand: prompt, actions with a reply of 0 to 2 tokens after each, rewards, masks."""

    def __init__(self, generator: np.random.Generator, masked: bool = False, n_actions: int | None = None) -> None:
        self.tokens = [*generator.integers(0, V, generator.integers(0, 4)).tolist(), SEPARATOR]
        self.observations, self.positions, self.actions = [], [], []
        for _ in range(n_actions or generator.integers(1, 7)):
            self.observations.append(self._row())
            self.positions.append(len(self.tokens))
            self.actions.append(int(generator.integers(V)))
            self.tokens += [self.actions[-1]] + [REPLY] * int(generator.integers(0, 3))
        self.observations.append(self._row())
        self.rewards = generator.normal(size=len(self.actions)).astype(np.float32)
        self.terminated = bool(generator.random() < 0.5)
        self.masks = generator.random((len(self.actions) + 1, V)) < (0.6 if masked else 2.0)

    def _row(self) -> NDArray[np.int32]:
        return np.array(self.tokens + [PAD] * (LENGTH - len(self.tokens)), np.int32)


def play(buffer: EpisodeReplayBuffer, queues: list[list[Episode]], use_masks: bool = False) -> list[Episode]:
    """Feed one queue of episodes per environment through `add`, as a same-step resetting VecEnv would."""
    finished = []
    at = [(0, 0)] * len(queues)  # episode, step
    while all(episode < len(queue) for (episode, _), queue in zip(at, queues, strict=True)):
        now = [queue[episode] for (episode, _), queue in zip(at, queues, strict=True)]
        step = [t for _, t in at]
        done = np.array([t + 1 == len(e.actions) for e, t in zip(now, step, strict=True)])
        infos: list[dict[str, Any]] = [{} for _ in queues]
        next_obs = np.stack([e.observations[t + 1] for e, t in zip(now, step, strict=True)])
        for i in np.flatnonzero(done):
            infos[i] = {"terminal_observation": next_obs[i].copy(), "TimeLimit.truncated": not now[i].terminated}
            if use_masks and not now[i].terminated:
                infos[i]["action_mask"] = now[i].masks[-1].astype(np.int8)
            next_obs[i] = SEPARATOR  # whatever the next prompt is: it must not be taken for the end
            finished.append(now[i])
        buffer.add(
            np.stack([e.observations[t] for e, t in zip(now, step, strict=True)]),
            next_obs,
            np.array([e.actions[t] for e, t in zip(now, step, strict=True)])[:, None],
            np.array([e.rewards[t] for e, t in zip(now, step, strict=True)]),
            done,
            infos,
            np.stack([e.masks[t] for e, t in zip(now, step, strict=True)]) if use_masks else None,
        )
        at = [(e + 1, 0) if over else (e, t + 1) for (e, t), over in zip(at, done, strict=True)]
    return finished


def check_stored(buffer: EpisodeReplayBuffer, expected: list[Episode], first_id: int, with_masks: bool = False) -> None:
    """Compare every stored episode with what was played."""
    batch = buffer._get_samples(np.arange(first_id, first_id + len(expected)))
    assert batch.tokens.shape[1] == max(len(e.tokens) for e in expected)
    assert batch.valid.shape[1] == max(len(e.actions) for e in expected)
    for i, episode in enumerate(expected):
        n, steps = len(episode.tokens), len(episode.actions)
        assert batch.lengths[i] == n
        assert batch.tokens[i, :n].tolist() == episode.tokens
        assert (batch.tokens[i, n:] == PAD).all()
        assert batch.valid[i].tolist() == [t < steps for t in range(batch.valid.shape[1])]
        assert batch.action_positions[i, :steps].tolist() == episode.positions
        assert (batch.action_positions[i, steps:] == 1).all()
        assert batch.actions[i, :steps].tolist() == episode.actions
        assert (batch.actions[i, steps:] == 0).all()
        np.testing.assert_array_equal(batch.rewards[i, :steps].numpy(), episode.rewards)
        assert (batch.rewards[i, steps:] == 0).all()
        assert bool(batch.terminated[i]) == episode.terminated
        if with_masks:
            assert batch.action_masks is not None
            np.testing.assert_array_equal(batch.action_masks[i, :steps].numpy(), episode.masks[:-1])
            last = torch.ones(V, dtype=torch.bool) if episode.terminated else torch.from_numpy(episode.masks[-1])
            assert (batch.action_masks[i, steps] == last).all()
            assert batch.action_masks[i, steps + 1 :].all()


@pytest.mark.parametrize("use_masks", [False, True])
@pytest.mark.parametrize("buffer_size", [10_000, 150])
def test_episodes_come_back_as_they_were_played(buffer_size: int, use_masks: bool) -> None:
    generator = np.random.default_rng(0)
    buffer = make_buffer(buffer_size, n_envs=5)
    played = []
    for masked in (False, use_masks, use_masks):  # masks may appear late
        queues = [[Episode(generator, masked) for _ in range(40)] for _ in range(5)]
        played += play(buffer, queues, use_masks)
        buffer.discard_unfinished()
        kept = 0
        while kept < len(played) and sum(len(e.actions) for e in played[-kept - 1 :]) <= buffer_size:
            kept += 1
        # Episodes that end in the same step are stored, and dropped, in the same order as they are listed here.
        assert buffer.n_episodes == kept
        assert buffer.size() == sum(len(e.actions) for e in played[-kept:]) <= buffer_size
        check_stored(buffer, played[-kept:], len(played) - kept, with_masks=masked and use_masks)
    assert (kept < len(played)) == (buffer_size == 150)


def test_add_episode_and_add_episodes_store_the_same() -> None:
    generator = np.random.default_rng(1)
    episodes = [Episode(generator, masked=True) for _ in range(30)]
    one_by_one, at_once = make_buffer(60), make_buffer(60)
    steps = np.array([len(e.actions) for e in episodes])
    positions, rewards = np.zeros((30, steps.max()), np.int64), np.zeros((30, steps.max()))
    masks = np.ones((30, steps.max() + 1, V), np.bool_)
    for i, e in enumerate(episodes):
        positions[i, : steps[i]], rewards[i, : steps[i]], masks[i, : steps[i] + 1] = e.positions, e.rewards, e.masks
        one_by_one.add_episode(e.tokens, e.positions, e.rewards, e.terminated, e.masks)
    tokens = np.stack([e.observations[-1] for e in episodes])
    at_once.add_episodes(tokens, positions, steps, rewards, np.array([e.terminated for e in episodes]), masks)
    assert one_by_one.n_episodes == at_once.n_episodes > 0
    stored = np.arange(30 - one_by_one.n_episodes, 30)
    first, second = one_by_one._get_samples(stored), at_once._get_samples(stored)
    for a, b in zip(first[:-2], second[:-2], strict=True):
        assert torch.equal(a, b)
    assert first.action_masks is not None
    np.testing.assert_array_equal(first.action_masks[-1, : steps[-1] + 1].numpy(), episodes[-1].masks)


def test_an_episode_longer_than_the_buffer_is_kept_alone() -> None:
    generator = np.random.default_rng(2)
    buffer = make_buffer(4)
    short, long = Episode(generator, n_actions=2), Episode(generator, n_actions=7)
    for episode in (short, long):
        buffer.add_episode(episode.tokens, episode.positions, episode.rewards, episode.terminated)
    assert (buffer.n_episodes, buffer.size()) == (1, 7)
    check_stored(buffer, [long], first_id=1)
    buffer.add_episode(short.tokens, short.positions, short.rewards, short.terminated)
    assert (buffer.n_episodes, buffer.size()) == (1, 2)
    assert buffer.sample(5).indices.tolist() == [2] * 5


def test_everything_legal_means_no_masks() -> None:
    generator = np.random.default_rng(3)
    buffer = make_buffer(n_envs=2)
    play(buffer, [[Episode(generator) for _ in range(5)] for _ in range(2)], use_masks=True)
    assert buffer.sample(8).action_masks is None


def test_unknown_end_counts_as_termination_and_handling_can_be_switched_off() -> None:
    for handled in (True, False):
        buffer = make_buffer(handle_timeout_termination=handled)
        for info in ({}, {"TimeLimit.truncated": True}):
            row = np.array([[SEPARATOR, *[PAD] * 3]], np.int32)
            end = np.array([[SEPARATOR, 2, *[PAD] * 2]], np.int32)
            buffer.add(row, end, np.array([2]), np.array([1.0]), np.array([True]), [info])
        assert buffer._get_samples(np.arange(2)).terminated.tolist() == [True, not handled]


@pytest.mark.parametrize("told", [True, False])
def test_a_reset_in_mid_episode_drops_what_was_under_way(told: bool) -> None:
    buffer = make_buffer()
    begun = Episode(np.random.default_rng(4), masked=True, n_actions=5)
    whole = Episode(np.random.default_rng(5), n_actions=3)
    assert whole.observations[0][begun.positions[1]] != begun.actions[1]  # it cannot pass for a continuation
    for t in range(2):
        buffer.add(
            begun.observations[t][None],
            begun.observations[t + 1][None],
            np.array([begun.actions[t]]),
            np.zeros(1),
            np.zeros(1, np.bool_),
            [{}],
            begun.masks[t][None],
        )
    if told:
        buffer.discard_unfinished()
    play(buffer, [[whole]])
    check_stored(buffer, [whole], first_id=0)
    masks = buffer.sample(1).action_masks
    assert masks is None or masks.all()  # none is left of `begun`


def constant_episodes(buffer: EpisodeReplayBuffer, n: int, n_actions: int = 2) -> None:
    tokens = np.tile(np.array([SEPARATOR, *[1] * n_actions, PAD], np.int32), (n, 1))
    positions = np.tile(np.arange(1, n_actions + 1), (n, 1))
    buffer.add_episodes(tokens, positions, np.full(n, n_actions), np.zeros((n, n_actions)), np.ones(n, np.bool_))


def test_draws_and_weights_follow_the_priorities() -> None:
    buffer = make_buffer(alpha=0.5, beta=1.0)
    constant_episodes(buffer, 4)
    buffer.update_priorities(np.arange(4), [1.0, 4.0, 9.0, 16.0])
    batch = buffer.sample(20_000)
    counts = np.bincount(batch.indices, minlength=4)
    np.testing.assert_allclose(counts / 20_000, [0.1, 0.2, 0.3, 0.4], atol=1e-3)
    # (N P)^-1 is 2.5, 1.25, 0.833, 0.625; relative to the largest:
    np.testing.assert_allclose(batch.weights.numpy(), np.array([1, 1 / 2, 1 / 3, 1 / 4])[batch.indices], rtol=1e-4)
    assert batch.weights.dtype == torch.float32
    assert (buffer.sample(100, beta=0.0).weights == 1).all()


def test_new_episodes_get_the_highest_priority_seen_and_the_table_may_grow() -> None:
    buffer = make_buffer(10_000, alpha=1.0)
    constant_episodes(buffer, 50)
    buffer.update_priorities(np.arange(50), np.full(50, 3.0))
    buffer.update_priorities(np.array([7]), [0.0])
    constant_episodes(buffer, 150)  # more than the table held at first: everything moves
    counts = np.bincount(buffer.sample(20_000).indices, minlength=200)
    assert counts[7] == 0
    np.testing.assert_allclose(np.delete(counts, 7), 20_000 / 199, atol=2)


def test_priorities_of_dropped_episodes_are_ignored() -> None:
    buffer = make_buffer(20)
    constant_episodes(buffer, 10)
    old = buffer.sample(64).indices
    constant_episodes(buffer, 6)
    buffer.update_priorities(old, np.where(old < 6, 1e9, 1.0))
    indices = buffer.sample(1000).indices
    assert (indices.min(), indices.max()) == (6, 15)
    np.testing.assert_allclose(np.bincount(indices - 6), 100, atol=2)  # no stale priority left behind
    constant_episodes(buffer, 10)
    buffer.update_priorities(old, np.full(64, 5.0))
    assert set(buffer.sample(1000).indices.tolist()) == set(range(16, 26))


def test_uniform_sampling() -> None:
    buffer = make_buffer(200, prioritized=False)
    constant_episodes(buffer, 110)
    buffer.update_priorities(np.array([50]), [1e6])
    batch = buffer.sample(50_000)
    assert (batch.weights == 1).all()
    np.testing.assert_allclose(np.bincount(batch.indices, minlength=110)[10:], 500, atol=120)
    assert batch.indices.min() == 10


@pytest.mark.parametrize("prioritized", [True, False])
def test_pickle_keeps_priorities_generator_and_episodes_under_way(prioritized: bool) -> None:
    generator = np.random.default_rng(6)
    buffer = make_buffer(n_envs=3, prioritized=prioritized)
    play(buffer, [[Episode(generator, masked=True) for _ in range(6)] for _ in range(3)], use_masks=True)
    buffer.update_priorities(np.arange(4), [5.0, 0.1, 7.0, 2.0])
    copy = pickle.loads(pickle.dumps(buffer))
    assert isinstance(copy, ReplayBuffer)  # what Stable-Baselines3's loader asks for
    later = [[Episode(generator, masked=True) for _ in range(6)] for _ in range(3)]
    for each in (buffer, copy):
        play(each, later, use_masks=True)
    for _ in range(3):
        for a, b in zip(buffer.sample(16), copy.sample(16), strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_unfinished_episodes_survive_pickling() -> None:
    episode = Episode(np.random.default_rng(7), n_actions=4)
    buffer = make_buffer()
    for t in range(4):
        info = {"TimeLimit.truncated": not episode.terminated}
        row, next_row = episode.observations[t][None], episode.observations[t + 1][None]
        action, reward = np.array([episode.actions[t]]), episode.rewards[t : t + 1]
        buffer.add(row, next_row, action, reward, np.array([t == 3]), [info])
        buffer = pickle.loads(pickle.dumps(buffer))
    check_stored(buffer, [episode], first_id=0)


def test_memory_per_step() -> None:
    space = TokenSequence(512, 1500, 1501)
    buffer = EpisodeReplayBuffer(50_000, space, spaces.Discrete(1500), device="cpu")
    for _ in range(300):  # prompt 256, 256 actions: two tokens a step, and the buffer is full
        buffer.add_episode(np.ones(512, np.int32), np.arange(256, 512), np.zeros(256), True)
    assert buffer.size() > 49_000
    assert buffer.nbytes / buffer.size() < 16


def test_reset_forgets_everything() -> None:
    buffer = make_buffer()
    constant_episodes(buffer, 10)
    buffer.reset()
    assert (buffer.size(), buffer.n_episodes) == (0, 0)
    with pytest.raises(ValueError, match="no episode is finished yet"):
        buffer.sample(1)


def test_sequence_priorities() -> None:
    errors = torch.tensor([[1.0, -3.0, 2.0], [4.0, float("nan"), float("nan")], [float("nan")] * 3])
    np.testing.assert_allclose(sequence_priorities(errors, ~errors.isnan()), [0.9 * 3 + 0.1 * 2, 4.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(sequence_priorities(errors[:1], ~errors[:1].isnan(), eta=0.0), [2.0], rtol=1e-6)


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="buffer_size must be at least 1, got 0"):
        make_buffer(0)
    with pytest.raises(ValueError, match="alpha must be at least 0, got -1"):
        make_buffer(alpha=-1)
    with pytest.raises(ValueError, match="observation_space must be a one-dimensional Box"):
        EpisodeReplayBuffer(10, spaces.Discrete(3), spaces.Discrete(3))
    with pytest.raises(ValueError, match="action_space must be Discrete"):
        EpisodeReplayBuffer(10, TokenSequence(4, 2, 2), spaces.Box(0, 1))
    buffer = make_buffer()
    row = np.array([SEPARATOR, 1, 2, PAD])
    with pytest.raises(ValueError, match="action_positions must increase"):
        buffer.add_episode(row, [2, 1], [0.0, 0.0], True)
    with pytest.raises(ValueError, match="action_positions must increase"):
        buffer.add_episode(row, [0, 1], [0.0, 0.0], True)
    with pytest.raises(ValueError, match="action_positions must increase"):
        buffer.add_episode(row, [2, 3], [0.0, 0.0], True)
    with pytest.raises(ValueError, match=r"must be actions in \[0, 6\), got 7"):
        buffer.add_episode([SEPARATOR, REPLY, 2], [1, 2], [0.0, 0.0], True)
    with pytest.raises(ValueError, match="n_actions must be in"):
        buffer.add_episode(row, [], [], True)
    no, yes = np.array([False]), np.array([True])
    with pytest.raises(ValueError, match="obs must have 1 rows"):
        buffer.add(np.stack([row, row]), np.stack([row, row]), np.array([1, 1]), np.zeros(2), no, [{}, {}])
    with pytest.raises(ValueError, match="obs must hold at least one token"):
        buffer.add(np.full((1, 4), PAD), row[None], np.array([1]), np.zeros(1), no, [{}])
    with pytest.raises(ValueError, match="observations must only grow: the last row of environment 0"):
        buffer.add(row[None], row[None], np.array([1]), np.zeros(1), yes, [{}])
    buffer.add_episode(row, [1, 2], [0.0, 0.0], True)
    with pytest.raises(ValueError, match="priorities must be finite and at least 0"):
        buffer.update_priorities(np.array([0]), [np.nan])
    with pytest.raises(IndexError, match="indices must be less than 1, got 1"):
        buffer.update_priorities(np.array([1]), [1.0])
