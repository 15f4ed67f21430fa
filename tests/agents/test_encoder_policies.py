"""The learner is the same whatever the causal encoder."""

from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger

from agents import DoubleDQN, TextGenVecEnv, make_vec_env
from agents.double_dqn.policies import GRUPolicy, PerformerPolicy, SequencePolicy, TransformerPolicy
from agents.encoders import GRU, CausalEncoder, Performer, Transformer
from tests.agents.tasks import Echo
from textgym import TextGenVectorEnv

SIZES: dict[type[SequencePolicy], dict[str, Any]] = {
    PerformerPolicy: {"features_dim": 16, "n_layers": 1, "n_heads": 2, "n_random_features": 8},
    TransformerPolicy: {"features_dim": 16, "n_layers": 1, "n_heads": 2},
    GRUPolicy: {"features_dim": 16, "n_layers": 1},
}
ENCODERS: dict[type[SequencePolicy], type[CausalEncoder]] = {
    PerformerPolicy: Performer,
    TransformerPolicy: Transformer,
    GRUPolicy: GRU,
}
every_policy = pytest.mark.parametrize("policy", SIZES, ids=["performer", "transformer", "gru"])


def make_model(policy: type[SequencePolicy], env: Any = "TextGen/Reverse-v0", **kwargs: Any) -> DoubleDQN:
    arguments = {"learning_starts": 64, "batch_size": 8, "seed": 0, "device": "cpu"}
    return DoubleDQN(policy, env, policy_kwargs=dict(SIZES[policy]), **(arguments | kwargs))


def test_names_of_the_policies() -> None:
    for policy in (GRUPolicy, TransformerPolicy):
        assert DoubleDQN.policy_aliases[policy.__name__] is policy


@every_policy
def test_a_short_run_moves_every_weight_and_lowers_the_loss(policy: type[SequencePolicy]) -> None:
    model = make_model(policy, learning_rate=3e-3, loss="huber")  # whose least value is 0
    assert type(model.policy.q_net.encoder) is ENCODERS[policy]
    before = [p.detach().clone() for p in model.policy.q_net.parameters()]
    model.learn(640)
    for old, new in zip(before, model.policy.q_net.parameters(), strict=True):
        assert new.isfinite().all()
        assert not torch.equal(old, new)
    model.set_logger(Logger(None, []))
    losses = []
    for _ in range(2):
        model.train(60, 8)
        losses.append(model.logger.name_to_value["train/loss"])
    assert losses[1] < losses[0]


@every_policy
def test_acting_reads_what_training_reads(policy: type[SequencePolicy]) -> None:
    # Rows end at different times and the environment replies, so that all three of step, prefill and reset are used.
    env = TextGenVecEnv(TextGenVectorEnv(3, Echo()))
    env.seed(0)
    model = make_model(policy, env)
    generator = np.random.default_rng(0)
    observations, state, starts = env.reset(), None, np.ones(3, bool)
    ended = 0
    for _ in range(12):
        actions, state = model.predict(observations, state, starts, deterministic=True)
        with torch.no_grad():
            q_values = model.policy.q_net(torch.as_tensor(observations))
        torch.testing.assert_close(model.policy.q_net.head(state.features), q_values, atol=1e-5, rtol=0)
        assert (actions == q_values.argmax(dim=1).numpy()).all()
        observations, _, starts, _ = env.step(generator.integers(5, size=3))
        ended += starts.sum()
    assert ended >= 3


@every_policy
def test_saved_and_loaded_model_predicts_the_same(policy: type[SequencePolicy], tmp_path: Any) -> None:
    model = make_model(policy, make_vec_env("TextGen/Reverse-v0", n_envs=4, seed=0))
    model.save(tmp_path / "model")
    loaded = DoubleDQN.load(tmp_path / "model", device="cpu")
    observations = model.env.reset()
    expected = model.policy.q_net(torch.as_tensor(observations))
    torch.testing.assert_close(loaded.policy.q_net(torch.as_tensor(observations)), expected, atol=0, rtol=0)
    rewards = evaluate_policy(loaded, model.env, n_eval_episodes=4, return_episode_rewards=True)[0]
    assert len(rewards) == 4
