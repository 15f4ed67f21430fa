"""The three ways through an encoder agree with each other, with performer-pytorch and with the definition."""

import copy
import pickle
from collections.abc import Callable
from functools import partial

import performer_pytorch
import pytest
import torch
from performer_pytorch.performer_pytorch import FastAttention, causal_linear_attention_noncuda
from torch import Tensor

from agents.encoders import (
    EncoderState,
    Performer,
    causal_linear_attention,
    linear_attention_prefill,
    linear_attention_step,
)
from agents.encoders.performer import FeatureMap

PAD = 11


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make(context_length: int = 24, **kwargs) -> Performer:
    return Performer(vocab_size=PAD + 1, context_length=context_length, pad_id=PAD, **kwargs)


def random_qkv(length: int, batch: int = 2, heads: int = 3, features: int = 8, values: int = 5) -> list[Tensor]:
    shapes = [features, features, values]
    q, k, v = (torch.randn(batch, heads, length, size) for size in shapes)
    # Half of the features of a ReLU kernel are no more than its epsilon.
    return [t.requires_grad_() for t in (q.relu() + 1e-3, k.relu() + 1e-3, v)]


def random_tokens(batch: int, length: int) -> Tensor:
    return torch.randint(0, PAD, (batch, length))


# Linear attention


def test_attention_by_hand() -> None:
    q = torch.tensor([1.0, 2.0, 1.0]).view(1, 1, 3, 1)
    k = torch.tensor([1.0, 3.0, 4.0]).view(1, 1, 3, 1)
    v = torch.tensor([8.0, 4.0, 0.0]).view(1, 1, 3, 1)
    # Weights 1; 1:3; 1:3:4 of values 8, 4, 0.
    expected = torch.tensor([8.0, 5.0, 2.5])
    for chunk_size in (1, 2, 3):
        torch.testing.assert_close(causal_linear_attention(q, k, v, chunk_size=chunk_size).flatten(), expected)


LENGTHS_AND_CHUNKS = [(1, 32), (7, 32), (7, 1), (64, 32), (100, 16), (97, 32), (300, 64)]


def outputs_and_gradients(attention: Callable[..., Tensor], inputs: list[Tensor], weight: Tensor) -> list[Tensor]:
    out = attention(*inputs)
    return [out, *torch.autograd.grad(out, inputs, weight)]


@pytest.mark.parametrize(("length", "chunk_size"), LENGTHS_AND_CHUNKS)
def test_attention_agrees_with_performer_pytorch(length: int, chunk_size: int) -> None:
    inputs = [(t + shift).detach().requires_grad_() for t, shift in zip(random_qkv(length), (0.2, 0.2, 0), strict=True)]
    weight = torch.randn(2, 3, length, 5)
    ours = outputs_and_gradients(partial(causal_linear_attention, chunk_size=chunk_size), inputs, weight)
    theirs = outputs_and_gradients(causal_linear_attention_noncuda, inputs, weight)
    assert max((a - b).abs().max() for a, b in zip(ours, theirs, strict=True)) <= 1e-5


@pytest.mark.parametrize(("length", "chunk_size"), LENGTHS_AND_CHUNKS)
def test_attention_agrees_where_features_are_tiny(length: int, chunk_size: int) -> None:
    # Where no feature of query and key overlaps, q·k is 1e-5, ε matters and gradients reach 1e5: compare in double.
    inputs = [t.detach().double().requires_grad_() for t in random_qkv(length)]
    weight = torch.randn(2, 3, length, 5, dtype=torch.float64)
    ours = outputs_and_gradients(partial(causal_linear_attention, chunk_size=chunk_size), inputs, weight)
    theirs = outputs_and_gradients(causal_linear_attention_noncuda, inputs, weight)
    torch.testing.assert_close(ours, theirs, atol=1e-8, rtol=1e-8)


def test_attention_gradient_is_that_of_finite_differences() -> None:
    inputs = [t.detach().double().requires_grad_() for t in random_qkv(7, batch=1, heads=2, features=3, values=2)]
    inputs[0].data.add_(0.5)
    inputs[1].data.add_(0.5)
    assert torch.autograd.gradcheck(lambda q, k, v: causal_linear_attention(q, k, v, chunk_size=3), inputs)


def test_attention_continues_from_a_state() -> None:
    q, k, v = (t.detach() for t in random_qkv(50))
    expected = causal_linear_attention(q, k, v)
    state = torch.zeros(2, 3, 8, 6)
    first, state = linear_attention_prefill(q[:, :, :20], k[:, :, :20], v[:, :, :20], state, chunk_size=8)
    second, state = linear_attention_prefill(q[:, :, 20:49], k[:, :, 20:49], v[:, :, 20:49], state, chunk_size=8)
    last, state = linear_attention_step(q[:, :, 49], k[:, :, 49], v[:, :, 49], state)
    torch.testing.assert_close(torch.cat([first, second, last.unsqueeze(2)], dim=2), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(state[..., -1], k.sum(2), atol=1e-5, rtol=1e-5)


def test_attention_keeps_memory_linear() -> None:
    q, k, v = random_qkv(8192, batch=1, heads=1)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        saved: list[int] = []
        causal_linear_attention(q, k, v)
    assert sum(saved) < 8192 * 100  # the outer products alone would be 8192 * 8 * 5, the scores 8192 * 8192


def test_attention_errors() -> None:
    q, k, v = random_qkv(4)
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        causal_linear_attention(q, k, v, chunk_size=0)
    with pytest.raises(ValueError, match="q, k, v must have shapes"):
        causal_linear_attention(q, k[:, :, :3], v)
    with pytest.raises(ValueError, match=r"state must have the shape \(2, 3, 8, 6\)"):
        linear_attention_prefill(q, k, v, torch.zeros(2, 3, 8, 5))


# Performer


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"feature_map": "softmax"}, {"features_dim": 24, "n_layers": 1, "n_heads": 3, "n_random_features": 7}],
)
def test_forward_agrees_with_performer_pytorch(kwargs: dict[str, int]) -> None:
    encoder = make(context_length=80, **kwargs)
    assert isinstance(encoder.performer, performer_pytorch.Performer)
    tokens = random_tokens(3, 80)

    def with_modules() -> Tensor:
        return encoder.norm(encoder.performer(encoder.token_embedding(tokens) + encoder.position_embedding.weight))

    def grads(features: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(features.square().mean() + features[..., 0].mean(), list(encoder.parameters())))

    ours = encoder(tokens)
    theirs = with_modules()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(grads(ours), grads(theirs), atol=1e-5, rtol=1e-4)
    for module in encoder.performer.modules():
        if isinstance(module, FastAttention):
            module.causal_linear_fn = causal_linear_attention_noncuda
    torch.testing.assert_close(encoder(tokens), with_modules(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("feature_map", ["softmax", "relu"])
def test_parallel_and_recurrent_agree_over_4096_tokens(feature_map: FeatureMap) -> None:
    encoder = make(context_length=4096, feature_map=feature_map)
    tokens = random_tokens(1, 4096)
    with torch.no_grad():
        parallel = encoder(tokens)
        state = encoder.initial_state(1)
        recurrent = []
        for t in range(4096):
            features, state = encoder.step(tokens[:, t], state)
            recurrent.append(features)
    assert (torch.stack(recurrent, dim=1) - parallel).abs().max() <= 1e-5
    assert state.lengths.tolist() == [4096]


@pytest.mark.parametrize("position", [0, 1, 40, 69])
def test_a_token_reaches_no_earlier_position(position: int) -> None:
    encoder = make(context_length=70)
    tokens = random_tokens(2, 70)
    changed = tokens.clone()
    changed[:, position] = (changed[:, position] + 1) % PAD
    with torch.no_grad():
        difference = (encoder(changed) - encoder(tokens)).abs().amax(dim=(0, 2))
    assert (difference[:position] == 0).all()
    assert difference[position] > 1e-3
    assert (difference[position:] > 0).all()


def test_prefill_of_ragged_rows_continues_from_ragged_rows() -> None:
    encoder = make(context_length=60)
    totals, firsts = torch.tensor([60, 9, 33]), torch.tensor([40, 1, 5])
    tokens = random_tokens(3, 60)
    last = totals - 1
    with torch.no_grad():
        expected = encoder(tokens)
        rows = torch.arange(3)
        features, state = encoder.prefill(padded(tokens, torch.zeros(3), firsts), firsts, encoder.initial_state(3))
        torch.testing.assert_close(features, expected[rows, firsts - 1], atol=1e-5, rtol=0)
        before = copy.deepcopy(state)
        middle = last - firsts
        features, after = encoder.prefill(padded(tokens, firsts, middle), middle, state)
        torch.testing.assert_close(features, expected[rows, last - 1], atol=1e-5, rtol=0)
        assert_equal(state, before)
        features, after = encoder.step(tokens[rows, last], after)
        torch.testing.assert_close(features, expected[rows, last], atol=1e-5, rtol=0)
    assert after.lengths.tolist() == totals.tolist()


def padded(tokens: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
    """Right-pad ``tokens[row, start:start + length]``."""
    out = torch.full((len(tokens), int(lengths.max())), PAD)
    for row, (start, length) in enumerate(zip(starts.int().tolist(), lengths.tolist(), strict=True)):
        out[row, :length] = tokens[row, start : start + length]
    return out


def assert_equal(a: EncoderState, b: EncoderState) -> None:
    for mine, theirs in zip((a.lengths, *a.tensors), (b.lengths, *b.tensors), strict=True):
        assert torch.equal(mine, theirs)


def test_prefill_is_differentiable() -> None:
    encoder = make()
    features, _ = encoder.prefill(random_tokens(2, 5), torch.tensor([5, 3]), encoder.initial_state(2))
    features[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_step_leaves_the_state_as_it_was_and_its_size_does_not_grow() -> None:
    encoder = make()
    with torch.no_grad():
        _, state = encoder.prefill(random_tokens(2, 5), torch.tensor([5, 3]), encoder.initial_state(2))
        before = copy.deepcopy(state)
        _, after = encoder.step(torch.tensor([1, 2]), state)
    assert_equal(state, before)
    assert [t.shape for t in after.tensors] == [t.shape for t in encoder.initial_state(2).tensors]


def test_state_rows_are_taken_put_and_reset() -> None:
    encoder = make()
    with torch.no_grad():
        tokens = random_tokens(4, 6)
        _, state = encoder.prefill(tokens, torch.tensor([6, 2, 3, 4]), encoder.initial_state(4))
        taken = state.take([2, 0])
        assert taken.lengths.tolist() == [3, 6]
        assert torch.equal(taken.tensors[1], state.tensors[1][[2, 0]])
        taken.reset([0])
        assert_equal(taken.take([0]), encoder.initial_state(1))
        assert state.lengths.tolist() == [6, 2, 3, 4]  # a copy was reset

        other = state.take([2])
        state.put([1], other)
        assert state.lengths.tolist() == [6, 3, 3, 4]
        assert_equal(state.take([1]), other)
        state.reset(torch.tensor([True, False, False, True]).numpy())
        assert state.lengths.tolist() == [0, 3, 3, 0]
        assert_equal(state.take([0, 3]), encoder.initial_state(2))
        state.reset([])
        assert state.lengths.tolist() == [0, 3, 3, 0]
        fresh, _ = encoder.step(tokens[[0, 3], 0], state.take([0, 3]))
        torch.testing.assert_close(fresh, encoder(tokens[[0, 3], :1])[:, 0], atol=1e-5, rtol=0)


def test_projections_are_frozen_and_travel_with_the_state_dict(capsys: pytest.CaptureFixture[str]) -> None:
    online, target = make(), make()
    assert capsys.readouterr().out == ""
    tokens = random_tokens(2, 9)
    target.load_state_dict(online.state_dict())
    torch.testing.assert_close(target(tokens), online(tokens), atol=0, rtol=0)
    projections = [t.clone() for t in online.buffers()]
    assert len(projections) == 2
    assert len(online.state_dict()) == len(list(online.parameters())) + 2  # nothing twice
    online.train()
    for _ in range(5):
        online(tokens).sum().backward()
        online.performer(online.token_embedding(tokens))
    assert all(torch.equal(a, b) for a, b in zip(online.buffers(), projections, strict=True))
    torch.testing.assert_close(pickle.loads(pickle.dumps(online))(tokens), online(tokens), atol=0, rtol=0)


def test_construction_draws_from_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    first = make()
    torch.manual_seed(3)
    for a, b in zip(first.state_dict().values(), make().state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"features_dim": 30}, "features_dim must be a multiple of n_heads = 4, got 30"),
        ({"n_layers": 0}, "n_layers must be at least 1, got 0"),
        ({"n_heads": 0}, "n_heads must be at least 1, got 0"),
        ({"n_random_features": 0}, "n_random_features must be at least 1, got 0"),
        ({"context_length": 0}, "context_length must be at least 1, got 0"),
        ({"embedding_std": 0.0}, "embedding_std must be positive, got 0.0"),
        ({"feature_map": "exp"}, r"feature_map must be one of \('softmax', 'relu'\), got 'exp'"),
    ],
)
def test_constructor_errors(kwargs: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


def test_pad_id_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"pad_id must be in \[0, vocab_size = 4\), got 4"):
        Performer(vocab_size=4, context_length=3, pad_id=4)


def test_errors_beyond_the_context() -> None:
    encoder = make(context_length=5)
    with pytest.raises(ValueError, match=r"context_length = 5, got \(2, 6\)"):
        encoder(random_tokens(2, 6))
    with pytest.raises(ValueError, match=r"context_length = 5, got \(3,\)"):
        encoder(torch.tensor([1, 2, 3]))
    _, state = encoder.prefill(random_tokens(2, 5), torch.tensor([5, 3]), encoder.initial_state(2))
    with pytest.raises(ValueError, match="fewer than context_length = 5"):
        encoder.step(torch.tensor([1, 1]), state)
    with pytest.raises(ValueError, match="context_length = 5, got a row of 6"):
        encoder.prefill(random_tokens(2, 1), torch.tensor([1, 1]), state)
    with pytest.raises(ValueError, match=r"lengths must be in \[1, P = 2\], got \[0, 2\]"):
        encoder.prefill(random_tokens(2, 2), torch.tensor([0, 2]), encoder.initial_state(2))
