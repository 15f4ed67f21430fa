"""Several learners: the joined batch's gradient, equal weights, replay whole again, deaths, resuming, bad values."""

import os
import signal

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch.nn import functional as F

from agents import DoubleDQN, TextGenVecEnv, make_vec_env
from agents.application.run_folder import CONFIG, RESULT
from agents.application.train import resume_run, train
from agents.distributed import Actors, LearnerDied
from agents.distributed.learner import digest
from agents.distributed.learners import Learners
from agents.distributed.processes import LocalProcesses
from agents.replay.episodes import EpisodeReplayBuffer
from agents.replay.shards import deal, fill, join, resize
from agents.saving.checkpoint import SaveCheckpoints, get_state, set_state
from agents.saving.checkpoint_folder import CheckpointFolder, TrainingInterrupted
from agents.saving.files import CommandError, read_yaml_mapping
from agents.saving.settings import resolve_settings
from agents.saving.state_file import differences, read_state
from tests.agents.tasks import OddTokens
from textgym import TextGenVectorEnv

ENV, ENV_ARGS = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 3}
TINY = {"policy_kwargs": {"features_dim": 8, "n_layers": 1}, "learning_starts": 32, "batch_size": 5}
N_ROWS, STEPS = 8, 320


def make_model(policy="PerformerPolicy", task=None, seed=0, **options):
    env = make_vec_env(ENV, N_ROWS, env_kwargs=ENV_ARGS) if task is None else TextGenVecEnv(TextGenVectorEnv(8, task()))
    env.seed(seed)
    return DoubleDQN(policy, env, seed=seed, **{**TINY, **options})


@pytest.fixture(scope="class")
def second():
    """Another learner's process; it is given one model after the other."""
    learners = Learners(make_model(), 2, LocalProcesses(), 120.0)
    yield learners
    learners.close()


def joined(batches):
    """The batch of all rows."""

    def padded(name, value):
        arrays = [getattr(batch, name) for batch in batches]
        if arrays[0].ndim == 1:
            return torch.cat(arrays)
        width = max(array.shape[1] for array in arrays)
        rest = [0, 0] * (arrays[0].ndim - 2)
        return torch.cat([F.pad(array, (*rest, 0, width - array.shape[1]), value=value) for array in arrays])

    names = {"tokens": 0, "action_positions": 1, "actions": 0, "rewards": 0, "valid": False, "action_masks": True}
    fields = {name: padded(name, value) for name, value in names.items() if getattr(batches[0], name) is not None}
    fields |= {name: padded(name, 0) for name in ("lengths", "terminated", "weights")}
    indices = np.concatenate([batch.indices for batch in batches])
    return batches[0]._replace(**fields, indices=indices)


def in_other_shard(model, state):
    """What learner 1 draws from, seen from here."""
    replay = EpisodeReplayBuffer(10_000, model.observation_space, model.action_space, "cpu", prioritized=True)
    replay.set_state(state)
    return replay


class TestUpdates:
    @pytest.mark.parametrize(
        ("policy", "task", "options"),
        [
            ("PerformerPolicy", None, {"loss": "huber", "q_lambda": 0.0}),
            ("PerformerPolicy", None, {"loss": "cross_entropy", "q_lambda": 0.7, "tau": 1.0}),
            ("TransformerPolicy", OddTokens, {"n_steps": 2, "priority_beta": 1.0, "priority_beta_final": 1.0}),  # masks
            ("GRUPolicy", None, {"exploration": "ensemble_ucb", "lower_bound": True, "loss": "huber"}),
        ],
    )
    def test_gradients_are_those_of_the_joined_batch(self, policy, task, options, second):
        model = second.model = make_model(policy, task, max_grad_norm=1e9, **options).learn(160)
        model._env_steps_collected, model.batch_size = 100, 5
        second.begin_learning(None)
        beta = model.priority_beta_final
        shards = [model.replay_buffer, in_other_shard(model, second.get_state()[0])]
        other = shards[1].sample(2, beta=beta)
        alone = make_model(policy, task, max_grad_norm=1e9, **options)
        alone.policy.load_state_dict(model.policy.state_dict())
        alone._current_progress_remaining = model._current_progress_remaining
        random = model.replay_buffer.generator.bit_generator.state
        own = model.replay_buffer.sample(3, beta=beta)
        model.replay_buffer.generator.bit_generator.state = random
        assert own.valid.sum() > 0 and len({len(own.valid), len(other.valid)}) == 2
        alone.policy.set_training_mode(True)
        alone._path.loss(joined([own, other])).loss.backward()
        before = digest(model)
        model.train(1, 5)
        pairs = list(zip(model.q_net.parameters(), alone.q_net.parameters(), strict=True))
        assert max(ours.grad.abs().max() for ours, _ in pairs) > 1e-3
        for ours, theirs in pairs:
            assert (ours.grad - theirs.grad).abs().max() <= 1e-6
        assert digest(model) != before
        second.end_learning()

    def test_weights_stay_equal_to_the_bit(self, second):
        model = second.model = make_model(target_update_interval=8).learn(160)
        model._env_steps_collected = 100
        second.begin_learning(None)
        before = digest(model), second.get_state()[0]["tree"]["levels"][0]
        model.train(20, 5)
        shards = second.get_state()  # compares the checksums
        assert digest(model) != before[0] and (shards[0]["tree"]["levels"][0] != before[1]).any()
        with torch.no_grad():
            next(model.q_net.parameters()).add_(1e-7)
        with pytest.raises(RuntimeError, match="learner 1 has other weights than learner 0 after"):
            second.get_state()
        with pytest.raises(RuntimeError, match="other weights"):
            second.end_learning()
        assert not second.learning and model.replay_buffer.buffer_size == 100_000

    def test_no_update_while_a_shard_is_empty(self, second):
        model = second.model = make_model()
        model.learn(8)
        model.replay_buffer.reset()
        second.begin_learning(None)
        model.replay_buffer.add_episode([1, 1, 1, 2], [3], [1.0], terminated=True)
        before = digest(model)
        model.train(1, 5)
        assert digest(model) == before and model._n_updates == 0
        second.end_learning()
        assert model.replay_buffer.n_episodes == 1

    def test_texts_to_rehearse_are_refused(self, second):
        model = second.model = make_model()
        model.rehearsal = object()
        with pytest.raises(ValueError, match="n_learners must be 1 for a model that rehearses texts"):
            second.begin_learning(None)


class Told(BaseCallback):
    """Returns that were told, in order; does something once."""

    def __init__(self, do=None, at=0):
        super().__init__()
        self.returns, self.do, self.at = [], do, at

    def _on_step(self):
        self.returns += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        if self.do is not None and self.num_timesteps >= self.at:
            self.do, do = None, self.do
            do()
        return True


class TestRuns:
    def test_replay_is_whole_again(self):
        model, told = make_model(), Told()
        with Actors(model, 2, max_staleness=5, n_learners=2) as actors:
            sizes = []
            told.do, told.at = lambda: sizes.append(model.replay_buffer.n_episodes), STEPS
            model.learn(STEPS, told)
            returns = returns_in(model.replay_buffer)
            assert actors.learners is not None and not actors.learners.learning
            model.learn(STEPS, reset_num_timesteps=False)
        assert model._n_updates > 5 and 0 < sizes[0] < 0.6 * len(told.returns)
        assert np.allclose(returns, told.returns)  # in order
        assert np.allclose(returns_in(model.replay_buffer)[: len(returns)], returns)
        assert model.replay_buffer.n_episodes == model._episode_num and model.learners is None

    @pytest.mark.slow
    def test_a_seed_repeats_it_and_resuming_too(self, tmp_path):
        def run(folder, stop=None, resume=None, seed=0):
            model = make_model(seed=seed)
            with Actors(model, 2, n_learners=3):
                model.learn(STEPS, SaveCheckpoints(folder, resume=resume, stop=stop and (lambda: stop(model))))
            return get_state(model)

        whole = run(tmp_path / "whole")
        assert differences(whole, run(tmp_path / "again")) == []
        assert differences(whole, run(tmp_path / "other", seed=1)) != []
        with pytest.raises(TrainingInterrupted):
            run(tmp_path / "parts", lambda model: model.num_timesteps >= 120)
        saved = CheckpointFolder(tmp_path / "parts").load()[1]
        assert len(saved["state"]["actors"]["shards"]) == 2
        assert differences(whole, run(tmp_path / "parts", resume=saved)) == []


def returns_in(replay):
    ids = np.arange(replay._store.first_id, replay._store.end_id)
    return replay._store.read(ids).rewards.sum(axis=1)


class TestTrain:
    def settings(self, n_actors=1, n_learners=2, **options):
        agent = {**TINY, "policy_kwargs": {**TINY["policy_kwargs"], "n_heads": 2}}
        actors = {"engine": "threads", "n_actors": n_actors, "n_learners": n_learners}
        given = {"env": ENV, "env_args": ENV_ARGS, "agent": agent, "steps": STEPS, "n_envs": N_ROWS, "actors": actors}
        return resolve_settings(**{**given, **options})

    @pytest.mark.slow
    def test_a_killed_learner_ends_the_run_and_resuming_loses_nothing(self, tmp_path, monkeypatch):
        alive = []

        def kill(self):
            if self.num_timesteps >= STEPS // 2 and not alive:
                alive.append(self.model.actors.learners.process_ids[1])
                os.kill(alive[0], signal.SIGKILL)
            return True

        with monkeypatch.context() as patch:
            patch.setattr(SaveCheckpoints, "_on_step", kill)
            with pytest.raises(CommandError, match=r"learner 1 died: killed by signal 9; .* --resume .* goes on"):
                train(self.settings(), tmp_path / "run", checkpoint_seconds=0)
        saved = CheckpointFolder(tmp_path / "run" / "checkpoint").load()[1]["state"]
        acknowledged = make_model(policy_kwargs=self.settings().agent["policy_kwargs"])
        acknowledged.learn(8)
        set_state(acknowledged, saved)  # without learners, every episode is in one replay
        returns = returns_in(acknowledged.replay_buffer)
        assert len(returns) == saved["counters"]["_episode_num"] > 20
        assert not (tmp_path / "run" / RESULT).exists()
        resumed = resume_run(tmp_path / "run", checkpoint_seconds=0)
        newest = read_state(CheckpointFolder(tmp_path / "run" / "checkpoint").files()[0])["state"]
        assert resumed.scores is not None and newest["counters"]["num_timesteps"] >= STEPS
        set_state(acknowledged, newest)
        after = returns_in(acknowledged.replay_buffer)
        assert len(after) == newest["counters"]["_episode_num"] > len(returns)
        assert np.allclose(after[: len(returns)], returns)

    def test_the_command(self, textgym, tmp_path):
        folder = tmp_path / "run"
        arguments = ["train", "TextGen/Reverse-v0", "--steps", 400, "--n-envs", 8, "--run-dir", folder, "--quiet"]
        small = ["--env-arg", "length=2", "--set", "policy_kwargs.features_dim=8", "--set", "learning_starts=64"]
        code, _, errors = textgym(*arguments, *small, "--engine", "threads", "--learners", 2)
        assert code == 0, errors
        assert read_yaml_mapping(folder / CONFIG)["actors"] == {"engine": "threads", "n_learners": 2}
        progress = (folder / "progress.csv").read_text()
        assert "distributed/learners" in progress and "train/loss" in progress

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--engine", "threads", "--learners", 0], "n_learners must be an integer of at least 1, got 0"),
            (["--engine", "threads", "--learners", -1], "n_learners must be an integer of at least 1, got -1"),
            (
                ["--engine", "threads", "--learners", 5, "--set", "batch_size=4"],
                "n_learners must be at most batch_size=4, as each draws rows of its own, got 5",
            ),
            (["--learners", 2], "--engine must be threads or ray for options of actors, got local with n_learners=2"),
        ],
    )
    def test_bad_values_give_one_line(self, options, message, textgym, tmp_path):
        code, _, errors = textgym("train", ENV, "--steps", 64, "--run-dir", tmp_path / "run", *options)
        assert code == 2 and message in errors and errors.count("\n") == 1
        assert not (tmp_path / "run").exists()

    def test_transitions_are_refused(self):
        with pytest.raises(ValueError, match="model must be a DoubleDQN on token sequences to act through actors"):
            Actors(DoubleDQN("MlpPolicy", "CartPole-v1"), n_learners=2)

    def test_one_that_can_not_start(self):
        class Broken(LocalProcesses):
            def start(self, place):
                super().start(place._replace(device="nowhere"))

        learners = Learners(make_model().learn(64), 2, Broken(), 120.0)
        with pytest.raises(LearnerDied, match=r"learner 1 failed: RuntimeError: .*nowhere"):
            learners.begin_learning(None)
        learners.close()
        assert not torch.distributed.is_initialized()

    @pytest.mark.slow
    def test_one_that_hangs(self):
        model = make_model().learn(64)
        learners = Learners(model, 2, LocalProcesses(), 60.0)
        learners.begin_learning(None)
        os.kill(learners.process_ids[1], signal.SIGSTOP)
        with pytest.raises(LearnerDied, match="a learner does not answer: "):
            model.train(2, 5)
        learners.close()
        assert not torch.distributed.is_initialized() and model.learners is None


class TestShards:
    def replay(self, size=1_000, n=23, **options):
        model = make_model(buffer_size=size, **options)
        replay, random = model.replay_buffer, np.random.default_rng(0)
        for number in range(n):
            steps = 1 + number % 3
            tokens = [1, 1, 1, *random.integers(0, 2, steps)]
            replay.add_episode(tokens, 3 + np.arange(steps), [float(number), *[0.0] * (steps - 1)], number % 2 == 0)
        replay.update_priorities(np.arange(n), random.random(n))
        return replay

    @pytest.mark.parametrize("n_shards", [1, 2, 3])
    def test_dealing_and_joining_gives_the_same(self, n_shards):
        replay, whole = self.replay(), self.replay()
        shards = []
        for part in deal(replay, n_shards):
            shard = self.replay(n=0)
            fill(shard, part)
            shards.append(shard)
        assert replay.n_episodes == 0 and max(s.n_episodes for s in shards) - min(s.n_episodes for s in shards) <= 1
        join(replay, [shard.get_state() for shard in shards])
        ids = np.arange(23)
        for ours, theirs in zip(replay._store.read(ids), whole._store.read(ids), strict=True):
            assert ours is theirs is None or (ours == theirs).all()
        priorities = [r._tree.get(r._store.slots(ids)) for r in (replay, whole)]
        assert (priorities[0] == priorities[1]).all() and replay._max_priority == max(s._max_priority for s in shards)

    def test_masks_and_widths_that_differ(self):
        free, masked = self.replay(n=2), self.replay(n=0)
        masks = np.ones((1, 5, 4), bool)
        masks[0, 2, 1] = False
        n_actions = masked.n_actions
        masks = masks[:, :, :n_actions]
        masked.add_episode([1, 1, 1, 0, 1, 0, 1], [3, 4, 5, 6], [1.0] * 4, True, masks[0])
        whole = self.replay(n=0)
        join(whole, [free.get_state(), masked.get_state()])
        sample = whole._get_samples(np.arange(3))
        assert sample.valid.sum(dim=1).tolist() == [1, 4, 2]
        assert (sample.action_masks[1].numpy() == masks[0]).all() and sample.action_masks[[0, 2]].all()

    def test_a_smaller_replay_keeps_the_newest_and_the_best(self):
        replay = self.replay(n=0, keep_best=True)
        replay.add_episode([0, 0, 0, 1], [3], [9.0], True)
        part = deal(self.replay(), 1)[0]
        resize(replay, 12)
        fill(replay, part)
        kept = returns_in(replay)
        assert replay.size() <= 12 and 22.0 in kept and 0.0 not in kept
        assert replay._best.max_steps == 3


@pytest.mark.slow
class TestRay:
    def test_a_run_is_that_of_threads_and_a_killed_learner_ends_it(self):
        ray = pytest.importorskip("ray", reason="Ray is not installed")
        from agents.distributed.ray import start_ray

        start_ray(ray, None, 5)
        try:
            models = [make_model(), make_model()]
            for model, engine in zip(models, ("threads", "ray"), strict=True):
                with Actors(model, 1, engine, n_learners=2):
                    model.learn(STEPS)
            assert differences(*map(get_state, models)) == []
            model = make_model()
            with Actors(model, 1, "ray", n_learners=2) as actors:
                kill = Told(lambda: os.kill(actors.learners.process_ids[1], signal.SIGKILL), STEPS // 2)
                with pytest.raises(LearnerDied, match="learner 1 died: "):
                    model.learn(STEPS, kill)
        finally:
            ray.shutdown()
