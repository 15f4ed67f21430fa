"""A trunk with low-rank adapters: what stays the plain model's, what learns, and what is kept."""

import sys

import numpy as np
import pytest
import torch

import agents
from agents import DoubleDQN, PrunedTransformer
from agents.double_dqn.language_models.lora import AdaptedLM, checked_lora
from agents.double_dqn.language_models.writer import Writer
from agents.saving.checkpoint import SaveCheckpoints, load_checkpointed
from agents.saving.checkpoint_folder import CheckpointFolder, TrainingInterrupted
from agents.saving.export import ModelFileError, describe, export_model
from agents.saving.state_file import differences
from tests.agents.test_language_models import distance, echo, learned, make
from tests.agents.tiny_language_models import save_llama
from textgym.language_models import HuggingFaceLM

pytest.importorskip("peft", reason="PEFT is not installed")

LORA = {"rank": 4, "learning_rate": 3e-3}
OBJECTIVES = ("soft_q", "qsharp", "ilql", "pcl")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(directory):
    return adapted(directory).learn(400)


def adapted(directory, reward=echo, lora=LORA, policy_kwargs=None, **arguments):
    return make(directory, reward, policy_kwargs={"lora": lora, **(policy_kwargs or {})}, **arguments)


def weights(network):
    return {name: value.clone() for name, value in network.adapters.state_dict().items()}


def written(model, rows):
    """Texts of one seed that go on from rows."""
    writer, state, rows = Writer(model, strength=2.0), None, rows.copy()
    lengths = (rows != model.observation_space.pad_id).sum(axis=1)
    for _ in range(3):
        tokens, state = writer.predict(rows, state)
        rows[np.arange(len(rows)), lengths] = tokens
        lengths = lengths + 1
    return rows.tolist()


# ---------------------------------------------------------------------------------------------- what it starts from


def test_at_first_it_is_the_agent_without(directory):
    """Bit for bit, in a text's beginning and as it goes on; torch's global generator is where it was."""
    before = torch.random.get_rng_state()
    plain, low_rank = make(directory, echo), adapted(directory)
    assert torch.equal(before, torch.random.get_rng_state())
    for name, value in plain.q_net.state_dict().items():
        assert torch.equal(value, low_rank.q_net.state_dict()[name])
    observations = plain.env.reset()
    assert np.array_equal(plain.action_values(observations), low_rank.action_values(observations))
    assert written(plain, observations) == written(low_rank, observations)
    again = adapted(directory)
    assert weights(again.q_net).keys() == weights(low_rank.q_net).keys()
    for name, value in weights(again.q_net).items():
        assert torch.equal(value, weights(low_rank.q_net)[name])


def test_the_plain_models_weights_are_shared_and_left_alone(directory):
    lm = HuggingFaceLM(directory)
    row, end = np.array([[1, 2, 3]]), np.array([3])
    fingerprint, log_probs = lm.fingerprint, lm.log_probs(row, end).copy()
    names = [name for name, _ in lm._model.named_modules()]
    model = adapted(directory, policy_kwargs={"model": lm})
    assert model.policy.language_model is lm
    trunks = [network.trunk for network in (model.q_net, model.q_net_target)]
    memory = {parameter.data_ptr() for parameter in lm._model.parameters()}
    for trunk in trunks:
        own = {parameter.data_ptr() for parameter in trunk._model.parameters() if not parameter.requires_grad}
        assert own == memory
    model.learn(200)
    assert model._n_updates > 0 and all(parameter.requires_grad for parameter in lm._model.parameters())
    assert lm.fingerprint == fingerprint and [name for name, _ in lm._model.named_modules()] == names
    assert np.array_equal(HuggingFaceLM(directory).log_probs(row, end), log_probs)
    lm.forget()
    assert np.array_equal(lm.log_probs(row, end), log_probs)


def test_one_pass_gives_the_states_that_acting_reads(model):
    """Of all prefixes of texts in replay, though separators are none of the model's tokens."""
    batch = model.replay_buffer.sample_states(8)
    episodes, trunk = batch.episodes, model.q_net.trunk
    hidden = trunk.hidden_after(episodes.tokens, episodes.action_positions)
    assert hidden.shape == (*episodes.valid.shape, trunk.hidden_dim) and batch.states.hidden.shape[-1] == 0
    reader, pad_id = model.policy.reader(), model.observation_space.pad_id
    plain = HuggingFaceLM(trunk.path)
    for row, step in zip(*np.nonzero(episodes.valid.numpy()), strict=True):
        prefix = episodes.tokens[row : row + 1].numpy().copy()
        prefix[:, episodes.action_positions[row, step] :] = pad_id
        states = reader.read(prefix)
        assert torch.allclose(states.hidden[0], hidden[row, step], atol=1e-4)
        log_probs = plain.log_probs(prefix, (prefix != pad_id).sum(axis=1))[0]
        assert states.log_probs[0].numpy() == pytest.approx(log_probs[states.tokens[0]], abs=1e-5)
        assert not torch.allclose(hidden[row, step], plain.hidden[0], atol=1e-2)


# ---------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_update_moves_head_and_adapters(directory, objective):
    model = adapted(directory, policy_kwargs={"objective": objective}, learning_starts=0).learn(100)
    batch = model.replay_buffer.sample_states(32)
    network, target = model.q_net, weights(model.q_net_target)
    before, losses, optimizer = weights(network), [], model.policy.optimizer
    for _ in range(20):
        loss = model._path.loss(batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all((value != before[name]).any() for name, value in weights(network).items())
    for name, value in weights(model.q_net_target).items():
        assert torch.equal(value, target[name])
    model._path.on_update(1)
    assert any((value != target[name]).any() for name, value in weights(model.q_net_target).items())


def test_their_learning_rate_goes_with_the_agents_own(directory):
    model = adapted(directory, lora={"rank": 2}, learning_rate=lambda remaining: 1e-3 * remaining).learn(400)
    head, low_rank = model.policy.optimizer.param_groups
    assert low_rank["lr"] == pytest.approx(0.1 * head["lr"]) and 0 < head["lr"] < 5e-4
    assert {*map(id, low_rank["params"])} == {*map(id, model.q_net.adapters.parameters())}
    assert len(head["params"]) + len(low_rank["params"]) == len(list(model.q_net.parameters()))
    warmed_up = adapted(directory, lora={"rank": 2}, learning_rate=lambda remaining: 1e-3 * (1 - remaining)).learn(200)
    head, low_rank = warmed_up.policy.optimizer.param_groups
    assert low_rank["lr"] == head["lr"] > 0


@pytest.mark.parametrize("fused", [False, True])
def test_what_was_read_is_forgotten_once_the_adapters_change(directory, fused):
    model = adapted(directory, policy_kwargs={"optimizer_kwargs": {"fused": fused}}).learn(100)
    reader, rows = model.policy.reader(), model.env.reset()
    first = reader.read(rows)
    n_read = reader.adapted.n_read
    assert torch.equal(reader.read(rows).hidden, first.hidden) and reader.adapted.n_read == n_read
    model.train(1, 8)
    again = reader.read(rows)
    assert reader.adapted.n_read == 2 * n_read == 2 * reader.model.n_read
    assert not torch.equal(again.hidden, first.hidden) and torch.equal(again.log_probs, first.log_probs)
    assert torch.equal(again.hidden, model.policy.reader().read(rows).hidden)
    model.q_net.load_state_dict(model.q_net_target.state_dict())
    assert not torch.equal(reader.read(rows).hidden, again.hidden)


def test_a_trunk_that_never_looked_back_learns_to(directory, tmp_path):
    """Without attention a state tells the last token alone, and the best next one depends on the prompt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    blind = AutoModelForCausalLM.from_pretrained(directory)
    for layer in blind.model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
    blind.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(directory).save_pretrained(tmp_path)
    plain, low_rank = (
        distance(learned(tmp_path, echo, "pcl", 1_500, True, lora=lora), tmp_path, 3)
        for lora in (None, {"rank": 4, "learning_rate": 1e-2})
    )
    assert plain > 0.25 and low_rank < 0.15


def test_it_learns_from_texts(directory):
    from agents import learn_from_text

    model = adapted(directory, learning_starts=0)
    before = weights(model.q_net)
    texts = [
        {"prompt": "w1 w2", "completion": "w1 w2 w1", "reward": 1.0},
        {"prompt": "w4", "completion": "w0 w0 w0", "reward": 0.0},
    ]
    result = learn_from_text(model, texts, steps=30)
    assert result.loss < result.first_loss
    assert any((value != before[name]).any() for name, value in weights(model.q_net).items())


# ---------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("objective", ["soft_q", "pcl"])
def test_a_resumed_run_ends_with_the_same_bits(directory, tmp_path, objective):
    whole, first, second = (
        adapted(directory, policy_kwargs={"objective": objective}, learning_starts=32, updates_per_step=0.02)
        for _ in range(3)
    )
    whole.learn(320, SaveCheckpoints(tmp_path / "whole"))
    with pytest.raises(TrainingInterrupted):
        first.learn(320, SaveCheckpoints(tmp_path / "parts", stop=lambda: first.num_timesteps >= 160))
    _, saved = CheckpointFolder(tmp_path / "parts").load()
    assert len(saved["state"]["optimizer"]["param_groups"]) == 2
    assert saved["state"]["acting"]["reader"]["adapted"]["key_values"] is not None and first._n_updates > 0
    second.learn(320, SaveCheckpoints(tmp_path / "parts", resume=saved))
    (_, one), (path, two) = (CheckpointFolder(tmp_path / name).load() for name in ("whole", "parts"))
    assert whole._n_updates > 0 and differences(one["state"], two["state"]) == []
    again = load_checkpointed(path)
    rows = whole.env.reset()
    assert np.array_equal(again.action_values(rows), whole.action_values(rows))


def test_saved_loaded_exported(model, directory, tmp_path):
    rows = model.env.reset()
    expected, values = written(model, rows), model.action_values(rows)
    model.save(tmp_path / "model.zip")
    exported = export_model(model, tmp_path / "exported")
    adapters_alone = 4 * sum(parameter.numel() for parameter in model.q_net.adapters.values())
    head_alone = (export_model(make(directory, echo), tmp_path / "head") / "model.safetensors").stat().st_size
    assert (exported / "model.safetensors").stat().st_size < head_alone + adapters_alone + 6_000  # with their names
    for again in (DoubleDQN.load(tmp_path / "model.zip"), agents.load(exported)):
        assert np.array_equal(again.action_values(rows), values) and written(again, rows) == expected
        assert {**describe(again), "versions": 0} == {**describe(model), "versions": 0}
        again.set_env(model.env)
        before = weights(again.q_net)
        again.learn(200)
        assert any((value != before[name]).any() for name, value in weights(again.q_net).items())
    with pytest.raises(ModelFileError, match=r"model must be the language model .* has other weights"):
        agents.load(exported, language_model=save_llama(tmp_path / "other", seed=1))


# ---------------------------------------------------------------------------------------------- steering


def test_steered_generate_writes_what_the_agent_would(model, directory):
    """Greedy, in a batch with left padding, alone and by beams."""
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(directory)
    rows = model.env.reset()
    prompts = [[5, *[token for token in row.tolist() if token < 6]] for row in rows]
    width = max(map(len, prompts))
    ids = torch.tensor([[5] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    given = {"max_new_tokens": 3, "pad_token_id": 5, "do_sample": False}
    plain = lm.generate(ids, attention_mask=mask, **given)
    with model.steering(lm):
        steered = lm.generate(ids, attention_mask=mask, **given)
        for number, prompt in enumerate(prompts):
            alone = lm.generate(torch.tensor([prompt]), **given)[0, len(prompt) :].tolist()
            assert alone == steered[number, width : width + len(alone)].tolist()
        beams = lm.generate(ids, attention_mask=mask, num_beams=3, num_return_sequences=2, **given)
        assert beams.shape == (2 * len(prompts), width + 3)
    actions, _ = model.predict(rows, deterministic=True)
    assert steered[:, width].tolist() == actions.tolist() and not torch.equal(steered, plain)
    assert torch.equal(lm.generate(ids, attention_mask=mask, **given), plain), "nothing is left of it afterwards"


# ---------------------------------------------------------------------------------------------- other models, errors


def test_a_gpt2_and_a_pruned_llama(directory, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(directory)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=6, bos_token_id=5, eos_token_id=5, **sizes))
    gpt2.save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    pruned = PrunedTransformer(AutoModelForCausalLM.from_pretrained(directory), "structured", sparsity=0.5)
    pruned.save_pretrained(tmp_path / "pruned", tokenizer)
    for name, layers in (("gpt2", "c_attn"), ("pruned", "q_proj")):
        model = adapted(tmp_path / name, lora={"rank": 2, "target_modules": [layers], "learning_rate": 1e-2}).learn(160)
        assert len(model.q_net.adapters) == 4 and all(value.any() for value in model.q_net.adapters.values())


def test_a_model_in_half_precision_has_adapters_in_single(directory):
    from transformers import AutoModelForCausalLM

    half = HuggingFaceLM(directory, model=AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16))
    plain, low_rank = (make(directory, echo, policy_kwargs={"model": half, "lora": lora}) for lora in (None, LORA))
    rows = plain.env.reset()
    assert np.array_equal(plain.action_values(rows), low_rank.action_values(rows))
    before = weights(low_rank.q_net)
    low_rank.learn(120)
    for name, value in weights(low_rank.q_net).items():
        assert value.dtype == torch.float32 and (value != before[name]).any()
    assert not np.array_equal(plain.action_values(rows), low_rank.action_values(rows))


def test_settings(directory):
    assert checked_lora({"rank": 4}) == (4, 8.0, "all-linear", 1e-4)
    given = {"rank": 2, "alpha": 1, "target_modules": ["q_proj", "v_proj"], "learning_rate": 1e-3}
    trunk = AdaptedLM(HuggingFaceLM(directory), checked_lora(given))
    assert len(trunk.adapters) == 8  # A and B of two layers in two blocks
    layer = trunk._model.model.layers[0].self_attn.q_proj
    assert layer.scaling == {"default": 0.5} and not any(layer.lora_B["default"].weight.flatten())


@pytest.mark.parametrize(
    "lora, message",
    [
        (8, r"lora must be None or a mapping with a rank and, if need be, alpha, target_modules, learning_rate, got 8"),
        ({"alpha": 8}, r"lora must be None or a mapping with a rank .* got \{'alpha': 8\}"),
        ({"rank": 8, "dropout": 0.1}, r"lora must be None or .*learning_rate, got .*'dropout': 0.1"),
        ({"rank": 0}, r"lora\['rank'\] must be an integer of at least 1, got 0"),
        ({"rank": 8, "alpha": 0}, r"lora\['alpha'\] must be a finite number above 0, got 0"),
        ({"rank": 8, "learning_rate": "high"}, r"lora\['learning_rate'\] must be a finite number above 0, got 'high'"),
        ({"rank": 8, "target_modules": []}, r"lora\['target_modules'\] must be 'all-linear' or a list .* got \[\]"),
        ({"rank": 8, "target_modules": "q_proj"}, r"must be 'all-linear' or a list of names of layers, got 'q_proj'"),
        (
            {"rank": 8, "target_modules": ["q_proj", "lm_head"]},
            r"lora\['target_modules'\] must name layers among down_proj, gate_proj, .*v_proj, got lm_head",
        ),
    ],
)
def test_bad_settings_are_one_line(directory, lora, message):
    with pytest.raises(ValueError, match=message) as error:
        adapted(directory, lora=lora)
    assert "\n" not in str(error.value)


def test_a_model_that_reads_too_little_or_a_missing_package(directory, tmp_path, monkeypatch):
    short = save_llama(tmp_path, positions=4)
    with pytest.raises(ValueError, match=r"model must read the \d+ tokens .* with lora, got one that reads 4"):
        adapted(short)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModuleNotFoundError, match="lora, of the extra lora, needs the package peft: pip install peft"):
        adapted(directory)
