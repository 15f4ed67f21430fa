"""Exported models: the same Q-values, nothing executed, damaged files noticed; zips are opened on request only."""

import io
import json
import pickle
import sys
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.utils import ConstantSchedule, LinearSchedule
from torch import nn

import agents
from agents import DoubleDQN, make_vec_env
from agents.application.loading import load_model
from agents.application.run_folder import find_model
from agents.application.train import train
from agents.application.validate import export, validate
from agents.exploration import ContextUCB, Exploration
from agents.saving.export import ModelFileError, describe, export_model, load, rebuild
from agents.saving.files import CommandError
from agents.saving.model_spaces import space_as_json, space_from_json
from agents.saving.settings import resolve_settings
from textgym import TokenSequence
from textgym.tokenizers import HuggingFaceTokenizer

ENV, ENV_ARGS = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 3}
TINY = {"policy_kwargs": {"features_dim": 8, "n_layers": 1}, "learning_starts": 32, "batch_size": 4}
TRAINED_IN = {"env": ENV, "env_args": ENV_ARGS}


def make_model(policy="PerformerPolicy", **options):
    return DoubleDQN(policy, make_vec_env(ENV, 8, seed=0, env_kwargs=ENV_ARGS), seed=0, **{**TINY, **options})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = resolve_settings(ENV, env_args=ENV_ARGS, agent=TINY, steps=160, n_envs=8)
    return train(settings, tmp_path_factory.mktemp("runs") / "run")


class TestRoundTrip:
    @pytest.mark.parametrize("policy", ["PerformerPolicy", "TransformerPolicy", "GRUPolicy"])
    def test_identical_q_values(self, tmp_path, policy):
        options = {"exploration": "ensemble_ucb", "n_steps": 2} if policy == "GRUPolicy" else {}
        model = make_model(policy, **options).learn(80)
        again = agents.load(export_model(model, tmp_path / "model", TRAINED_IN))
        observations = torch.as_tensor(model.env.reset())
        with torch.no_grad():
            assert torch.equal(model.q_net(observations), again.q_net(observations))
            assert torch.equal(again.q_net(observations), again.q_net_target(observations))
        assert again.num_timesteps == 80 and type(again.explorer) is type(model.explorer)
        assert describe(again) == describe(model)
        again.set_env(model.env)
        again.learn(120)
        assert again._n_updates > 0

    @pytest.mark.parametrize("env_id", ["CartPole-v1", "FrozenLake-v1"])
    def test_on_transitions(self, tmp_path, env_id):
        arguments = {"net_arch": [8], "activation_fn": nn.Tanh, "optimizer_class": torch.optim.AdamW}
        model = DoubleDQN(
            "MlpPolicy", env_id, seed=0, buffer_size=50, policy_kwargs=arguments, train_freq=(1, "episode")
        )
        model.exploration_rate = 0.25
        again = load(export_model(model, tmp_path))
        observation, _ = gym.make(env_id).reset(seed=0)
        tensors = model.policy.obs_to_tensor(observation)[0]
        with torch.no_grad():
            assert torch.equal(model.q_net(tensors), again.q_net(tensors))
        assert isinstance(again.policy.optimizer, torch.optim.AdamW) and again.train_freq == model.train_freq
        assert again.exploration_rate == 0.25

    @pytest.mark.parametrize(
        ("rate", "written"),
        [
            (1e-3, 1e-3),
            (LinearSchedule(2e-3, 0.0, 1.0), {"start": 2e-3, "end": 0.0, "fraction": 1.0}),
            (ConstantSchedule(0.25), 0.25),
        ],
    )
    def test_learning_rates(self, rate, written):
        assert describe(make_model(learning_rate=rate))["agent"]["learning_rate"] == written
        assert describe(make_model(q_lambda=rate))["agent"]["q_lambda"] == written

    def test_explorers(self, tmp_path):
        model = make_model(exploration=ContextUCB(coefficient=0.125, context=1, table_size=64))
        explorer = load(export_model(model, tmp_path / "a")).explorer
        assert (explorer.coefficient, explorer.context, explorer.table_size) == (0.125, 1, 64)

        class Mine(Exploration):
            def choose(self, scores, contexts, generator, progress):
                return scores.argmax(axis=1)

        again = load(export_model(make_model(exploration=Mine()), tmp_path / "b"))
        assert type(again.explorer) is ContextUCB, "no file can hold the user's class; greedy choices need none"

    def test_what_no_file_can_hold_is_refused(self, tmp_path):
        model = make_model()
        model.policy_kwargs = {"optimizer_kwargs": {"decay": object()}}
        with pytest.raises(
            ValueError,
            match=r"policy_kwargs\.optimizer_kwargs\.decay must be a plain value to be exported, got <object",
        ):
            export_model(model, tmp_path / "model")

        class Mine(type(model.policy)):
            pass

        with pytest.raises(ValueError, match=r"policy must be one of PerformerPolicy, .* to be exported, got Mine"):
            export_model(make_model(Mine), tmp_path / "model")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "space",
        [
            TokenSequence(8, 4, 6),
            gym.spaces.Box(-np.inf, np.inf, (3,), np.float32),
            gym.spaces.Box(np.array([0.0, -1.0]), np.array([1.0, np.inf]), dtype=np.float64),
            gym.spaces.Box(0, 255, (4, 4, 3), np.uint8),
            gym.spaces.Discrete(5, start=2),
            gym.spaces.MultiDiscrete([2, 3]),
            gym.spaces.MultiBinary(4),
            gym.spaces.Dict({"a": gym.spaces.Discrete(2), "b": gym.spaces.Box(0, 1, (2,), np.float32)}),
        ],
    )
    def test_spaces(self, space):
        again = space_from_json(json.loads(json.dumps(space_as_json(space), allow_nan=False)))
        assert again == space and type(again) is type(space)


class TestTokenizer:
    @pytest.mark.parametrize(
        ("env_id", "text"), [(ENV, "c a b"), ("TextGen/Spelling-v0", "cat"), ("TextGen/Summary-v0", "the and")]
    )
    def test_splits_texts_as_the_task_does(self, tmp_path, env_id, text):
        env = make_vec_env(env_id, 1)
        model = DoubleDQN("PerformerPolicy", env, **TINY)
        export_model(model, tmp_path, {"env": env_id})
        task = env.get_attr("task")[0]
        tokenizer = HuggingFaceTokenizer(tmp_path / "tokenizer.json")
        ids = tokenizer.encode(text)
        pieces = [task.token_text(token) for token in ids]
        assert task.join(pieces) == text and tokenizer.eos_id == task.eos_id

    def test_one_of_hugging_face_goes_along(self, tmp_path, textgym):
        from tokenizers import Tokenizer, models, pre_tokenizers

        words = Tokenizer(models.WordLevel({"<eos>": 0, "good": 1, "food": 2, "the": 3, "positive": 4, ":": 5}))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        words.save(str(tmp_path / "words.json"))
        env_args = {"prompts": ["positive: the food"], "tokenizer": str(tmp_path / "words.json"), "max_new_tokens": 3}
        env = make_vec_env("TextGen-v0", 2, env_kwargs=env_args)
        folder = export_model(
            DoubleDQN("PerformerPolicy", env, **TINY), tmp_path / "model", {"env": "TextGen-v0", "env_args": env_args}
        )
        (tmp_path / "words.json").unlink()
        moved = folder.rename(tmp_path / "moved")
        assert textgym("validate", moved, "--episodes", 4)[0] == 0


class TestDamage:
    @pytest.fixture
    def folder(self, run, tmp_path):
        return export(run.folder, tmp_path / "model")

    def test_cut_short(self, folder):
        for name in ("config.json", "model.safetensors"):
            content = (folder / name).read_bytes()
            for share in range(100):
                (folder / name).write_bytes(content[: share * len(content) // 100])
                with pytest.raises(ModelFileError):
                    load(folder)
            (folder / name).write_bytes(content)
        load(folder)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format": "other"}, "must have the format 'textgym-model-1', got 'other'"),
            ({"policy": "os.system"}, "policy must be one of"),
            ({"policy": ["PerformerPolicy"]}, "no model that fits"),
            ({"agent": {"tensorboard_log": "/tmp/x"}}, "unknown arguments: tensorboard_log"),
            ({"agent": {"replay_buffer_class": "os.system"}}, "unknown arguments: replay_buffer_class"),
            ({"agent": {"policy_kwargs": {"optimizer_class": "os.system"}}}, "a class must be one of torch.ReLU"),
            ({"agent": {"policy_kwargs": {"features_dim": 24}}}, "no model that fits"),
            ({"agent": {"gamma": "high"}}, "no model that fits"),
            ({"agent": 3}, "no model that fits"),
            ({"n_envs": None}, "no model that fits"),
            ({"observation_space": {"type": "Box"}}, "KeyError"),
            ({"observation_space": {"type": "Lambda"}}, "a space must be a TokenSequence, Box"),
            ({"weights_sha256": "0"}, "another checksum"),
        ],
    )
    def test_wrong_configurations(self, folder, change, message):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelFileError, match=message) as raised:
            load(folder)
        assert "\n" not in str(raised.value)

    def test_a_folder_without_a_model(self, tmp_path):
        with pytest.raises(ModelFileError, match="must be a folder that 'textgym export' wrote"):
            load(tmp_path)
        (tmp_path / "config.json").write_text("[" * 100_000)
        with pytest.raises(ModelFileError, match="is damaged"):
            load(tmp_path)
        (tmp_path / "config.json").write_text("[]")
        with pytest.raises(ModelFileError, match="got 'list'"):
            load(tmp_path)

    def test_weights_of_another_model(self, run):
        config = json.loads((run.folder / "model" / "config.json").read_text())
        with pytest.raises(ModelFileError, match="mine is no model that fits"):
            rebuild(config, {}, "mine")

    def test_an_environment_that_has_changed(self, folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"tokens_sha256": "0"}))
        with pytest.raises(CommandError, match="must have the tokens that the model"):
            validate(folder, episodes=4)


class Bomb:
    """Unpickling it leaves a trace."""

    def __reduce__(self):
        return (exec, ("import sys; sys.bomb_went_off = True",))


class TestTrust:
    def test_reading_executes_nothing(self, run, tmp_path, monkeypatch):
        def forbidden(*_, **__):
            raise AssertionError("unpickled")

        folder = export(run.folder, tmp_path / "model")
        for name in ("load", "loads", "Unpickler"):
            monkeypatch.setattr(pickle, name, forbidden)
        monkeypatch.setattr(torch, "load", forbidden)
        load(folder)
        (newest,) = sorted((run.folder / "checkpoint").iterdir())[-1:]
        load_model(newest)
        assert validate(run.folder)[1] == validate(run.folder / "model.zip")[1] == run.scores

    def test_a_zip_is_refused_and_its_code_not_run(self, run, tmp_path):
        import base64
        import shutil

        bad = tmp_path / "bad.zip"
        shutil.copy(run.folder / "model.zip", bad)
        with zipfile.ZipFile(bad) as file:
            members = {name: file.read(name) for name in file.namelist()}
        data = json.loads(members["data"])
        data["lr_schedule"] = {":type:": "x", ":serialized:": base64.b64encode(pickle.dumps(Bomb())).decode()}
        with zipfile.ZipFile(bad, "w") as file:
            for name, content in {**members, "data": json.dumps(data)}.items():
                file.writestr(name, content)
        with pytest.raises(
            CommandError, match="may hold pickled objects, which run code when they are opened; --trust"
        ):
            load_model(bad)
        assert not hasattr(sys, "bomb_went_off")
        load_model(bad, trust=True)
        assert sys.bomb_went_off, "the danger is real"
        del sys.bomb_went_off

    def test_a_zip_that_is_trusted(self, run, tmp_path, textgym):
        lonely = tmp_path / "model.zip"
        lonely.write_bytes((run.folder / "model.zip").read_bytes())
        code, _, err = textgym("validate", lonely, "--env", ENV)
        assert code == 2 and err.count("\n") == 1 and "--trust" in err
        line = ["--env", ENV, "--env-arg", "length=2", "--env-arg", "vocab_size=3", "--trust"]
        assert textgym("export", lonely, tmp_path / "model", *line)[0] == 0
        assert validate(tmp_path / "model")[1] == run.scores


class TestCommands:
    def test_export_and_validate(self, run, tmp_path, textgym):
        code, out, _ = textgym("export", run.folder, tmp_path / "model")
        assert (code, out) == (0, f"wrote {tmp_path / 'model'}\n")
        assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
            "README.md",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
        ]
        config = json.loads((tmp_path / "model" / "config.json").read_text())
        assert config["environment"] == {**TRAINED_IN, "seed": 0, "n_envs": 8}
        assert validate(tmp_path / "model")[1] == run.scores
        with pytest.raises(CommandError, match="--seed must leave out the training seeds 0 to 7"):
            validate(tmp_path / "model", seed=3)
        code, _, err = textgym("export", run.folder, tmp_path / "model")
        assert code == 2 and "DIR must be a new or an empty folder" in err
        code, _, err = textgym("export", run.folder, tmp_path / "other", "--env", "TextGen/Copy-v0")
        assert code == 2 and "the model was trained on TokenSequence" in err
        (tmp_path / "empty").mkdir()
        code, _, err = textgym("export", tmp_path / "empty", tmp_path / "other")
        assert code == 2 and "RUN_OR_MODEL must be a run folder with a model or a checkpoint" in err

    def test_a_killed_run_is_read_from_its_checkpoint(self, run, tmp_path):
        import shutil

        shutil.copytree(run.folder / "checkpoint", tmp_path / "run" / "checkpoint")
        shutil.copy(run.folder / "config.yaml", tmp_path / "run")
        path, config = find_model(tmp_path / "run")
        assert path.name == "step-000000000160.safetensors" and config["env"] == ENV
        assert validate(tmp_path / "run")[1] == run.scores
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(CommandError, match="is damaged"):
            validate(tmp_path / "run")

    def test_play_with_a_model(self, run, textgym, monkeypatch):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n\n\n:q\n"))
        code, out, _ = textgym("play", run.folder / "model", "--seed", 1)
        assert code == 0 and "an empty line takes the model's" in out and "end:    return" in out
        best = out.split("model:  ")[1].split()[0]
        assert f"text:   {best}" in out
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        code, _, err = textgym("play", run.folder, "--env-arg", "length=3")
        assert code == 2 and "--env-arg must leave the model's TokenSequence(6" in err
