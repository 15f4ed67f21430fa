"""What only a GPU can show: graphs, and that nothing waits for it."""

import warnings

import numpy as np
import pytest
import torch

from agents.encoders import Performer, causal_linear_attention
from agents.replay.transfer import Arriving, to_device
from tests.agents.test_device import make_model, ragged_play

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture
def no_waiting():
    """Between ``begin()`` and the end of the test, or ``end()``, whatever waits for the device raises."""

    class Watch:
        begin = staticmethod(lambda: torch.cuda.set_sync_debug_mode("error"))
        end = staticmethod(lambda: torch.cuda.set_sync_debug_mode("default"))

    yield Watch
    Watch.end()


def test_arrays_go_there_and_come_back(no_waiting):
    arrays = [np.arange(6.0).reshape(2, 3).T, np.broadcast_to(np.array([True, False]), (3, 2))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the last one is read-only
        no_waiting.begin()
        arriving = [Arriving(to_device(array, torch.device("cuda"))) for array in arrays]
        no_waiting.end()
    for array, there in zip(arrays, arriving, strict=True):
        assert np.array_equal(there.numpy(), array)


@pytest.mark.parametrize("arguments", [{}, {"loss": "huber", "n_steps": 3}, {"exploration": "ensemble_ucb"}])
def test_an_update_waits_for_nothing_but_its_priorities(arguments, no_waiting):
    model = make_model(device="cuda", **arguments)
    parameters = list(model.q_net.parameters())
    for watched in (False, True):
        if watched:
            no_waiting.begin()
        batch = model._path.sample(4, 0.4)
        result = model._path.loss(batch)
        result.loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        model.policy.optimizer.step()
        model._path.on_update(1.0)
    no_waiting.end()
    assert np.isfinite(result.priorities.cpu().numpy()).all()


def test_a_graph_reads_what_the_eager_way_reads_and_waits_for_nothing(monkeypatch, no_waiting):
    model = make_model(device="cuda")
    network, play = model.q_net, list(ragged_play(model))
    network.step_reader = state = None
    states = [state := network.advance(observations, state, starts) for observations, starts in play]
    assert network.step_reader is not None and network.step_reader.sizes == [6]
    no_waiting.begin()
    state = None
    again = [state := network.advance(observations, state, starts) for observations, starts in play]
    no_waiting.end()
    network.step_reader = state = None
    monkeypatch.setattr(Performer, "capturable", False)
    for (observations, starts), by_graph, repeated in zip(play, states, again, strict=True):
        state = network.advance(observations, state, starts)
        torch.testing.assert_close(by_graph.features, state.features, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(by_graph.values, network.head(state.features), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(repeated.features, by_graph.features, atol=0, rtol=0)


def test_a_graph_follows_the_weights(monkeypatch):
    model = make_model(device="cuda")
    network, ((observations, starts), *_) = model.q_net, ragged_play(model)
    before = network.advance(observations, None, starts).values
    model.learn(200, reset_num_timesteps=False)
    after = network.advance(observations, None, starts).values
    network.step_reader = None
    monkeypatch.setattr(Performer, "capturable", False)
    expected = network.head(network.advance(observations, None, starts).features)
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(after, expected, atol=1e-4, rtol=1e-4)


def test_a_loss_on_a_gpu_is_that_on_the_cpu():
    here, there = make_model(), make_model(device="cuda")
    there.set_parameters(here.get_parameters())
    there.replay_buffer.set_state(here.replay_buffer.get_state())
    losses = [model._path.loss(model._path.sample(8, 0.4)) for model in (here, there)]
    torch.testing.assert_close(losses[1].loss.cpu(), losses[0].loss, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(losses[1].priorities.cpu(), losses[0].priorities, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("head_dim", [16, 32, 64])
def test_linear_attention_on_a_gpu_is_that_on_the_cpu(head_dim):
    results = []
    for device in ("cpu", "cuda"):
        generator = torch.Generator().manual_seed(0)
        inputs = [torch.rand(2, 4, 300, head_dim, generator=generator).add(0.01).to(device) for _ in range(3)]
        inputs = [tensor.requires_grad_() for tensor in inputs]
        out = causal_linear_attention(*inputs)
        gradients = torch.autograd.grad(out.square().sum(), inputs)
        results.append([tensor.cpu() for tensor in (out.detach(), *gradients)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(theirs, ours, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("head_dim", [16, 32, 64])
def test_flash_linear_attention_is_our_own(head_dim):
    pytest.importorskip("fla", reason="flash-linear-attention is not installed")
    from benchmarks.attention import flash_linear_attention

    generator = torch.Generator().manual_seed(0)
    inputs = [torch.rand(2, 4, 300, head_dim, generator=generator).add(0.01).cuda() for _ in range(3)]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    results = []
    for attend in (causal_linear_attention, flash_linear_attention):
        out = attend(*inputs)
        results.append([out.detach(), *torch.autograd.grad(out.square().sum(), inputs)])
    for ours, theirs in zip(*results, strict=True):
        # Its kernels multiply float32 in TF32, which has three digits.
        torch.testing.assert_close(theirs, ours, atol=5e-3 * float(ours.abs().max()), rtol=0)
