"""DoubleDQN on the sequence path: the same features three ways, targets, reproducibility, SB3's interface."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env as sb3_make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

import textgym
from agents import DoubleDQN, TextGenVecEnv, make_vec_env
from agents.double_dqn.evaluation import evaluate
from agents.double_dqn.heads import QHead
from agents.double_dqn.losses import sequence_loss
from agents.exploration import Boltzmann, ContextUCB, EpsilonGreedy
from tests.agents.tasks import Echo, OddTokens, Secret

TINY = {"policy_kwargs": {"features_dim": 16, "n_layers": 1, "n_heads": 2}, "learning_starts": 50, "batch_size": 8}
SMALL = {"length": 2, "vocab_size": 4}


def small_env(n_envs=4, seed=0, task=None, **kwargs):
    if task is not None:
        env = TextGenVecEnv(textgym.TextGenVectorEnv(n_envs, task, **kwargs))
        env.seed(seed)
        return env
    return make_vec_env("TextGen/Reverse-v0", n_envs, seed=seed, env_kwargs=SMALL | kwargs)


def make_model(env=None, **kwargs):
    return DoubleDQN("PerformerPolicy", env or small_env(), **(TINY | {"seed": 0} | kwargs))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.policy.parameters()])


# ---------------------------------------------------------------------- heads


@pytest.mark.parametrize("dueling", [True, False])
def test_head_reads_single_actions_as_the_whole_row_has_them(dueling):
    torch.manual_seed(0)
    head = QHead(8, 5, dueling)
    torch.nn.init.normal_(head.advantage.weight)
    torch.nn.init.normal_(head.advantage.bias)
    features, actions = torch.randn(3, 4, 8), torch.randint(0, 5, (3, 4))
    q_values = head(features)
    assert torch.allclose(head.of(features, actions), q_values.gather(-1, actions[..., None])[..., 0], atol=1e-5)
    masks = torch.rand(3, 4, 5) < 0.5
    masks[..., 0] = True
    assert torch.equal(head.greedy(features, masks), q_values.masked_fill(~masks, -torch.inf).argmax(-1))
    loss_rows = (q_values.gather(-1, actions[..., None]) ** 2).sum()
    rows = torch.autograd.grad(loss_rows, head.parameters())
    single = torch.autograd.grad((head.of(features, actions) ** 2).sum(), head.parameters())
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(rows, single, strict=True))


# ---------------------------------------------------------------------- acting


@pytest.mark.parametrize("task", [None, Echo()])
def test_three_ways_to_act_agree(task):
    """predict(obs), predict(obs, state, episode_start) and the full-context forward, over several episodes."""
    env = small_env(5, task=task)
    model, q_net = make_model(env), None
    q_net = model.policy.q_net
    torch.nn.init.normal_(q_net.head.advantage.weight)
    observations, state, starts = env.reset(), None, np.ones(5, bool)
    generator = np.random.default_rng(0)
    for _ in range(30):
        alone, _ = model.predict(observations, deterministic=True)
        actions, state = model.predict(observations, state, starts, deterministic=True)
        with torch.no_grad():
            full = q_net(q_net.obs_to_tensor(observations)[0])
        assert torch.allclose(q_net.head(state.features), full, atol=1e-5)
        assert np.array_equal(actions, alone) and np.array_equal(actions, full.argmax(1).numpy())
        observations, _, starts, _ = env.step(generator.integers(0, 5, 5))


def test_predict_notices_a_shorter_text_without_being_told():
    env = small_env(3)
    model, observations, state = make_model(env), env.reset(), None
    for _ in range(12):
        _, state = model.predict(observations, state, deterministic=True)
        expected = model.policy.q_net.advance(observations)
        assert torch.allclose(state.features, expected.features, atol=1e-5)
        observations, *_ = env.step(np.array([0, 2, 1]))


def test_predict_leaves_the_given_state_alone_and_takes_single_observations():
    env = small_env(1)
    model, observations = make_model(env), env.reset()
    _, first = model.predict(observations, deterministic=True)
    before = first.features.clone()
    observations, *_ = env.step(np.array([0]))
    one, _ = model.predict(observations, first, deterministic=True)
    two, _ = model.predict(observations, first, deterministic=True)
    assert np.array_equal(one, two) and torch.equal(first.features, before)
    action, _ = model.predict(observations[0], deterministic=True)
    assert action.shape == () and action == one[0]
    with pytest.raises(ValueError, match="state must have 1 rows"):
        model.predict(observations, model.policy.q_net.advance(np.repeat(observations, 2, axis=0)))


def test_masks_are_honoured_everywhere():
    env = small_env(8, task=OddTokens())
    model = make_model(env, exploration="epsilon", exploration_fraction=1.0)
    model.learn(600)
    batch = model.replay_buffer.sample(64)
    assert batch.action_masks is not None
    chosen = batch.action_masks[:, :-1].gather(-1, batch.actions[..., None])[..., 0]
    assert chosen[batch.valid].all()  # warm-up and exploration alike
    observations = env.reset()
    observations, *_ = env.step(np.ones(8, int))
    for deterministic in (True, False):
        actions, _ = model.predict(observations, deterministic=deterministic, action_masks=env.action_masks())
        assert env.action_masks()[np.arange(8), actions].all()


# ---------------------------------------------------------------------- learning


def test_loss_by_hand():
    """One episode, γ = 0.5: targets are r + γ·Q_target(s′, argmax Q_online(s′)), and r alone at the end."""
    model = make_model(gamma=0.5, prioritized_replay=False)
    tokens = np.array([[0, 1, 2, 3, 4, 5]])
    model.replay_buffer.add_episode(tokens[0, :5], np.array([2, 3, 4]), np.array([0.1, 0.2, 0.3]), terminated=True)
    torch.nn.init.normal_(model.policy.q_net.head.advantage.weight)
    torch.nn.init.normal_(model.policy.q_net_target.head.advantage.weight)
    batch = model.replay_buffer.sample(1)
    _, errors, q_t = sequence_loss(model.q_net, model.q_net_target, batch, gamma=0.5)

    def q(net, length):
        observation = np.full((1, 6), 5)
        observation[0, :length] = tokens[0, :length]
        with torch.no_grad():
            return net(net.obs_to_tensor(observation)[0])[0]

    online, target = model.policy.q_net, model.policy.q_net_target
    for t, (action, reward) in enumerate(zip([2, 3, 4], [0.1, 0.2, 0.3], strict=True)):
        expected = reward
        if t < 2:
            expected += 0.5 * q(target, 3 + t)[q(online, 3 + t).argmax()].item()
        assert q_t[0, t].item() == pytest.approx(q(online, 2 + t)[action].item(), abs=1e-4)
        assert abs(errors[0, t].item()) == pytest.approx(abs(expected - q_t[0, t].item()), abs=1e-4)


def test_q_lambda_goes_from_one_step_to_the_return_unless_watkins_cuts_it():
    model = make_model(prioritized_replay=False)
    model.learn(400)
    nets, batch = (model.q_net, model.q_net_target), model.replay_buffer.sample(32)

    def errors(**flags):
        return sequence_loss(*nets, batch, gamma=0.9, **flags)[1]

    one_step, returns = errors(), errors(n_steps=batch.valid.shape[1])
    assert not torch.allclose(one_step, returns, atol=1e-3)
    assert torch.allclose(errors(q_lambda=0.0), one_step, atol=1e-6)
    assert torch.allclose(errors(q_lambda=1.0), returns, atol=1e-6)
    assert torch.allclose(errors(q_lambda=0.0, watkins=True), one_step, atol=1e-6)
    cut = errors(q_lambda=1.0, watkins=True)
    best = nets[0].head.greedy(nets[0].features_at(batch.tokens, batch.action_positions - 1))  # (B, T)
    explored = (best != batch.actions) & batch.valid
    for row in range(len(cut)):
        for t in range(int(batch.valid[row].sum()) - 1):
            expected = one_step if explored[row, t + 1] else None
            if not explored[row, t + 1 :].any():
                expected = returns
            if expected is not None:
                assert cut[row, t].item() == pytest.approx(expected[row, t].item(), abs=1e-5)


def test_lambda_may_be_a_function_of_the_remaining_progress():
    assert make_model(q_lambda=0.5).current_q_lambda == 0.5 and make_model(n_steps=2).current_q_lambda is None
    model, seen = make_model(q_lambda=lambda remaining: 0.25 + 0.5 * remaining), []
    assert model.current_q_lambda == 0.75
    model.learn(400, callback=lambda *_: seen.append(model.current_q_lambda) or True)
    assert seen == sorted(seen, reverse=True) and seen[0] > 0.7 and seen[-1] == pytest.approx(0.25, abs=0.01)
    with pytest.raises(ValueError, match=r"q_lambda must be in \[0, 1\], got 2.0"):
        make_model(q_lambda=lambda remaining: 2.0 * remaining)


def test_without_a_target_network_the_target_is_that_of_the_network_itself():
    model = make_model(tau=1.0, prioritized_replay=False)
    model.learn(400)
    assert all(map(torch.equal, model.q_net.parameters(), model.q_net_target.parameters()))
    batch = model.replay_buffer.sample(32)
    saved, twice = model._path.loss(batch).loss, sequence_loss(model.q_net, model.q_net_target, batch, gamma=0.99)[0]
    assert saved.item() == pytest.approx(twice.item(), rel=1e-5)


@pytest.mark.parametrize(
    "flags", [{}, {"double_q": False, "n_steps": 2}, {"lower_bound": True}, {"q_lambda": 0.7, "watkins": True}]
)
def test_heads_that_are_alike_learn_as_one_would(flags):
    one, three = (
        make_model(prioritized_replay=False),
        make_model(policy_kwargs={**TINY["policy_kwargs"], "n_ensemble": 3}),
    )
    one.learn(200)
    for alone, several in ((one.q_net, three.q_net), (one.q_net_target, three.q_net_target)):
        several.encoder.load_state_dict(alone.encoder.state_dict())
        torch.nn.init.normal_(alone.head.advantage.weight)
        for name in ("advantage", "value"):
            weight, bias = getattr(alone.head, name).weight.data, getattr(alone.head, name).bias.data
            getattr(several.head, name).weight.data = weight.repeat(3, 1)
            getattr(several.head, name).bias.data = bias.repeat(3)
    batch = one.replay_buffer.sample(8)
    alone, several = (sequence_loss(m.q_net, m.q_net_target, batch, gamma=0.9, **flags) for m in (one, three))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(alone, several, strict=True))
    one.q_net.zero_grad()  # of learning
    alone[0].backward(), several[0].backward()
    gradients = [next(m.q_net.encoder.parameters()).grad for m in (one, three)]
    assert gradients[0].abs().sum() > 0 and torch.allclose(*gradients, atol=1e-5)


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"exploration": "ensemble_ucb", "policy_kwargs": {**TINY["policy_kwargs"], "n_ensemble": 2}},
        {"double_q": False, "dueling": False, "prioritized_replay": False, "exploration": "epsilon"},
        {"n_steps": 3, "lower_bound": True, "exploration": "boltzmann"},
        {"q_lambda": 0.7, "watkins": True},
        {"exploration": ContextUCB(coefficient=0.1, context=2, table_size=1024)},
        {"gradient_steps": 2, "train_freq": 4, "target_update_interval": 100, "tau": 1.0},
    ],
)
def test_every_flag_trains(flags):
    model = make_model(**flags)
    before, target = weights(model), model.policy.q_net_target.head.advantage.weight.clone()
    model.learn(400)
    assert model.num_timesteps == 400 and model._n_updates > 0
    assert not torch.equal(before, weights(model))
    assert not torch.equal(target, model.policy.q_net_target.head.advantage.weight)
    assert torch.isfinite(weights(model)).all()


def test_learns_to_reverse_two_symbols():
    """From the return of a random policy, 0.2, to nearly all: it does learn, here within seconds."""
    model = make_model(small_env(16), learning_rate=5e-3, updates_per_step=0.2, policy_kwargs={"features_dim": 32})
    before = evaluate_policy(model, small_env(16, seed=99), 64)[0]
    model.learn(3_000)
    assert before < 0.5
    assert evaluate_policy(model, small_env(16, seed=99), 64)[0] > 0.9


def test_number_of_updates_does_not_depend_on_the_number_of_environments():
    updates = [make_model(small_env(n), updates_per_step=0.1).learn(480)._n_updates for n in (1, 4, 16)]
    assert max(updates) - min(updates) <= 2 and min(updates) > 35


def test_no_update_before_an_episode_has_ended():
    model = make_model(small_env(1, max_episode_steps=4), learning_starts=0, gradient_steps=1)
    steps = []
    model.learn(12, callback=lambda *_: steps.append((model.replay_buffer.n_episodes, model._n_updates)) or True)
    assert all(updates == 0 for episodes, updates in steps if not episodes) and 0 < model._n_updates < 12


def test_rewards_can_be_normalised_but_not_tokens():
    env = VecNormalize(small_env(4), norm_obs=False)
    model = make_model(env).learn(200)
    stored, normalised = model.replay_buffer.sample(32).rewards, model.replay_buffer.sample(32, env=env).rewards
    assert 0 < stored.max() <= 1 < normalised.max()  # replay holds what the environment said
    with pytest.raises(ValueError, match="norm_obs=False for PerformerPolicy"):
        make_model(VecNormalize(small_env(4)))


def test_truncated_episodes_bootstrap():
    model = make_model(small_env(4, task="reverse", max_episode_steps=2, **SMALL))
    model.learn(200)
    assert not model.replay_buffer.sample(64).terminated.all()


def test_same_seed_same_run_and_global_random_states_untouched():
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    states = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    one, two = (make_model(small_env(4, seed=1), seed=1).learn(500) for _ in range(2))
    assert torch.equal(weights(one), weights(two))
    assert evaluate_policy(one, small_env(8, seed=2), 16, return_episode_rewards=True) == evaluate_policy(
        two, small_env(8, seed=2), 16, return_episode_rewards=True
    )
    assert np.array_equal(states[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(states[1], torch.get_rng_state())
    assert not torch.equal(weights(one), weights(make_model(seed=2).learn(500)))


# ---------------------------------------------------------------------- SB3's interface


@pytest.mark.parametrize("exploration", ["ucb", "epsilon", "boltzmann"])
def test_save_load_and_continue(tmp_path, exploration):
    model = make_model(exploration=exploration).learn(400)
    observations = small_env(8, seed=3).reset()
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "replay")
    loaded = DoubleDQN.load(tmp_path / "model", env=small_env())
    assert np.array_equal(
        model.predict(observations, deterministic=True)[0], loaded.predict(observations, deterministic=True)[0]
    )
    with torch.no_grad():
        features = [m.policy.q_net.advance(observations).features for m in (model, loaded)]
    assert torch.equal(*features)
    assert type(loaded.exploration) is type(model.exploration)
    if exploration == "ucb":
        contexts = np.arange(2**16, dtype=np.uint64)
        assert np.array_equal(model.exploration.counts(contexts, 5)[0], loaded.exploration.counts(contexts, 5)[0])
        assert model.exploration._pair_counts.sum() > 0
    # Exploring goes on with the same random stream.
    assert np.array_equal(model.predict(observations)[0], loaded.predict(observations)[0])
    loaded.load_replay_buffer(tmp_path / "replay")
    assert loaded.replay_buffer.n_episodes == model.replay_buffer.n_episodes
    a, b = model.replay_buffer.sample(16), loaded.replay_buffer.sample(16)
    assert torch.equal(a.tokens, b.tokens) and torch.equal(a.weights, b.weights)
    updates = loaded._n_updates
    loaded.learn(100, reset_num_timesteps=False)
    assert loaded._n_updates > updates and loaded.num_timesteps == 500


def test_load_without_environment_predicts(tmp_path):
    model = make_model()
    model.save(tmp_path / "model")
    observations = small_env(3).reset()
    loaded = DoubleDQN.load(tmp_path / "model")
    assert np.array_equal(
        loaded.predict(observations, deterministic=True)[0], model.predict(observations, deterministic=True)[0]
    )


@pytest.mark.parametrize(
    "env",
    [
        "TextGen/Reverse-v0",
        "textgym:TextGen/Reverse-v0",
        lambda: gym.make("TextGen/Reverse-v0", **SMALL),
        lambda: sb3_make_vec_env("TextGen/Reverse-v0", 2, env_kwargs=SMALL),
    ],
)
def test_environments_in_every_form(env):
    model = make_model(env if isinstance(env, str) else env())
    model.learn(120)
    assert model.replay_buffer.n_episodes > 0


def test_callbacks_and_tensorboard(tmp_path):
    env = small_env(4, seed=7)
    evaluation = EvalCallback(env, n_eval_episodes=8, eval_freq=50, log_path=str(tmp_path), verbose=0)
    checkpoint = CheckpointCallback(50, str(tmp_path), verbose=0)
    model = make_model(tensorboard_log=str(tmp_path / "tensorboard"))
    model.learn(400, callback=[evaluation, checkpoint], log_interval=10)
    assert list(tmp_path.glob("rl_model_*.zip")) and (tmp_path / "evaluations.npz").exists()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next((tmp_path / "tensorboard").iterdir())))
    events.Reload()
    keys = set(events.Tags()["scalars"])
    assert {"train/loss", "train/td_error", "train/q_mean", "rollout/ep_rew_mean", "eval/mean_reward"} <= keys


def test_get_and_set_parameters():
    one, two = make_model(seed=1), make_model(seed=2)
    two.set_parameters(one.get_parameters())
    assert torch.equal(weights(one), weights(two))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"exploration": "greedy"}, "exploration must be one of"),
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\], got 1.5"),
        ({"tau": -0.1}, "tau must be in"),
        ({"n_steps": 0}, "n_steps must be an integer of at least 1, got 0"),
        ({"q_lambda": 1.1}, r"q_lambda must be in \[0, 1\], got 1.1"),
        ({"q_lambda": 0.5, "n_steps": 3}, "n_steps must be 1 with q_lambda, which takes its place, got 3"),
        ({"watkins": True, "n_steps": 3}, "watkins=True needs q_lambda, got None"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"policy_kwargs": {"features_dim": 10, "n_heads": 4}}, "features_dim"),
        ({"lower_bound": True, "env": small_env(task=Secret(**SMALL))}, "lower_bound=True needs"),
        ({"env": gym.make("CartPole-v1")}, r"env must have TokenSequence observations for PerformerPolicy, got Box\("),
        ({"optimize_memory_usage": True}, "optimize_memory_usage must be False for PerformerPolicy"),
        ({"replay_buffer_class": ReplayBuffer}, "replay_buffer_class must be an EpisodeReplayBuffer"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_model(**kwargs)


def test_explorers_get_the_schedule_of_the_constructor():
    arguments = {"exploration_initial_eps": 0.8, "exploration_final_eps": 0.1, "exploration_fraction": 0.4}
    epsilon = make_model(exploration="epsilon", **arguments).exploration
    ucb = make_model(exploration="ucb", exploration_kwargs={"coefficient": 0.7}, **arguments).exploration
    assert isinstance(epsilon, EpsilonGreedy) and (epsilon.initial, epsilon.final, epsilon.fraction) == (0.8, 0.1, 0.4)
    assert isinstance(ucb, ContextUCB) and ucb.coefficient == 0.7
    assert (ucb.initial_epsilon, ucb.final_epsilon, ucb.fraction) == (0.8, 0.1, 0.4)
    cooling = make_model(exploration="boltzmann", exploration_kwargs={"fraction": 0.5}).exploration
    assert isinstance(cooling, Boltzmann) and cooling.fraction == 0.5
    assert (cooling.initial_temperature, cooling.final_temperature) == (0.02, 5e-4)  # those of sequences


# ---------------------------------------------------------------------- progress and masks


def test_progress_ends_at_zero_though_the_last_rollout_goes_past_the_end():
    progress = []
    schedule = {"learning_rate": lambda remaining: progress.append(remaining) or 1e-3}
    model = make_model(small_env(32), priority_beta=0.4, priority_beta_final=1.0, **schedule)
    betas, sample = [], model.replay_buffer.sample
    model.replay_buffer.sample = lambda *args, **kwargs: betas.append(kwargs["beta"]) or sample(*args, **kwargs)
    model.learn(330)  # 352 steps
    assert model.num_timesteps == 352 and model._current_progress_remaining == 0.0
    assert min(progress) == 0.0 and max(progress) <= 1.0
    assert 0.4 <= min(betas) and max(betas) == 1.0


def test_sb3s_evaluation_respects_masks(tmp_path):
    model = make_model(make_vec_env("TextGen/Sql-Easy-v0", 8, seed=0)).learn(300)
    env = make_vec_env("TextGen/Sql-Easy-v0", 8, seed=10_000)
    ours = evaluate(model, env, 24, seed=10_000).returns.mean()
    env.seed(10_000)
    returns, _ = evaluate_policy(model, env, 24)
    assert returns == pytest.approx(ours, abs=1e-6)
    illegal = []
    callback = EvalCallback(env, eval_freq=8, n_eval_episodes=8, log_path=str(tmp_path), verbose=0)
    step = env.step_wait

    def watched():
        result = step()
        illegal.extend("illegal_action" in info for info in result[3])
        return result

    env.step_wait = watched
    model.learn(128, callback, reset_num_timesteps=False)
    assert illegal and not any(illegal)


def test_predict_without_masks_where_there_are_some_warns():
    model = make_model(make_vec_env("TextGen/Sql-Easy-v0", 4, seed=0)).learn(64)
    observations = make_vec_env("TextGen/Sql-Easy-v0", 4, seed=5).reset()
    with pytest.warns(UserWarning, match="predict.. got no action_masks"):
        model.predict(observations.copy(), deterministic=True)
