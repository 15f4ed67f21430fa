"""Actors: the run without them bit for bit where it should be, every episode once, deaths, staleness, resuming."""

import os
import signal
import time

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger

from agents import DoubleDQN, TextGenVecEnv, make_vec_env
from agents.application.run_folder import CONFIG
from agents.application.train import resume_run, train
from agents.distributed import ActorDied, Actors
from agents.distributed.engines import AnswerLost, ThreadEngine
from agents.distributed.reports import EpisodeId, Ledger, Report, compact
from agents.replay.episode_store import FinishedEpisodes
from agents.saving.checkpoint import SaveCheckpoints, get_state
from agents.saving.checkpoint_folder import CheckpointFolder, TrainingInterrupted
from agents.saving.files import CommandError, read_yaml_mapping
from agents.saving.settings import resolve_settings
from agents.saving.state_file import differences
from tests.agents.tasks import Echo, OddTokens
from textgym import TextGenVectorEnv
from textgym.tasks.text_generation import TextGeneration

ENV, ENV_ARGS = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 3}
TINY = {"policy_kwargs": {"features_dim": 8, "n_layers": 1}, "learning_starts": 32, "batch_size": 4}
N_ROWS, STEPS = 8, 320


def make_model(policy="PerformerPolicy", task=None, seed=0, **options):
    envs = TextGenVectorEnv(N_ROWS, task) if task is not None else None
    env = TextGenVecEnv(envs) if envs is not None else make_vec_env(ENV, N_ROWS, env_kwargs=ENV_ARGS)
    env.seed(seed)
    return DoubleDQN(policy, env, seed=seed, **{**TINY, **options})


def rewarded(reward, **options):
    return make_model(task=TextGeneration(["a b", "c d"], reward, max_new_tokens=3), **options)


AT_ONCE = {"now": 0, "most": 0}


def slow_reward(prompts, completions, **columns):
    """Counts its calls at the same time: pickled by name, it is one function for all threads."""
    AT_ONCE["now"] += 1
    AT_ONCE["most"] = max(AT_ONCE.values())
    time.sleep(0.05)
    AT_ONCE["now"] -= 1
    return [0.5] * len(completions)


class Rows(KVWriter):
    """Keeps what is logged."""

    def __init__(self):
        self.rows = []

    def write(self, key_values, key_excluded, step=0):
        self.rows.append({key: value for key, value in key_values.items() if not key.startswith(("time/", "distrib"))})


class Watch(BaseCallback):
    """Keeps the names and returns of the episodes that come into replay, and does something once."""

    def __init__(self, do=None, at=0):
        super().__init__()
        self.ids, self.returns, self.do, self.at = [], [], do, at

    def _on_step(self):
        self.ids += self.locals["episode_ids"]
        if self.do is not None and self.num_timesteps >= self.at:
            self.do, do = None, self.do
            do()
        return True


class Ids(BaseCallback):
    """The same without a delay of one step."""

    def __init__(self, actors):
        super().__init__()
        self.ids, self.returns, store = [], [], actors.ledger.store

        def watched(report, n_episodes):
            named = store(report, n_episodes)
            self.ids += named
            return named

        actors.ledger.store = watched

    def _on_step(self):
        self.returns += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return True


def check_each_once(model, ids, returns):
    """Names count from 0 for each process, and replay holds what was told of the episodes."""
    assert len(set(ids)) == len(ids) == model._episode_num == model.replay_buffer.n_episodes
    for process in {(name.actor, name.incarnation) for name in ids}:
        numbers = [name.number for name in ids if (name.actor, name.incarnation) == process]
        assert numbers == list(range(len(numbers)))
    stored = model.replay_buffer._store.read(np.arange(len(ids)))
    assert np.allclose(stored.rewards.sum(axis=1), returns, atol=1e-5)


class Lossy(ThreadEngine):
    """Loses every third answer."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def wait(self, seconds):
        answers = super().wait(seconds)
        for place, (actor, _) in enumerate(answers):
            self.n += 1
            if self.n % 3 == 0:
                answers[place] = actor, AnswerLost("gone")
        return answers


class Deadly(ThreadEngine):
    """Actor 1 never answers."""

    def call(self, actor, method, *arguments):
        if actor == 1:
            self.kill(actor)
        else:
            super().call(actor, method, *arguments)


class TestInTurns:
    @pytest.mark.parametrize(
        ("policy", "task", "options"),
        [
            ("PerformerPolicy", None, {"learning_rate": 1e-3, "train_freq": 2, "keep_best": True}),
            ("TransformerPolicy", OddTokens, {"n_steps": 2, "buffer_size": 100, "gradient_steps": 2}),  # masks
            ("GRUPolicy", Echo, {"exploration": "epsilon", "target_update_interval": 16}),  # replies
        ],
    )
    def test_one_actor_is_the_run_without(self, policy, task, options):
        models, logs = [make_model(policy, task and task(), **options) for _ in range(2)], [Rows(), Rows()]
        for model, log in zip(models, logs, strict=True):
            model.set_logger(Logger(None, [log]))
        models[0].learn(STEPS, log_interval=8)
        with Actors(models[1]) as actors:
            models[1].learn(STEPS, log_interval=8)
        assert models[1]._n_updates > 0 and len(logs[0].rows) > 2
        assert any("rollout/ep_rew_mean" in row for row in logs[0].rows) and logs[0].rows == logs[1].rows
        assert differences(get_state(models[0]), get_state(models[1])) == []
        assert actors.staleness_max == 0 and models[1].actors is None

    def test_a_second_learn_goes_on(self):
        models = [make_model(), make_model()]
        models[0].learn(STEPS).learn(STEPS, reset_num_timesteps=False)
        with Actors(models[1]):
            models[1].learn(STEPS).learn(STEPS, reset_num_timesteps=False)
        assert differences(get_state(models[0]), get_state(models[1])) == []

    def test_a_seed_repeats_the_run_of_several(self):
        states = []
        for seed in (0, 0, 1):
            model = make_model(seed=seed)
            with Actors(model, 3):
                model.learn(STEPS)
            states.append(get_state(model))
        assert differences(*states[:2]) == []
        assert differences(*states[1:]) != []

    def test_actors_have_texts_of_their_own(self):
        model = make_model()
        with Actors(model, 3) as actors:
            model.learn(24)
            first = {bytes(state["observations"]) for state in [get_state(model), *actors.get_state()["others"]]}
        assert len(first) == 3

    def test_callbacks_can_end_it(self):
        model = make_model()

        class Stop(BaseCallback):
            def _on_step(self):
                return self.num_timesteps < 80

        with Actors(model, 2):
            model.learn(STEPS, Stop())
        assert model.num_timesteps == 80


class TestWhileLearning:
    @pytest.mark.parametrize(("most", "every"), [(4, 1), (20, 10)])
    def test_staleness_is_bounded_and_every_episode_comes_once(self, most, every):
        model = make_model(updates_per_step=0.1)
        log = Rows()
        model.set_logger(Logger(None, [log]))
        with Actors(model, 3, max_staleness=most, weights_every=every, vector_steps=2) as actors:
            ids = Ids(actors)
            model.learn(4 * STEPS, ids)
        assert 0 < actors.staleness_max <= most
        assert actors.weights_sent <= 3 * (1 + model._n_updates / every)
        check_each_once(model, ids.ids, ids.returns)
        assert {name.actor for name in ids.ids} == {0, 1, 2}

    def test_the_log_tells(self):
        model = make_model()
        with Actors(model, 2, max_staleness=5):
            model.learn(STEPS, log_interval=None)
            logged = dict(model.logger.name_to_value)
        assert 0 <= logged["distributed/staleness"] <= logged["distributed/staleness_max"] <= 5
        assert logged["distributed/episodes_per_second"] > 0 and 0 <= logged["distributed/waiting"] <= 1
        assert logged["distributed/actors"] == 2 and logged["distributed/replaced"] == 0

    def test_slow_rewards_overlap(self):
        most = []
        for n_actors in (1, 6):
            model = rewarded(slow_reward, learning_starts=10_000)
            AT_ONCE.update(now=0, most=0)
            with Actors(model, n_actors, max_staleness=10):
                model.learn(400)
            most.append(AT_ONCE["most"])
        assert most[0] == 1 and most[1] >= 4, most


class TestDeaths:
    @pytest.mark.parametrize("most", [0, 8])
    def test_a_killed_actor_is_replaced(self, most):
        model = make_model()
        with Actors(model, 2, max_staleness=most) as actors:
            ids = Ids(actors)
            model.learn(2 * STEPS, [ids, Watch(lambda: actors.engine.kill(1), STEPS)])
        assert actors.replaced == 1 and model.num_timesteps == 2 * STEPS
        check_each_once(model, ids.ids, ids.returns)
        assert {(name.actor, name.incarnation) for name in ids.ids} == {(0, 0), (1, 0), (1, 1)}

    def test_answers_that_are_lost_are_sent_again(self):
        model = make_model()
        with Actors(model, 2, Lossy(), max_staleness=8) as actors:
            ids = Ids(actors)
            model.learn(2 * STEPS, ids)
        assert actors.engine.n > 20 and actors.replaced == 0
        check_each_once(model, ids.ids, ids.returns)

    def test_one_that_dies_again_and_again_ends_the_run(self):
        model = make_model()
        with Actors(model, 2, Deadly()), pytest.raises(ActorDied, match=r"actor 1 died 5 times before it reported"):
            model.learn(STEPS)
        assert model.actors is None

    def test_one_that_hangs_is_replaced(self):
        calls = []

        def hangs_once(prompts, completions, **columns):
            calls.append(len(completions))
            if len(calls) == 3:
                time.sleep(1.5)
            return [0.5] * len(completions)

        globals()["_hangs_once"] = hangs_once  # by name: every actor counts the same calls
        hangs_once.__module__, hangs_once.__qualname__ = __name__, "_hangs_once"
        model = rewarded(hangs_once)
        with Actors(model, 2, timeout=0.3) as actors:
            model.learn(STEPS)
        assert actors.replaced == 1 and model.num_timesteps >= STEPS

    def test_an_error_of_the_reward_is_not_hidden(self):
        def broken(prompts, completions, **columns):
            raise OSError("no judge")

        model = rewarded(broken)
        with Actors(model, 2), pytest.raises(RuntimeError, match=r"reward 'broken' raised OSError: no judge"):
            model.learn(STEPS)


class TestResume:
    def test_equals_the_run_that_never_stopped(self, tmp_path):
        def run(folder, stop=None, resume=None):
            model = make_model()
            with Actors(model, 2):
                model.learn(STEPS, SaveCheckpoints(folder, resume=resume, stop=stop and (lambda: stop(model))))
            return get_state(model)

        whole = run(tmp_path / "whole")
        with pytest.raises(TrainingInterrupted):
            run(tmp_path / "parts", lambda model: model.num_timesteps >= 120)
        saved = CheckpointFolder(tmp_path / "parts").load()[1]
        assert saved["state"]["counters"]["num_timesteps"] < STEPS
        assert differences(whole, run(tmp_path / "parts", resume=saved)) == []

    def test_with_actors_and_without(self, tmp_path):
        whole = get_state(make_model().learn(STEPS))
        model = make_model()
        with Actors(model), pytest.raises(TrainingInterrupted):
            model.learn(STEPS, SaveCheckpoints(tmp_path, stop=lambda: model.num_timesteps >= 120))
        model = make_model()
        model.learn(STEPS, SaveCheckpoints(tmp_path, resume=CheckpointFolder(tmp_path).load()[1]))
        assert differences(whole, get_state(model)) == []

    def test_while_learning_what_is_in_the_checkpoint_is_kept(self, tmp_path):
        model = make_model()
        with Actors(model, 2, max_staleness=8), pytest.raises(TrainingInterrupted):
            model.learn(STEPS, SaveCheckpoints(tmp_path, stop=lambda: model.num_timesteps >= 120))
        kept = model.replay_buffer.n_episodes
        model = make_model()
        with Actors(model, 2, max_staleness=8) as actors:
            model.learn(STEPS, SaveCheckpoints(tmp_path, resume=CheckpointFolder(tmp_path).load()[1]))
        assert kept > 0 and model.replay_buffer.n_episodes == kept + actors.ledger.n_episodes == model._episode_num
        assert actors.ledger.incarnations.tolist() == [1, 1]


class TestTrain:
    def settings(self, **options):
        agent = {**TINY, "policy_kwargs": {**TINY["policy_kwargs"], "n_heads": 2}}
        return resolve_settings(env=ENV, env_args=ENV_ARGS, agent=agent, steps=STEPS, n_envs=N_ROWS, **options)

    def test_a_run_folder_goes_on_with_its_actors(self, tmp_path):
        settings = self.settings(actors={"engine": "threads", "n_actors": 2})
        whole = train(settings, tmp_path / "whole")
        assert read_yaml_mapping(tmp_path / "whole" / CONFIG)["actors"] == {"engine": "threads", "n_actors": 2}
        train(settings, tmp_path / "parts", checkpoint_seconds=0)
        newest = CheckpointFolder(tmp_path / "parts" / "checkpoint").files()[0]
        newest.unlink()
        (tmp_path / "parts" / "result.json").unlink()
        again = resume_run(tmp_path / "parts")
        assert again.scores == whole.scores
        assert "distributed/staleness" in (whole.folder / "progress.csv").read_text()

    def test_the_command(self, textgym, tmp_path):
        arguments = ["train", ENV, "--steps", 64, "--n-envs", 4, "--run-dir", tmp_path / "run", "--quiet"]
        small = ["--set", "policy_kwargs.features_dim=8", "--set", "policy_kwargs.n_layers=1", "--max-staleness", 3]
        code, out, _ = textgym(*arguments, *small, "--engine", "threads", "--actors", 2, "--actor-steps", 2)
        assert code == 0 and out.strip() == str(tmp_path / "run")
        expected = {"engine": "threads", "n_actors": 2, "max_staleness": 3, "vector_steps": 2}
        assert read_yaml_mapping(tmp_path / "run" / CONFIG)["actors"] == expected

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"n_actors": 2}, "--engine must be threads or ray for options of actors, got local with n_actors=2"),
            ({"engine": "dask"}, "--engine dask: engine must be one of threads, ray, got 'dask'"),
            (
                {"engine": "threads", "n_actors": 0},
                "--engine threads: n_actors must be an integer of at least 1, got 0",
            ),
            (
                {"engine": "threads", "weights_every": 3},
                "--engine threads: weights_every must be at most max_staleness=0, got 3",
            ),
        ],
    )
    def test_errors_are_one_line(self, options, message, tmp_path):
        with pytest.raises(CommandError, match=message):
            train(self.settings(actors=options), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_an_unknown_key_of_a_configuration(self, tmp_path):
        (tmp_path / "config.yaml").write_text("actors: {engine: threads, n: 3}")
        with pytest.raises(CommandError, match=r"actors has the unknown key 'n'; accepted: engine, n_actors"):
            resolve_settings(ENV, tmp_path / "config.yaml")


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"max_staleness": -1}, "max_staleness must be an integer of at least 0, got -1"),
            ({"vector_steps": 0}, "vector_steps must be an integer of at least 1, got 0"),
            ({"timeout": 0}, "timeout must be a finite number above 0, got 0"),
            ({"cpus": -1}, "cpus must be a finite number above 0, got -1"),
            ({"address": "ray://head"}, "address must be None for the engine 'threads', got 'ray://head'"),
        ],
    )
    def test_out_of_range(self, options, message):
        with pytest.raises(ValueError, match=message):
            Actors(make_model(), **options)

    def test_models_of_another_kind(self):
        with pytest.raises(ValueError, match="model must be a DoubleDQN on token sequences to act through actors"):
            Actors(DoubleDQN("MlpPolicy", "CartPole-v1"))
        model = make_model()
        with Actors(model), pytest.raises(ValueError, match="model must have no other actors"), Actors(model):
            pass

    def test_a_train_freq_in_episodes(self):
        env = make_vec_env(ENV, 1, env_kwargs=ENV_ARGS)
        model = DoubleDQN("PerformerPolicy", env, train_freq=(1, "episode"), **TINY)
        with Actors(model), pytest.raises(ValueError, match="train_freq must be in steps with actors"):
            model.learn(8)

    def test_ray_where_it_is_missing(self):
        try:
            import ray  # noqa: F401
        except ImportError:
            with pytest.raises(ValueError, match="engine 'ray' needs Ray: pip install 'ray>=2', or take engine 'thr"):
                Actors(make_model(), engine="ray")
        else:
            pytest.skip("Ray is installed")


class TestReports:
    def report(self, number, actor=0):
        return Report(actor, 0, number, 0, 0, 0.0, [])

    def test_a_report_counts_once_and_in_order(self):
        ledger = Ledger([0, 0])
        assert ledger.receive(self.report(0)) and not ledger.receive(self.report(0))
        assert ledger.receive(self.report(0, actor=1))
        with pytest.raises(RuntimeError, match="actor 0: report 1 must come next, got 2"):
            ledger.receive(self.report(2))
        assert ledger.acknowledged(0) == 0
        assert ledger.store(self.report(0), 2) == [EpisodeId(0, 0, 0), EpisodeId(0, 0, 1)]
        ledger.finish(self.report(0))
        assert ledger.acknowledged(0) == 1 and ledger.acknowledged(1) == 0 and ledger.n_episodes == 2
        with pytest.raises(RuntimeError, match="actor 0: report 1 is not in replay yet"):
            ledger.finish(self.report(2))

    def test_episodes_are_trimmed(self):
        tokens, positions = np.arange(20).reshape(2, 10), np.array([[1, 2], [1, 1]])
        lengths, steps = np.array([4, 3]), np.array([2, 1])
        episodes = FinishedEpisodes(
            tokens, lengths, positions, steps, np.ones((2, 2), np.float32), np.ones(2, np.bool_), None
        )
        small = compact(episodes)
        assert small.tokens.shape == (2, 4) and small.tokens.dtype == small.action_positions.dtype == np.int32
        assert (small.tokens == tokens[:, :4]).all() and (small.n_tokens == lengths).all()


@pytest.fixture(scope="module")
def ray():
    module = pytest.importorskip("ray", reason="Ray is not installed")
    from agents.distributed.ray import start_ray

    start_ray(module, None, 4)
    yield module
    module.shutdown()


class TestRay:
    def test_one_actor_is_the_run_without(self, ray):
        models = [make_model(), make_model()]
        models[0].learn(STEPS)
        with Actors(models[1], engine="ray"):
            models[1].learn(STEPS)
        assert differences(get_state(models[0]), get_state(models[1])) == []

    def test_a_killed_process_is_replaced(self, ray):
        model = make_model()
        with Actors(model, 2, "ray", max_staleness=8) as actors:
            ids = Ids(actors)
            kill = Watch(lambda: os.kill(actors.engine.process_ids()[1], signal.SIGKILL), STEPS)
            model.learn(4 * STEPS, [ids, kill])
        assert actors.replaced == 1
        check_each_once(model, ids.ids, ids.returns)

    def test_an_error_of_the_reward_is_not_hidden(self, ray):
        def broken(prompts, completions, **columns):
            raise OSError("no judge")

        model = rewarded(broken)
        with Actors(model, 1, "ray"), pytest.raises(RuntimeError, match=r"reward 'broken' raised OSError: no judge"):
            model.learn(STEPS)
