"""What a GPU needs of the code, tested without one.

Tensors on the device "meta" have shapes and no values: whatever would make the host wait for the device, because it
asks for a value or for a shape that depends on values, raises there.
"""

import copy

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from agents import DoubleDQN, make_vec_env
from agents.double_dqn import sequence_network
from agents.double_dqn.step_reader import MOST_SIZES, StepReader
from agents.replay.transfer import Arriving, to_device

ENV, SMALL = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 4}
META = torch.device("meta")


def make_model(policy="PerformerPolicy", device="cpu", **arguments):
    network = {"features_dim": 8, "n_heads": 2, "features_extractor_kwargs": {}, "optimizer_kwargs": {"fused": False}}
    env = make_vec_env(ENV, n_envs=8, seed=0, env_kwargs=SMALL)
    model = DoubleDQN(
        policy, env, seed=0, device=device, learning_starts=32, batch_size=4, policy_kwargs=network, **arguments
    )
    return model.learn(120)


def to_meta(model):
    """The model on a device whose tensors have no values."""
    model.policy.to(META)
    model.device = model.replay_buffer.device = META
    model._path._parameters = None
    model.policy.optimizer = torch.optim.Adam(model.policy.parameters(), foreach=True)
    return model


class Uploads(TorchFunctionMode):
    """Counts copies from main memory to the device: out of ordinary memory each of them would be waited for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in (torch.tensor, torch.as_tensor, torch.Tensor.to):
            there = isinstance(args[0], torch.Tensor) and args[0].device == META
            self.count += not there and result.device == META
        return result


def test_values_cannot_be_read_on_this_device():
    tensor = torch.ones(3, device=META)
    reads = (tensor.sum().item, tensor.nonzero, tensor.cpu, lambda: tensor[tensor > 0], lambda: bool(tensor.any()))
    for read in reads:
        with pytest.raises((RuntimeError, NotImplementedError)):
            read()
    with Uploads() as uploads:
        torch.as_tensor(0.9, device=META) + torch.full((), 0.9, device=META) + torch.ones(1).to(META).to(META)
    assert uploads.count == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"tau": 1.0},
        {"loss": "huber", "n_steps": 3, "double_q": False},
        {"lower_bound": True, "exploration": "ensemble_ucb"},
        {"q_lambda": 0.5, "watkins": True, "prioritized_replay": False},
    ],
)
def test_an_update_reads_nothing_but_its_priorities(arguments):
    model = to_meta(make_model(**arguments))
    batch = model._path.sample(4, 0.4)
    assert batch.tokens.device == batch.action_masks.device == META if batch.action_masks is not None else True
    before = [parameter._version for parameter in model.q_net.parameters()]
    with Uploads() as uploads:
        result = model._path.loss(batch)
        result.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.q_net.parameters(), 10.0)
        model._path.on_update(1.0)
    model.policy.optimizer.step()
    assert uploads.count == 0
    assert result.priorities.device == norm.device == META and result.priorities.shape == (4,)
    assert all(new._version > old for new, old in zip(model.q_net.parameters(), before, strict=True))
    with pytest.raises(NotImplementedError):
        Arriving(result.priorities)


def test_arrays_reach_the_cpu_without_a_copy():
    array = np.arange(6.0).reshape(2, 3)
    tensor = to_device(array, torch.device("cpu"))
    array[0, 0] = 7.0
    assert tensor[0, 0] == 7.0 and tensor.dtype == torch.float64
    assert Arriving(tensor.requires_grad_()).numpy()[0, 0] == 7.0


# ---------------------------------------------------------------------- acting by steps


def recording(repeats=None):
    """What a GPU does to work, without one: it is tried out, and then repeated on the places it had."""

    def record(work):
        work()

        def repeat():
            if repeats is not None:
                repeats.append(1)
            work()

        return repeat

    return record


def ragged_play(model, n_steps=40, seed=0):
    """Random play in which rows end when they like: observations and starts of every step."""
    env, generator = make_vec_env(ENV, n_envs=6, seed=seed, env_kwargs=SMALL), np.random.default_rng(seed)
    observations, starts = env.reset(), np.ones(6, bool)
    for _ in range(n_steps):
        yield observations.copy(), starts
        observations, _, starts, _ = env.step(generator.integers(model.action_space.n, size=6))


def test_steps_read_what_the_eager_way_reads():
    model = make_model()
    network, state, steps_state, seen = model.q_net, None, None, 0
    repeats = []
    reader = StepReader(network.encoder, network.head, recording(repeats))
    for observations, starts in ragged_play(model):
        network.step_reader = None
        state = network.advance(observations, state, starts)
        network.step_reader = reader
        steps_state = network.advance(observations, steps_state, starts)
        assert state.values is None and np.array_equal(state.lengths, steps_state.lengths)
        torch.testing.assert_close(steps_state.features, state.features, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(steps_state.values, network.head(state.features), atol=1e-5, rtol=1e-5)
        for ours, theirs in zip(steps_state.encoder.parts, state.encoder.parts, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        seen += int(starts.sum())
    assert seen > 6 and reader.sizes == [6]  # rows began anew while others went on
    assert 40 < len(repeats) < 40 * 4  # a row that begins anew reads its prompt of 3 tokens, the others wait


def test_states_given_out_never_change_and_can_be_gone_on_from_twice():
    model = make_model()
    network = model.q_net
    network.step_reader = StepReader(network.encoder, network.head, recording())
    (first, starts), (second, _), *_ = ragged_play(model)
    state = network.advance(first, None, starts)
    kept = [part.clone() for part in (state.features, state.values, *state.encoder.parts)]
    once = network.advance(second, state)
    again = network.advance(second, state)
    assert all(map(torch.equal, kept, (state.features, state.values, *state.encoder.parts)))
    assert torch.equal(once.features, again.features) and not torch.equal(once.features, state.features)


def test_full_rows_wait_and_long_prompts_are_read_in_one_pass(monkeypatch):
    model = make_model()
    network = model.q_net
    network.step_reader = StepReader(network.encoder, network.head, recording())
    pad = network.encoder.pad_id
    full = np.zeros((2, network.encoder.context_length), np.int32)
    shorter = full.copy()
    shorter[:, -1] = pad
    state = network.advance(np.stack([full[0], shorter[1]]), None)
    state = network.advance(full, state)  # the first row has nothing to read, and no room
    assert state.lengths.tolist() == state.encoder.lengths.tolist() == [network.encoder.context_length] * 2
    torch.testing.assert_close(state.features[0], state.features[1], atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(sequence_network, "MOST_TOKENS", 2)
    in_one_pass = network.advance(full, None)
    assert in_one_pass.values is None
    torch.testing.assert_close(in_one_pass.features, state.features, atol=1e-5, rtol=1e-5)


def test_a_reader_keeps_a_few_sizes_and_their_places():
    model = make_model()
    network = model.q_net
    network.step_reader = reader = StepReader(network.encoder, network.head, recording())
    observations = next(ragged_play(model))[0]
    for n_rows in (1, 2, 3, 4, 1, 5):
        network.advance(observations[:1].repeat(n_rows, 0), None)
    assert len(reader.sizes) == MOST_SIZES and reader.sizes == [3, 4, 1, 5]
    places = reader._graphs[5][0]
    before = [part.data_ptr() for part in (places.tokens, places.features, places.values, *places.state.parts)]
    network.advance(observations[:1].repeat(5, 0), None)
    assert before == [part.data_ptr() for part in (places.tokens, places.features, places.values, *places.state.parts)]


def test_what_cannot_be_captured_goes_on_without_a_graph():
    def fails(work):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    model = make_model()
    network = model.q_net
    network.step_reader = StepReader(network.encoder, network.head, fails)
    (observations, starts), *_ = ragged_play(model)
    with pytest.warns(UserWarning, match="can't be captured .* not permitted when stream is capturing$"):
        state = network.advance(observations, None, starts)
    network.step_reader = None
    torch.testing.assert_close(state.features, network.advance(observations, None).features, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("explorer", ["ucb", "ensemble_ucb"])
def test_learning_acts_through_the_reader(explorer):
    model = make_model(exploration=explorer)
    network, repeats = model.q_net, []
    network.step_reader = StepReader(network.encoder, network.head, recording(repeats))
    updates = model._n_updates
    model.learn(200, reset_num_timesteps=False)
    assert model._n_updates > updates and len(repeats) >= 200 / 8
    observations = model.env.reset()
    actions, state = model.predict(observations, deterministic=True)
    assert state.values is not None
    network.step_reader = None
    assert np.array_equal(actions, model.predict(observations, deterministic=True)[0])


def test_reading_by_steps_asks_the_device_for_nothing():
    model = to_meta(make_model())
    network, play = model.q_net, list(ragged_play(model, 8))
    for reader in (None, StepReader(network.encoder, network.head, recording())):
        network.step_reader, state = reader, None
        for observations, starts in play:
            state = network.advance(observations, state, starts)
    assert state.values.device == META and state.values.shape == (6, model.action_space.n)


def test_weights_stay_where_they_are(tmp_path):
    """A graph reads them there."""
    model = make_model(tau=0.5)
    parts = [*model.q_net.state_dict(keep_vars=True).values(), *model.q_net_target.state_dict(keep_vars=True).values()]
    places, values = [part.data_ptr() for part in parts], [part.detach().clone() for part in parts]
    model.save(tmp_path / "model")
    other = DoubleDQN.load(tmp_path / "model", env=model.env)
    model.learn(200, reset_num_timesteps=False)
    assert not all(map(torch.equal, values, parts))
    model.set_parameters(other.get_parameters())
    assert all(map(torch.equal, values, parts))
    assert places == [part.data_ptr() for part in parts]
    now = [*model.q_net.state_dict(keep_vars=True).values(), *model.q_net_target.state_dict(keep_vars=True).values()]
    assert all(new is old for new, old in zip(now, parts, strict=True))


def test_weights_that_move_and_copies_of_them_get_a_new_reader():
    network = make_model().q_net
    network.step_reader = StepReader(network.encoder, network.head, recording())
    assert copy.deepcopy(network).step_reader is None
    assert network.double().float().step_reader is None


class Downloads(TorchFunctionMode):
    """Counts copies to main memory, each of which waits for the device, and gives zeros for what has no values."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.cpu and args[0].device == META:
            self.count += 1
            return torch.zeros(args[0].shape, dtype=args[0].dtype)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("by_steps", [True, False])
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_step_waits_for_its_actions_alone(by_steps, deterministic):
    model = to_meta(make_model())
    if by_steps:
        model.q_net.step_reader = StepReader(model.q_net.encoder, model.q_net.head, recording())
    state, play = None, list(ragged_play(model, 8))
    masks = np.ones((6, model.action_space.n), bool)
    with Downloads() as downloads:
        for observations, starts in play:
            actions, state = model.predict(observations, state, starts, deterministic, action_masks=masks)
    assert downloads.count == len(play) and actions.shape == (6,)
