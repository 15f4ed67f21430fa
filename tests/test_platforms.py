"""What differs from machine to machine: how processes start, and a GPU where there is one."""

import multiprocessing

import numpy as np
import pytest
import torch

from agents import DoubleDQN, load, make_vec_env
from agents.saving.export import export_model

ENV, SMALL = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 3}
TINY = {"policy_kwargs": {"features_dim": 8, "n_layers": 1, "n_heads": 2}, "learning_starts": 32, "batch_size": 4}


def returns_of_a_run(seed):
    """Runs in a process that has imported nothing yet."""
    env = make_vec_env(ENV, n_envs=4, seed=seed, env_kwargs=SMALL)
    model = DoubleDQN("PerformerPolicy", env, seed=seed, **TINY).learn(120)
    return [round(episode["r"], 6) for episode in model.ep_info_buffer]


def test_processes_that_are_spawned_learn_the_same():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (spawned,) = pool.map(returns_of_a_run, [0])
    assert spawned == returns_of_a_run(0) and len(spawned) > 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("policy", ["PerformerPolicy", "TransformerPolicy", "GRUPolicy"])
def test_a_gpu_learns_and_its_model_acts_on_the_cpu(policy, tmp_path):
    env = make_vec_env(ENV, n_envs=4, seed=0, env_kwargs=SMALL)
    model = DoubleDQN(policy, env, seed=0, device="cuda", policy_kwargs={"features_dim": 8, "n_layers": 1}).learn(1_200)
    assert next(model.q_net.parameters()).is_cuda and model._n_updates > 0
    export_model(model, tmp_path / "model", {"env": ENV, "env_args": SMALL, "seed": 0, "n_envs": 4})
    here = load(tmp_path / "model", device="cpu")
    observations = env.reset()
    assert np.array_equal(
        here.predict(observations, deterministic=True)[0], model.predict(observations, deterministic=True)[0]
    )
