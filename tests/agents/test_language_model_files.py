"""A language model's head is kept alone, with the model's fingerprint: checkpoints, zips, exported folders, reports."""

import json

import numpy as np
import pytest
import torch

import agents
from agents import DoubleDQN
from agents.application.report.tokens import play
from agents.replay import EpisodeReplayBuffer
from agents.saving.checkpoint import SaveCheckpoints
from agents.saving.checkpoint_folder import CheckpointFolder, TrainingInterrupted
from agents.saving.export import ModelFileError, describe, export_model
from agents.saving.state_file import differences, read_state, write_state
from tests.agents.test_language_models import echo, make
from tests.agents.tiny_language_models import WORDS, save_llama
from textgym.language_models import HuggingFaceLM

STEPS = 320


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(directory):
    return make(directory, echo).learn(STEPS)


def texts(model, directory):
    """Steered texts of one seed, as ``generate`` draws them."""
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(directory)
    with torch.random.fork_rng(devices=[]), model.steering(lm, strength=2.0):
        torch.manual_seed(3)
        prompt = torch.tensor([[5, 1, 2]]).expand(16, -1)
        return lm.generate(prompt, max_new_tokens=4, do_sample=True, pad_token_id=5).tolist()


@pytest.mark.parametrize("objective", ["soft_q", "qsharp", "ilql"])
def test_a_resumed_run_ends_with_the_same_bits(directory, tmp_path, objective):
    """Stopped in the midst of texts, the keys and values of which are in the checkpoint."""
    policy = {"objective": objective}
    whole, first, second = (make(directory, echo, policy_kwargs=policy, learning_starts=32) for _ in range(3))
    whole.learn(STEPS, SaveCheckpoints(tmp_path / "whole"))
    with pytest.raises(TrainingInterrupted):
        first.learn(STEPS, SaveCheckpoints(tmp_path / "parts", stop=lambda: first.num_timesteps >= STEPS // 2))
    _, saved = CheckpointFolder(tmp_path / "parts").load()
    assert saved["state"]["acting"]["taken"].any() and saved["state"]["replay"]["open_rows"].size
    second.learn(STEPS, SaveCheckpoints(tmp_path / "parts", resume=saved))
    (_, one), (_, two) = (CheckpointFolder(tmp_path / name).load() for name in ("whole", "parts"))
    assert whole._n_updates > 0 and differences(one["state"], two["state"]) == []
    assert differences(one["log"], two["log"]) == []


def test_saved_loaded_exported(model, directory, tmp_path):
    expected = texts(model, directory)
    model.save(tmp_path / "model.zip")
    exported = export_model(model, tmp_path / "exported")
    assert (exported / "model.safetensors").stat().st_size < 100_000, "the head alone"
    loaded = DoubleDQN.load(tmp_path / "model.zip"), agents.load(exported)
    for again in loaded:
        assert texts(again, directory) == expected
        assert again.policy.fingerprint == HuggingFaceLM(directory).fingerprint
        assert {**describe(again), "versions": 0} == {**describe(model), "versions": 0}
        again.set_env(model.env)
        before = [weight.detach().clone() for weight in again.q_net.parameters()]
        again.learn(200)
        assert any((old != new).any() for old, new in zip(before, again.q_net.parameters(), strict=True))


def test_a_model_given_as_an_object_is_kept_by_its_path(directory, tmp_path):
    model = make(directory, policy_kwargs={"model": HuggingFaceLM(directory)})
    model.save(tmp_path / "model.zip")
    assert (tmp_path / "model.zip").stat().st_size < 300_000
    assert DoubleDQN.load(tmp_path / "model.zip").policy.language_model.path == str(directory)


def test_the_language_model_may_have_moved(model, directory, tmp_path):
    moved = save_llama(tmp_path / "moved")
    exported = export_model(model, tmp_path / "exported")
    config = json.loads((exported / "config.json").read_text())
    config["agent"]["policy_kwargs"]["model"] = "/nowhere"
    (exported / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match=r"path must be a local directory .*got '/nowhere'"):
        agents.load(exported)
    assert texts(agents.load(exported, language_model=moved), directory) == texts(model, directory)
    model.save(tmp_path / "model.zip")
    assert DoubleDQN.load(tmp_path / "model.zip", language_model=moved).policy.language_model.path == str(moved)


def test_another_model_or_vocabulary_is_refused(model, tmp_path):
    exported = export_model(model, tmp_path / "exported")
    model.save(tmp_path / "model.zip")
    weights = save_llama(tmp_path / "weights", seed=1)
    tokens = save_llama(tmp_path / "tokens", words=("x0", *WORDS[1:]))
    for other, what in ((weights, "other weights"), (tokens, "other tokens")):
        with pytest.raises(ModelFileError, match=f"model must be the language model .* has {what} \\(") as error:
            agents.load(exported, language_model=other)
        assert "\n" not in str(error.value)
        with pytest.raises(ValueError, match=what):
            DoubleDQN.load(tmp_path / "model.zip", language_model=other)


def test_a_fingerprint_sees_every_tensor(directory):
    lm = HuggingFaceLM(directory)
    before = lm.fingerprint
    assert HuggingFaceLM(directory).fingerprint == before
    for parameter in lm._model.parameters():
        kept = parameter.data.clone()
        parameter.data.reshape(-1)[0] += 1
        assert lm.fingerprint.split("-")[0] != before.split("-")[0]
        assert lm.fingerprint.split("-")[1] == before.split("-")[1]
        parameter.data = kept
    assert lm.fingerprint == before


def test_bfloat16_in_a_state_file(tmp_path):
    value = {"cache": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).bfloat16()}
    write_state(tmp_path / "state", value)
    again = read_state(tmp_path / "state")
    assert again["cache"].dtype == torch.bfloat16 and torch.equal(again["cache"], value["cache"])
    assert differences(value, again) == []


def test_a_report_shows_the_values_of_the_candidates(model):
    episodes = play(model, model.env, seed=50)
    assert len(episodes) == 8
    steps = [step for episode in episodes for step in episode.steps]
    assert all(0 <= step.q <= step.v <= 1 for step in steps)
    greedy = episodes[0]
    row = np.full((1, model.observation_space.shape[0]), model.observation_space.pad_id)
    prompt = greedy.observation[: greedy.observation.tolist().index(len(WORDS)) + 1]  # up to the separator
    row[0, : len(prompt)] = prompt
    assert model.predict(row, deterministic=True)[0][0] == greedy.steps[0].token
    values = model.action_values(row)[0]
    assert values[greedy.steps[0].token] == pytest.approx(greedy.steps[0].q, abs=1e-6)


def test_values_of_candidates_alone_and_legal_ones(directory):
    model = make(directory, policy_kwargs={"candidates": 2})
    observations = model.env.reset()
    assert (np.isfinite(model.action_values(observations)).sum(axis=1) == 2).all()
    masks = np.zeros((len(observations), 6), bool)
    masks[:, 4] = True
    values = model.action_values(observations, masks)
    assert np.isfinite(values[:, 4]).all() and np.isneginf(np.delete(values, 4, axis=1)).all()


def test_arguments_without_a_use_are_refused(directory):
    for arguments, message in (
        ({"keep_best": True}, "keep_best must be False for LanguageModelPolicy, which has no use for it, got True"),
        ({"q_lambda": 0.5}, "q_lambda must be None for LanguageModelPolicy"),
        ({"lower_bound": True}, "lower_bound must be False"),
        ({"n_steps": 3}, "n_steps must be 1"),
        ({"double_q": False}, "double_q must be True"),
        ({"dueling": False}, "dueling must be True"),
        ({"exploration": "epsilon"}, "exploration must be left out for LanguageModelPolicy.*got 'epsilon'"),
        ({"exploration_kwargs": {"coefficient": 1.0}}, "exploration must be left out"),
        ({"exploration_final_eps": 0.5}, r"exploration_final_eps must be 0.02"),
        ({"value_range": (0, 2)}, r"value_range must be \(-1, 1\), \(0, 1\) or None"),
        ({"replay_buffer_class": EpisodeReplayBuffer}, "replay_buffer_class must be a StatesReplayBuffer"),
        ({"replay_buffer_kwargs": {"keep_best": True}}, "keep_best must be False for StatesReplayBuffer"),
        ({"policy_kwargs": {"expectile": 1.0}}, "expectile must lie between 0 and 1, got 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            make(directory, **arguments)
    assert make(directory, value_range=(0, 1), loss="cross_entropy").policy.objective == "soft_q"
