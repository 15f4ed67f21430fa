"""Evaluation: fair, repeatable, with masks; scores; models that can't be read."""

import json

import numpy as np
import pytest

from agents import DoubleDQN, make_vec_env
from agents.application.loading import load_model
from agents.application.run_folder import find_model
from agents.application.train import train
from agents.application.validate import as_json, report, validate
from agents.double_dqn.evaluation import EvaluationResult, evaluate, score
from agents.saving.files import CommandError
from agents.saving.settings import resolve_settings
from textgym import references

TINY = {"policy_kwargs": {"features_dim": 8, "n_layers": 1, "n_heads": 2}, "learning_starts": 32, "batch_size": 4}
ENV, ENV_ARGS = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 3}


class Oracle:
    """Plays a task's own oracle; on odd rows it writes EOS at once."""

    def __init__(self, env, lazy_rows=False):
        self.env, self.lazy_rows, self.calls = env, lazy_rows, []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.calls.append((state, episode_start.copy()))
        task = self.env.envs.task
        actions = task.oracle(self.env.envs.episodes)
        if self.lazy_rows:
            actions[1::2] = task.eos_id
        return actions, len(self.calls)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    options = {"env": ENV, "env_args": ENV_ARGS, "agent": TINY, "steps": 240, "n_envs": 8}
    return train(resolve_settings(**options), tmp_path_factory.mktemp("runs") / "run")


class TestEvaluate:
    def test_an_oracle_earns_everything_and_texts_are_right(self):
        env = make_vec_env(ENV, 3, seed=0)
        result = evaluate(Oracle(env), env, 7)
        assert result.returns == pytest.approx(np.ones(7)) and result.lengths.tolist() == [7] * 7
        assert result.completions == [prompt[::-1] for prompt in result.prompts]
        assert len(set(result.prompts)) == 7

    def test_short_episodes_do_not_crowd_out_long_ones(self):
        env = make_vec_env(ENV, 4, seed=0)
        result = evaluate(Oracle(env, lazy_rows=True), env, 20)
        assert sorted(result.lengths.tolist()) == [1] * 10 + [7] * 10

    def test_row_by_row_as_single_environments_would(self):
        env = make_vec_env(ENV, 3, seed=0)
        prompts = evaluate(Oracle(env), env, 6, seed=40).prompts
        for row in range(3):
            single = make_vec_env(ENV, 1, seed=0)
            assert evaluate(Oracle(single), single, 2, seed=40 + row).prompts == prompts[2 * row : 2 * row + 2]

    def test_state_and_episode_starts_are_handed_back(self):
        env = make_vec_env(ENV, 2, seed=0)
        oracle = Oracle(env)
        evaluate(oracle, env, 4)
        assert [state for state, _ in oracle.calls] == [None, *range(1, len(oracle.calls))]
        assert [starts.all() for _, starts in oracle.calls] == [step % 7 == 0 for step in range(14)]

    def test_masks_reach_the_model(self):
        env = make_vec_env("TextGen/Addition-v0", 4, seed=0)
        env.envs.all_legal = False
        only = np.zeros((4, env.action_space.n), bool)
        only[:, env.envs.task.eos_id] = True
        env.envs.action_masks = lambda: only
        model = DoubleDQN("PerformerPolicy", env, seed=0, **TINY)
        assert evaluate(model, env, 8).lengths.tolist() == [1] * 8

    def test_it_leaves_training_alone(self):
        def weights(look):
            env = make_vec_env(ENV, 4, seed=0, env_kwargs=ENV_ARGS)
            model = DoubleDQN("PerformerPolicy", env, seed=0, **TINY)
            other = make_vec_env(ENV, 2, seed=9, env_kwargs=ENV_ARGS)
            model.learn(200, (lambda *_: bool(len(evaluate(model, other, 2).returns))) if look else None)
            return [parameter.detach().numpy() for parameter in model.policy.parameters()]

        for looked, did_not in zip(weights(True), weights(False), strict=True):
            np.testing.assert_array_equal(looked, did_not)

    def test_arguments(self):
        import gymnasium as gym
        from stable_baselines3.common.vec_env import DummyVecEnv

        env = make_vec_env(ENV, 2, seed=0)
        with pytest.raises(ValueError, match="n_episodes must be at least 1, got 0"):
            evaluate(Oracle(env), env, 0)
        with pytest.raises(ValueError, match="env must have TokenSequence observations"):
            evaluate(Oracle(env), DummyVecEnv([lambda: gym.make("CartPole-v1")]), 1)


class TestScore:
    result = EvaluationResult(np.arange(8.0) / 8, np.full(8, 3), [f"p{i}" for i in range(8)], ["c"] * 8)

    def test_figures(self):
        scores = score(self.result, ENV)
        assert scores.mean == 3.5 / 8 and scores.iqm == 3.5 / 8 and scores.mean_length == 3
        low, high = scores.mean_interval
        # Percentile bootstrap of a mean: close to the normal interval, a little narrower.
        assert low == pytest.approx(scores.mean - 1.96 * self.result.returns.std() / 8**0.5, abs=0.02)
        assert high == pytest.approx(scores.mean + 1.96 * self.result.returns.std() / 8**0.5, abs=0.02)
        assert scores.iqm_interval[0] < scores.iqm < scores.iqm_interval[1]
        assert scores.normalised == pytest.approx(references(ENV).normalise(3.5 / 8))

    def test_iqm_ignores_outliers(self):
        returns = np.array([-1e6, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1e3])
        assert score(EvaluationResult(returns, np.ones(8), ["p"] * 8, ["c"] * 8)).iqm == 1.0

    def test_repeatable_whatever_the_global_state(self):
        first = score(self.result)
        np.random.seed(1)  # noqa: NPY002  # the point is that it does not matter
        assert score(self.result) == first and score(self.result, seed=1) != first

    def test_examples_are_best_median_worst(self):
        assert self.result.examples(5) == [7, 6, 4, 1, 0]
        assert self.result.examples(100) == [7, 6, 5, 4, 3, 2, 1, 0]
        assert self.result.examples(1) == [7]

    def test_report_and_json(self):
        text = report(self.result, score(self.result, ENV), 5)
        assert "mean return  0.438" in text and "p7 → c" in text and "blind to the prompt" in text
        assert "normalised   unknown" in report(self.result, score(self.result), 1)
        value = json.loads(json.dumps(as_json(score(self.result, ENV), self.result)))
        assert value["results"][3] == {"return": 0.375, "length": 3, "prompt": "p3", "completion": "c"}


class TestValidate:
    def test_a_run_folder_gives_what_training_reported(self, run):
        assert validate(run.folder)[1] == run.scores

    def test_a_model_file(self, run, tmp_path):
        lonely = tmp_path / "model.zip"
        lonely.write_bytes((run.folder / "model.zip").read_bytes())
        with pytest.raises(CommandError, match="--env must name the environment"):
            validate(lonely)
        assert validate(lonely, env_id=ENV, env_args=ENV_ARGS, trust=True)[1] == run.scores

    def test_a_run_that_was_killed_has_its_checkpoint(self, run, tmp_path):
        (tmp_path / "checkpoint").mkdir()
        for step in (8, 16):
            (tmp_path / "checkpoint" / f"step-{step:012d}.safetensors").write_bytes(b"")
        assert find_model(tmp_path) == (tmp_path / "checkpoint" / "step-000000000016.safetensors", None)

    def test_training_seeds_are_refused(self, run):
        with pytest.raises(CommandError, match="--seed must leave out the training seeds 0 to 7, got 3"):
            validate(run.folder, seed=3)
        assert validate(run.folder, seed=8, episodes=4)[1].episodes == 4

    @pytest.mark.parametrize("keep", [0, 10, 1000, 0.5, 0.9])
    def test_damaged_files(self, run, tmp_path, keep):
        whole = (run.folder / "model.zip").read_bytes()
        (tmp_path / "bad.zip").write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
        with pytest.raises(CommandError, match=r"model file .*bad\.zip must be a DoubleDQN saved as \.zip") as error:
            load_model(tmp_path / "bad.zip", trust=True)
        assert "\n" not in str(error.value)

    def test_bytes_changed_in_the_middle(self, run, tmp_path):
        content = bytearray((run.folder / "model.zip").read_bytes())
        content[len(content) // 3 : len(content) // 3 + 200] = bytes(200)
        (tmp_path / "bad.zip").write_bytes(content)
        with pytest.raises(CommandError, match="can't be read"):
            load_model(tmp_path / "bad.zip", trust=True)

    def test_wrong_arguments(self, run, tmp_path):
        for options, message in (
            ({"episodes": 0}, "--episodes must be at least 1, got 0"),
            ({"seed": -1}, "--seed must be at least 0, got -1"),
            ({"env_id": "TextGen/Revers-v0"}, "did you mean TextGen/Reverse-v0"),
            ({"env_id": "TextGen/Copy-v0"}, "the model was trained on TokenSequence"),
        ):
            with pytest.raises(CommandError, match=message):
                validate(run.folder, **options)
        with pytest.raises(CommandError, match="run folder with a model or a checkpoint"):
            validate(tmp_path)
        with pytest.raises(CommandError, match="does not exist"):
            validate(tmp_path / "nowhere")
