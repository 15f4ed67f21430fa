"""Llama, Mistral and Qwen2 lose neurons and groups of heads, run with caches and files as before, and recover."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from agents.encoders.huggingface import HuggingFaceEncoder, load_model
from agents.pruning.blocks import transformer_blocks
from agents.pruning.gradual import prune_gradually
from agents.pruning.language_model import load_language_model
from agents.pruning.pruned_transformer import PrunedTransformer
from agents.pruning.recover import match_hidden_states
from textgym.language_models import HuggingFaceLM
from textgym.tokenizers import WordTokenizer

IDS = torch.arange(16).view(2, 8) % 20
SIZES = {"vocab_size": 20, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, groups of 2, tied": ("llama", {"num_key_value_heads": 3, "tie_word_embeddings": True}),
    "llama, a head each": ("llama", {"num_key_value_heads": 6}),
    "llama, biases, wide heads": ("llama", {"num_key_value_heads": 3, "attention_bias": True, "head_dim": 8}),
    "mistral, groups of 2": ("mistral", {"num_key_value_heads": 3, "sliding_window": 4}),
    "qwen2, groups of 2, tied": ("qwen2", {"num_key_value_heads": 3, "tie_word_embeddings": True}),
    "qwen2, a head each": ("qwen2", {"num_key_value_heads": 6, "tie_word_embeddings": False}),
}
QUARTER = {"ffn_sparsity": 0.25, "head_sparsity": 1 / 3}


def causal(family: str = "llama, groups of 2, tied", **arguments: Any) -> Any:
    kind, own = FAMILIES[family]
    config = SIZES | {"num_attention_heads": 6, "max_position_embeddings": 64, "eos_token_id": None} | own | arguments
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **config))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)  # far from uniform attention, and no bias is 0
    return model.eval()


def text(n: int = 3) -> list[Tensor]:
    return list(torch.randint(0, 20, (n, 2, 9), generator=torch.Generator().manual_seed(5)))


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_removing_equals_zeroing(family: str, calibrated: bool) -> None:
    """What a neuron or a group writes becomes 0 in the whole model, or both are gone: the same logits."""
    pruned_model = causal(family)
    zeroed = copy.deepcopy(pruned_model)
    embedding = pruned_model.get_input_embeddings().weight.clone()
    calibration = text() if calibrated else None
    PrunedTransformer(pruned_model, "structured", scope="layer", **QUARTER, calibration=calibration)
    for small, block in zip(transformer_blocks(pruned_model), transformer_blocks(zeroed), strict=True):
        n_groups, width = block.n_heads, block.write.in_features // block.n_heads
        assert (small.n_heads, small.n_neurons) == (n_groups * 2 // 3, 30)
        kept = {tuple(row) for row in small.write.weight.T.tolist()}
        with torch.no_grad():
            for column, row in enumerate(block.write.weight.T.tolist()):
                if tuple(row) not in kept:
                    block.write.weight[:, column] = 0
            assert int((block.write.weight == 0).all(dim=0).sum()) == width * (n_groups - small.n_heads)
            kept = {tuple(row) for row in small.down.weight.T.tolist()}
            for column, row in enumerate(block.down.weight.T.tolist()):
                if tuple(row) not in kept:
                    block.down.weight[:, column] = 0
    torch.testing.assert_close(logits(pruned_model), logits(zeroed), atol=1e-5, rtol=1e-5)
    assert torch.equal(pruned_model.get_input_embeddings().weight, embedding)
    tied = pruned_model.lm_head.weight is pruned_model.get_input_embeddings().weight
    assert tied == bool(pruned_model.config.tie_word_embeddings)


def test_the_groups_and_neurons_that_score_least_go() -> None:
    model = causal()
    block = next(iter(transformer_blocks(model)))
    gate, up, down = (layer.weight.detach().clone() for layer in (block.gate, block.up, block.down))
    by_hand = gate.norm(dim=1) * up.norm(dim=1) * down.norm(dim=0)
    torch.testing.assert_close(block.neuron_scores().detach(), by_hand)
    value, output = model.model.layers[0].self_attn.v_proj.weight, model.model.layers[0].self_attn.o_proj.weight
    groups = [value[4 * g : 4 * g + 4].norm() * output[:, 8 * g : 8 * g + 8].norm() for g in range(3)]
    torch.testing.assert_close(block.head_scores(), torch.stack(groups))
    PrunedTransformer(model, "structured", scope="layer", ffn_sparsity=0.25, head_sparsity=0)
    assert torch.equal(block.down.weight, down[:, by_hand.topk(30).indices.sort().values])


def test_calibration_counts_what_is_added_to_text_and_no_padding() -> None:
    ids = text(1)[0]
    padded = {"input_ids": nn.functional.pad(ids, (0, 3)), "attention_mask": nn.functional.pad(ids * 0 + 1, (0, 3))}
    models = [causal(), causal()]
    seen: list[Tensor] = []
    hook = models[0].model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    models[0](ids)
    hook.remove()
    down = models[0].model.layers[1].mlp.down_proj.weight.detach().clone()
    contribution = seen[0][..., None, :] * down  # (B, L, D, N)
    by_hand = contribution.square().sum(dim=2).mean(dim=(0, 1)).sqrt()  # (N,)
    for model, batch in zip(models, (ids, padded), strict=True):
        PrunedTransformer(model, "structured", scope="layer", ffn_sparsity=0.5, head_sparsity=0, calibration=[batch])
        kept = by_hand.topk(20).indices.sort().values
        # The second layer: what it reads depends on the first one's neurons, which are all there when it is measured.
        assert torch.equal(model.model.layers[1].mlp.down_proj.weight, down[:, kept])


def test_a_loaded_model_goes_on_by_the_calibration_that_it_is_given(tmp_path: Path) -> None:
    pruned = PrunedTransformer(causal(), "structured", 0.25, "layer", calibration=text())
    pruned.save_pretrained(tmp_path)
    loaded, other = PrunedTransformer.from_pretrained(tmp_path), PrunedTransformer.from_pretrained(tmp_path)
    assert loaded.calibration is None
    loaded.calibration = text()
    for one in (pruned, loaded, other):
        one.prune(0.6)
    assert torch.equal(logits(loaded), logits(pruned.model))
    assert not torch.equal(logits(other), logits(pruned.model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_loaded_model_is_the_same(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    pruned = PrunedTransformer(causal(family), "structured", **QUARTER)  # global: layers of different sizes
    sizes = [(block.n_heads, block.n_neurons) for block in transformer_blocks(pruned.model)]
    assert len(set(sizes)) > 1
    for parameter in pruned.model.parameters():
        parameter.data = parameter.data.to(dtype)
    pruned.save_pretrained(tmp_path)
    for loaded in (PrunedTransformer.from_pretrained(tmp_path).model, load_model(tmp_path)):
        assert [(block.n_heads, block.n_neurons) for block in transformer_blocks(loaded)] == sizes
        assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
        assert torch.equal(logits(loaded), logits(pruned.model))
        tied = loaded.lm_head.weight is loaded.get_input_embeddings().weight
        assert tied == bool(loaded.config.tie_word_embeddings)
    again = PrunedTransformer.from_pretrained(tmp_path)
    assert list(again.report()) == list(pruned.report())
    assert again.report()[0].name == "model.layers.0.self_attn.q_proj" and len(again.report()) == 3 * 7
    with pytest.raises(RuntimeError, match="mismatched"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_a_masked_model_is_read_by_transformers_as_well(tmp_path: Path) -> None:
    pruned = PrunedTransformer(causal(), sparsity=0.4)
    pruned.save_pretrained(tmp_path)
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(read), logits(pruned.make_permanent().model))


@pytest.mark.parametrize("family", FAMILIES)
def test_caches_work(family: str, tmp_path: Path) -> None:
    pruned = PrunedTransformer(causal(family), "structured", **QUARTER)
    prompts = torch.tensor([[0, 0, 3, 1], [5, 2, 9, 4]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    texts = [
        pruned.model.generate(
            prompts, attention_mask=mask, max_new_tokens=8, do_sample=False, use_cache=cached, pad_token_id=0
        )
        for cached in (True, False)
    ]
    assert torch.equal(*texts) and texts[0].shape == (2, 12)

    encoder = HuggingFaceEncoder(pruned, 23, 30, pad_id=22)
    tokens, read = torch.randint(0, 23, (3, 14)), torch.zeros(3, dtype=torch.int64)
    with torch.no_grad():
        whole, state = encoder(tokens), encoder.initial_state(3)
        for lengths in ([4, 1, 6], [1, 1, 1], [2, 5, 1], [1, 1, 1]):
            parts = [tokens[row, read[row] : read[row] + n] for row, n in enumerate(lengths)]
            padded = nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=22)
            features, state = encoder.prefill(padded, torch.tensor(lengths), state)
            read += torch.tensor(lengths)
            torch.testing.assert_close(features, whole[torch.arange(3), read - 1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_as_a_language_model_of_textgym(family: str, tmp_path: Path) -> None:
    pruned = PrunedTransformer(causal(family), "structured", **QUARTER)
    pruned.save_pretrained(tmp_path)
    tokenizer = WordTokenizer([f"w{number}" for number in range(18)])
    models = [
        load_language_model(tmp_path, tokenizer=tokenizer),
        HuggingFaceLM(tmp_path, tokenizer, model=pruned.model),
        HuggingFaceLM(tmp_path, tokenizer, model=pruned.model),
    ]
    generator = np.random.default_rng(0)
    tokens, lengths = generator.integers(18, size=(3, 20)), np.array([0, 4, 2])
    for _ in range(5):
        models[2].forget()
        read, cached, fresh = (model.log_probs(tokens, lengths) for model in models)
        assert read == pytest.approx(fresh, abs=1e-5) and cached == pytest.approx(fresh, abs=1e-5)
        lengths = lengths + generator.integers(0, 4, size=3)
    prefix = torch.tensor([[models[0]._bos, *tokens[1, : int(lengths[1])].tolist()]])
    with torch.no_grad():
        expected = pruned.model(prefix).logits[0, -1, : models[0].vocab_size].log_softmax(dim=-1).numpy()
    assert models[0].log_probs(tokens[1:2], lengths[1:2])[0] == pytest.approx(expected, abs=1e-5)
    assert models[0].path == str(tmp_path)


def test_gradual_pruning_and_its_report() -> None:
    pruned = PrunedTransformer(causal(), "structured", scope="layer", calibration=text())
    reports = prune_gradually(pruned, lambda _: None, n_steps=2, sparsity=0.0, ffn_sparsity=0.5, head_sparsity=2 / 3)
    # The first round at 7/8 of the way, the second at all of it: of 3 groups 1, of 40 neurons 20.
    sizes = {row.name.rpartition(".")[2]: row.shape for row in reports[-1]}
    assert sizes == {
        **{"q_proj": (8, 24), "k_proj": (4, 24), "v_proj": (4, 24), "o_proj": (24, 8)},
        **{"gate_proj": (20, 24), "up_proj": (20, 24), "down_proj": (24, 20)},
    }
    assert [reports[0][4].shape[0], reports[-1].kept] == [round(40 * (1 - 7 / 16)), 3 * (24 * (8 + 4 + 4 + 8 + 60))]
    assert pruned.make_permanent() is pruned


def test_every_layer_keeps_a_group_and_a_neuron() -> None:
    model = causal()
    pruned = PrunedTransformer(model, "structured", sparsity=0.99)
    assert {(block.n_heads, block.n_neurons) for block in transformer_blocks(model)} == {(1, 1)}
    assert logits(pruned.model).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magnitude", "calibration": [IDS]}, "calibration must be None where method is 'magnitude'"),
        ({"calibration": []}, "calibration must hold at least one token, got none"),
        (
            {"calibration": [IDS.float()]},
            r"calibration must give \(B, L\) tensors .* got torch.float32 of shape \(2, 8\)",
        ),
        ({"calibration": ["text"]}, "calibration must give .* got str"),
    ],
)
def test_wrong_calibration(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrunedTransformer(causal(), **({"method": "structured", "sparsity": 0.5} | arguments))


def test_models_that_are_no_language_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"blocks as in .* Llama, Mistral or Qwen2 for method='structured', got OPTModel"
    ):
        config = transformers.OPTConfig(hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2)
        PrunedTransformer(transformers.OPTModel(config), "structured")
    tokenizer = WordTokenizer(["a"])
    for model in (causal().model, PrunedTransformer(causal())):
        with pytest.raises(ValueError, match=r"model must be a causal model of transformers with its head, got (L|P)"):
            HuggingFaceLM(tmp_path, tokenizer, model=model)


# ---------------------------------------------------------------------- recovery


def halved(**arguments: Any) -> PrunedTransformer:
    return PrunedTransformer(causal(), "structured", scope="layer", ffn_sparsity=0.25, head_sparsity=1 / 3, **arguments)


@pytest.mark.parametrize("logits_weight", [0.0, 0.5])
def test_recovery_lowers_the_loss_and_the_distance(logits_weight: float) -> None:
    whole, pruned = causal(), halved()
    far = float((logits(pruned.model) - logits(whole)).norm())
    fixed = pruned.model.get_input_embeddings().weight.clone()
    before = [parameter.clone() for parameter in whole.parameters()]
    state = torch.random.get_rng_state()
    losses = match_hidden_states(pruned, whole, text(8), n_steps=60, learning_rate=5e-3, logits_weight=logits_weight)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(losses) == 60 and np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])
    assert float((logits(pruned.model) - logits(whole)).norm()) < far
    assert torch.equal(pruned.model.get_input_embeddings().weight, fixed)
    assert all(torch.equal(*pair) for pair in zip(whole.parameters(), before, strict=True))
    assert all(parameter.grad is None for parameter in [*pruned.parameters(), *whole.parameters()])


def test_losses_by_hand() -> None:
    whole, pruned = causal(), halved()
    with torch.no_grad():
        wanted, given = (model(IDS, output_hidden_states=True) for model in (whole, pruned))
    distance = (given.hidden_states[-1] - wanted.hidden_states[-1]).square().sum()
    expected = float(distance / wanted.hidden_states[-1].square().sum())
    target = wanted.logits.log_softmax(dim=-1)
    divergence = (target.exp() * (target - given.logits.log_softmax(dim=-1))).sum(dim=-1).mean()
    assert match_hidden_states(copy.deepcopy(pruned), whole, [IDS], n_steps=1) == pytest.approx([expected], rel=1e-5)
    both = match_hidden_states(pruned, whole, [IDS], n_steps=1, logits_weight=2.0)
    assert both == pytest.approx([expected + 2 * float(divergence)], rel=1e-5)


def test_an_unpruned_model_has_nothing_to_recover() -> None:
    losses = match_hidden_states(PrunedTransformer(causal()), causal(), text(2), n_steps=4)
    assert losses == [0.0] * 4


def test_masks_survive_recovery() -> None:
    pruned = PrunedTransformer(causal(), sparsity=0.5)
    match_hidden_states(pruned, causal(), text(2), n_steps=3)
    assert pruned.make_permanent().report().sparsity == pytest.approx(0.5, abs=1e-3)


class Letters:
    """As much of a tokenizer of ``transformers`` as recovery needs: letters a to t."""

    def __call__(self, texts: list[str], truncation: bool, max_length: int) -> dict[str, list[list[int]]]:
        assert truncation
        return {"input_ids": [[ord(letter) - ord("a") for letter in line][:max_length] for line in texts]}


def test_texts_are_read_in_a_seeded_order_and_padding_does_not_count() -> None:
    lines = ["abcdefgh", "bcd", "tsr", "a", "hgfedcbaaaaaaaa"]
    runs = [
        match_hidden_states(halved(), causal(), lines, Letters(), n_steps=6, batch_size=2, max_length=8, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]
    alone = match_hidden_states(halved(), causal(), ["abcd"], Letters(), n_steps=1, batch_size=1)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    padded = {"input_ids": torch.tensor([[0, 1, 2, 3, 9, 9]]), "attention_mask": mask}
    loader = torch.utils.data.DataLoader([{name: part[0] for name, part in padded.items()}], batch_size=1)
    assert match_hidden_states(halved(), causal(), loader, n_steps=1) == pytest.approx(alone, rel=1e-4)


def test_encoders_recover_too() -> None:
    config = {"vocab_size": 20, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 6}
    torch.manual_seed(0)
    whole = transformers.BertModel(transformers.BertConfig(intermediate_size=40, **config))
    pruned = PrunedTransformer(copy.deepcopy(whole), "structured", sparsity=0.5, calibration=text())
    losses = match_hidden_states(pruned, whole, text(4), n_steps=30, learning_rate=5e-3)
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pruned": causal}, "pruned must be a PrunedTransformer, got LlamaForCausalLM"),
        ({"whole": None}, "whole must be the model before pruning, .* got the pruned one itself"),
        ({"whole": lambda: causal(hidden_size=12, head_dim=4)}, "hidden states as wide as pruned, 24, got 12"),
        ({"whole": lambda: causal().model, "logits_weight": 1.0}, "logits_weight must be 0 where a model has no"),
        ({"data": "abc"}, "data must be a list of texts or of batches, got one string: 'abc'"),
        ({"data": ["abc"]}, "tokenizer must be given where data is texts, got None"),
        ({"data": []}, "data must hold at least one text or batch"),
        ({"data": [""], "tokenizer": Letters()}, "data must hold texts of at least one token"),
        ({"data": [IDS[0]]}, r"data must give .* got torch.int64 of shape \(8,\)"),
        ({"data": iter([IDS]), "n_steps": 2}, "can be gone through again, got none"),
        ({"n_steps": 0}, "n_steps must be an integer of at least 1, got 0"),
        ({"batch_size": 1.5}, "batch_size must be an integer of at least 1, got 1.5"),
        ({"max_length": True}, "max_length must be an integer of at least 1, got True"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0, got 0.0"),
        ({"logits_weight": -1.0}, "logits_weight must be a finite number of at least 0, got -1.0"),
    ],
)
def test_recovery_refuses_what_does_not_fit(arguments: dict[str, Any], message: str) -> None:
    pruned = arguments.pop("pruned", halved)()
    make_whole = arguments.pop("whole", causal)
    whole = make_whole() if make_whole else pruned
    data = arguments.pop("data", [IDS])
    with pytest.raises(ValueError, match=message):
        match_hidden_states(pruned, whole, data, **arguments)


def test_recovery_that_diverges_says_so() -> None:
    pruned = halved()
    pruned.model.model.norm.weight.data[0] = torch.nan
    with pytest.raises(FloatingPointError, match="the loss became nan in step 1; lower learning_rate"):
        match_hidden_states(pruned, causal(), [IDS])
