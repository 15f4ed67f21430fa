"""What a GPU needs of the code, tested without one.

Tensors on the device "meta" have shapes and no values: whatever would make the host wait for the device, because it
asks for a value or for a shape that depends on values, raises there.
"""

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from agents import DoubleDQN, make_vec_env
from agents.replay.transfer import Arriving, to_device

ENV, SMALL = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 4}
META = torch.device("meta")


def make_model(policy="PerformerPolicy", **arguments):
    network = {"features_dim": 8, "n_heads": 2, "features_extractor_kwargs": {}, "optimizer_kwargs": {"fused": False}}
    env = make_vec_env(ENV, n_envs=8, seed=0, env_kwargs=SMALL)
    model = DoubleDQN(
        policy, env, seed=0, device="cpu", learning_starts=32, batch_size=4, policy_kwargs=network, **arguments
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
