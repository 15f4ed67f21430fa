"""Self-imitation: when success counts as rare, what changes then, and that nothing changes elsewhere."""

import numpy as np
import pytest
import torch

from agents import DoubleDQN, make_vec_env
from agents.double_dqn.losses import sequence_loss, state_positions
from agents.double_dqn.self_imitation import DECAY, EPSILON, SHARE
from agents.exploration import Boltzmann, ContextUCB, OddsMatching
from agents.replay import best_episodes
from agents.replay.best_episodes import BestEpisodes
from agents.saving.checkpoint import SaveCheckpoints, get_state
from agents.saving.checkpoint_folder import CheckpointFolder, TrainingInterrupted
from agents.saving.state_file import differences
from tests.agents.test_best_episodes import add, buffer, finished
from textgym.tasks.reverse import Reverse

REVERSE = "TextGen/Reverse-v0"
SPARSE = {"length": 2, "vocab_size": 3, "dense": False}
STEPS = 960


def make_model(seed=0, env_kwargs=SPARSE, **options):
    env = make_vec_env(REVERSE, 8, seed=seed, env_kwargs=env_kwargs)
    tiny = {"policy_kwargs": {"features_dim": 8}, "learning_starts": 32, "batch_size": 8, "device": "cpu"}
    return DoubleDQN("PerformerPolicy", env, seed=seed, **{**tiny, **options})


@pytest.fixture
def soon(monkeypatch):
    """Success on the tiny sparse task, about one in 64 episodes of chance, counts as rare, and soon."""
    monkeypatch.setattr(best_episodes, "RARE_EPISODES", 50)
    monkeypatch.setattr(best_episodes, "RARE_SHARE", 0.2)


def offer(best, returns):
    best.offer(np.arange(len(returns)), finished(np.arange(len(returns)), np.asarray(returns)[:, None]))


class TestTheRule:
    @pytest.mark.parametrize(
        ("n_successes", "value", "rare"), [(0, 1.0, True), (99, 1.0, True), (100, 1.0, False), (99, -2.0, False)]
    )
    def test_a_better_return_is_rare_among_the_first_thousand(self, n_successes, value, rare):
        best = BestEpisodes(max_steps=100)
        offer(best, [0.0] * 899 + [value] * n_successes)
        assert best.rare is None
        offer(best, [0.0] * (101 - n_successes))
        assert best.rare is rare

    def test_what_came_first_decides_unless_success_turns_out_to_have_degrees(self):
        best, graded = BestEpisodes(max_steps=100), BestEpisodes(max_steps=100)
        offer(best, [0.0] * 1_000)
        offer(best, [1.0] * 1_000)
        assert best.rare is True
        offer(best, [0.5])
        assert best.rare is False
        offer(graded, [0.0] * 10 + [1.0, 0.5])
        assert graded.rare is False  # at once

    def test_it_is_in_the_state_of_replay(self):
        best, other = BestEpisodes(max_steps=100), BestEpisodes(max_steps=100)
        offer(best, [0.0] * 999 + [0.5])
        other.set_state(best.get_state())
        assert other.rare is True
        offer(other, [1.0])
        assert other.rare is False  # 0 and 0.5 are remembered
        undecided = BestEpisodes(max_steps=100)
        offer(undecided, [0.0] * 600 + [1.0] * 99)
        other.set_state(undecided.get_state())
        assert other.rare is None
        offer(other, [1.0] + [0.0] * 300)
        assert other.rare is False  # a hundred
        old = {name: value for name, value in best.get_state().items() if name not in ("rare", "values", "counts")}
        other.set_state(old)
        assert other.rare is False


def test_replay_draws_successes_to_imitate_as_often_as_they_come():
    replay = buffer(400, share=0.25)
    add(replay, 0, 0.0)
    assert replay.sample(8, imitated_share=0.5).n_imitated == 0
    for prompt in (5, 6):
        add(replay, prompt, 1.0)
    for _ in range(150):
        add(replay, 0, 0.0)
    batch = replay.sample(32, imitated_share=0.5)
    assert batch.n_imitated == 16 and len(batch.indices) == 32
    assert set(batch.tokens[-16:, 0].tolist()) == {5, 6}
    assert (batch.tokens[:16, 0] == 0).any() and batch.weights[-16:].tolist() == [1.0] * 16
    assert replay.sample(1, imitated_share=0.9).n_imitated == 0  # there is always one other
    assert replay.sample(8).n_imitated == 0  # best_share


def test_the_loss_adds_the_cross_entropy_of_their_actions():
    model = make_model(loss="cross_entropy").learn(96)
    batch = model.replay_buffer.sample(6)
    without, _, _ = sequence_loss(model.q_net, model.q_net_target, batch, gamma=0.9)
    both, _, _ = sequence_loss(model.q_net, model.q_net_target, batch._replace(n_imitated=2), gamma=0.9)
    features = model.q_net.features_at(batch.tokens, state_positions(batch))[-2:, :-1]
    chosen = model.q_net.head.ensemble_logits(features)[:, :, 0].log_softmax(dim=-1)
    entropies = -chosen.gather(2, batch.actions[-2:, :, None])[..., 0][batch.valid[-2:]]
    torch.testing.assert_close(both - without, entropies.mean())


class TestOddsMatching:
    def test_twice_the_odds_twice_as_often(self):
        odds = np.array([0.2, 0.4, 1e-6, 1e-3, 1e3], np.float32)
        values = np.tile(odds / (1 + odds) * 3 - 1, (40_000, 1))
        masks = np.tile(np.arange(5) < 4, (40_000, 1))
        explorer = OddsMatching((-1.0, 2.0))
        actions = explorer.select(values, masks, np.zeros(40_000, np.uint64), np.random.default_rng(0), 0.5)
        counts = np.bincount(actions, minlength=5)
        assert counts[4] == 0 and counts[1] / counts[0] == pytest.approx(2.0, rel=0.05)
        for least in counts[2:4]:  # 1 in 4·5 is as little as counts
            assert least / counts[0] == pytest.approx(0.05 / 0.95 / 0.2, rel=0.05)

    def test_certain_values_are_finite_and_epsilon_is_on_top(self):
        values = np.tile(np.array([1.0, 0.0, 0.0, 0.0], np.float32), (20_000, 1))
        contexts, generator = np.zeros(20_000, np.uint64), np.random.default_rng(0)
        explorer = OddsMatching(initial_epsilon=1.0, final_epsilon=0.2, fraction=0.5)
        for progress, others in ((0.0, 0.75), (0.25, 0.45), (1.0, 0.15)):  # three in four of ε
            actions = explorer.select(values, None, contexts, generator, progress)
            assert (actions > 0).mean() == pytest.approx(others, abs=0.01)

    def test_bounds_are_checked(self):
        with pytest.raises(ValueError, match=r"value_range must have its lower bound first, got \(1, 0\)"):
            OddsMatching((1, 0))
        with pytest.raises(ValueError, match="final_epsilon"):
            OddsMatching(final_epsilon=2.0)


class TestTheAgent:
    def test_where_success_is_not_rare_nothing_changes(self):
        models = [
            make_model(env_kwargs={"length": 2, "vocab_size": 3}, self_imitation=flag).learn(4_000)
            for flag in (True, False)
        ]
        assert models[0].replay_buffer._store.end_id > best_episodes.RARE_EPISODES
        assert models[0].replay_buffer._best.rare is False
        assert differences(*map(get_state, models)) == []

    def test_where_it_is_rare_successes_are_imitated(self, soon):
        model = make_model()
        assert model.self_imitation and not model._path.imitation.active
        model.learn(STEPS)
        path, group = model._path, model.policy.optimizer.param_groups[0]
        assert path.imitation.active and len(model.replay_buffer._best) > 0
        assert path.sample(8, 0.0).n_imitated == round(8 * SHARE)
        assert (group["weight_decay"], group["decoupled_weight_decay"]) == (DECAY, True)
        assert isinstance(path.imitation.explorer, OddsMatching) and isinstance(model.explorer, ContextUCB)
        assert (path.imitation.explorer.final_epsilon, path.imitation.explorer.value_range) == (EPSILON, (0.0, 1.0))
        model.replay_buffer.add_episode([0, 1], [1], [0.5], True)
        assert not path.imitation.active and isinstance(path.imitation.explorer, ContextUCB)
        assert path.sample(8, 0.0).n_imitated == 0
        path.imitation.regularise()
        assert (group["weight_decay"], group["decoupled_weight_decay"]) == (0.0, False)

    @pytest.mark.parametrize(
        "options", [{"self_imitation": False}, {"keep_best": False}, {"loss": "huber"}], ids=lambda o: next(iter(o))
    )
    def test_not_without(self, soon, options):
        model = make_model(**options).learn(STEPS)
        assert not model._path.imitation.active and model.policy.optimizer.param_groups[0]["weight_decay"] == 0.0

    def test_not_where_a_task_hides_a_secret(self, soon, monkeypatch):
        monkeypatch.setattr(Reverse, "deterministic", False)
        model = make_model().learn(STEPS)
        assert model.replay_buffer.success_is_rare and not model._path.imitation.active

    def test_what_the_user_chose_stays(self, soon):
        decay = {"weight_decay": 0.1, "decoupled_weight_decay": True}
        policy_kwargs = {"features_dim": 8, "optimizer_kwargs": decay}
        model = make_model(exploration="boltzmann", policy_kwargs=policy_kwargs).learn(STEPS)
        assert model._path.imitation.active and isinstance(model._path.imitation.explorer, Boltzmann)
        assert not isinstance(model._path.imitation.explorer, OddsMatching)
        assert model.policy.optimizer.param_groups[0]["weight_decay"] == 0.1

    @pytest.mark.parametrize("stop", [64, 480])  # before it is decided, and after
    def test_a_resumed_run_ends_as_one_that_was_not_stopped(self, soon, tmp_path, stop):
        whole = make_model()
        whole.learn(STEPS, SaveCheckpoints(tmp_path / "whole"))
        stopped = make_model()
        with pytest.raises(TrainingInterrupted):
            stopped.learn(STEPS, SaveCheckpoints(tmp_path / "parts", stop=lambda: stopped.num_timesteps >= stop))
        assert stopped._path.imitation.active is (stop > 64)
        saved = CheckpointFolder(tmp_path / "parts").load()[1]
        resumed = make_model()
        resumed.learn(STEPS, SaveCheckpoints(tmp_path / "parts", resume=saved))
        assert resumed._path.imitation.active
        states = [CheckpointFolder(tmp_path / name).load()[1]["state"] for name in ("whole", "parts")]
        assert differences(*states) == []

    def test_it_needs_whole_episodes(self):
        with pytest.raises(ValueError, match="self_imitation=True needs whole episodes, got MlpPolicy"):
            DoubleDQN("MlpPolicy", "CartPole-v1", self_imitation=True)
