"""Pruning removes the fraction that was asked for, stays through training and files, and shrinks what it says."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
)

from agents.encoders.huggingface import HuggingFaceEncoder, load_model
from agents.pruning.gradual import cubic_sparsity, prune_gradually
from agents.pruning.pruned_transformer import PrunedTransformer

IDS = torch.arange(12).view(2, 6) % 20


def bert() -> BertModel:
    config = BertConfig(vocab_size=20, hidden_size=24, num_hidden_layers=2, num_attention_heads=6, intermediate_size=40)
    return BertModel(config).eval()


def distilbert() -> DistilBertModel:
    return DistilBertModel(DistilBertConfig(vocab_size=20, dim=24, n_layers=2, n_heads=6, hidden_dim=40)).eval()


def gpt2(kind: type[Any] = GPT2Model) -> Any:
    return kind(GPT2Config(vocab_size=20, n_embd=24, n_layer=2, n_head=6, n_inner=40, n_positions=16)).eval()


MODELS = [bert, distilbert, gpt2]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def hidden(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).last_hidden_state


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_magnitude_masks_the_fraction_asked_for(model: Any, scope: Any) -> None:
    pruned = PrunedTransformer(model(), sparsity=0.6, scope=scope)
    report = pruned.report()
    assert report.sparsity == pytest.approx(0.6, abs=1e-3)
    assert sum(row.parameters for row in report) == report.parameters
    assert sum(row.kept for row in report) == report.kept
    spread = max(row.sparsity for row in report) - min(row.sparsity for row in report)
    assert (spread < 0.01) == (scope == "layer")


def test_the_smallest_weights_go() -> None:
    model = bert()
    weight = model.encoder.layer[0].intermediate.dense.weight.detach().clone()
    PrunedTransformer(model, sparsity=0.5, scope="layer")
    mask = model.encoder.layer[0].intermediate.dense.mask
    assert weight[mask].abs().min() >= weight[~mask].abs().max()


@pytest.mark.parametrize("model", [bert, gpt2])
def test_masks_survive_optimiser_steps(model: Any) -> None:
    pruned = PrunedTransformer(model(), sparsity=0.5)
    optimizer = torch.optim.AdamW(pruned.parameters(), lr=0.1, weight_decay=0.1)
    before = hidden(pruned.model)
    for _ in range(3):
        optimizer.zero_grad()
        pruned(input_ids=IDS).last_hidden_state.square().mean().backward()
        optimizer.step()
    assert not torch.allclose(hidden(pruned.model), before)
    assert pruned.report().sparsity == pytest.approx(0.5, abs=1e-3)
    trained = hidden(pruned.model)
    pruned.make_permanent()
    torch.testing.assert_close(hidden(pruned.model), trained)
    assert pruned.report().sparsity == pytest.approx(0.5, abs=1e-3)
    assert not any("mask" in name for name in pruned.state_dict())


def test_masked_weights_get_no_gradient_and_models_can_be_copied_and_pickled() -> None:
    pruned = PrunedTransformer(gpt2(), sparsity=0.7)
    pruned(input_ids=IDS).last_hidden_state.sum().backward()
    layer = pruned.model.h[0].mlp.c_fc
    assert not layer.weight.grad[~layer.mask].any()
    assert layer.weight.grad[layer.mask].any()
    for other in (copy.deepcopy(pruned), pickle.loads(pickle.dumps(pruned))):
        torch.testing.assert_close(hidden(other.model), hidden(pruned.model), atol=0, rtol=0)


def test_pruning_never_brings_a_weight_back() -> None:
    pruned = PrunedTransformer(bert(), sparsity=0.4)
    layer = pruned.model.encoder.layer[1].output.dense
    first = layer.mask.clone()
    with torch.no_grad():
        layer.weight[~first] = 9.0  # what an optimiser may write where nobody reads
    pruned.prune(0.8)
    assert not (layer.mask & ~first).any()
    assert pruned.report().sparsity == pytest.approx(0.8, abs=1e-3)
    pruned.prune(0.1)
    assert pruned.report().sparsity == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_structured_pruning_shrinks_matrices(model: Any, scope: Any) -> None:
    whole = model()
    before = sum(p.numel() for p in whole.parameters())
    pruned = PrunedTransformer(whole, "structured", scope=scope, ffn_sparsity=0.5, head_sparsity=1 / 3)
    report = pruned.report()
    # Of 2 layers of 24·24·4 attention and 24·40·2 feed-forward weights: two thirds and one half.
    assert report.parameters == 2 * (4 * 24 * 24 + 2 * 24 * 40)
    assert report.kept == 2 * (4 * 24 * 16 + 2 * 24 * 20)
    assert before - sum(p.numel() for p in pruned.parameters()) > report.parameters - report.kept  # biases too
    assert hidden(pruned.model).shape == (2, 6, 24)
    assert hidden(pruned.model).isfinite().all()


@pytest.mark.parametrize("model", MODELS)
def test_removing_a_head_and_neurons_equals_zeroing_what_they_write(model: Any) -> None:
    whole = model()
    zeroed = copy.deepcopy(whole)
    PrunedTransformer(whole, "structured", scope="layer", ffn_sparsity=0.25, head_sparsity=0.5)
    from agents.pruning.blocks import transformer_blocks

    for block in transformer_blocks(zeroed):
        heads = block.head_scores().argsort()[:3]
        neurons = block.neuron_scores().argsort()[:10]
        columns = torch.cat([torch.arange(4) + 4 * head for head in heads])
        transposed = type(block.write).__name__ == "Conv1D"
        with torch.no_grad():
            for layer, index in ((block.write, columns), (block.down, neurons)):
                layer.weight[(index, slice(None)) if transposed else (slice(None), index)] = 0
    torch.testing.assert_close(hidden(whole), hidden(zeroed), atol=1e-5, rtol=1e-5)


def test_every_layer_keeps_a_head_and_a_neuron() -> None:
    model = bert()
    with torch.no_grad():
        for p in model.encoder.layer[0].parameters():
            p.mul_(1e-3)  # the global ranking would take all of it
    pruned = PrunedTransformer(model, "structured", sparsity=0.9)
    assert pruned.model.encoder.layer[0].attention.self.num_attention_heads == 1
    assert pruned.model.encoder.layer[0].intermediate.dense.out_features == 1
    assert hidden(pruned.model).isfinite().all()


@pytest.mark.parametrize("method", ["magnitude", "structured"])
@pytest.mark.parametrize("model", [bert, gpt2, lambda: gpt2(GPT2LMHeadModel)])
def test_saved_and_loaded_model_is_the_same(method: Any, model: Any, tmp_path: Any) -> None:
    pruned = PrunedTransformer(model(), method, sparsity=0.5)
    pruned.save_pretrained(tmp_path)
    loaded = PrunedTransformer.from_pretrained(tmp_path)
    with torch.no_grad():
        expected, got = (one(input_ids=IDS)[0] for one in (pruned, loaded))
    torch.testing.assert_close(got, expected, atol=0, rtol=0)
    assert list(loaded.report()) == list(pruned.report())
    loaded.prune(0.8)  # goes on where the other stopped
    assert loaded.report().sparsity > 0.75
    assert type(load_model(tmp_path)) is type(pruned.model)


def test_gradual_pruning_follows_the_cubic_schedule() -> None:
    assert [cubic_sparsity(step, 4, 0.8) for step in range(5)] == pytest.approx([0, 0.4625, 0.7, 0.7875, 0.8])
    assert cubic_sparsity(0, 4, 0.8, initial=0.2) == pytest.approx(0.2)
    trained: list[float] = []
    pruned = PrunedTransformer(bert())
    reports = prune_gradually(pruned, lambda p: trained.append(p.report().sparsity), n_steps=4, sparsity=0.8)
    assert [report.sparsity for report in reports] == pytest.approx([0.4625, 0.7, 0.7875, 0.8], abs=1e-3)
    assert trained == [report.sparsity for report in reports]


def test_report_as_a_table() -> None:
    text = str(PrunedTransformer(bert(), "structured", sparsity=0.5).report())
    assert "encoder.layer.0.attention.self.query" in text
    assert "50.0%" in text.splitlines()[-2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "lottery"}, "method must be one of .* got 'lottery'"),
        ({"scope": "head"}, "scope must be one of"),
        ({"sparsity": 1.0}, r"sparsity must be in \[0, 1\), got 1.0"),
        ({"ffn_sparsity": 0.5}, "ffn_sparsity must be None where method is 'magnitude'"),
        ({"method": "structured", "head_sparsity": -0.1}, r"head_sparsity must be in \[0, 1\), got -0.1"),
    ],
)
def test_arguments_out_of_range(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrunedTransformer(bert(), **arguments)


def test_other_models_and_missing_paths_are_refused(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="model must have blocks with linear layers, got Linear"):
        PrunedTransformer(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="model must have blocks as in BERT"):
        PrunedTransformer(nn.Sequential(nn.Linear(2, 2)), "structured")
    with pytest.raises(
        ValueError, match=r"local directory .* got 'no/such-model': download it beforehand .*snapshot_dow"
    ):
        PrunedTransformer("no/such-model")
    bert().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"path must hold a pruning\.json"):
        PrunedTransformer.from_pretrained(tmp_path)


@pytest.mark.parametrize("arguments", [{}, {"sparsity": 0.5}, {"method": "structured", "sparsity": 0.5}])
def test_causal_model_steps_and_prefills_as_it_reads(arguments: Any) -> None:
    encoder = HuggingFaceEncoder(PrunedTransformer(gpt2(GPT2LMHeadModel), **arguments), 23, 12, pad_id=22)
    encoder.train()  # dropout stays off
    tokens = torch.randint(0, 22, (4, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = encoder(tokens)
        lengths = torch.tensor([1, 5, 3, 4])
        features, state = encoder.prefill(tokens[:, :5], lengths, encoder.initial_state(4))
        torch.testing.assert_close(features, expected[torch.arange(4), lengths - 1], atol=1e-5, rtol=1e-5)
        for _ in range(3):
            features, state = encoder.step(tokens[torch.arange(4), state.lengths], state)
            torch.testing.assert_close(features, expected[torch.arange(4), state.lengths - 1], atol=1e-5, rtol=1e-5)
        more = torch.tensor([4, 1, 2, 3])
        piece = torch.stack([row[n : n + 4] for row, n in zip(tokens, state.lengths, strict=True)])
        features, state = encoder.prefill(piece, more, state)
    torch.testing.assert_close(features, expected[torch.arange(4), state.lengths - 1], atol=1e-5, rtol=1e-5)
    assert state.lengths.tolist() == [8, 9, 8, 10]


def test_states_can_be_reset_taken_and_put() -> None:
    encoder = HuggingFaceEncoder(gpt2(), 23, 12, pad_id=22)
    tokens = torch.randint(0, 22, (2, 9))
    with torch.no_grad():
        expected = encoder(tokens)
        _, long = encoder.prefill(tokens[:, :8], torch.tensor([8, 8]), encoder.initial_state(2))
        _, short = encoder.prefill(tokens[:1, :3], torch.tensor([3]), encoder.initial_state(1))
        long.put([1], short)
        features, _ = encoder.step(torch.stack([tokens[0, 8], tokens[0, 3]]), long)
        torch.testing.assert_close(features, torch.stack([expected[0, 8], expected[0, 3]]), atol=1e-5, rtol=1e-5)
        short.put(np.array([0]), long.take([0]))  # the shorter one makes room
        features, _ = encoder.step(tokens[:1, 8], short)
        torch.testing.assert_close(features, expected[:1, 8], atol=1e-5, rtol=1e-5)
        long.reset([0])
        features, _ = encoder.step(tokens[:, 0], long)
        torch.testing.assert_close(features[0], expected[0, 0], atol=1e-5, rtol=1e-5)


def test_causal_encoder_learns_ids_that_the_model_lacks() -> None:
    encoder = HuggingFaceEncoder(gpt2(), 23, 12, pad_id=22, frozen=True)
    tokens = torch.tensor([[3, 20, 21]])
    features = encoder(tokens)[:, -1]  # normalised: their plain sum would have no gradient but rounding errors
    (features * torch.arange(features.shape[1])).sum().backward()
    assert encoder.extra_embedding.weight.grad is not None
    assert encoder.extra_embedding.weight.grad[:2].any(dim=1).all()
    assert all(p.grad is None for p in encoder.model.parameters())
    changed = tokens.clone()
    changed[0, 2] = 4
    torch.testing.assert_close(encoder(changed)[:, :2], encoder(tokens)[:, :2], atol=0, rtol=0)


def test_causal_encoder_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="model must be causal, as GPT-2 is, got a 'bert'"):
        HuggingFaceEncoder(bert(), 23, 12, pad_id=22)
    with pytest.raises(ValueError, match="context_length must be at most the 16 positions of model, got 17"):
        HuggingFaceEncoder(gpt2(), 23, 17, pad_id=22)
    encoder = HuggingFaceEncoder(gpt2(), 23, 1, pad_id=22)
    _, state = encoder.step(torch.tensor([1]), encoder.initial_state(1))
    with pytest.raises(ValueError, match="state must hold fewer than context_length = 1"):
        encoder.step(torch.tensor([1]), state)


SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = {"vocab_size": 20, "num_key_value_heads": 1, "max_position_embeddings": 64, **SIZES}
FAMILIES = {
    "gpt2": lambda: transformers.GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=64),
    "llama": lambda: transformers.LlamaConfig(**LLAMA),
    "mistral": lambda: transformers.MistralConfig(**LLAMA, sliding_window=4),
    "qwen2": lambda: transformers.Qwen2Config(**LLAMA, sliding_window=4, use_sliding_window=True, max_window_layers=1),
    "gemma2": lambda: transformers.Gemma2Config(**LLAMA, head_dim=8, sliding_window=4),
    "gemma3": lambda: transformers.Gemma3TextConfig(**LLAMA, head_dim=8, sliding_window=4),
    "gpt-neo": lambda: transformers.GPTNeoConfig(
        vocab_size=20,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=4,
    ),
    "bloom": lambda: transformers.BloomConfig(vocab_size=20, hidden_size=16, n_layer=2, n_head=2),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=20, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_ragged_rows_are_read_as_whole_ones(family: str) -> None:
    """Windows of four tokens and rows of 1 to 8: a window counts a row's own tokens, not the places of a batch."""
    model = transformers.AutoModel.from_config(FAMILIES[family]())
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)  # far from uniform attention
    encoder = HuggingFaceEncoder(model, 23, 30, 22)
    tokens, rows = torch.randint(0, 23, (4, 20)), torch.arange(4)
    with torch.no_grad():
        whole = encoder(tokens)
        state, read = encoder.initial_state(4), torch.zeros(4, dtype=torch.int64)
        for lengths in ([8, 3, 1, 5], [1] * 4, [1] * 4, [1, 6, 3, 2], [1] * 4):
            new = torch.tensor(lengths)
            parts = [tokens[row, read[row] : read[row] + n] for row, n in enumerate(lengths)]
            padded = nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=22)
            step = padded.shape[1] == 1
            features, state = encoder.step(padded[:, 0], state) if step else encoder.prefill(padded, new, state)
            read += new
            torch.testing.assert_close(features, whole[rows, read - 1], atol=1e-5, rtol=1e-5)


def test_models_without_keys_and_values_are_refused() -> None:
    config = transformers.MambaConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1)
    encoder = HuggingFaceEncoder(transformers.MambaModel(config), 23, 30, 22)
    with pytest.raises(ValueError, match="model must keep keys and values, got MambaModel"):
        encoder.initial_state(2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["magnitude", "structured"])
def test_half_precision_survives_a_file(dtype: torch.dtype, method: Any, tmp_path: Any) -> None:
    pruned = PrunedTransformer(gpt2(), method, 0.5)
    pruned.model.to(dtype)
    pruned.save_pretrained(tmp_path)
    for model in (PrunedTransformer.from_pretrained(tmp_path).model, load_model(tmp_path)):
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
        for (name, a), b in zip(pruned.model.named_parameters(), model.parameters(), strict=True):
            assert torch.equal(a, b), name
    encoder = HuggingFaceEncoder(tmp_path, 23, 12, 22)
    features, _ = encoder.step(torch.tensor([3]), encoder.initial_state(1))
    assert features.dtype == encoder(torch.tensor([[3, 22]])).dtype == dtype
