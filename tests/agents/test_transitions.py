"""DoubleDQN on the transition path, beside Stable-Baselines3's DQN.

The behaviours are those that SB3's and sb3-contrib's own tests check for DQN and QR-DQN. Of theirs, these do not apply:

* continuous actions, action noise, gSDE, entropy coefficients: actions are Discrete;
* actors and several critics: there is one network;
* quantiles, their number and their loss: values are expectations;
* TRPO, ARS, TQC, CrossQ, recurrent and maskable PPO: other algorithms (masks are tested below);
* goals of hindsight replay: its buffer is SB3's (that it is taken is tested below);
* models saved by old versions: there are none (that one of DQN's loads is tested below);
* the warning for n_steps with a custom buffer: here the buffer gets n_steps, or it is an error;
* one coin of ε-greedy for a whole batch: each row has its own.
"""

import copy
import inspect
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, HerReplayBuffer
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.envs import BitFlippingEnv, FakeImageEnv, IdentityEnv, SimpleMultiObsEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.dqn.policies import MultiInputPolicy as DQNMultiInputPolicy

from agents import DoubleDQN
from agents.double_dqn import MlpPolicy
from agents.exploration import Boltzmann, ContextUCB, EpsilonGreedy
from agents.replay import PrioritizedDictReplayBuffer, PrioritizedReplayBuffer

OFF = {
    "double_q": False,
    "dueling": False,
    "prioritized_replay": False,
    "exploration": "epsilon",
    "n_steps": 1,
}
TINY = {"policy_kwargs": {"net_arch": [16]}, "learning_starts": 20, "buffer_size": 500, "batch_size": 8}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Bandit(gym.Env):
    """Observations of any space; the reward is 1 for action 1."""

    def __init__(self, space, length=10, action_space=None):
        self.observation_space, self.length = space, length
        self.action_space = action_space or spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), float(np.all(action == 1)), False, self.steps == self.length, {}


class Masked(gym.Env):
    """Only the actions whose entry in the observation is 1 are legal; it counts the illegal ones that it gets."""

    observation_space = spaces.Box(0, 1, (6,), np.float32)
    action_space = spaces.Discrete(6)

    def __init__(self, in_info=True):
        self.in_info, self.illegal, self.taken = in_info, 0, 0

    def action_masks(self):
        return self.state > 0

    def _info(self):
        return {"action_mask": self.action_masks().astype(np.int8)} if self.in_info else {}

    def _observe(self):
        self.state = (self.np_random.random(6) < 0.3).astype(np.float32)
        self.state[self.np_random.integers(6)] = 1
        return self.state

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), self._info()

    def step(self, action):
        self.taken += 1
        self.steps += 1
        self.illegal += int(not self.action_masks()[action])
        reward = float(action == np.flatnonzero(self.state)[0])
        return self._observe(), reward, False, self.steps == 7, self._info()


def cartpole(n_envs=1, wrapper=DummyVecEnv):
    return wrapper([lambda: gym.make("CartPole-v1")] * n_envs)


def make_model(env="CartPole-v1", policy="MlpPolicy", **kwargs):
    return DoubleDQN(policy, env, **(TINY | {"seed": 0, "device": "cpu"} | kwargs))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.policy.parameters()])


def q_values(model, observations):
    with torch.no_grad():
        return model.q_net(model.policy.obs_to_tensor(observations)[0])


# ---------------------------------------------------------------------- beside SB3's DQN


class OwnDraws(ReplayBuffer):
    """SB3's buffer, drawing as `PrioritizedReplayBuffer` does with one environment; global states are put back."""

    def __init__(self, *args, seed=0, **kwargs):
        super().__init__(*args, **kwargs)
        self.generator = np.random.default_rng(seed)

    def sample(self, batch_size, env=None):
        if self.n_envs == 1:
            return self._get_samples(self.generator.integers(self.size(), size=batch_size), env)
        state = np.random.get_state()  # noqa: NPY002
        np.random.seed(self.generator.integers(2**31))  # noqa: NPY002
        try:
            return super().sample(batch_size, env)
        finally:
            np.random.set_state(state)  # noqa: NPY002


def fill(buffers, n_steps=300, n_envs=1, seed=0):
    """The same random CartPole-like transitions into each buffer, with terminations and truncations."""
    generator = np.random.default_rng(seed)
    for _ in range(n_steps):
        observations, next_observations = generator.normal(size=(2, n_envs, 4)).astype(np.float32)
        actions, rewards = generator.integers(2, size=n_envs), generator.normal(size=n_envs)
        dones = generator.random(n_envs) < 0.2
        infos = [{"TimeLimit.truncated": bool(done and generator.random() < 0.5)} for done in dones]
        for buffer in buffers:
            buffer.add(observations, next_observations, actions, rewards, dones, copy.deepcopy(infos))


@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_everything_off_makes_the_updates_of_dqn_to_the_bit(tau):
    shared = {"policy_kwargs": {"net_arch": [32, 16]}, "batch_size": 12, "buffer_size": 400, "tau": tau}
    shared |= {"target_update_interval": 40, "seed": 1, "learning_rate": 3e-3, "device": "cpu"}
    theirs = DQN("MlpPolicy", "CartPole-v1", replay_buffer_class=OwnDraws, replay_buffer_kwargs={"seed": 5}, **shared)
    ours = DoubleDQN("MlpPolicy", "CartPole-v1", replay_buffer_kwargs={"seed": 5}, **OFF, **shared)
    assert type(ours.replay_buffer) is PrioritizedReplayBuffer
    ours.set_parameters(theirs.get_parameters())
    fill([theirs.replay_buffer, ours.replay_buffer])
    start = weights(ours)
    for model in (theirs, ours):
        model._setup_learn(1000)
    for call in range(1, 1001):
        for model in (theirs, ours):
            model._on_step()
            model.train(1, 12)
        if call % 100 == 0:
            assert torch.equal(weights(theirs), weights(ours))
    assert not torch.equal(start, weights(ours)) and ours._n_updates == theirs._n_updates == 1000


@pytest.mark.parametrize(
    ("n_envs", "schedule"),
    [
        (1, {"train_freq": 4, "gradient_steps": 1}),
        (1, {"train_freq": (2, "episode"), "gradient_steps": -1}),
        (3, {"train_freq": 5, "gradient_steps": -1}),
        (3, {"train_freq": 1, "gradient_steps": 2, "target_update_interval": 2}),
    ],
)
def test_everything_off_learns_as_dqn_does_to_the_bit(n_envs, schedule):
    """Whole runs: the same moments of all updates, the same replay; acting is greedy, as draws differ."""
    shared = TINY | {"target_update_interval": 32, "learning_rate": 3e-3, "seed": 2, "device": "cpu"}
    shared |= {"replay_buffer_class": OwnDraws, "exploration_initial_eps": 0.0, "exploration_final_eps": 0.0}
    shared |= {"learning_starts": 0} | schedule
    theirs = DQN("MlpPolicy", cartpole(n_envs), **shared)
    ours = DoubleDQN("MlpPolicy", cartpole(n_envs), **OFF, **shared)
    start = weights(ours)
    assert torch.equal(weights(theirs), start)  # the same seed, the same initial weights
    for model in (theirs, ours):
        model.learn(300)
        model.learn(60, reset_num_timesteps=False)
    assert theirs._n_updates == ours._n_updates > 0 and theirs.num_timesteps == ours.num_timesteps
    assert torch.equal(weights(theirs), weights(ours)) and not torch.equal(start, weights(ours))
    assert np.array_equal(theirs.replay_buffer.observations, ours.replay_buffer.observations)


def test_defaults_are_those_of_dqn():
    theirs, ours = DQN("MlpPolicy", "CartPole-v1"), DoubleDQN("MlpPolicy", "CartPole-v1")
    for name in (
        "learning_rate buffer_size learning_starts batch_size tau gamma train_freq gradient_steps n_steps "
        "target_update_interval exploration_fraction exploration_initial_eps exploration_final_eps max_grad_norm "
        "optimize_memory_usage"
    ).split():
        assert getattr(ours, name) == getattr(theirs, name), name
    assert DoubleDQN("MlpPolicy", "CartPole-v1", dueling=False).get_parameters()["policy"].keys() == (
        theirs.get_parameters()["policy"].keys()
    )


def test_uniform_draws_reach_every_transition_equally():
    buffer = PrioritizedReplayBuffer(
        20, spaces.Box(-9, 9, (4,)), spaces.Discrete(2), "cpu", n_envs=2, prioritized=False, seed=0
    )
    fill([buffer], n_steps=7, n_envs=2)
    counts = np.bincount(buffer.sample(14_000).indices, minlength=20)
    assert (counts[14:] == 0).all() and (abs(counts[:14] - 1000) < 150).all()


# ---------------------------------------------------------------------- replay


@pytest.mark.parametrize("n_steps", [1, 2, 5])
@pytest.mark.parametrize("n_added", [7, 33])
def test_n_step_returns_are_those_of_sb3(n_steps, n_added):
    """Terminations, truncations, the write head and wrapping around, for each of three environments."""
    arguments = spaces.Box(-9, 9, (4,)), spaces.Discrete(2), "cpu"
    ours = PrioritizedReplayBuffer(60, *arguments, n_envs=3, n_steps=n_steps, gamma=0.9)
    fill([ours], n_added, 3)
    rows = np.arange(min(n_added, 20))
    for env in range(3):
        theirs = NStepReplayBuffer(20, *arguments, n_steps=n_steps, gamma=0.9)
        for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
            setattr(theirs, name, getattr(ours, name)[:, env : env + 1].copy())
        theirs.pos, theirs.full = ours.pos, ours.full
        expected, batch = theirs._get_samples(rows), ours._get_samples(rows * 3 + env)
        for name in ("observations", "actions", "next_observations", "dones", "rewards"):
            assert torch.allclose(getattr(batch, name), getattr(expected, name), atol=1e-6), name
        # What bootstraps is discounted alike; after a termination the discount does not matter.
        discounts = torch.full_like(expected.discounts, 0.9) if n_steps == 1 else batch.discounts
        alive = expected.dones == 0
        assert torch.allclose(discounts[alive], expected.discounts[alive], atol=1e-6)


def test_cut_keeps_windows_within_an_episode():
    """A reset from outside, as at the start of `learn`: the reward after it belongs to another episode."""
    buffer = PrioritizedReplayBuffer(10, spaces.Box(-9, 9, (1,)), spaces.Discrete(2), "cpu", n_steps=3, gamma=0.5)
    for step in range(6):
        value = np.full((1, 1), step, np.float32)
        buffer.add(value, value + 1, np.zeros(1, int), np.array([2.0**step]), np.array([False]), [{}])
        if step == 2:
            buffer.cut()
    batch = buffer._get_samples(np.arange(6))
    assert batch.rewards[:, 0].tolist() == [1 + 1 + 1, 2 + 2, 4, 8 + 8 + 8, 16 + 16, 32]
    assert batch.next_observations[:, 0].tolist() == [3, 3, 3, 6, 6, 6]
    assert batch.discounts[:, 0].tolist() == [0.125, 0.25, 0.5, 0.125, 0.25, 0.5]
    assert batch.dones.sum() == 0


def test_priorities_decide_the_draws_and_the_weights_correct_them():
    buffer = PrioritizedReplayBuffer(8, spaces.Box(-9, 9, (4,)), spaces.Discrete(2), "cpu", 2, alpha=0.5, seed=0)
    fill([buffer], n_steps=3, n_envs=2)
    assert np.allclose(np.bincount(buffer.sample(6000).indices), 1000, atol=2)  # equal until updated; strata
    buffer.update_priorities(np.arange(6), [1, 4, 9, 16, 0, 1])
    expected = np.sqrt([1, 4, 9, 16, 1e-6, 1])
    expected /= expected.sum()
    batch = buffer.sample(20_000, beta=1.0)
    assert np.allclose(np.bincount(batch.indices) / 20_000, expected, atol=0.002)
    # With β = 1 the weighted draw is the uniform one.
    mass = np.bincount(batch.indices, weights=batch.weights.numpy().astype(float))
    assert np.allclose(mass[:4] / mass[0], 1, atol=0.02) and batch.weights.max() == 1
    assert (buffer.sample(50, beta=0.0).weights == 1).all()
    fill([buffer], n_steps=1, n_envs=2, seed=1)  # new ones enter with the highest priority so far
    assert np.allclose(buffer._tree.get([6, 7]), 4, atol=1e-6)
    fill([buffer], n_steps=1, n_envs=2, seed=2)  # and replace the oldest
    assert np.allclose(buffer._tree.get([0, 1]), 4, atol=1e-6) and buffer.size() == 4
    buffer.reset()
    with pytest.raises(ValueError, match="cannot sample from an empty PrioritizedReplayBuffer"):
        buffer.sample(1)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_bad_priorities(value):
    buffer = PrioritizedReplayBuffer(8, spaces.Box(-9, 9, (4,)), spaces.Discrete(2), "cpu")
    fill([buffer], n_steps=3)
    with pytest.raises(ValueError, match="priorities must be finite and at least 0"):
        buffer.update_priorities(np.array([0]), [value])


@pytest.mark.parametrize("prioritized", [True, False])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_optimize_memory_usage_never_draws_what_has_lost_its_observation(prioritized, n_steps):
    """Observation i is i, so each transition of a full buffer must lead from i to i + n, in all but the newest."""
    buffer = PrioritizedReplayBuffer(
        6,
        spaces.Box(-99, 99, (1,)),
        spaces.Discrete(2),
        "cpu",
        optimize_memory_usage=True,
        handle_timeout_termination=False,
        prioritized=prioritized,
        n_steps=n_steps,
        seed=0,
    )
    for step in range(15):
        value = np.full((1, 1), step, np.float32)
        buffer.add(value, value + 1, np.zeros(1, int), np.ones(1), np.array([False]), [{}])
    batch = buffer.sample(500)
    first, last = batch.observations[:, 0], batch.next_observations[:, 0]
    assert set(first.tolist()) == {10, 11, 12, 13, 14}
    assert torch.equal(last, (first + n_steps).clamp(max=15))


def test_masks_are_stored_as_bits_from_the_first_that_forbids_something():
    buffer = PrioritizedReplayBuffer(6, spaces.Box(-9, 9, (4,)), spaces.Discrete(11), "cpu", n_envs=2, n_steps=2)
    observations, masks = np.zeros((2, 4), np.float32), np.random.default_rng(0).random((3, 2, 11)) < 0.5

    def add(infos):
        buffer.add(observations, observations, np.zeros(2, int), np.zeros(2), np.zeros(2, bool), infos)

    add([{"action_mask": np.ones(11, np.int8)}] * 2)
    assert buffer.sample(4).next_action_masks is None
    for step in range(2):
        add([{"action_mask": masks[step, 0].astype(np.int8)}, {}])
    batch = buffer._get_samples(np.arange(6))
    assert buffer._illegal.shape == (3, 2, 2) and batch.next_action_masks.dtype == torch.bool
    # Windows of two steps: the mask is that of the state after the second.
    for item, mask in enumerate([masks[0, 0], None, masks[1, 0], None, masks[1, 0], None]):
        assert np.array_equal(batch.next_action_masks[item], np.ones(11, bool) if mask is None else mask)


def test_dictionaries_of_observations():
    space = spaces.Dict({"a": spaces.Box(-9, 9, (2,)), "b": spaces.Discrete(5)})
    buffer = PrioritizedDictReplayBuffer(8, space, spaces.Discrete(2), "cpu", n_envs=2, n_steps=2, gamma=1.0)
    for step in range(4):
        first = {"a": np.full((2, 2), step, np.float32), "b": np.array([step, step])}
        second = {"a": first["a"] + 1, "b": first["b"] + 1}
        buffer.add(first, second, np.zeros(2, int), np.array([1.0, 10.0]), np.zeros(2, bool), [{}, {}])
    batch = buffer._get_samples(np.array([0, 1, 6]))
    assert batch.observations["a"][:, 0].tolist() == [0, 0, 3] and batch.observations["b"].flatten().tolist() == [
        0,
        0,
        3,
    ]
    assert batch.next_observations["a"][:, 0].tolist() == [2, 2, 4]
    assert batch.rewards[:, 0].tolist() == [2, 20, 1]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"alpha": -1}, "alpha must be at least 0, got -1"),
        ({"beta": 2}, r"beta must be in \[0, 1\], got 2"),
        ({"n_steps": 0}, "n_steps must be at least 1, got 0"),
        ({"gamma": 1.1}, r"gamma must be in \[0, 1\]"),
        ({"action_space": spaces.MultiDiscrete([2])}, "action_space must be Discrete"),
        ({"optimize_memory_usage": True}, "handle_timeout_termination"),
    ],
)
def test_bad_buffer_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PrioritizedReplayBuffer(
            **(
                {"buffer_size": 5, "observation_space": spaces.Box(0, 1, (1,)), "action_space": spaces.Discrete(2)}
                | kwargs
            )
        )


# ---------------------------------------------------------------------- observations and flags


@pytest.mark.parametrize(
    ("policy", "space"),
    [
        ("MlpPolicy", spaces.Box(-1, 1, (3,), np.float32)),
        ("MlpPolicy", spaces.Box(-1, 1, (2, 2), np.float64)),
        ("MlpPolicy", spaces.Discrete(4)),
        ("MlpPolicy", spaces.MultiDiscrete([2, 3])),
        ("MlpPolicy", spaces.MultiBinary(3)),
        ("CnnPolicy", spaces.Box(0, 255, (36, 36, 1), np.uint8)),
        ("MultiInputPolicy", spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(0, 1, (2,), np.float32)})),
        ("MultiInputPolicy", spaces.Dict({"image": spaces.Box(0, 255, (36, 36, 1), np.uint8)})),
    ],
)
@pytest.mark.parametrize("flags", [OFF, {"n_steps": 3, "exploration": "boltzmann"}])
def test_runs_on_every_space(tmp_path, policy, space, flags):
    env = Bandit(space)
    check_env(env, warn=False)
    policy_kwargs = {"net_arch": [8]}
    if "image" in str(policy) or policy == "CnnPolicy":
        policy_kwargs["features_extractor_kwargs"] = {"features_dim": 8}
    model = make_model(env, policy, train_freq=4, policy_kwargs=policy_kwargs, **flags)
    model.learn(60)
    assert model._n_updates == 10 and torch.isfinite(weights(model)).all()
    single = env.reset()[0]
    action, state = model.predict(single, deterministic=True)
    assert np.shape(action) == () and state is None and env.action_space.contains(int(action))
    batch = DummyVecEnv([lambda: Bandit(space)] * 2).reset()
    for deterministic in (True, False):
        actions, _ = model.predict(batch, deterministic=deterministic)
        assert actions.shape == (2,)
    model.save(tmp_path / "model")
    loaded = DoubleDQN.load(tmp_path / "model", device="cpu")
    # Image environments see channels first once wrapped; predict takes either.
    assert np.array_equal(loaded.predict(batch, deterministic=True)[0], model.predict(batch, deterministic=True)[0])


@pytest.mark.parametrize(
    "action_space", [spaces.Box(-1, 1, (2,), np.float32), spaces.MultiDiscrete([2, 2]), spaces.MultiBinary(2)]
)
def test_wrong_action_spaces_raise(action_space):
    with pytest.raises(AssertionError, match="Discrete"):
        make_model(Bandit(spaces.Box(-1, 1, (3,), np.float32), action_space=action_space))


@pytest.mark.parametrize(
    ("policy", "env", "error", "message"),
    [
        ("PerformerPolicy", "CartPole-v1", ValueError, r"TokenSequence observations for PerformerPolicy, got Box\("),
        ("LstmPolicy", "CartPole-v1", ValueError, "policy must be one of .* got .LstmPolicy."),
        ("MlpPolicy", SimpleMultiObsEnv(), ValueError, "MultiInputPolicy"),
        ("CnnPolicy", "CartPole-v1", AssertionError, "NatureCNN"),
    ],
)
def test_policies_that_do_not_fit(policy, env, error, message):
    with pytest.raises(error, match=message):
        DoubleDQN(policy, env)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"lower_bound": True}, "lower_bound=True needs whole episodes, got MlpPolicy"),
        ({"q_lambda": 0.7}, "q_lambda=0.7 needs whole episodes, got MlpPolicy"),
        ({"policy": DQNPolicy, "dueling": True}, "policy must be a TransitionPolicy for dueling=True, got DQNPolicy"),
        (
            {"replay_buffer_class": ReplayBuffer, "prioritized_replay": True},
            "replay_buffer_class must be a PrioritizedReplayBuffer",
        ),
        ({"replay_buffer_class": ReplayBuffer, "prioritized_replay": False, "n_steps": 2}, "replay_buffer_class must"),
        ({"train_freq": (1, "minute")}, "unit of the `train_freq`"),
        ({"train_freq": "4"}, "must be an integer"),
        ({"target_update_interval": 0}, "target_update_interval must be an integer of at least 1, got 0"),
        ({"optimize_memory_usage": True}, "handle_timeout_termination"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_model(**kwargs)


@pytest.mark.parametrize(
    "flags",
    [
        {name: value}
        for name, value in {
            "double_q": False,
            "dueling": False,
            "prioritized_replay": False,
            "n_steps": 4,
            "exploration": Boltzmann(1.0, 0.1),
            "updates_per_step": 1.0,
            "optimize_memory_usage": True,
            "replay_buffer_kwargs": {"alpha": 1.0},
        }.items()
    ],
    ids=lambda flags: next(iter(flags)),
)
def test_each_flag_changes_the_run(flags):
    if "optimize_memory_usage" in flags:
        flags = flags | {"replay_buffer_kwargs": {"handle_timeout_termination": False}}
    arguments = {"train_freq": 2, "target_update_interval": 20, "learning_rate": 1e-2}
    run, plain = (make_model(**arguments, **extra).learn(150) for extra in (flags, {}))
    assert torch.isfinite(weights(run)).all() and run._n_updates > 0
    if "optimize_memory_usage" in flags:
        assert not hasattr(run.replay_buffer, "next_observations")
    else:
        a, b = weights(run), weights(plain)
        assert a.shape != b.shape or not torch.equal(a, b)


def test_double_q_and_masks_in_the_target_by_hand():
    """Online values pick among the legal actions, target values rate: literal numbers."""
    model = make_model(gamma=0.5, dueling=False, prioritized_replay=False)
    fill([model.replay_buffer], n_steps=1)
    batch = model.replay_buffer._get_samples(np.array([0]))
    batch = batch._replace(
        dones=torch.zeros(1, 1), rewards=torch.ones(1, 1), weights=torch.tensor([0.5]), actions=torch.zeros(1, 1).long()
    )
    for net, values in ((model.q_net, [1.0, 2.0]), (model.q_net_target, [8.0, 4.0])):
        torch.nn.init.zeros_(net.q_net[-1].weight)
        net.q_net[-1].bias.data = torch.tensor(values)
    legal = {None: 1 + 0.5 * 4, (True, True): 1 + 0.5 * 4, (True, False): 1 + 0.5 * 8, (False, False): 1}
    for mask, target in legal.items():
        masks = None if mask is None else torch.tensor([mask])
        result = model._path.loss(batch._replace(next_action_masks=masks))
        assert result.priorities.tolist() == [target - 1] and result.q_mean == 1
        assert result.loss.item() == pytest.approx(0.5 * (target - 1 - 0.5 if target > 2 else 0))
    model.double_q = False
    assert model._path.loss(batch).priorities.tolist() == [1 + 0.5 * 8 - 1]


@pytest.mark.parametrize(("double_q", "errors"), [(True, (2, 1)), (False, (4, 1))])
def test_each_head_of_an_ensemble_has_its_own_target(double_q, errors):
    """γ = 0.5, r = 1: heads with online values (1, 2) and (3, 0), and target values (8, 4) and (6, 5)."""
    kwargs = {"net_arch": [], "n_ensemble": 2}
    model = make_model(gamma=0.5, dueling=False, double_q=double_q, prioritized_replay=False, policy_kwargs=kwargs)
    fill([model.replay_buffer], n_steps=1)
    batch = model.replay_buffer._get_samples(np.array([0]))
    batch = batch._replace(dones=torch.zeros(1, 1), rewards=torch.ones(1, 1), actions=torch.zeros(1, 1).long())
    for net, values in ((model.q_net, [1.0, 2.0, 3.0, 0.0]), (model.q_net_target, [8.0, 4.0, 6.0, 5.0])):
        torch.nn.init.zeros_(net.head.advantage.weight)
        net.head.advantage.bias.data = torch.tensor(values)
    result = model._path.loss(batch)
    assert result.priorities.tolist() == [np.mean(errors)] and result.q_mean == 2
    assert result.loss.item() == pytest.approx(np.mean([error - 0.5 for error in errors]))


@pytest.mark.parametrize(("exploration", "n_heads"), [("ensemble_ucb", 5), ("ucb", 1)])
@pytest.mark.parametrize("dueling", [True, False])
def test_optimistic_explorers_on_any_observation(exploration, n_heads, dueling):
    model = make_model(cartpole(2), exploration=exploration, dueling=dueling).learn(120)
    assert (n_heads > 1 or dueling) == hasattr(model.q_net, "head") and model._n_updates > 0
    if hasattr(model.q_net, "head"):
        assert model.q_net.head.n_ensemble == n_heads
    if exploration == "ucb":
        visits = model.exploration._visit_counts
        assert visits.sum() == 100 and 5 < np.count_nonzero(visits) < 60  # similar states share a count
    space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(0, 1, (2,), np.float32)})
    assert make_model(Bandit(space), "MultiInputPolicy", exploration=exploration, dueling=dueling).learn(40)


def test_dueling_network_subtracts_the_mean_advantage():
    model = make_model(policy_kwargs={"net_arch": []})
    head = model.q_net.head
    torch.nn.init.normal_(head.advantage.weight), torch.nn.init.normal_(head.value.weight)
    observations = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    features = torch.from_numpy(observations)
    values, advantages = features @ head.value.weight.T, features @ head.advantage.weight.T
    expected = values + advantages - advantages.mean(1, keepdim=True)
    assert torch.allclose(q_values(model, observations), expected, atol=1e-5)


# ---------------------------------------------------------------------- masks


@pytest.mark.parametrize("in_info", [True, False])
@pytest.mark.parametrize("exploration", ["epsilon", "boltzmann"])
def test_masks_of_any_environment_are_respected(in_info, exploration):
    env = DummyVecEnv([lambda: Masked(in_info)] * 3)
    env.seed(1)
    model = make_model(env, exploration=exploration, exploration_fraction=1.0, learning_starts=150)
    model.learn(600)
    assert [inner.taken for inner in env.envs] == [200] * 3 and sum(inner.illegal for inner in env.envs) == 0
    items = np.arange(600)
    batch = model.replay_buffer._get_samples(items % model.replay_buffer._tree.capacity)
    expected = batch.next_observations > 0
    truncated = torch.from_numpy(model.replay_buffer.timeouts.reshape(-1)[batch.indices] > 0)
    assert truncated.any() and torch.equal(batch.next_action_masks[~truncated], expected[~truncated])
    # What was legal at the very end is known from the infos only.
    last = batch.next_action_masks[truncated]
    assert torch.equal(last, expected[truncated] if in_info else torch.ones_like(last))
    observations = env.reset()
    masks = np.stack(env.env_method("action_masks"))
    for deterministic in (True, False):
        actions, _ = model.predict(observations, deterministic=deterministic, action_masks=masks)
        assert masks[np.arange(3), actions].all()
    action, _ = model.predict(observations[0], deterministic=True, action_masks=masks[0])
    assert masks[0, action]


# ---------------------------------------------------------------------- schedules


@pytest.mark.parametrize(
    ("schedule", "updates"),
    [
        ({}, 45),  # SB3's: one update for each four steps after learning_starts
        ({"train_freq": 1}, 180),
        ({"train_freq": 10, "gradient_steps": 3}, 54),
        ({"train_freq": (8, "step"), "gradient_steps": -1}, 184),
        ({"gradient_steps": 0}, 0),
        ({"updates_per_step": 0.25}, 45),
        ({"updates_per_step": 0.25, "gradient_steps": 2}, 90),
        ({"train_freq": 10, "updates_per_step": 0.35}, 63),
    ],
)
def test_numbers_of_updates(schedule, updates):
    assert make_model(**schedule).learn(200)._n_updates == updates


def test_updates_per_step_whatever_the_number_of_environments():
    updates = [make_model(cartpole(n), updates_per_step=0.25, train_freq=1).learn(300)._n_updates for n in (1, 2, 5)]
    assert max(updates) - min(updates) <= 2


def test_episodic_training():
    model = make_model(train_freq=(1, "episode"), gradient_steps=2)
    model.learn(300)
    assert model._n_updates % 2 == 0 and model._episode_num - 3 <= model._n_updates // 2 <= model._episode_num
    with pytest.raises(AssertionError, match="only one env when doing episodic training"):
        make_model(cartpole(2), train_freq=(1, "episode")).learn(50)


def test_warm_up_is_random_and_exploration_falls():
    model = make_model(learning_starts=100, exploration_fraction=0.5, exploration_final_eps=0.1)
    model.learn(80)
    assert model._n_updates == 0 and 20 < model.replay_buffer.actions[:80].sum() < 60
    model = make_model(exploration_fraction=0.5, exploration_final_eps=0.1).learn(100)
    assert model.exploration_rate == pytest.approx(0.1)
    observations = np.zeros((400, 4), np.float32)
    greedy = model.predict(observations, deterministic=True)[0][0]
    # Each row has a coin of its own: ε / 2 of them differ from the greedy action.
    assert 2 < (model.predict(observations)[0] != greedy).sum() < 60


# ---------------------------------------------------------------------- learning


@pytest.mark.parametrize("flags", [OFF, {}, {"n_steps": 2, "exploration": "boltzmann"}])
def test_solves_the_identity_environment(flags):
    env = DummyVecEnv([lambda: IdentityEnv(6)])
    arguments = {"gamma": 0.2, "learning_rate": 5e-3, "train_freq": 2, "target_update_interval": 50, "batch_size": 32}
    model = make_model(env, **arguments, exploration_fraction=0.5, **flags).learn(1600)
    mean, _ = evaluate_policy(model, env, 5, warn=False)
    assert mean >= 90  # of 100 steps; 17 by chance


def test_same_seed_same_run_and_global_random_states_untouched():
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    states = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    one, two = (make_model(cartpole(2), seed=1, n_steps=3, train_freq=1).learn(300) for _ in range(2))
    assert torch.equal(weights(one), weights(two))
    assert np.array_equal(one.replay_buffer.actions, two.replay_buffer.actions)
    assert np.array_equal(states[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(states[1], torch.get_rng_state())
    assert not torch.equal(weights(one), weights(make_model(cartpole(2), seed=2, n_steps=3, train_freq=1).learn(300)))


# ---------------------------------------------------------------------- SB3's interface


@pytest.mark.parametrize("flags", [{}, {"n_steps": 3}, OFF])
def test_save_load_and_continue(tmp_path, flags):
    model = make_model(cartpole(2), train_freq=1, **flags).learn(200)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "replay")
    loaded = DoubleDQN.load(tmp_path / "model", env=cartpole(2), device="cpu")
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert torch.equal(q_values(model, observations), q_values(loaded, observations))
    # Exploring goes on with the same random stream, at the same ε.
    assert np.array_equal(model.predict(observations)[0], loaded.predict(observations)[0])
    assert loaded.replay_buffer.size() == 0
    loaded.load_replay_buffer(tmp_path / "replay")
    assert loaded.replay_buffer.size() == model.replay_buffer.size() == 100
    assert np.array_equal(loaded.replay_buffer._tree.get(np.arange(500)), model.replay_buffer._tree.get(np.arange(500)))
    a, b = model.replay_buffer.sample(16), loaded.replay_buffer.sample(16)
    assert torch.equal(a.observations, b.observations) and np.array_equal(a.indices, b.indices)
    updates = loaded._n_updates
    loaded.learn(100, reset_num_timesteps=False)
    assert loaded._n_updates == updates + 50 and loaded.num_timesteps == 300
    alone = DoubleDQN.load(tmp_path / "model", device="cpu")
    assert torch.equal(q_values(model, observations), q_values(alone, observations))
    alone.set_env(cartpole(2))
    assert alone.learn(50).num_timesteps == 50


def test_counts_are_saved_with_the_model(tmp_path):
    arguments = {"exploration": ContextUCB(coefficient=0.1, context=2, table_size=1024), "learning_starts": 10}
    model = make_model("TextGen/Reverse-v0", **arguments).learn(60)
    model.save(tmp_path / "model")
    loaded = DoubleDQN.load(tmp_path / "model", device="cpu")
    assert 0 < model.exploration._pair_counts.sum() == loaded.exploration._pair_counts.sum()


def test_parameters_of_dqn_can_be_set():
    theirs = DQN("MlpPolicy", "CartPole-v1", policy_kwargs=TINY["policy_kwargs"], seed=5, device="cpu")
    ours = make_model(dueling=False)
    assert not torch.equal(weights(theirs), weights(ours))
    ours.set_parameters(theirs.get_parameters())
    assert torch.equal(weights(theirs), weights(ours))
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert np.array_equal(
        theirs.predict(observations, deterministic=True)[0], ours.predict(observations, deterministic=True)[0]
    )
    with pytest.raises(RuntimeError):
        make_model(dueling=True).set_parameters(theirs.get_parameters())


def test_policy_saves_and_loads_alone(tmp_path):
    model = make_model()
    model.policy.save(tmp_path / "policy")
    loaded = MlpPolicy.load(tmp_path / "policy", device="cpu")
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert np.array_equal(
        loaded.predict(observations, deterministic=True)[0], model.predict(observations, deterministic=True)[0]
    )


def test_callbacks_and_logs(tmp_path):
    evaluation = EvalCallback(cartpole(), n_eval_episodes=2, eval_freq=60, log_path=str(tmp_path), verbose=0)
    checkpoint = CheckpointCallback(60, str(tmp_path), save_replay_buffer=True, verbose=0)
    model = make_model(tensorboard_log=str(tmp_path / "tensorboard"), train_freq=1)
    model.learn(150, callback=[evaluation, checkpoint], log_interval=1)
    assert (tmp_path / "rl_model_120_steps.zip").exists() and (tmp_path / "evaluations.npz").exists()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next((tmp_path / "tensorboard").iterdir())))
    events.Reload()
    expected = {"train/loss", "train/td_error", "train/q_mean", "rollout/ep_rew_mean", "rollout/exploration_rate"}
    assert expected | {"eval/mean_reward"} <= set(events.Tags()["scalars"])


def test_a_callback_can_stop_it():
    assert make_model().learn(500, callback=lambda *_: False).num_timesteps == 1


class Normalising(BaseFeaturesExtractor):
    """Batch normalisation: its running statistics are no parameters, and the target network needs them too."""

    def __init__(self, space):
        super().__init__(space, 4)
        self.norm = torch.nn.BatchNorm1d(4)

    def forward(self, observations):
        return self.norm(observations)


def test_policy_kwargs_and_batch_norm_statistics():
    kwargs = {
        "net_arch": [7],
        "activation_fn": torch.nn.Tanh,
        "optimizer_class": torch.optim.RMSprop,
        "optimizer_kwargs": {"eps": 1e-4},
        "features_extractor_class": Normalising,
    }
    model = make_model(policy_kwargs=kwargs, train_freq=1, target_update_interval=1)
    assert isinstance(model.policy.optimizer, torch.optim.RMSprop) and model.q_net.head.advantage.in_features == 7
    model.learn(50)
    online, target = (net.features_extractor.norm.running_mean for net in (model.q_net, model.q_net_target))
    assert online.abs().sum() > 0
    model._on_step()
    assert torch.equal(online, target)
    assert model.policy_kwargs == kwargs  # as given: what load compares with


def test_custom_dqn_policy_without_dueling():
    class Wide(DQNPolicy):
        pass

    model = make_model(policy=Wide, dueling=False, policy_kwargs={"features_extractor_class": FlattenExtractor})
    assert model.learn(60)._n_updates > 0


def test_predict_of_a_tuple_says_what_is_wrong():
    with pytest.raises(ValueError, match="got a tuple: reset returns"):
        make_model().predict(gym.make("CartPole-v1").reset())


def test_vec_normalize():
    env = VecNormalize(cartpole(2), norm_obs=True, norm_reward=True)
    model = make_model(env, train_freq=1).learn(120)
    raw = env.get_original_obs()
    assert np.array_equal(model._last_original_obs, raw)
    # Replay holds what the environment said, and normalises it as of now.
    assert (model.replay_buffer.rewards[:60] == 1).all()
    batch = model.replay_buffer.sample(8, env=env)
    stored = model.replay_buffer.observations[batch.indices // 2, batch.indices % 2]
    assert np.allclose(batch.observations, env.normalize_obs(stored), atol=1e-6)
    assert not np.allclose(batch.rewards, 1)


@pytest.mark.parametrize("n_envs", [1, 2])
def test_image_environments_and_subprocesses(n_envs):
    def image():
        return FakeImageEnv(screen_height=36, screen_width=36, n_channels=1, discrete=True)

    wrapper = DummyVecEnv if n_envs == 1 else SubprocVecEnv
    env = wrapper([image] * n_envs)
    kwargs = {"features_extractor_kwargs": {"features_dim": 8}}
    model = make_model(env, "CnnPolicy", policy_kwargs=kwargs, buffer_size=50, learning_starts=9).learn(30)
    assert model._n_updates > 0 and model.replay_buffer.observations.dtype == np.uint8
    env.close()


def test_tokens_as_plain_observations():
    """The transition baseline on text: the same environment, the same masks, an MLP."""
    model = make_model("TextGen/Reverse-v0").learn(60)
    assert model.n_envs == 1 and model._n_updates == 10
    model = make_model("TextGen/Reverse-v0", exploration="ucb").learn(60)
    assert model.exploration._pair_counts.sum() == 40


# ---------------------------------------------------------------------- arguments that DQN takes


@pytest.mark.parametrize("policy", ["MlpPolicy", "PerformerPolicy"])
def test_actions_that_start_elsewhere(policy, tmp_path):
    """`Discrete(3, start=1)`: the environment sees 1, 2 and 3, at random and by value, and learns which is best."""
    taken = []

    class Started(Bandit):
        def step(self, action):
            taken.append(int(action))
            observation, _, *rest = super().step(action)
            return observation, float(action == 3), *rest

    env = Started(spaces.Box(-1, 1, (2,)), action_space=spaces.Discrete(3, start=1))
    if policy == "PerformerPolicy":
        with pytest.raises(ValueError, match="env must"):
            make_model(env, policy=policy)
        return
    model = make_model(env, policy=policy, learning_rate=1e-2, gamma=0.0, exploration_fraction=0.5).learn(400)
    assert set(taken) == {1, 2, 3}
    observation = env.observation_space.sample()
    assert model.predict(observation, deterministic=True)[0] == 3
    assert model.policy.predict(observation, deterministic=True)[0] == 3
    assert evaluate_policy(model, model.get_env(), 2)[0] == 10.0
    model.save(tmp_path / "model")
    assert DoubleDQN.load(tmp_path / "model").predict(observation, deterministic=True)[0] == 3


@pytest.mark.parametrize("n_sampled_goal", [1, 4])
def test_hindsight_replay_needs_no_flag(n_sampled_goal):
    env = BitFlippingEnv(n_bits=3, continuous=False)
    kwargs = {"n_sampled_goal": n_sampled_goal, "goal_selection_strategy": "future"}
    model = DoubleDQN(
        "MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, replay_buffer_kwargs=kwargs, **TINY
    ).learn(60)
    assert model.prioritized_replay is False and model.replay_buffer.size() > 0
    with pytest.raises(ValueError, match="replay_buffer_class must be a PrioritizedReplayBuffer"):
        DoubleDQN("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, prioritized_replay=True)


def test_tau_zero_leaves_the_target_and_cuda_falls_back(monkeypatch):
    model = make_model("CartPole-v1", tau=0.0, target_update_interval=1)
    before = [parameter.clone() for parameter in model.q_net_target.parameters()]
    model.learn(60)
    assert all(torch.equal(a, b) for a, b in zip(before, model.q_net_target.parameters(), strict=True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert DoubleDQN("MlpPolicy", "CartPole-v1", device="cuda").device.type == "cpu"


@pytest.mark.parametrize(
    "name", "__init__ learn predict save load set_env set_parameters save_replay_buffer load_replay_buffer".split()
)
def test_arguments_of_dqn_come_first_and_in_its_order(name):
    def positional(method):
        parameters = inspect.signature(method).parameters.values()
        return [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]

    theirs, ours = positional(getattr(DQN, name)), positional(getattr(DoubleDQN, name))
    assert ours[: len(theirs)] == theirs


def test_an_action_for_one_observation_is_an_array():
    model, observation = make_model(), np.zeros(4, np.float32)
    for deterministic in (True, False):
        action, state = model.predict(observation, deterministic=deterministic)
        assert isinstance(action, np.ndarray) and action.shape == () and action.dtype == np.int64 and state is None


def test_the_exploration_rate_decides_whoever_sets_it():
    model, observations = make_model(exploration_fraction=1.0), np.zeros((300, 4), np.float32)
    greedy = model.predict(observations, deterministic=True)[0]
    assert np.array_equal(model.predict(observations)[0], greedy)  # 0 until the first step
    model.exploration_rate = 1.0
    assert 100 < (model.predict(observations)[0] != greedy).sum() < 200
    model.exploration_rate = 1.5  # no less than always
    assert 100 < (model.predict(observations)[0] != greedy).sum() < 200
    model.exploration_schedule = lambda progress_remaining: 0.25 * progress_remaining
    model.learn(40)
    model._current_progress_remaining = 0.5
    model._on_step()
    assert model.exploration_rate == 0.125
    model = make_model(exploration=EpsilonGreedy(0.6, 0.2, 0.5)).learn(40)
    assert model.exploration_rate == 0.2  # its own end, not exploration_final_eps


def test_a_target_interval_below_the_number_of_environments_warns():
    with pytest.warns(UserWarning, match=r"update interval \(3 > 2\)"):
        make_model(cartpole(3), target_update_interval=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        DoubleDQN("PerformerPolicy", "TextGen/Reverse-v0", seed=0)  # there, at most one update of it an interval


@pytest.mark.parametrize(
    ("policy", "space", "dueling"),
    [
        (DQNPolicy, spaces.Box(-1, 1, (2,)), False),
        (DQNMultiInputPolicy, spaces.Dict({"a": spaces.Box(-1, 1, (2,))}), False),
        (MlpPolicy, spaces.Box(-1, 1, (2,)), True),
    ],
)
def test_policies_by_class_need_no_flag(policy, space, dueling, tmp_path):
    model = make_model(Bandit(space), policy).learn(30)
    assert model.dueling is dueling and type(model.policy) is policy and model._n_updates > 0
    model.save(tmp_path / "model")
    loaded = DoubleDQN.load(tmp_path / "model", device="cpu")
    assert loaded.dueling is dueling and torch.equal(weights(model), weights(loaded))


@pytest.mark.parametrize(("log_interval", "logged"), [("auto", 2), (1, 8), (3, 2), (None, 0)])
def test_rows_of_the_log(log_interval, logged, tmp_path):
    """Episodes of 10 steps: 8 of them, and as in DQN a row for every fourth unless told otherwise."""
    model = make_model(Bandit(spaces.Box(-1, 1, (2,))))
    model.set_logger(configure(str(tmp_path), ["csv"]))
    arguments = {} if log_interval == "auto" else {"log_interval": log_interval}
    model.learn(80, **arguments)
    model.logger.close()
    assert max(0, len((tmp_path / "progress.csv").read_text().splitlines()) - 1) == logged
    with pytest.raises(ValueError, match="log_interval must be at least 1, got 0"):
        model.learn(80, log_interval=0)


def test_spellings_of_numbers_that_dqn_takes(capsys):
    model = make_model(verbose=True, learning_starts=1e1, target_update_interval=2e1, gradient_steps=np.int64(2))
    assert "Monitor" in capsys.readouterr().out and model.learning_starts == 10 and model.target_update_interval == 20
    assert model.learn(4e1, log_interval=None).num_timesteps == 40


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"policy": "MlpLstmPolicy"}, r"policy must be one of \['CnnPolicy', .* got 'MlpLstmPolicy'"),
        ({"policy": 3}, "policy must be one of .* or a subclass of DQNPolicy, got 3"),
        ({"policy": ActorCriticPolicy}, "policy must have a q_net and a q_net_target.* got ActorCriticPolicy"),
        ({"policy": DQNPolicy, "exploration": "ensemble_ucb"}, "policy must be a TransitionPolicy for exploration="),
        ({"env": None}, "env must be an environment or an id, got None; None needs _init_setup_model=False"),
        ({"replay_buffer_class": "ReplayBuffer"}, "replay_buffer_class must be a class .* got 'ReplayBuffer'"),
        ({"train_freq": 0}, "train_freq must be at least 1 step or episode, got 0"),
        ({"train_freq": (0, "episode")}, r"train_freq must be at least 1 step or episode, got \(0, 'episode'\)"),
        ({"learning_rate": "lin_1e-3"}, "learning_rate must be a number or a function .* got 'lin_1e-3'"),
        ({"learning_starts": 0.5}, "learning_starts must be an integer of at least 0, got 0.5"),
        ({"dueling": 1}, "dueling must be True or False, got 1"),
    ],
)
def test_what_does_not_work_is_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_model(**kwargs)


def test_set_up_later():
    model = make_model(_init_setup_model=False)
    model._setup_model()
    assert model.learn(40)._n_updates > 0 and model.dueling and model.prioritized_replay
    DoubleDQN("MlpPolicy", None, _init_setup_model=False)


def test_arguments_given_to_load_take_the_place_of_the_saved_ones(tmp_path, capsys):
    model = make_model(cartpole(2)).learn(60)
    model.save(tmp_path / "model")
    given = {"exploration_initial_eps": 0.6, "exploration_final_eps": 0.2, "exploration_fraction": 0.5}
    given |= {
        "gamma": 0.5,
        "learning_rate": 1e-5,
        "train_freq": 2,
        "gradient_steps": 3,
        "n_steps": 2,
        "seed": np.int64(4),
        "verbose": 3,
    }
    custom = {"lr_schedule": lambda _: 0.0, "exploration_schedule": lambda _: 0.0}
    loaded, again = (
        DoubleDQN.load(tmp_path / "model", cartpole(), "cpu", custom, print_system_info=True, **given) for _ in range(2)
    )
    assert "SYSTEM INFO" in capsys.readouterr().out and loaded.n_envs == 1
    assert all(getattr(loaded, name) == value for name, value in given.items() if name != "train_freq")
    assert [loaded.exploration_schedule(left) for left in (1.0, 0.75, 0.0)] == pytest.approx([0.6, 0.4, 0.2])
    assert loaded._generator.random() == np.random.default_rng(4).random()
    assert loaded.learn(40)._n_updates == again.learn(40)._n_updates > 0
    with pytest.raises(ValueError, match="gamma must be in"):
        DoubleDQN.load(tmp_path / "model", gamma=2.0)
    model = make_model(exploration="ucb")
    model.save(tmp_path / "model")
    loaded = DoubleDQN.load(tmp_path / "model", exploration_final_eps=0.5)
    assert loaded.exploration.final_epsilon == 0.5 and loaded.exploration.initial_epsilon == 1.0


def test_a_saved_dqn_loads_and_goes_on(tmp_path):
    theirs = DQN("MlpPolicy", cartpole(), **TINY, exploration_final_eps=0.3, device="cpu").learn(60)
    theirs.save(tmp_path / "model")
    theirs.save_replay_buffer(tmp_path / "replay")
    ours = DoubleDQN.load(tmp_path / "model", env=cartpole(), device="cpu")
    assert torch.equal(weights(theirs), weights(ours)) and ours.exploration_rate == theirs.exploration_rate == 0.3
    assert ours.dueling is ours.prioritized_replay is False
    ours.load_replay_buffer(tmp_path / "replay")
    updates = ours._n_updates
    assert ours.learn(40, reset_num_timesteps=False)._n_updates == updates + 10 and ours.num_timesteps == 100

    other = make_model()
    own = other.replay_buffer
    with pytest.raises(ValueError, match=r"path must hold a replay buffer that fits.*got ReplayBuffer"):
        other.load_replay_buffer(tmp_path / "replay")
    assert other.replay_buffer is own and other.replay_buffer_class is PrioritizedReplayBuffer
    other.replay_buffer = theirs.replay_buffer
    with pytest.raises(ValueError, match="replay_buffer must be a PrioritizedReplayBuffer for prioritized_replay=True"):
        other.learn(60)


def test_copies_of_models_and_policies_stand_alone():
    model, observations = make_model().learn(40), np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    actions = model.predict(observations, deterministic=True)[0]
    policies = copy.deepcopy(model.policy), pickle.loads(pickle.dumps(model.policy))
    copied = copy.deepcopy(model)
    start = weights(model)
    assert copied.learn(40)._n_updates > model._n_updates and copied.q_net is copied.policy.q_net
    assert not torch.equal(weights(copied), start) and torch.equal(weights(model), start)
    for policy in policies:
        assert np.array_equal(policy.predict(observations, deterministic=True)[0], actions)


def test_a_seed_repeats_a_run_with_the_replay_of_sb3():
    def trained(seed):
        return make_model(replay_buffer_class=ReplayBuffer, seed=seed, train_freq=1).learn(60)

    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one, two, other = trained(1), trained(1), trained(2)
    assert torch.equal(weights(one), weights(two)) and not torch.equal(weights(one), weights(other))
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
