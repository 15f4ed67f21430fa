"""The founding pipeline in one command: an encoder, an autoencoder, a Q-network; texts, then the environment."""

import json
import shutil

import numpy as np
import pytest

import agents
from agents import DoubleDQN, make_vec_env
from agents.application.train import resume_run, train
from agents.double_dqn.encoder_policy import texts_of
from agents.representations.embedding_cache import EmbeddingCache
from agents.saving.checkpoint_folder import CheckpointFolder
from agents.saving.export import ModelFileError
from agents.saving.settings import resolve_settings
from agents.saving.state_file import differences
from tests.agents.tiny_language_models import save_bert, save_llama

ENV, ARGS = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 4}
TINY = {"learning_starts": 32, "batch_size": 8, "buffer_size": 1_000, "policy_kwargs": {"net_arch": [16]}}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("encoder"))


def settings(encoder, **options):
    agent = {**TINY, "policy_kwargs": {**TINY["policy_kwargs"], "encoder": str(encoder), "latent_dim": 4}}
    return resolve_settings(ENV, env_args=ARGS, agent=agent, policy="EncoderPolicy", **options)


def test_the_command(textgym, encoder, tmp_path):
    line = ["train", ENV, "--encoder", encoder, "--latent", 4, "--from-demonstrations", 40, "--epochs", 1]
    line += ["--steps", 160, "--n-envs", 8, "--env-arg", "length=2", "--env-arg", "vocab_size=4"]
    line += ["--set", "learning_starts=32", "--set", "policy_kwargs.net_arch=[16]", "--run-dir", tmp_path / "run"]
    code, out, err = textgym(*line)
    assert code == 0 and "Learned from 40 texts" in out and "mean return" in out, err
    code, first, err = textgym("validate", tmp_path / "run", "--episodes", 16)
    assert code == 0, err
    assert textgym("export", tmp_path / "run", tmp_path / "model")[0] == 0
    code, again, err = textgym("validate", tmp_path / "model", "--episodes", 16)
    assert code == 0 and again[again.index("mean return") :] == first[first.index("mean return") :], err
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 50_000, "without the encoder"
    code, _, err = textgym("report", tmp_path / "run", "--episodes", 2, "--out", tmp_path / "page.html")
    assert code == 0, err


def test_a_resumed_run_ends_with_the_same_bits(encoder, tmp_path):
    """The vectors that the encoder has computed are in the checkpoint: in other batches their last bits differ."""

    class Stop(Exception):
        pass

    def prepare(model, folder, stop):
        steps, on_step = [], model._path.on_step

        def counted():
            on_step()
            steps.append(0)
            if len(steps) == 13:
                raise Stop

        model._path.on_step = counted

    given = settings(encoder, steps=200, n_envs=8)
    train(given, tmp_path / "whole")
    with pytest.raises(Stop):
        train(given, tmp_path / "parts", prepare=prepare, checkpoint_seconds=0)
    resume_run(tmp_path / "parts")
    (_, one), (_, two) = (CheckpointFolder(tmp_path / name / "checkpoint").load() for name in ("whole", "parts"))
    assert one["state"]["counters"]["_n_updates"] > 0 and len(one["state"]["acting"]["cache"]["keys"]) > 10
    assert differences(one["state"], two["state"]) == []
    assert (tmp_path / "whole" / "result.json").exists() and (tmp_path / "parts" / "result.json").exists()


def test_saved_and_loaded_without_the_environment(encoder, tmp_path):
    env = make_vec_env(ENV, 4, seed=0, env_kwargs=ARGS)
    model = DoubleDQN("EncoderPolicy", env, policy_kwargs={"encoder": encoder}, seed=0, learning_starts=16).learn(64)
    observations = env.reset()
    model.save(tmp_path / "model.zip")
    loaded = DoubleDQN.load(tmp_path / "model.zip")
    assert np.array_equal(loaded.action_values(observations), model.action_values(observations))
    exported = agents.load(agents.saving.export.export_model(model, tmp_path / "exported"))
    assert np.array_equal(exported.action_values(observations), model.action_values(observations))
    for parameter in model.policy.embedding.parameters():
        assert not parameter.requires_grad


def test_another_encoder_is_refused(encoder, tmp_path):
    here = tmp_path / "encoder"
    shutil.copytree(encoder, here)
    env = make_vec_env(ENV, 2, seed=0, env_kwargs=ARGS)
    model = DoubleDQN("EncoderPolicy", env, policy_kwargs={"encoder": here}, seed=0)
    agents.saving.export.export_model(model, tmp_path / "model")
    shutil.rmtree(here)
    with pytest.raises(ModelFileError, match="must be a local directory"):
        agents.load(tmp_path / "model")
    save_bert(here, seed=1)
    with pytest.raises(ModelFileError, match=r"encoder must be the one that was learned on.*other weights"):
        agents.load(tmp_path / "model")
    assert "fingerprint" in json.loads((tmp_path / "model" / "config.json").read_text())["agent"]["policy_kwargs"]


def test_texts_are_those_of_the_task(encoder):
    env = make_vec_env(ENV, 2, seed=0, env_kwargs=ARGS)
    task = env.get_attr("task")[0]
    model = DoubleDQN("EncoderPolicy", env, policy_kwargs={"encoder": encoder}, seed=0)
    rows = env.reset()
    assert [model.policy._decode(row) for row in rows] == [task.decode(row) for row in rows]
    assert texts_of(task)["token_texts"][task.eos_id] == ""


def test_a_causal_encoder_with_last_pooling(tmp_path):
    llama = save_llama(tmp_path / "llama", words=(*"abcd", "<eos>"))
    env = make_vec_env(ENV, 4, seed=0, env_kwargs=ARGS)
    policy = {"encoder": llama, "pooling": "last"}
    model = DoubleDQN("EncoderPolicy", env, policy_kwargs=policy, seed=0, learning_starts=16).learn(64)
    assert model._n_updates > 0


def test_errors(textgym, encoder):
    env = make_vec_env(ENV, 2, seed=0, env_kwargs=ARGS)
    for env_or_id, policy, message in (
        (env, {}, "encoder must be a local path to a pretrained encoder, got None"),
        (env, {"encoder": "nowhere"}, "must be a local directory"),
        (env, {"encoder": encoder, "pooling": "max"}, "pooling must be 'mean', 'cls' or 'last', got 'max'"),
        ("CartPole-v1", {"encoder": encoder}, "env must have TokenSequence observations for EncoderPolicy"),
    ):
        with pytest.raises(ValueError, match=message):
            DoubleDQN("EncoderPolicy", env_or_id, policy_kwargs=policy)
    for arguments, message in (
        (("train", ENV, "--encoder", encoder, "--set", "policy_kwargs.n_layers=2"), "takes no argument 'n_layers'"),
        (("train", ENV, "--encoder", "nowhere", "--steps", 10), "must be a local directory"),
        (("train", "--from-text", "x.txt", "--encoder", encoder), "--from-text takes no --encoder"),
    ):
        code, _, err = textgym(*arguments)
        assert code == 2 and message in err and err.count("\n") - err.count("it/s]") <= 1, err


def test_a_cache_goes_on_as_it_was():
    cache = EmbeddingCache(2, 3)
    for keys in ((b"ab", b"cd"), (b"ef",), (b"ab",)):
        cache.get(keys, lambda places: np.full((len(places), 2), len(places), np.float32))
    again = EmbeddingCache(2, 3)
    again.set_state(cache.get_state())

    def never(places):
        raise AssertionError(places)

    assert np.array_equal(again.get([b"ab", b"ef"], never), cache.get([b"ab", b"ef"], never))
    for one in (cache, again):
        one.get([b"gh"], lambda places: np.zeros((1, 2), np.float32))
        assert list(one._slots) == [b"ab", b"ef", b"gh"], "the oldest is forgotten first"
