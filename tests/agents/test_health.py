"""Numerical health: what is no number stops training, with its origin; values that can't be right are reported."""

import math
import warnings

import numpy as np
import pytest
import torch

from agents import DoubleDQN, learn_from_text, make_vec_env
from agents.double_dqn.health import DivergenceWarning, NumericalError, value_bound
from agents.saving.checkpoint import SaveCheckpoints

ENV, ENV_ARGS = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 3}
TINY = {"policy_kwargs": {"features_dim": 8, "n_layers": 1, "n_heads": 2}, "learning_starts": 32, "batch_size": 4}


@pytest.fixture
def model():
    return DoubleDQN("PerformerPolicy", make_vec_env(ENV, 8, seed=0, env_kwargs=ENV_ARGS), seed=0, **TINY)


def logged(model):
    return dict(model.logger.name_to_value)


class TestNotANumber:
    @pytest.mark.parametrize("reward", [math.nan, math.inf])
    @pytest.mark.parametrize("prioritized", [True, False])
    def test_in_a_reward(self, tmp_path, reward, prioritized):
        env = make_vec_env(ENV, 8, seed=0, env_kwargs=ENV_ARGS)
        model = DoubleDQN("PerformerPolicy", env, seed=0, prioritized_replay=prioritized, **TINY)
        model.learn(200, SaveCheckpoints(tmp_path))
        # The 13th episode stored gets a reward that is no number.
        table = model.replay_buffer._store._episodes[np.array([13])]
        model.replay_buffer._store._rewards._rows[int(table["first_step"][0])] = reward
        weights = [parameter.clone() for parameter in model.q_net.parameters()]
        with pytest.raises(NumericalError) as raised:
            model.train(200, 64)
        error = raised.value
        assert (
            error.indices == [13]
            and error.step == 200
            and error.checkpoint == str(tmp_path / "step-000000000200.safetensors")
        )
        assert "after 200 steps, in update" in str(error) and "episodes 13 of replay" in str(error)
        assert "their rewards are NaN or infinite" in str(error) and "the last good checkpoint is" in str(error)
        assert all(parameter.isfinite().all() for parameter in model.q_net.parameters()), "the weights are whole"
        assert any((old != new).any() for old, new in zip(weights, model.q_net.parameters(), strict=True)) or (
            error.update == model._n_updates
        )

    def test_while_learning_from_texts(self, model):
        texts = [{"prompt": "a b", "completion": "b a", "reward": reward} for reward in (1.0, 0.0)]
        with torch.no_grad():
            next(model.q_net.head.parameters())[:] = math.nan
        with pytest.raises(NumericalError, match=r"after 0 steps, in update 0, .* episodes 0, 1 of replay; .* finite"):
            learn_from_text(model, texts, objective="td", steps=20)

    def test_in_the_weights(self, model):
        model.learn(200)
        with torch.no_grad():
            next(model.q_net.head.parameters())[:] = math.nan
        with pytest.raises(NumericalError, match="their rewards are finite; no checkpoint has been written"):
            model.train(1, 4)

    def test_in_a_gradient(self, model):
        model.learn(200)
        parameter = next(model.q_net.head.parameters())
        parameter.register_hook(lambda gradient: gradient * math.inf)
        with pytest.raises(NumericalError, match=r"the gradient is NaN or infinite after 200 steps.*weights are lost"):
            model.train(1, 4)

    def test_on_transitions(self):
        model = DoubleDQN("MlpPolicy", "CartPole-v1", seed=0, learning_starts=10, n_steps=2, buffer_size=100)
        model.learn(60)
        model.replay_buffer.rewards[20] = math.nan
        with pytest.raises(NumericalError, match=r"transitions (19, 20|19|20) of replay") as raised:
            model.train(100, 32)
        assert set(raised.value.indices) <= {19, 20}


class TestFigures:
    def test_are_logged(self, model):
        model.learn(200, log_interval=None)
        figures = logged(model)
        assert figures["train/grad_norm"] > 0
        assert figures["train/q_min"] <= figures["train/q_mean"] <= figures["train/q_max"]
        with torch.no_grad():
            batch = model.replay_buffer.sample(8)
            q_values = model.q_net(batch.tokens).aminmax()
        assert abs(float(q_values.max) - figures["train/q_max"]) < 1.0
        assert figures["train/q_over_bound"] == pytest.approx(
            max(-figures["train/q_min"], figures["train/q_max"]) / value_bound(model)
        )

    def test_padding_is_no_value(self, model):
        """The last batch's range is that of the actions taken, as computed one by one."""
        model.learn(200)
        batch = model._path.sample(8, 0.4)
        low, high = model._path.loss(batch).q_range
        values = []
        with torch.no_grad():
            for row in range(8):
                for step in batch.valid[row].nonzero().flatten().tolist():
                    prefix = batch.tokens[row : row + 1, : batch.action_positions[row, step]]
                    q_values = model.q_net.head(model.q_net.encoder(prefix)[:, -1])
                    values.append(float(q_values[0, batch.actions[row, step]]))
        assert float(low) == pytest.approx(min(values), abs=1e-5)
        assert float(high) == pytest.approx(max(values), abs=1e-5)


class TestDivergence:
    @pytest.mark.parametrize(("gamma", "bound"), [(0.5, 2.0), (1.0, 4.0)])
    def test_bound(self, gamma, bound):
        """Returns are in [0, 1], and there are four tokens at most."""
        env = make_vec_env(ENV, 8, seed=0, env_kwargs=ENV_ARGS)
        assert env.get_attr("task")[0].max_new_tokens == 4
        assert value_bound(DoubleDQN("PerformerPolicy", env, gamma=gamma, **TINY)) == pytest.approx(bound)

    def test_is_reported_once(self):
        env = make_vec_env(ENV, 8, seed=0, env_kwargs=ENV_ARGS)
        model = DoubleDQN("PerformerPolicy", env, seed=0, **TINY, loss="huber")  # values without bounds
        model.learn(200)
        with torch.no_grad():
            for parameter in model.q_net.head.parameters():
                parameter += 50.0
        with pytest.warns(DivergenceWarning, match=r"values have diverged after 200 steps: they range from .*beyond 4"):
            model.train(1, 4)
        assert logged(model)["train/q_over_bound"] > 2
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.train(1, 4)

    def test_without_a_task_rewards_that_were_seen_count(self):
        model = DoubleDQN("MlpPolicy", "CartPole-v1", seed=0, learning_starts=10, buffer_size=100, gamma=0.9)
        model.learn(60)
        assert value_bound(model) == pytest.approx(10.0)
        model.gamma = 1.0
        assert value_bound(model) is None
