"""The native batched environment as SB3 sees it."""

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib import QRDQN, MaskablePPO
from sb3_contrib.common.maskable.utils import is_masking_supported
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

import textgym
from agents import DoubleDQN, TextGenVecEnv, make_vec_env
from agents.vec_env import action_masks
from tests.agents.tasks import OddTokens
from textgym.language_models import BigramLM
from textgym.wrappers import VectorTopKActions

SMALL = {"length": 2, "vocab_size": 4}
# Variants differ in sizes from their base task, which the default run has; CI runs them all.
IDS = [
    pytest.param(env_id, marks=[pytest.mark.slow] if env_id.endswith(("-Easy-v0", "-Hard-v0", "-Sparse-v0")) else [])
    for env_id in textgym.env_ids()
]


@pytest.mark.parametrize("env_id", ["TextGen-v0", "TextGen/Json-Easy-v0"])
def test_a_batch_of_likely_tokens_serves_sb3s_agents(env_id):
    """Without masks and with them; `Json` allows few tokens."""
    envs = TextGenVecEnv(VectorTopKActions(gym.make_vec(env_id, num_envs=4), BigramLM(), 5))
    assert envs.action_space.n == 5 and envs.get_attr("task")[0].vocab_size > 5
    masks = action_masks(envs)
    assert (masks is None) == (env_id == "TextGen-v0")
    model = MaskablePPO("MlpPolicy", envs, n_steps=16, batch_size=32, seed=0, device="cpu").learn(128)
    returns, _ = evaluate_policy(model, envs, n_eval_episodes=4)
    assert np.isfinite(returns)
    DoubleDQN("MlpPolicy", envs, seed=0, learning_starts=16, device="cpu").learn(64)
    with pytest.raises(ValueError, match="must have TokenSequence observations"):
        DoubleDQN("PerformerPolicy", envs)
    with pytest.raises(ValueError, match="envs must be a TextGenVectorEnv without a wrapper to keep its state, got <"):
        envs.get_state()


def test_rows_agree_with_sb3s_own_vector_of_single_envs():
    native = make_vec_env("TextGen/Reverse-v0", 3, seed=5, env_kwargs=SMALL)
    plain = make_vec_env("TextGen/Reverse-v0", 3, seed=5, env_kwargs=SMALL, vec_env_cls=DummyVecEnv)
    assert isinstance(native, TextGenVecEnv) and isinstance(plain, DummyVecEnv)
    assert native.observation_space == plain.observation_space
    assert np.array_equal(native.reset(), plain.reset())
    generator = np.random.default_rng(0)
    for _ in range(40):
        actions = generator.integers(0, 5, 3)
        ours, theirs = native.step(actions), plain.step(actions)
        for a, b in zip(ours[:3], theirs[:3], strict=True):
            assert np.array_equal(a, b) and a.dtype == b.dtype
        for a, b, done in zip(ours[3], theirs[3], ours[2], strict=True):
            if done:
                assert np.array_equal(a["terminal_observation"], b["terminal_observation"])
                assert a["TimeLimit.truncated"] == b["TimeLimit.truncated"]
                assert a["episode"]["r"] == pytest.approx(b["episode"]["r"], abs=1e-6)
                assert a["episode"]["l"] == b["episode"]["l"]


def test_masks_of_s_prime_and_of_the_state_after_a_reset():
    env = TextGenVecEnv(textgym.TextGenVectorEnv(2, OddTokens()))
    env.seed(0)
    env.reset()
    _, _, dones, infos = env.step(np.array([1, 4]))  # row 1 ends
    assert list(dones) == [False, True]
    assert infos[0]["action_mask"].tolist() == [0, 1, 0, 1, 1]
    assert infos[1]["action_mask"].tolist() == [0, 1, 0, 1, 1]  # of the terminal state: one step was made
    assert env.reset_infos[1]["action_mask"].tolist() == [1, 1, 1, 1, 1]
    assert env.env_method("action_masks")[1].all()
    assert np.array_equal(action_masks(env), env.action_masks())
    assert is_masking_supported(env)


def test_illegal_actions_end_the_episode_and_are_reported():
    env = TextGenVecEnv(textgym.TextGenVectorEnv(1, OddTokens()))
    env.seed(0)
    env.reset()
    env.step(np.array([1]))
    _, rewards, dones, infos = env.step(np.array([2]))
    assert (rewards[0], dones[0], infos[0]["illegal_action"]) == (0, True, True)


def test_all_legal_environments_need_no_masks():
    assert action_masks(make_vec_env("TextGen/Copy-v0", 2)) is None
    assert action_masks(VecMonitor(make_vec_env("TextGen/Copy-v0", 2))) is None
    assert action_masks(DummyVecEnv([lambda: gym.make("CartPole-v1")])) is None


def test_attributes_methods_and_wrappers():
    env = make_vec_env("TextGen/Copy-v0", 3)
    assert env.get_attr("num_envs") == [3, 3, 3]
    assert env.has_attr("action_masks") and not env.has_attr("no_such_thing")
    assert env.env_is_wrapped(Monitor) == [True] * 3
    env.set_attr("max_episode_steps", 2)
    assert env.envs.max_episode_steps == 2
    with pytest.raises(ValueError, match="indices must be None"):
        env.set_attr("max_episode_steps", 2, indices=[0])


def test_state_round_trip():
    env = make_vec_env("TextGen/Copy-v0", 3, seed=0)
    env.reset()
    state, actions = env.get_state(), np.array([0, 1, 15])
    first = [env.step(actions)[:3] for _ in range(20)]
    env.set_state(state)
    again = [env.step(actions)[:3] for _ in range(20)]
    assert all(np.array_equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))


def test_images_and_sb3_fallback():
    env = make_vec_env("TextGen/Copy-v0", 2, env_kwargs={"render_mode": "rgb_array"})
    env.reset()
    assert env.render().ndim == 3
    assert isinstance(make_vec_env("CartPole-v1", 2), DummyVecEnv)
    with pytest.raises(gym.error.NameNotFound):
        make_vec_env("TextGen/Copi-v0")


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("algorithm", [DQN, PPO, A2C, QRDQN, MaskablePPO])
def test_sb3s_agents_train_on_every_id(env_id, algorithm):
    env = make_vec_env(env_id, 4, seed=0)
    kwargs = {"buffer_size": 2_000, "learning_starts": 100} if algorithm in (DQN, QRDQN) else {"n_steps": 64}
    if algorithm is QRDQN:  # not 200 values for each of up to 1,501 tokens
        kwargs["policy_kwargs"] = {"n_quantiles": 20}
    model = algorithm("MlpPolicy", env, seed=0, device="cpu", **kwargs).learn(1_000)
    assert model.num_timesteps >= 1_000


def test_evaluate_policy_reads_the_episodes_returns():
    env = make_vec_env("TextGen/Reverse-v0", 4, seed=0, env_kwargs=SMALL)
    model = PPO("MlpPolicy", env, n_steps=32, device="cpu")
    returns, lengths = evaluate_policy(model, env, 8, return_episode_rewards=True)
    assert len(returns) == 8 and all(0 <= r <= 1 for r in returns) and max(lengths) <= 4
