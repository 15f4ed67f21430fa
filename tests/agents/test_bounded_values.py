"""Values between known bounds: the loss by hand, the head, the argument of the agent, and files that keep it."""

import json
import math

import pytest
import torch
from torch.testing import assert_close

import agents
from agents import DoubleDQN, make_vec_env
from agents.double_dqn import targets
from agents.double_dqn.heads import QHead
from agents.double_dqn.losses import sequence_loss
from agents.offline.losses import OBJECTIVES
from agents.saving.export import export_model

SMALL = {"features_dim": 16, "n_heads": 2, "n_layers": 1}
ENV = {"env_id": "TextGen/Reverse-v0", "n_envs": 8, "seed": 0, "env_kwargs": {"length": 2, "vocab_size": 4}}


def made(**kwargs) -> DoubleDQN:
    defaults = {"learning_starts": 64, "seed": 0, "device": "cpu", "policy_kwargs": SMALL, "updates_per_step": 0.1}
    return DoubleDQN("PerformerPolicy", make_vec_env(**ENV), **{**defaults, **kwargs})


def test_cross_entropy_by_hand():
    # Between −1 and 3 a target of 0 is a share of ¼, one of 3 a share of 1, and one of 9 is taken for 3.
    logits = torch.tensor([[0.0, math.log(3.0), -5.0], [1.0, math.nan, math.nan]], requires_grad=True)
    target = torch.tensor([[0.0, 3.0, 9.0], [1.0, math.nan, 0.0]])
    valid = torch.tensor([[True, True, True], [True, False, False]])
    loss, errors = targets.td_cross_entropy(logits, target, valid, value_range=(-1.0, 3.0))
    sigmoid = [0.5, 0.75, 1 / (1 + math.exp(5)), 1 / (1 + math.exp(-1))]
    entropies = [
        -0.25 * math.log(0.5) - 0.75 * math.log(0.5),
        -math.log(0.75),
        -math.log(sigmoid[2]),
        -0.5 * math.log(sigmoid[3]) - 0.5 * math.log(1 - sigmoid[3]),
    ]
    assert loss.item() == pytest.approx(sum(entropies) / 4, rel=1e-6)
    expected = [[-1.0, 1.0, 4 * (1 - sigmoid[2])], [4 * (0.5 - sigmoid[3]), 0.0, 0.0]]
    assert_close(errors, torch.tensor(expected))
    assert not errors.requires_grad
    loss.backward()
    by_logit = [[0.25, -0.25, sigmoid[2] - 1], [sigmoid[3] - 0.5, 0.0, 0.0]]  # σ(z) − p
    assert_close(logits.grad, torch.tensor(by_logit) / 4)


def test_cross_entropy_weights_and_bad_arguments():
    logits, target, valid = torch.zeros(2, 2), torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bool)
    loss, _ = targets.td_cross_entropy(logits, target, valid, torch.tensor([1.0, 0.5]))
    assert loss.item() == pytest.approx(0.75 * math.log(2.0))
    assert targets.td_cross_entropy(logits, target, ~valid)[0].item() == 0.0
    with pytest.raises(ValueError, match=r"target must have shape \(2, 2\), got \(2, 3\)"):
        targets.td_cross_entropy(logits, torch.ones(2, 3), valid)
    with pytest.raises(ValueError, match="value_range must have its lower bound first"):
        targets.td_cross_entropy(logits, target, valid, value_range=(1.0, 1.0))


@pytest.mark.parametrize("dueling", [True, False])
@pytest.mark.parametrize("k", [1, 3])
def test_every_way_to_read_bounded_values_agrees(k, dueling):
    torch.manual_seed(0)
    head = QHead(6, 5, dueling, k, value_range=(-2.0, 3.0))
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    features, actions = torch.randn(4, 7, 6), torch.randint(5, (4, 7))
    every = head.ensemble(features)  # (4, 7, K, 5)
    assert every.min() > -2 and every.max() < 3
    assert_close(every, -2 + 5 * head.ensemble_logits(features).sigmoid())
    assert_close(head(features), every.mean(dim=-2))
    chosen = every.gather(-1, actions[..., None, None].expand(4, 7, k, 1)).squeeze(-1)
    assert_close(head.of_ensemble(features, actions), chosen)
    assert_close(head.of(features, actions), chosen.mean(dim=-1))
    masks = torch.rand(4, 7, 5) < 0.7
    masks[..., 0] = True
    legal = every.masked_fill(~masks.unsqueeze(-2), -torch.inf)
    assert torch.equal(head.greedy_ensemble(features, masks), legal.argmax(dim=-1))
    assert torch.equal(head.greedy(features, masks), legal.mean(dim=-2).argmax(dim=-1))


@pytest.mark.parametrize(("bounds", "start"), [((0, 1), 0.119), ((0, 10), 1.19), ((-1, 1), 0.0), ((-1, 0), -0.119)])
@pytest.mark.parametrize("dueling", [True, False])
def test_values_start_near_zero(bounds, start, dueling):
    head = QHead(6, 5, dueling, value_range=bounds)
    assert_close(head(torch.zeros(6)), torch.full((5,), start), atol=0.01, rtol=0)


def test_loss_of_a_batch_is_that_of_the_pure_functions():
    model = made(loss="cross_entropy", prioritized_replay=False).learn(200)
    batch = model.replay_buffer.sample(16)
    loss, errors, q_t = sequence_loss(model.q_net, model.q_net_target, batch, gamma=0.9, double_q=False)
    positions = torch.cat([batch.action_positions - 1, batch.lengths[:, None] - 1], dim=1)
    positions[:, :-1] = torch.where(batch.valid, positions[:, :-1], batch.lengths[:, None] - 1)
    values = model.q_net.head(model.q_net.features_at(batch.tokens, positions))
    next_values = model.q_net_target.head(model.q_net_target.features_at(batch.tokens, positions))[:, 1:].amax(-1)
    taken = values[:, :-1].gather(-1, batch.actions[..., None]).squeeze(-1)
    target = targets.n_step_targets(batch.rewards, next_values, batch.valid, batch.terminated, 0.9, 1).clamp(0, 1)
    assert_close(q_t, taken, atol=1e-5, rtol=0)
    assert_close(errors, torch.where(batch.valid, target - taken, 0.0), atol=1e-5, rtol=0)
    entropy = -target * taken.log() - (1 - target) * (1 - taken).log()
    assert loss.item() == pytest.approx(entropy[batch.valid].sum().item() / batch.valid.sum().item(), rel=1e-4)


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"dueling": False, "double_q": False, "lower_bound": True},
        {"q_lambda": 0.7, "watkins": True, "value_range": (-1.0, 2.0)},
        {"exploration": "ensemble_ucb", "prioritized_replay": False},
        {"tau": 1.0, "keep_best": True, "best_share": 0.25},
    ],
)
def test_trains_with_every_flag_and_repeats_bit_for_bit(flags):
    one, two = (made(loss="cross_entropy", **flags).learn(400) for _ in range(2))
    for name, value in one.policy.state_dict().items():
        assert torch.equal(value, two.policy.state_dict()[name]), name
    observations = one.env.reset()
    low, high = one.value_range
    values = one.q_net(torch.as_tensor(observations))
    assert low < values.min() and values.max() < high


def test_range_comes_from_the_task_and_includes_zero():
    assert made(loss="cross_entropy").value_range == (0.0, 1.0)
    assert made(loss="cross_entropy", value_range=[-1, 2]).value_range == (-1.0, 2.0)
    assert made().value_range == (0.0, 1.0) and made().loss == "cross_entropy"
    assert made(loss="huber").value_range is None


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"loss": "l1"}, r"loss must be one of \('huber', 'cross_entropy'\) or None, got 'l1'"),
        ({"loss": "cross_entropy", "value_range": (1, 0)}, r"value_range must be two finite numbers.*got \(1, 0\)"),
        ({"loss": "cross_entropy", "value_range": (0, math.inf)}, "value_range must be two finite numbers"),
        ({"loss": "cross_entropy", "value_range": 1.0}, "value_range must be two finite numbers.*got 1.0"),
        ({"loss": "huber", "value_range": (0, 1)}, "value_range needs loss=\"cross_entropy\", got loss='huber'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        made(**kwargs)


def test_unknown_ranges_must_be_given_or_leave_the_other_loss():
    def reward(prompts, completions, **columns):
        return [float(len(text)) for text in completions]

    env = make_vec_env("TextGen-v0", n_envs=2, env_kwargs={"reward": reward, "max_new_tokens": 3})
    with pytest.raises(ValueError, match=r"loss=\"cross_entropy\" needs value_range=\(low, high\)"):
        DoubleDQN("PerformerPolicy", env, loss="cross_entropy", policy_kwargs=SMALL)
    assert DoubleDQN("PerformerPolicy", env, policy_kwargs=SMALL).loss == "huber"
    model = DoubleDQN("PerformerPolicy", env, loss="cross_entropy", value_range=(0, 60), policy_kwargs=SMALL)
    assert model.q_net.head.value_range == (0.0, 60.0)
    with pytest.raises(ValueError, match="needs a policy for sequences, got MlpPolicy"):
        DoubleDQN("MlpPolicy", "CartPole-v1", loss="cross_entropy")


def test_saved_loaded_and_exported_with_the_same_values(tmp_path):
    model = made(
        loss="cross_entropy", q_lambda=lambda remaining: 0.5 + 0.5 * remaining, keep_best=True, best_share=0.2
    ).learn(300)
    observations = torch.as_tensor(model.env.reset())
    expected = model.q_net(observations)
    model.save(tmp_path / "model")
    loaded = DoubleDQN.load(tmp_path / "model", env=make_vec_env(**ENV), device="cpu")
    assert torch.equal(loaded.q_net(observations), expected)
    assert (loaded.loss, tuple(loaded.value_range), loaded.best_share) == ("cross_entropy", (0.0, 1.0), 0.2)
    loaded.learn(100, reset_num_timesteps=False)
    export_model(model, tmp_path / "exported")
    assert torch.equal(agents.load(tmp_path / "exported", device="cpu").q_net(observations), expected)


def test_files_from_before_these_arguments_are_read_as_they_were_meant(tmp_path):
    model = made(loss="huber", keep_best=False, priority_beta_final=1.0)
    observations = torch.as_tensor(model.env.reset())
    expected = model.q_net(observations)
    export_model(model, tmp_path / "exported")
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    for name in ("loss", "value_range", "keep_best", "best_share", "priority_beta_final"):
        del config["agent"][name]
    (tmp_path / "exported" / "config.json").write_text(json.dumps(config))
    assert torch.equal(agents.load(tmp_path / "exported", device="cpu").q_net(observations), expected)
    for name in ("loss", "value_range", "keep_best", "best_share", "priority_beta_final"):
        del model.__dict__[name]
    model.save(tmp_path / "model")
    loaded = DoubleDQN.load(tmp_path / "model", device="cpu")
    assert torch.equal(loaded.q_net(observations), expected)
    assert (loaded.loss, loaded.value_range, loaded.keep_best, loaded.best_share) == ("huber", None, False, 0.0)
    assert loaded.priority_beta_final == 1.0


@pytest.mark.filterwarnings("ignore:objective .* leaves logits")
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_texts_are_learned_from_under_every_objective(objective):
    from textgym import demonstrations

    model = made(loss="cross_entropy")
    shown = demonstrations("TextGen/Reverse-v0", n=64, length=2, vocab_size=4)
    result = agents.learn_from_text(model, shown, objective=objective, steps=60, batch_size=16)
    assert result.loss < result.first_loss


def test_texts_that_earn_more_than_values_can_be_are_reported():
    def three(prompts, completions, **columns):
        return [3.0] * len(prompts)

    model = made(loss="cross_entropy", gamma=1.0)
    with pytest.warns(UserWarning, match=r"returns of the texts range from 0 to 3, and the model's values from 0 to 1"):
        agents.learn_from_text(model, [("a b", "b a")], reward=three, steps=1, batch_size=1)
