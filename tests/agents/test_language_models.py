"""A frozen language model as the trunk: what it reads, what the head learns, and how it steers ``generate``."""

import numpy as np
import pytest
import torch

from agents import DoubleDQN, PrunedTransformer, make_vec_env, reward_steering
from agents.double_dqn.language_models import objectives
from agents.double_dqn.language_models.head import CandidateRewards, candidate_products
from agents.double_dqn.language_models.reader import Reader, States
from agents.double_dqn.language_models.writer import Writer
from tests.agents.tiny_language_models import PROMPTS, WORDS, save_llama
from textgym.language_models import HuggingFaceLM
from textgym.oracles import soft_optimal
from textgym.rewards import RewardError

ETA = 0.15


def variety(prompts, completions, **_):
    """Half for different words that do not begin as the prompt ends, half for a w3."""
    scores = []
    for prompt, completion in zip(prompts, completions, strict=True):
        words = completion.split()
        fresh = words[:1] != prompt.split()[-1:]
        scores.append(0.5 * len(set(words)) / 3 * fresh + 0.5 * ("w3" in words))
    return scores


def last_word(prompts, completions, **_):
    return [float(text.split()[-1:] == ["w2"]) for text in completions]


def length(prompts, completions, **_):
    return [len(text.split()) / 3 for text in completions]


def echo(prompts, completions, **_):
    return [
        sum(word in prompt.split() for word in text.split()) / 3
        for prompt, text in zip(prompts, completions, strict=True)
    ]


TASKS = (variety, False), (last_word, False), (length, False), (echo, True)
"""Rewards, and whether each token earns what it changes in them."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("model"))


def make(directory, reward=variety, n_envs=8, dense=False, **arguments):
    kwargs = {"prompts": PROMPTS, "reward": reward, "tokenizer": str(directory), "max_new_tokens": 3, "dense": dense}
    policy = {"model": str(directory), "candidates": 6, "eta": ETA, "width": 32, **arguments.pop("policy_kwargs", {})}
    env = make_vec_env("TextGen-v0", n_envs, seed=0, env_kwargs=kwargs)
    given = {"gamma": 1.0, "learning_starts": 64, "batch_size": 16, "device": "cpu", "seed": 0} | arguments
    return DoubleDQN("LanguageModelPolicy", env, policy_kwargs=policy, **given)


@pytest.fixture(scope="module")
def model(directory):
    return make(directory).learn(400)


# ---------------------------------------------------------------------------------------------- objectives, by hand


def test_soft_values_by_hand():
    q, prior = torch.tensor([1.0, 0.0]), torch.tensor([0.25, 0.75]).log()
    eta = 0.5
    value = objectives.soft_values(q, prior, eta)
    assert value == pytest.approx(0.5 * np.log(0.25 * np.exp(2) + 0.75))
    policy = objectives.policy_log_probs(q, prior, eta).exp()
    assert policy[0] == pytest.approx(0.25 * np.exp(2) / (0.25 * np.exp(2) + 0.75))
    # V = E[Q] − η·KL
    kl = (policy * (policy.log() - prior)).sum()
    assert value == pytest.approx((policy * q).sum() - eta * kl)
    ruled_out = objectives.soft_values(torch.tensor([9.0, 0.5]), torch.tensor([-torch.inf, 0.0]), eta)
    assert ruled_out == pytest.approx(0.5)


def test_soft_lambda_targets_by_hand():
    rewards, valid = torch.tensor([[0.0, 0.0, 1.0]]), torch.ones(1, 3, dtype=torch.bool)
    q_taken, values = torch.tensor([[0.2, 0.5, 0.7]]), torch.tensor([[0.1, 0.4, 0.9]])

    def targets(lambda_):
        return objectives.soft_lambda_targets(rewards, valid, q_taken, values, 1.0, lambda_)

    assert targets(0.0).tolist() == [pytest.approx([0.4, 0.9, 1.0])]
    # At λ = 1 nothing is bootstrapped: what each action cost in divergence, Q − V, is taken off what it led to.
    assert targets(1.0).tolist() == [pytest.approx([1.0 - (0.7 - 0.9) - (0.5 - 0.4), 1.0 - (0.7 - 0.9), 1.0])]


def test_optimal_values_are_a_fixed_point_whatever_acted():
    """Two steps, two actions each: with the exact values every path's target is the exact value, at every λ."""
    prior = torch.tensor([0.3, 0.7]).log()
    ends = torch.tensor([[1.0, 0.2], [0.0, 0.6]])  # reward after (first, second) action
    second_values = objectives.soft_values(ends, prior.expand(2, 2), ETA)
    first_value = objectives.soft_values(second_values, prior, ETA)
    for first in range(2):
        for second in range(2):
            rewards = torch.tensor([[0.0, ends[first, second]]])
            q_taken = torch.tensor([[second_values[first], ends[first, second]]])
            values = torch.stack([first_value, second_values[first]]).unsqueeze(0)
            for lambda_ in (0.0, 0.5, 1.0):
                found = objectives.soft_lambda_targets(
                    rewards, torch.ones(1, 2, dtype=torch.bool), q_taken, values, 1.0, lambda_
                )
                assert torch.allclose(found, q_taken)

            for span in objectives.SPANS:
                found, _ = objectives.path_residuals(
                    rewards, torch.ones(1, 2, dtype=torch.bool), q_taken, values, 1.0, span
                )
                assert torch.allclose(found, torch.zeros(1, 2), atol=1e-6)


def test_path_residuals_by_hand():
    rewards, valid = torch.tensor([[0.0, 1.0, torch.nan]]), torch.tensor([[True, True, False]])
    q_taken, values = torch.tensor([[0.2, 0.5, torch.nan]]), torch.tensor([[0.1, 0.4, torch.nan]])
    first, second = 0 - (0.2 - 0.1), 1 - (0.5 - 0.4)  # rewards less what the actions depart from the model
    for span, expected, counted in (
        ("step", [first + 0.9 * 0.4 - 0.1, second - 0.4, 0.0], valid),
        ("prefix", [first + 0.9 * 0.4 - 0.1, first + 0.9 * second - 0.1, 0.0], valid),
        ("trajectory", [0.0, first + 0.9 * second - 0.1, 0.0], torch.tensor([[False, True, False]])),
    ):
        found, counts = objectives.path_residuals(rewards, valid, q_taken, values, 0.9, span)
        assert found.tolist() == [pytest.approx(expected)] and torch.equal(counts, counted)


def test_a_nucleus_by_hand():
    probabilities = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.0, 0.5]])
    for top_p, expected in (
        (1e-9, [[0, 1, 0, 0], [0, 0, 0, 1]]),
        (0.39, [[0, 1, 0, 0], [0, 0, 0, 1]]),
        (0.6, [[0, 4 / 7, 0, 3 / 7], [1 / 3, 0, 0, 2 / 3]]),
        (0.8, [[0, 4 / 9, 2 / 9, 3 / 9], [0.25, 0.25, 0, 0.5]]),
        (1, probabilities.tolist()),
    ):
        found = objectives.nucleus(probabilities.log(), top_p).exp()
        assert found.tolist() == [pytest.approx(row) for row in expected], top_p


def test_padding_does_not_count():
    rewards = torch.tensor([[1.0, torch.nan]])
    valid = torch.tensor([[True, False]])
    nan = torch.tensor([[0.5, torch.nan]])
    targets = objectives.soft_lambda_targets(rewards, valid, nan, nan, 1.0, 0.9)
    assert targets.tolist() == [[1.0, 0.0]]
    loss = objectives.distribution_loss(torch.zeros(1, 2, 1), torch.tensor([[1.0, torch.nan]]), valid.float())
    assert loss == pytest.approx(np.log(2))


def test_which_returns_are_the_models_own():
    log_ratios = torch.tensor([[0.3, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 9.0]])
    valid = torch.tensor([[True, True, True], [True, True, True], [True, True, False]])
    assert objectives.from_the_prior(log_ratios, valid).tolist() == [
        [True, True, True],  # the guided action itself may be any: what follows it was the model's
        [False, True, True],
        [True, True, False],
    ]


def test_two_hot_cross_entropy_by_hand():
    logits = torch.tensor([[[0.0, np.log(2.0), 0.0]]])  # probabilities ¼, ½, ¼ of returns 0, ½, 1
    one = torch.ones(1, 1)
    assert objectives.distribution_loss(logits, torch.tensor([[0.5]]), one) == pytest.approx(np.log(2))
    between = objectives.distribution_loss(logits, torch.tensor([[0.75]]), one)
    assert between == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(4))


def test_in_sample_targets_by_hand():
    rewards, valid = torch.tensor([[0.1, 0.0, 1.0]]), torch.tensor([[True, True, False]])
    values = torch.tensor([[9.0, 0.5, torch.nan]])
    assert objectives.in_sample_targets(rewards, valid, values, 0.8).tolist() == [pytest.approx([0.5, 0.0, 0.0])]


def test_expectile_cross_entropy_by_hand():
    """A value of ½: an error of a goal above counts τ, of one below 1 − τ; its minimum is the expectile."""
    goals, one = torch.tensor([[1.0, 0.0, torch.nan]]), torch.tensor([[1.0, 1.0, 0.0]])
    loss = objectives.expectile_cross_entropy(torch.zeros(1, 3), goals, one, 0.75)
    assert loss == pytest.approx((0.75 * np.log(2) + 0.25 * np.log(2)) / 2)
    logit = torch.tensor(0.75).logit().expand(1, 2).clone().requires_grad_()  # the expectile ¾ of 0 and 1
    objectives.expectile_cross_entropy(logit, goals[:, :2], one[:, :2], 0.75).backward()
    assert logit.grad.sum() == pytest.approx(0.0, abs=1e-6) and logit.grad.abs().min() > 0.05


def test_candidate_reward_loss_by_hand():
    predicted, rewards = torch.tensor([[[0.5, 0.0, 9.0]]]), torch.tensor([[[0.0, torch.nan, 1.0]]])
    counts = torch.tensor([[[True, True, False]]])
    assert objectives.candidate_reward_loss(predicted, rewards, counts, torch.tensor([2.0])) == pytest.approx(0.5)


# ---------------------------------------------------------------------------------------------- reading and acting


def test_every_token_is_read_once(directory):
    model = make(directory, n_envs=4).learn(120)
    reader = model._path.reader.model
    episodes = model.replay_buffer.n_episodes
    prompts = max(len(prompt.split()) for prompt in PROMPTS) + 1  # with BOS
    assert reader.n_read <= (episodes + 4) * prompts + model.num_timesteps


def test_candidates_are_the_models_likeliest_legal_tokens(directory):
    lm = HuggingFaceLM(directory)
    row = np.array([[1, 2, 6, 7, 7]])
    log_probs = lm.log_probs(row[:, :2], np.array([2]))[0]
    states = Reader(lm, pad_id=7, k=3).read(row)
    assert states.tokens[0].tolist() == np.argsort(-log_probs)[:3].tolist()
    assert states.log_probs[0].numpy() == pytest.approx(np.sort(log_probs)[::-1][:3], abs=1e-5)
    assert states.prior().exp().sum() == pytest.approx(1.0)
    best = int(states.tokens[0, 0])
    mask = np.ones((1, 6), bool)
    mask[0, best] = False
    assert best not in Reader(lm, pad_id=7, k=3).read(row, mask).tokens[0].tolist()


def test_tokens_that_are_no_candidates_keep_their_probability(directory):
    """Two candidates of six: the other tokens are drawn as the model would, and learned about like any action."""
    model = make(directory, n_envs=64, learning_starts=0, policy_kwargs={"candidates": 2}).learn(1_920)
    batch = model.replay_buffer.sample_states(256)
    valid, tokens = batch.episodes.valid, batch.states.tokens
    extra = valid & (batch.states.log_probs[..., -1] > -torch.inf)
    candidates = States(batch.states.hidden, tokens[..., :-1], batch.states.log_probs[..., :-1])
    expected = (1 - candidates.mass)[valid].mean()
    assert 0.05 < expected and float(extra.sum() / valid.sum()) == pytest.approx(float(expected), abs=0.05)
    actions = tokens.gather(-1, batch.chosen.unsqueeze(-1)).squeeze(-1)
    assert torch.equal(actions[valid], batch.episodes.actions[valid])
    assert not (tokens[..., :-1] == batch.episodes.actions.unsqueeze(-1)).any(-1)[extra].any()
    states = model.policy.reader().read(model.env.reset())
    policy = model._path._policy_log_probs(states)
    assert (objectives.divergence(policy, states.prior(), states.mass) >= 0).all()
    assert not objectives.divergence(states.prior(), states.prior(), states.mass).any()


def test_replay_keeps_what_the_model_said(model, directory):
    batch = model.replay_buffer.sample_states(16)
    reader = Reader(HuggingFaceLM(directory), model.observation_space.pad_id, 6)
    episodes = batch.episodes
    for row in range(4):
        for step in np.flatnonzero(episodes.valid[row]):
            prefix = episodes.tokens[row : row + 1].numpy().copy()
            prefix[:, episodes.action_positions[row, step] :] = model.observation_space.pad_id
            fresh = reader.read(prefix)
            assert torch.allclose(batch.states.hidden[row, step], fresh.hidden[0], atol=2e-2, rtol=2e-3)
            assert batch.states.tokens[row, step, :-1].tolist() == fresh.tokens[0].tolist()
            assert batch.states.tokens[row, step, batch.chosen[row, step]] == episodes.actions[row, step]


def test_an_update_does_not_run_the_trunk(model, monkeypatch):
    def never(*_, **__):
        raise AssertionError("the language model was run")

    monkeypatch.setattr(model.policy.language_model._model, "forward", never)
    before = model.policy.q_net.query.weight.clone()
    model.train(2, batch_size=8)
    assert not torch.equal(before, model.policy.q_net.query.weight)


def test_the_first_texts_are_the_models_own(directory):
    model = make(directory, n_envs=32, learning_starts=10_000).learn(640)
    assert not model.replay_buffer.sample_states(64).log_ratios.any()
    guided = make(directory, n_envs=32, learning_starts=0, policy_kwargs={"guided": 1.0}).learn(320)
    batch = guided.replay_buffer.sample_states(64)
    assert (batch.log_ratios != 0)[batch.episodes.valid].all()


def test_one_seed_repeats_a_run(directory):
    one, two = (make(directory).learn(200) for _ in range(2))
    for a, b in zip(one.policy.q_net.parameters(), two.policy.q_net.parameters(), strict=True):
        assert torch.equal(a, b)


def test_rewards_of_all_candidates(directory, tmp_path):
    """Replay holds what the environment pays for each candidate; the head learns it, and adds what follows."""
    model = make(directory, echo, dense=True, n_envs=32, policy_kwargs={"candidate_rewards": True}, learning_rate=1e-2)
    model.learn(6_400)
    batch = model.replay_buffer.sample_states(64)
    valid = batch.episodes.valid
    taken = batch.own_rewards.gather(-1, batch.chosen.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(taken[valid], batch.rewards[valid], atol=1e-3, rtol=0)
    exists = valid.unsqueeze(-1) & (batch.states.log_probs > -torch.inf)
    with torch.no_grad():
        own = model.policy.q_net.own_rewards(batch.states)
        values = model.policy.q_net.q_values(batch.states, ETA)
        after = model.policy.q_net.mean_returns(model.policy.q_net.logits(batch.states))
    assert (own - batch.own_rewards)[exists].abs().mean() < 0.2 * batch.own_rewards[exists].abs().mean()
    assert torch.equal(values, after + own)
    model.save(tmp_path / "model")
    again = DoubleDQN.load(tmp_path / "model")
    observations = model.env.reset()
    assert np.array_equal(again.action_values(observations), model.action_values(observations))


def test_candidate_rewards_need_a_native_environment(directory):
    from stable_baselines3.common.env_util import make_vec_env as one_by_one

    arguments = {"prompts": PROMPTS, "reward": echo, "tokenizer": str(directory), "max_new_tokens": 3, "dense": True}
    env = one_by_one("TextGen-v0", 2, env_kwargs=arguments)
    with pytest.raises(ValueError, match=r"candidate_rewards needs a native batched environment.*got DummyVecEnv"):
        DoubleDQN("LanguageModelPolicy", env, policy_kwargs={"model": str(directory), "candidate_rewards": True})


def test_saved_and_loaded(model, tmp_path):
    observations = model.env.reset()
    model.save(tmp_path / "model")
    assert (tmp_path / "model.zip").stat().st_size < 500_000  # the head alone
    loaded = DoubleDQN.load(tmp_path / "model")
    expected, _ = model.predict(observations, deterministic=True)
    assert loaded.predict(observations, deterministic=True)[0].tolist() == expected.tolist()


def test_a_pruned_trunk(directory, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pruned = PrunedTransformer(AutoModelForCausalLM.from_pretrained(directory), "structured", sparsity=0.5)
    pruned.save_pretrained(tmp_path, AutoTokenizer.from_pretrained(directory))
    model = make(tmp_path).learn(100)
    observations = model.env.reset()
    lm = model.policy.language_model
    states = Reader(lm, model.observation_space.pad_id, 6).read(observations[:1])
    row = [5, *[token for token in observations[0].tolist() if token < 6]]
    with torch.no_grad():
        expected = pruned.model(torch.tensor([row])).logits[0, -1].log_softmax(dim=-1)
    torch.testing.assert_close(states.log_probs[0], expected[states.tokens[0]], atol=1e-5, rtol=1e-5)
    model.save(tmp_path / "model")
    loaded = DoubleDQN.load(tmp_path / "model")
    expected, _ = model.predict(observations, deterministic=True)
    assert loaded.predict(observations, deterministic=True)[0].tolist() == expected.tolist()


# ---------------------------------------------------------------------------------------------- the exact optimum


def distance(model, directory, n_prompts=8):
    """Total variation between the policy and the optimal one, on average over the states that the latter visits."""
    optimum = soft_optimal(model.env.get_attr("task")[0], HuggingFaceLM(directory), ETA)
    width, pad_id = model.observation_space.shape[0], model.observation_space.pad_id
    distances, weights = [], []
    for seed in range(n_prompts):
        shown, waiting = optimum.prompt(seed), [((), 1.0)]
        while waiting:
            prefix, weight = waiting.pop()
            row = np.full((1, width), pad_id)
            text = [*shown.tokens.tolist(), *prefix]
            row[0, : len(text)] = text
            states = model.policy.reader().read(row)
            found = np.zeros(len(WORDS))
            found[states.tokens[0].numpy()] = model._path._policy_log_probs(states)[0].exp().numpy()
            best = np.exp(shown.log_probs(prefix))
            distances.append(0.5 * np.abs(found - best).sum())
            weights.append(weight)
            if len(prefix) < 2:
                waiting += [((*prefix, token), weight * best[token]) for token in range(5) if best[token] > 1e-3]
    return np.average(distances, weights=weights)


def learned(directory, reward, objective, steps, dense=False, **policy_kwargs):
    """A model that has learned long enough to be exact; returns of the model alone need more texts of its own."""
    policy = {"objective": objective, "width": 64, "optimizer_kwargs": {"weight_decay": 0.0}, "guided": 0.5}
    model = make(
        directory,
        reward,
        dense=dense,
        policy_kwargs=policy | ({} if objective == "qsharp" else {"guided": 0.8}) | policy_kwargs,
        learning_rate=lambda remaining: 3e-3 * remaining,
        prioritized_replay=False,
        **{"n_envs": 32, "learning_starts": 500, "updates_per_step": 0.2, "batch_size": 64},
    )
    return model.learn(steps)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["soft_q", "qsharp"])
@pytest.mark.parametrize("reward, dense", TASKS)
def test_every_objective_finds_the_optimum(directory, reward, dense, objective):
    steps = 48_000 if objective == "qsharp" else 24_000
    assert distance(learned(directory, reward, objective, steps, dense), directory) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["soft_q", "qsharp", "pcl"])
@pytest.mark.parametrize("reward", [variety, echo])
def test_rewards_learned_apart_lead_to_the_same_optimum(directory, reward, objective):
    steps = 48_000 if objective == "qsharp" else 24_000
    model = learned(directory, reward, objective, steps, dense=True, candidate_rewards=True)
    assert distance(model, directory) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    "span, reward, dense",
    [*(("prefix", *task) for task in TASKS), ("trajectory", last_word, False), ("step", echo, True)],
)
def test_path_consistency_finds_the_optimum(directory, reward, dense, span):
    steps = 48_000 if reward is last_word else 24_000
    assert distance(learned(directory, reward, "pcl", steps, dense, span=span), directory) <= 0.05


@pytest.mark.parametrize("objective, dense", [("soft_q", True), ("qsharp", False), ("pcl", True)])
def test_an_objective_comes_near_the_optimum(directory, objective, dense):
    untrained = distance(make(directory, length, dense=dense), directory, 3)
    assert distance(learned(directory, length, objective, 3_000, dense), directory, 3) < 0.5 * untrained


def test_products_with_candidates_are_those_with_a_copy_of_their_embeddings():
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(11, 6, generator=generator)
    tokens = torch.randint(0, 11, (2, 3, 4), generator=generator)
    tokens[0, 0, 1] = tokens[0, 0, 0]  # the action may be there twice
    weights = torch.randn(2, 3, 4, generator=generator)
    found = []
    for products in (candidate_products, lambda q, t, e: (e[t] @ q.unsqueeze(-1)).squeeze(-1)):
        queries = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
        values = products(queries, tokens, embedding)
        (values * weights).sum().backward()
        found.append((values.detach(), queries.grad))
    for ours, plain in zip(*found, strict=True):
        assert torch.allclose(ours, plain, atol=1e-5)


def test_what_a_token_is_worth_depends_on_the_state():
    embedding = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    rewards = CandidateRewards(hidden_dim=4, embedding=embedding, width=8)
    with torch.no_grad():
        for parameter in rewards.parameters():
            parameter.zero_()
        rewards.token.weight[:, 0] = torch.arange(6.0)
        rewards.worth.bias.fill_(-0.25)
        found = rewards(torch.randn(2, 4), torch.tensor([[1, 2], [3, 0]]), embedding)
    assert torch.allclose(found, 20 * 0.75 * torch.tensor([[1.0, 2.0], [3.0, 0.0]]))


def test_changes_of_a_reward_may_be_negative(directory, tmp_path):
    def first_alone(prompts, completions, **_):
        return [float(len(text.split()) == 1) for text in completions]

    model = make(directory, first_alone, dense=True).learn(200)
    assert model.value_range == model.policy.value_range == (-1.0, 1.0)
    rewards = model.replay_buffer.sample(64).rewards
    assert rewards.min() == -1 and rewards.max() == 1
    model.save(tmp_path / "model")
    loaded = DoubleDQN.load(tmp_path / "model", make(directory, first_alone).env)
    assert loaded.policy.q_net.value_range == (-1.0, 1.0)
    observations = make(directory, first_alone).env.reset()
    values = model.action_values(observations)
    assert (loaded.action_values(observations) == values).all() and values.min() < 0
    with pytest.raises(ValueError, match=r"value_range must be \(-1, 1\) or None for LanguageModelPolicy"):
        make(directory, dense=True, value_range=(0, 1))


def expectile_values(lm, reward, prompt, tau):
    """Values of all tokens after every prefix, where each token is worth the expectile of what the model tries next."""
    values = {}

    def visit(prefix):
        q = np.empty(len(WORDS))
        for token in range(len(WORDS)):
            if token == len(WORDS) - 1 or len(prefix) == 2:
                text = " ".join(WORDS[t] for t in (*prefix, token) if t != len(WORDS) - 1)
                q[token] = reward([prompt], [text])[0]
            else:
                q[token] = visit((*prefix, token))
        row = np.array([[*(WORDS.index(word) for word in prompt.split()), *prefix]])
        prior = np.exp(lm.log_probs(row, np.array([row.shape[1]]))[0])
        values[prefix] = q, prior
        value = q.mean()
        for _ in range(200):
            share = prior * np.where(q > value, tau, 1 - tau)
            value = (share * q).sum() / share.sum()
        return value

    visit(())
    return values


def expectile_error(model, directory, reward, tau):
    """Mean absolute error of the values, over the texts that the model writes by itself."""
    lm, pad_id = HuggingFaceLM(directory), model.observation_space.pad_id
    errors, weights = [], []
    for prompt in PROMPTS:
        known = expectile_values(lm, reward, prompt, tau)
        shown = [*(WORDS.index(word) for word in prompt.split()), len(WORDS)]  # the separator
        waiting = [((), 1.0)]
        while waiting:
            prefix, weight = waiting.pop()
            row = np.full((1, model.observation_space.shape[0]), pad_id)
            row[0, : len(shown) + len(prefix)] = [*shown, *prefix]
            q, prior = known[prefix]
            errors.append((prior * np.abs(model.action_values(row)[0] - q)).sum())
            weights.append(weight)
            if len(prefix) < 2:
                waiting += [((*prefix, token), weight * prior[token]) for token in range(len(WORDS) - 1)]
    return np.average(errors, weights=weights)


def test_ilql_comes_near_its_fixed_point(directory):
    """Of texts of the model alone, whose shares of the tokens are known: an expectile, neither mean nor maximum."""
    model = learned(directory, last_word, "ilql", 3_500, guided=0.0, expectile=0.9)
    near, mean, best = (expectile_error(model, directory, last_word, tau) for tau in (0.9, 0.5, 0.99))
    assert near < 0.03 and near < 0.6 * mean and near < 0.6 * best


@pytest.mark.slow
@pytest.mark.parametrize("reward", [variety, last_word, length, echo])
def test_ilql_reaches_its_fixed_point(directory, reward):
    model = learned(directory, reward, "ilql", 16_000, guided=0.0, expectile=0.9)
    assert expectile_error(model, directory, reward, 0.9) < 0.02


# ---------------------------------------------------------------------------------------------- steering


def test_steered_generate_writes_what_the_agent_would(model, directory):
    """Greedy, in a batch with left padding and alone: the same tokens as predict()."""
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(directory)
    observations = model.env.reset()
    state, expected = None, [[] for _ in range(len(observations))]
    rows = observations.copy()
    lengths = (rows != model.observation_space.pad_id).sum(axis=1)
    for _ in range(3):
        actions, state = model.predict(rows, state, deterministic=True)
        for row, action in enumerate(actions):
            if not expected[row] or expected[row][-1] != 5:
                expected[row].append(int(action))
            rows[row, lengths[row]] = action
        lengths += 1
    prompts = [[5, *[t for t in row[:n].tolist() if t < 6]] for row, n in zip(observations, lengths - 3, strict=True)]
    width = max(map(len, prompts))
    ids = torch.tensor([[5] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    given = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 5}
    plain = lm.generate(ids, attention_mask=mask, **given)
    with model.steering(lm):
        steered = lm.generate(ids, attention_mask=mask, **given)
        alone = lm.generate(torch.tensor([prompts[0]]), **given)
    for row, tokens in enumerate(expected):
        assert steered[row, width : width + len(tokens)].tolist() == tokens
    assert alone[0, len(prompts[0]) :].tolist()[: len(expected[0])] == expected[0]
    assert torch.equal(lm.generate(ids, attention_mask=mask, **given), plain), "nothing is left of it afterwards"


def test_the_reward_is_asked_at_use(directory):
    """In ``generate``, with padding on the left, and in an environment: own rewards, return and tokens so far."""
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(directory)
    model = make(directory, echo, True, policy_kwargs={"candidate_rewards": True}).learn(400)
    policy, given = model.policy, {"max_new_tokens": 3, "return_dict_in_generate": True, "output_logits": True}
    ids, mask = torch.tensor([[5, 5, 1, 2], [5, 3, 1, 4]]), torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    given |= {"output_scores": True, "pad_token_id": 5, "do_sample": False, "eos_token_id": None}
    with model.steering(lm, 2.0, echo):
        found = lm.generate(ids, attention_mask=mask, **given)
    names = policy.language_model.tokenizer
    for row, prompt in enumerate(([1, 2], [3, 1, 4])):
        prefix, text = [5, *prompt], []
        for step in range(3):
            with torch.no_grad():
                output = lm.model(torch.tensor([prefix + text])).last_hidden_state[:, -1]
            plain = found.logits[step][row].log_softmax(dim=-1)
            best, tokens = plain.topk(6)
            worth = [echo([names.decode(prompt)], [names.decode([*text, token])])[0] for token in tokens.tolist()]
            states = States(output, tokens[None], best[None])
            with torch.no_grad():
                values = 2.0 * policy.q_net.q_values(states, ETA, torch.tensor([worth]))
            expected = objectives.policy_log_probs(values, states.prior(), ETA)[0]
            torch.testing.assert_close(found.scores[step][row][tokens], expected, atol=1e-4, rtol=1e-4)
            text.append(int(found.sequences[row, 4 + step]))

    env = model.env
    rows = env.reset()
    states = policy.reader().read(rows)
    own_rewards = torch.from_numpy(env.envs.rewards_of(states.tokens.numpy())).float()
    with torch.no_grad():
        log_probs = objectives.policy_log_probs(
            2.0 * policy.q_net.q_values(states, ETA, own_rewards), states.prior(), ETA
        )
    writer, learned = Writer(model, 2.0, rewards_of=env.envs.rewards_of), Writer(model, 2.0)
    for one in (writer, learned):
        one.predict(rows)
    expected = objectives.divergence(log_probs, states.prior(), states.mass)
    assert writer.nats == pytest.approx(expected.numpy(), abs=1e-5) and writer.nats != pytest.approx(
        learned.nats, abs=1e-3
    )

    def wrong(prompts, completions):
        return [1.0]

    unasked = make(directory).learn(100)
    for attempt in (lambda: unasked.steering(lm, reward=echo).__enter__(), lambda: Writer(unasked, rewards_of=max)):
        with pytest.raises(ValueError, match="must be None for an agent without candidate_rewards"):
            attempt()
    with (
        pytest.raises(RewardError, match="must return a list of 12 numbers"),
        model.steering(lm, 1.0, wrong),
    ):
        lm.generate(ids, attention_mask=mask, max_new_tokens=1, pad_token_id=5)


def test_steering_by_the_reward_alone(directory):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lm, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    given = {"max_new_tokens": 2, "return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    given |= {"pad_token_id": 5, "do_sample": False, "eos_token_id": None}
    ids, mask = torch.tensor([[5, 5, 1, 2], [5, 3, 1, 4]]), torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    with reward_steering(lm, tokenizer, echo, strength=7.0, candidates=3):
        found = lm.generate(ids, attention_mask=mask, **given)
        again = lm.generate(ids[1:], attention_mask=mask[1:], **given)  # a prompt is that of its own call
    torch.testing.assert_close(again.scores[0], found.scores[0][1:], atol=1e-4, rtol=1e-4)
    for step, (scores, logits) in enumerate(zip(found.scores, found.logits, strict=True)):
        for row, prompt in enumerate(([1, 2], [3, 1, 4])):
            plain = logits[row].log_softmax(dim=-1)
            best, tokens = plain.topk(3)
            before = found.sequences[row, 4 : 4 + step].tolist()
            texts = [tokenizer.decode([*before, token], skip_special_tokens=True) for token in tokens.tolist()]
            bonus = 7.0 * torch.tensor(echo([tokenizer.decode(prompt)] * 3, texts))
            expected = plain.clone()
            expected[tokens] = (best + bonus).log_softmax(dim=-1) + best.logsumexp(dim=-1)
            torch.testing.assert_close(scores[row], expected, atol=1e-5, rtol=1e-5)
    with reward_steering(lm, tokenizer, echo, strength=0):
        unsteered = lm.generate(ids[1:], attention_mask=mask[1:], **given).scores[0]
        assert torch.allclose(unsteered, plain_of(lm, ids[1:]), atol=1e-5)
    assert "generate" not in vars(lm)
    for wrong, message in (
        ({"strength": -1}, "strength must be"),
        ({"candidates": 1}, "candidates must be"),
    ):
        with pytest.raises(ValueError, match=message), reward_steering(lm, tokenizer, echo, **wrong):
            pass


def plain_of(lm, ids):
    with torch.no_grad():
        return lm(ids).logits[:, -1].log_softmax(dim=-1)


def test_strength_zero_is_the_model_itself(model, directory):
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(directory)
    ids = torch.tensor([[5, 1, 2]])
    given = {"max_new_tokens": 1, "return_dict_in_generate": True, "output_scores": True, "do_sample": False}
    plain = lm.generate(ids, **given).scores[0].log_softmax(-1)
    with model.steering(lm, strength=0):
        assert torch.allclose(lm.generate(ids, **given).scores[0], plain, atol=1e-5)
    with model.steering(lm, strength=2.0):
        assert not torch.allclose(lm.generate(ids, **given).scores[0], plain, atol=1e-5)


def test_top_p_of_generate_is_that_of_the_steered_model(model, directory):
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(directory)
    ids = torch.tensor([[5, 1, 2]])
    given = {"max_new_tokens": 1, "return_dict_in_generate": True, "output_scores": True, "pad_token_id": 5}
    plain = lm.generate(ids, do_sample=False, **given).scores[0].log_softmax(-1)
    with model.steering(lm, strength=10.0):
        steered = lm.generate(ids, do_sample=False, **given).scores[0]
        drawn_from = lm.generate(ids, do_sample=True, top_k=0, top_p=0.6, **given).scores[0].log_softmax(-1)
    expected = objectives.nucleus(steered, 0.6)
    assert drawn_from.exp().tolist() == [pytest.approx(row, abs=1e-5) for row in expected.exp().tolist()]
    assert not torch.equal(drawn_from > -torch.inf, objectives.nucleus(plain, 0.6) > -torch.inf)


def test_a_writer_draws_from_the_nucleus_and_tells_its_divergence(directory):
    """Two candidates of six: the other tokens, which keep their probability, may be in the nucleus."""
    model = make(directory, policy_kwargs={"candidates": 2}).learn(200)
    observations = np.repeat(model.env.reset()[:1], 4_000, axis=0)
    reader = model.policy.reader()
    states = reader.read(observations[:1])
    plain = reader.log_probs
    values = 3.0 * model.policy.q_net.q_values(states, ETA).detach()
    whole = plain.scatter(
        1, states.tokens, states.among_all(objectives.policy_log_probs(values, states.prior(), ETA))
    ).exp()[0]
    for top_p in (0.3, 0.97):
        order = whole.argsort(descending=True).tolist()
        kept = order[: 1 + sum(float(whole[order[: n + 1]].sum()) < top_p for n in range(len(WORDS)))]
        expected = torch.zeros(len(WORDS))
        expected[kept] = whole[kept] / whole[kept].sum()
        writer = Writer(model, strength=3.0, top_p=top_p)
        tokens, _ = writer.predict(observations)
        shares = np.bincount(tokens, minlength=len(WORDS)) / len(tokens)
        assert shares == pytest.approx(expected.numpy(), abs=0.03) and set(tokens.tolist()) == set(kept)
        nats = sum(float(expected[token] * (expected[token].log() - plain[0, token])) for token in kept)
        assert writer.nats == pytest.approx(nats, abs=1e-4)
    assert len(kept) > 2, "some of them are no candidates"
    greedy = Writer(model, strength=3.0)
    tokens, _ = greedy.predict(observations[:1], deterministic=True)
    assert tokens.tolist() == order[:1] and greedy.nats == pytest.approx(-float(plain[0, order[0]]), abs=1e-5)
    for wrong in (0, 1.5, True, float("nan")):
        with pytest.raises(ValueError, match=rf"top_p must be a number in \(0, 1\], got {wrong}"):
            Writer(model, top_p=wrong)


def test_errors(model, directory):
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(directory)
    with (
        pytest.raises(ValueError, match="strength must be a finite number of at least 0, got -1"),
        model.steering(lm, -1),
    ):
        pass
    lm.get_output_embeddings().weight.data[0, 0] += 1
    with pytest.raises(ValueError, match="lm must be the language model that was learned on"), model.steering(lm):
        pass
    for policy, message in (
        ({"model": None}, "model must be a language model or a local path to one, got None"),
        ({"model": "nowhere"}, "path must be a local directory"),
        ({"objective": "ppo"}, "objective must be one of soft_q, qsharp, ilql, pcl, got 'ppo'"),
        ({"span": "text"}, "span must be one of step, prefix, trajectory, got 'text'"),
        ({"eta": 0}, "eta must be a finite number above 0, got 0"),
        ({"candidates": 1}, "candidates must be an integer of at least 2, got 1"),
        ({"guided": 1.5}, "guided must be in"),
    ):
        with pytest.raises(ValueError, match=message):
            make(directory, policy_kwargs=policy)
    with pytest.raises(ValueError, match=r"env must have returns in \[0, 1\].*got a reward of 2.0: scale it"):
        make(directory, lambda prompts, completions: [2.0] * len(prompts)).learn(100)


def test_states_of_any_shape():
    states = States(torch.zeros(2, 3, 4), torch.zeros(2, 3, 5, dtype=torch.int64), torch.zeros(2, 3, 5))
    assert states.prior().shape == (2, 3, 5) and torch.allclose(states.prior().exp(), torch.full((2, 3, 5), 0.2))
