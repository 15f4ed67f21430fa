"""The three ways through an encoder agree with each other, with performer-pytorch and with the definition."""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import performer_pytorch
import pytest
import torch
from performer_pytorch.performer_pytorch import FastAttention, causal_linear_attention_noncuda
from torch import Tensor

from agents.encoders import (
    GRU,
    CacheState,
    CausalEncoder,
    EncoderState,
    Performer,
    Transformer,
    causal_linear_attention,
    linear_attention_prefill,
    linear_attention_step,
)

PAD = 11
ENCODERS: dict[str, Callable[..., CausalEncoder]] = {
    "performer-softmax": Performer,
    "performer-relu": partial(Performer, feature_map="relu"),
    "performer-favor+": partial(Performer, feature_map="favor+"),
    "performer-3-gram": partial(Performer, n_gram=3),
    "transformer": Transformer,
    "transformer-3-gram": partial(Transformer, n_gram=3),
    "transformer-mimetic": partial(Transformer, n_gram=2, mimetic=True),
    "gru": GRU,
}
every_encoder = pytest.mark.parametrize("name", ENCODERS)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make(name: str = "performer-softmax", context_length: int = 24, **kwargs: Any) -> CausalEncoder:
    return ENCODERS[name](vocab_size=PAD + 1, context_length=context_length, pad_id=PAD, **kwargs)


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


# Every encoder


# The Transformer's cost is quadratic.
@pytest.mark.parametrize(
    ("name", "length"),
    [(name, 512 if name.startswith("transformer") else 2200) for name in ENCODERS],
    ids=list(ENCODERS),
)
def test_parallel_and_recurrent_agree_over_thousands_of_tokens(name: str, length: int) -> None:
    encoder = make(name, context_length=length)
    tokens = random_tokens(1, length)
    with torch.no_grad():
        parallel = encoder(tokens)
        state = encoder.initial_state(1)
        recurrent = []
        for t in range(length):
            features, state = encoder.step(tokens[:, t], state)
            recurrent.append(features)
        half = torch.tensor([length // 2])
        _, filled = encoder.prefill(tokens[:, : length // 2], half, encoder.initial_state(1))
        features, filled = encoder.prefill(tokens[:, length // 2 :], length - half, filled)
    assert (torch.stack(recurrent, dim=1) - parallel).abs().max() <= 1e-5
    assert (features - parallel[:, -1]).abs().max() <= 1e-5
    assert state.lengths.tolist() == filled.lengths.tolist() == [length]


@every_encoder
@pytest.mark.parametrize("position", [0, 1, 40, 69])
def test_a_token_reaches_no_earlier_position(name: str, position: int) -> None:
    encoder = make(name, context_length=70)
    tokens = random_tokens(2, 70)
    changed = tokens.clone()
    changed[:, position] = (changed[:, position] + 1) % PAD
    with torch.no_grad():
        difference = (encoder(changed) - encoder(tokens)).abs().amax(dim=(0, 2))
    assert (difference[:position] == 0).all()
    assert difference[position] > 1e-3
    if name != "gru":  # which forgets: thirty tokens later nothing is left in float32
        assert (difference[position:] > 0).all()


@every_encoder
def test_prefill_of_ragged_rows_continues_from_ragged_rows(name: str) -> None:
    encoder = make(name, context_length=60)
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


@every_encoder
@pytest.mark.parametrize(("length", "n_prefixes"), [(1, 1), (14, 11), (80, 3), (80, 79), (80, 80), (900, 40)])
def test_features_of_some_prefixes_are_those_of_all(name: str, length: int, n_prefixes: int) -> None:
    encoder = make(name, context_length=length)
    for parameter in encoder.parameters():  # a norm's own weights would give most of the sum below no gradient
        torch.nn.init.normal_(parameter, std=0.3)
    tokens, positions = random_tokens(3, length), torch.randint(0, length, (3, n_prefixes))
    weight = torch.randn(3, n_prefixes, encoder.features_dim)
    rows = torch.arange(3).unsqueeze(1)
    some, all_ = encoder.forward_at(tokens, positions), encoder(tokens)[rows, positions]
    torch.testing.assert_close(some, all_, atol=1e-5, rtol=1e-5)
    parameters = list(encoder.parameters())
    gradients = (torch.autograd.grad((x * weight).sum(), parameters, retain_graph=True) for x in (some, all_))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)


def padded(tokens: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
    """Right-pad ``tokens[row, start:start + length]``."""
    out = torch.full((len(tokens), int(lengths.max())), PAD)
    for row, (start, length) in enumerate(zip(starts.int().tolist(), lengths.tolist(), strict=True)):
        out[row, :length] = tokens[row, start : start + length]
    return out


def assert_equal(a: EncoderState, b: EncoderState) -> None:
    """Compare what two states hold; beyond its lengths a cache holds anything."""
    assert torch.equal(a.lengths, b.lengths)
    for mine, theirs in zip(a.tensors, b.tensors, strict=True):
        if isinstance(a, CacheState):
            for row, length in enumerate(a.lengths.tolist()):
                assert torch.equal(mine[row, :, :, :length], theirs[row, :, :, :length])
        else:
            assert torch.equal(mine, theirs)


@every_encoder
def test_prefill_and_step_are_differentiable(name: str) -> None:
    encoder = make(name)
    features, state = encoder.prefill(random_tokens(2, 5), torch.tensor([5, 3]), encoder.initial_state(2))
    for _ in range(2):
        features, state = encoder.step(torch.tensor([1, 2]), state)
    features[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


@every_encoder
def test_step_leaves_the_state_as_it_was(name: str) -> None:
    encoder = make(name)
    with torch.no_grad():
        _, state = encoder.prefill(random_tokens(2, 5), torch.tensor([5, 3]), encoder.initial_state(2))
        before = copy.deepcopy(state)
        _, after = encoder.step(torch.tensor([1, 2]), state)
        assert_equal(state, before)
        after.put([0], before.take([1]))
        after.reset([1])
        assert_equal(state, before)


@pytest.mark.parametrize("name", [name for name in ENCODERS if not name.startswith("transformer")])
def test_size_of_the_state_does_not_grow(name: str) -> None:
    encoder = make(name)
    _, state = encoder.prefill(random_tokens(2, 24), torch.tensor([24, 3]), encoder.initial_state(2))
    assert [t.shape for t in state.tensors] == [t.shape for t in encoder.initial_state(2).tensors]


@every_encoder
def test_two_continuations_of_one_state_leave_each_other_alone(name: str) -> None:
    encoder = make(name)
    tokens = random_tokens(2, 8)
    others = (tokens + 1) % PAD
    with torch.no_grad():
        _, state = encoder.prefill(tokens[:, :5], torch.tensor([5, 3]), encoder.initial_state(2))
        shared = copy.copy(state)
        branches = []
        for start, continuation in ((state, tokens), (state, others), (shared, others)):
            features, branch = encoder.step(continuation[:, 5], start)
            branches.append((features, branch, continuation))
        for first, branch, continuation in branches:  # in turns, so that each writes after the others
            second, _ = encoder.step(continuation[:, 6], branch)
            for row, length in enumerate((5, 3)):
                text = torch.cat([tokens[row, :length], continuation[row, 5:7]])[None]
                torch.testing.assert_close(first[row], encoder(text)[0, -2], atol=1e-5, rtol=0)
                torch.testing.assert_close(second[row], encoder(text)[0, -1], atol=1e-5, rtol=0)


@every_encoder
def test_state_rows_are_taken_put_and_reset(name: str) -> None:
    encoder = make(name)
    with torch.no_grad():
        tokens = random_tokens(4, 6)
        _, state = encoder.prefill(tokens, torch.tensor([6, 2, 3, 4]), encoder.initial_state(4))
        taken = state.take([2, 0])
        assert taken.lengths.tolist() == [3, 6]
        assert torch.equal(taken.tensors[-1], state.tensors[-1][[2, 0]])
        taken.reset([0])
        assert taken.lengths.tolist() == [0, 6]
        assert all((tensor[0] == 0).all() for tensor in taken.tensors)
        assert state.lengths.tolist() == [6, 2, 3, 4]  # a copy was reset

        other = state.take([2])
        state.put([1], other)
        assert state.lengths.tolist() == [6, 3, 3, 4]
        assert_equal(state.take([1]), other)
        state.put([2], encoder.initial_state(1))
        state.reset(torch.tensor([True, False, False, True]).numpy())
        assert state.lengths.tolist() == [0, 3, 0, 0]
        state.reset([])
        assert state.lengths.tolist() == [0, 3, 0, 0]
        fresh, _ = encoder.step(tokens[:, 0], state)
        once = encoder(tokens[:, :1])[:, 0]
        torch.testing.assert_close(fresh[[0, 2, 3]], once[[0, 2, 3]], atol=1e-5, rtol=0)
        continued = encoder(torch.cat([tokens[2, :3], tokens[1, :1]])[None])[:, -1]
        torch.testing.assert_close(fresh[[1]], continued, atol=1e-5, rtol=0)

        empty = encoder.initial_state(3)
        empty.put([1], other)
        torch.testing.assert_close(encoder.step(tokens[:3, 0], empty)[0][1], continued[0], atol=1e-5, rtol=0)


@every_encoder
def test_construction_draws_from_the_global_generator_alone(name: str) -> None:
    torch.manual_seed(3)
    first = make(name)
    torch.manual_seed(3)
    for a, b in zip(first.state_dict().values(), make(name).state_dict().values(), strict=True):
        assert torch.equal(a, b)


@every_encoder
def test_copied_by_state_dict_and_by_pickle(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    encoder, other = make(name), make(name)
    assert capsys.readouterr().out == ""
    tokens = random_tokens(2, 9)
    other.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(other(tokens), encoder(tokens), atol=0, rtol=0)
    torch.testing.assert_close(pickle.loads(pickle.dumps(encoder))(tokens), encoder(tokens), atol=0, rtol=0)


@every_encoder
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"features_dim": 0}, "features_dim must be at least 1, got 0"),
        ({"n_layers": 0}, "n_layers must be at least 1, got 0"),
        ({"context_length": 0}, "context_length must be at least 1, got 0"),
        ({"embedding_std": 0.0}, "embedding_std must be positive, got 0.0"),
    ],
)
def test_constructor_errors(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(name, **kwargs)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("performer-softmax", {"features_dim": 30}, "features_dim must be a multiple of n_heads = 4, got 30"),
        ("performer-softmax", {"n_heads": 0}, "n_heads must be at least 1, got 0"),
        ("performer-softmax", {"n_random_features": 0}, "n_random_features must be at least 1, got 0"),
        ("performer-softmax", {"feature_map": "exp"}, r"feature_map must be one of \('softmax', .*\), got 'exp'"),
        ("transformer", {"features_dim": 30}, "features_dim must be a multiple of n_heads = 4, got 30"),
        ("transformer", {"feedforward_mult": 0}, "feedforward_mult must be at least 1, got 0"),
        ("transformer", {"mimetic": "yes"}, "mimetic must be True or False, got 'yes'"),
    ],
)
def test_constructor_errors_of_one_encoder(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(name, **kwargs)


@every_encoder
def test_pad_id_out_of_range(name: str) -> None:
    with pytest.raises(ValueError, match=r"pad_id must be in \[0, vocab_size = 4\), got 4"):
        ENCODERS[name](vocab_size=4, context_length=3, pad_id=4)


@every_encoder
def test_errors_beyond_the_context(name: str) -> None:
    encoder = make(name, context_length=5)
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


# Performer


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"feature_map": "relu"}, {"features_dim": 24, "n_layers": 1, "n_heads": 3, "n_random_features": 7}],
)
def test_forward_agrees_with_performer_pytorch(kwargs: dict[str, Any]) -> None:
    encoder = make(context_length=80, **kwargs)
    assert isinstance(encoder, Performer)
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


def test_projections_are_frozen_and_travel_with_the_state_dict() -> None:
    encoder = make()
    assert isinstance(encoder, Performer)
    tokens = random_tokens(2, 9)
    projections = [t.clone() for t in encoder.buffers()]
    assert len(projections) == 2
    assert len(encoder.state_dict()) == len(list(encoder.parameters())) + 2  # nothing twice
    encoder.train()
    for _ in range(5):
        encoder(tokens).sum().backward()
        encoder.performer(encoder.token_embedding(tokens))
    assert all(torch.equal(a, b) for a, b in zip(encoder.buffers(), projections, strict=True))


def softmax_weights(scores: Tensor) -> Tensor:
    causal = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    return scores.masked_fill(~causal, -torch.inf).softmax(-1)


def test_favor_estimates_softmax_attention() -> None:
    q, k = 0.6 * torch.randn(2, 1, 8, 20, 16)  # about as large as they are in a new encoder
    exact = softmax_weights(q @ k.mT / 4)

    def error(weights: Tensor) -> float:
        return float((weights - exact).abs().mean() / exact.mean())

    errors = []
    for n_random_features in (32, 512, 8192):
        encoder = make("performer-favor+", n_random_features=n_random_features, n_layers=1)
        assert isinstance(encoder, Performer)
        projection = encoder.performer.net.layers[0][0].fn.fast_attention.projection_matrix
        q_features, k_features = encoder.random_features(q, projection, True), encoder.random_features(k, projection)
        errors.append(error(causal_linear_attention(q_features, k_features, torch.eye(20).expand(1, 8, 20, 20))))
    assert errors[0] > 2 * errors[1] > 3 * errors[2]  # about as 1/√M
    assert errors[2] < 0.25 * error(softmax_weights(torch.zeros(20, 20)))  # of the error of attending to all alike


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("features_dim", [64, 1024])
def test_favor_neither_overflows_nor_vanishes(scale: float, features_dim: int) -> None:
    encoder = make("performer-favor+", features_dim=features_dim, n_layers=1)
    assert isinstance(encoder, Performer)
    projection = encoder.performer.net.layers[0][0].fn.fast_attention.projection_matrix
    q = scale * torch.randn(1, 4, 200, encoder.head_dim)
    # Keys that lie exactly on a direction reach the largest feature there is.
    k = torch.cat([q[:, :, :168], projection.expand(1, 4, -1, -1) * encoder.head_dim**0.25], dim=2)
    inputs = [t.requires_grad_() for t in (q, k)]
    features = [encoder.random_features(x, projection, x is q) for x in inputs]
    assert (features[0].amax(-1) == 1).all()
    assert (features[1] > 0).all()
    out = causal_linear_attention(*features, torch.randn(1, 4, 200, encoder.head_dim))
    for tensor in (out, *torch.autograd.grad(out.square().sum(), inputs)):
        assert tensor.isfinite().all()


# Transformer


def test_transformer_agrees_with_the_definition() -> None:
    encoder = make("transformer", n_layers=1)
    assert isinstance(encoder, Transformer)
    (block,) = encoder.blocks
    tokens = random_tokens(2, 9)
    x = encoder.token_embedding(tokens) + encoder.position_embedding.weight[:9]
    heads = []
    for q, k, v in zip(*(t.split(16, dim=-1) for t in block.to_qkv(block.attention_norm(x)).chunk(3, -1)), strict=True):
        heads.append(softmax_weights(q @ k.mT / 4) @ v)
    x = x + block.to_out(torch.cat(heads, dim=-1))
    x = x + block.feedforward(block.feedforward_norm(x))
    torch.testing.assert_close(encoder(tokens), encoder.norm(x), atol=1e-5, rtol=0)


def test_cache_is_shared_along_one_text_and_copied_for_a_second() -> None:
    encoder = make("transformer", context_length=100)
    assert isinstance(encoder, Transformer)
    tokens = random_tokens(2, 100)
    storages = []
    with torch.no_grad():
        state = encoder.initial_state(2)
        states = []
        for t in range(100):
            _, state = encoder.step(tokens[:, t], state)
            states.append(state)
            storages.append(state.tensors[0].data_ptr())  # whose owners live on, so that no address comes back
        assert [states[t].tensors[0].shape[3] for t in (0, 31, 32, 63, 64, 99)] == [32, 32, 64, 64, 100, 100]
        assert len(set(storages)) == 3
        _, second = encoder.step(tokens[:, 0], states[50])
        assert second.tensors[0].data_ptr() not in storages
        expected = encoder(torch.cat([tokens[:, :51], tokens[:, :1], tokens[:, 99:]], dim=1))[:, -1]
        features, _ = encoder.step(tokens[:, 99], second)
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
        features, _ = encoder.step(tokens[:, 99], states[98])
        torch.testing.assert_close(features, encoder(tokens)[:, -1], atol=1e-5, rtol=0)


def test_one_layer_looks_up_what_followed_only_with_n_grams() -> None:
    """Key, value, key, value …, and a key again: its value follows from one attention layer if keys know their past."""

    def accuracy(n_gram: int) -> float:
        torch.manual_seed(0)
        encoder = make(n_layers=1, features_dim=32, n_gram=n_gram)
        head = torch.nn.Linear(32, PAD)
        optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=5e-3)
        for _ in range(200):
            keys = torch.rand(64, 5).argsort(dim=1)[:, :4]
            values = torch.randint(5, 10, (64, 4))
            asked = torch.randint(0, 4, (64, 1))
            tokens = torch.cat([torch.stack([keys, values], dim=2).flatten(1), keys.gather(1, asked)], dim=1)
            logits = head(encoder(tokens)[:, -1])
            loss = torch.nn.functional.cross_entropy(logits, values.gather(1, asked)[:, 0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float((logits.argmax(dim=1) == values.gather(1, asked)[:, 0]).float().mean())

    assert accuracy(2) >= 0.9 > 0.6 >= accuracy(1)


def test_mimetic_attention_finds_equal_tokens_and_copies_what_stood_before_them() -> None:
    encoder = make("transformer-mimetic", n_layers=1, n_heads=1)
    assert isinstance(encoder, Transformer)
    (block,) = encoder.blocks
    queries, keys, values = block.to_qkv.weight.chunk(3)
    identity = torch.eye(encoder.features_dim)
    torch.testing.assert_close(queries.T @ keys, identity, atol=1e-5, rtol=0)
    torch.testing.assert_close(block.to_out.weight @ values, identity, atol=1e-5, rtol=0)
    # The second 7 finds the first one, and with it the 3, and what followed it.
    normed = block.attention_norm(encoder.embed_prefixes(torch.tensor([[3, 7, 1, 4, 2, 5, 7]])))[0]
    weights = ((normed @ queries.T) @ (normed @ keys.T).T / encoder.head_dim**0.5)[-1, :-1].softmax(dim=0)
    assert set(weights.topk(2).indices.tolist()) == {1, 2} and weights[1:3].sum() > 0.7
    found = block.to_out.weight @ values @ normed[1]
    similar = encoder.token_embedding.weight @ found
    assert set(similar.topk(2).indices.tolist()) == {3, 7}


def test_state_of_n_grams_can_be_reset_and_moved() -> None:
    encoder = make(n_gram=3).eval()
    tokens = random_tokens(3, 6)
    _, state = encoder.prefill(tokens, torch.tensor([6, 2, 4]), encoder.initial_state(3))
    assert state.recent is not None and state.recent[1].tolist() == [int(t) + 1 for t in tokens[1, :2]]
    taken = state.take([2, 0])
    state.reset([2])
    assert state.recent[2].tolist() == [0, 0]
    state.put([2], taken.take([0]))
    following = random_tokens(3, 1)[:, 0]
    features, _ = encoder.step(following, state)
    whole = encoder(torch.cat([tokens[2:, :4], following[2:, None]], dim=1))[0, -1]
    assert torch.allclose(features[2], whole, atol=1e-5)
