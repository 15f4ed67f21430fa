"""The autoencoder compresses, keeps its best weights, and is saved whole."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from agents.representations.neighbours import nearest_vectors, neighbour_divergence
from agents.representations.state_autoencoder import StateAutoEncoder
from agents.representations.state_embedding import StateEmbedding
from textgym.spaces import TokenSequence
from textgym.tokenizers import CharacterTokenizer


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def vectors(n: int = 300, dim: int = 12, rank: int = 3) -> np.ndarray:
    """Vectors in a subspace of ``rank`` dimensions, off-centre, with a little noise."""
    random = np.random.default_rng(0)
    plane = random.normal(size=(n, rank)) @ random.normal(size=(rank, dim))
    return (5 + plane + 0.01 * random.normal(size=(n, dim))).astype(np.float32)


@pytest.mark.parametrize("hidden", [(), (16,), (16, 8)])
def test_shapes(hidden: Any) -> None:
    autoencoder = StateAutoEncoder(12, 3, hidden)
    x = torch.randn(5, 12)
    code = autoencoder.encode(x)
    assert code.shape == (5, 3)
    assert autoencoder.decode(code).shape == autoencoder(x).shape == (5, 12)
    torch.testing.assert_close(autoencoder(x), autoencoder.decode(code))
    assert autoencoder.loss(x).shape == ()


def test_hidden_layers_start_as_nothing() -> None:
    autoencoder = StateAutoEncoder(12, 3, hidden=(16,))
    x = torch.randn(5, 12)
    torch.testing.assert_close(autoencoder.encode(x), autoencoder.encoder.linear(x))


@pytest.mark.parametrize("hidden", [(), (16,)])
def test_fit_finds_the_subspace(hidden: Any) -> None:
    data = vectors()
    autoencoder = StateAutoEncoder(12, 3, hidden)
    history = autoencoder.fit(data, epochs=10, batch_size=32, learning_rate=1e-3, progress=False)
    assert len(history.train) == len(history.validation) == 10
    with torch.no_grad():
        error = (autoencoder(torch.from_numpy(data)).numpy() - data) ** 2
    assert error.mean() < 0.02 * data.var(axis=0).mean()
    narrow = StateAutoEncoder(12, 1, hidden)
    narrow.fit(data, epochs=5, batch_size=32, progress=False)
    with torch.no_grad():
        assert ((narrow(torch.from_numpy(data)).numpy() - data) ** 2).mean() > 0.05 * data.var(axis=0).mean()


def test_weights_of_the_best_epoch_are_kept() -> None:
    autoencoder = StateAutoEncoder(12, 3, hidden=())
    history = autoencoder.fit(vectors(), epochs=12, batch_size=16, learning_rate=3.0, progress=False)  # far too fast
    assert history.validation[history.best_epoch] == min(history.validation)
    assert history.best_epoch < 11 or history.validation[-1] == min(history.validation)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))[:30]
    with torch.no_grad():
        assert float(autoencoder.loss(torch.from_numpy(vectors())[order])) == pytest.approx(min(history.validation))


def test_fit_depends_on_its_generator_alone() -> None:
    losses = []
    for seed, disturbance in ((1, 0), (1, 5), (2, 0)):
        torch.manual_seed(0)
        autoencoder = StateAutoEncoder(12, 3, hidden=())
        torch.manual_seed(disturbance)
        state = torch.get_rng_state()
        generator = torch.Generator().manual_seed(seed)
        losses.append(autoencoder.fit(vectors(), epochs=2, generator=generator, progress=False).train)
        assert torch.equal(torch.get_rng_state(), state)
    assert losses[0] == losses[1] != losses[2]


def test_loss_is_reconstruction_and_penalty() -> None:
    autoencoder = StateAutoEncoder(12, 3, hidden=(), latent_penalty=0.5, neighbour_weight=0.0)
    x = torch.randn(5, 12)
    code = autoencoder.encode(x)
    expected = (autoencoder(x) - x).square().mean() + 0.25 * code.square().sum(dim=1).mean()
    torch.testing.assert_close(autoencoder.loss(x), expected)


def test_neighbour_divergence() -> None:
    x = torch.randn(6, 4)
    assert float(neighbour_divergence(3 * x, x)) == pytest.approx(0, abs=1e-6)  # cosines know no size
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    codes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])

    def divergence(p: list[float], q: list[float]) -> float:
        p_, q_ = torch.tensor(p).softmax(0), torch.tensor(q).softmax(0)
        return float((p_ * (p_ / q_).log()).sum())

    by_hand = (
        divergence([1.0, 0.0], [0.0, 1.0]) + divergence([1.0, 0.0], [0.0, 0.0]) + divergence([0.0, 0.0], [1.0, 0.0])
    ) / 3
    assert float(neighbour_divergence(codes, vectors, temperature=1.0)) == pytest.approx(by_hand, abs=1e-6)
    autoencoder = StateAutoEncoder(4, 2, hidden=(), neighbour_weight=2.0)
    loss = autoencoder.loss(x)
    term = 2 * neighbour_divergence(autoencoder.encode(x), x)
    autoencoder.neighbour_weight = 0.0
    torch.testing.assert_close(loss, autoencoder.loss(x) + term)


def test_nearest_vectors() -> None:
    angles = torch.tensor([0.0, 0.1, 1.0, 1.2, 3.0])
    x = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[1.0], [5.0], [2.0], [3.0], [9.0]])
    assert nearest_vectors(x, n=1, chunk=2).squeeze(1).tolist() == [1, 0, 3, 2, 3]
    everyone = nearest_vectors(x)
    assert all(set(row.tolist()) == set(range(5)) - {index} for index, row in enumerate(everyone))


def test_fit_begins_at_the_principal_components() -> None:
    data = torch.from_numpy(vectors())
    autoencoder = StateAutoEncoder(12, 3, hidden=(16,))
    autoencoder.fit(data, epochs=1, learning_rate=1e-12, progress=False)
    centred = data - autoencoder.mean
    _, _, components = torch.linalg.svd(centred, full_matrices=False)
    with torch.no_grad():
        best_linear = centred @ components[:3].T @ components[:3] + autoencoder.mean
        torch.testing.assert_close(autoencoder(data), best_linear, atol=0.02, rtol=0)
    StateAutoEncoder(12, 20, hidden=()).fit(data[:8], epochs=1, progress=False)  # more numbers than components


def test_auxiliary_loss_reaches_the_embeddings_through_the_encoder_alone() -> None:
    autoencoder = StateAutoEncoder(4, 2, hidden=(), latent_penalty=0.0, neighbour_weight=0.0)
    with torch.no_grad():
        autoencoder.encoder.linear.weight.zero_()
    x = torch.randn(5, 4, requires_grad=True)
    autoencoder.auxiliary_loss(x).backward()
    assert x.grad is not None
    assert not x.grad.any()  # as a target it would have a gradient
    torch.nn.init.normal_(autoencoder.encoder.linear.weight)
    autoencoder.auxiliary_loss(x).backward()
    assert x.grad.any()


def test_only_the_decoder_decays() -> None:
    autoencoder = StateAutoEncoder(4, 2, decoder_weight_decay=0.3)
    encoder, decoder = autoencoder.parameter_groups()
    assert (encoder["weight_decay"], decoder["weight_decay"]) == (0.0, 0.3)
    assert len(encoder["params"]) + len(decoder["params"]) == len(list(autoencoder.parameters()))


def test_fit_reads_texts_through_an_embedding() -> None:
    space = TokenSequence(context_length=4, vocab_size=4, pad_id=5)
    embedding = StateEmbedding.for_space(
        space, tokenizer=CharacterTokenizer("abc"), features_dim=8, n_layers=1, n_heads=2
    )
    texts = [first + second for first in "abc" for second in "abc"]
    autoencoder = StateAutoEncoder(8, 2, hidden=())
    history = autoencoder.fit(texts, embedding, epochs=3, progress=False)
    assert history.validation[history.best_epoch] < 3
    with pytest.raises(ValueError, match="embedding must be given to learn from texts"):
        autoencoder.fit(texts)


def test_saved_and_loaded_autoencoder_is_the_same(tmp_path: Any) -> None:
    autoencoder = StateAutoEncoder(12, 3, hidden=(16, 8), latent_penalty=0.1, neighbour_weight=0.4)
    autoencoder.fit(vectors(), epochs=2, progress=False)
    autoencoder.save(tmp_path / "autoencoder.safetensors")
    loaded = StateAutoEncoder.load(tmp_path / "autoencoder.safetensors")
    x = torch.from_numpy(vectors())
    torch.testing.assert_close(loaded(x), autoencoder(x), atol=0, rtol=0)
    torch.testing.assert_close(loaded.loss(x), autoencoder.loss(x), atol=0, rtol=0)
    assert (loaded.hidden, loaded.neighbour_weight) == ((16, 8), 0.4)


def test_errors(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="latent_dim must be at least 1, got 0"):
        StateAutoEncoder(4, 0)
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        StateAutoEncoder(4, 2, hidden=(3, 0))
    with pytest.raises(ValueError, match="latent_penalty must not be negative, got -1"):
        StateAutoEncoder(4, 2, latent_penalty=-1)
    autoencoder = StateAutoEncoder(4, 2)
    with pytest.raises(ValueError, match=r"data must have shape \(N, input_dim = 4\) with N >= 2, got \(3, 5\)"):
        autoencoder.fit(np.zeros((3, 5), np.float32))
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        autoencoder.fit(np.zeros((3, 4), np.float32), epochs=0)
    with pytest.raises(ValueError, match=r"validation_fraction must be in \(0, 1\), got 1"):
        autoencoder.fit(np.zeros((3, 4), np.float32), validation_fraction=1)
    with pytest.raises(ValueError, match="path must be a file that save"):
        StateAutoEncoder.load(tmp_path / "nothing")
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match="path must be a file that save"):
        StateAutoEncoder.load(tmp_path / "other")
