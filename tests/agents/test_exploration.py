import pickle
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from agents.double_dqn.heads import QHead
from agents.exploration import (
    EXPLORATIONS,
    Boltzmann,
    ContextUCB,
    EnsembleUCB,
    EpsilonGreedy,
    Exploration,
    SimHash,
    context_keys,
    linear_schedule,
    make_exploration,
)


def select(explorer: Exploration, q: Any, seed: int = 0, masks: Any = None, progress: float = 1.0) -> NDArray[np.int64]:
    q = np.atleast_2d(np.asarray(q, np.float32))
    if explorer.ensemble:
        q = np.stack([q, q, q], axis=1)  # three heads that agree
    contexts = np.arange(len(q), dtype=np.uint64)
    return explorer.select(q, masks, contexts, np.random.default_rng(seed), progress)


@pytest.mark.parametrize("name", EXPLORATIONS)
@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_masks_are_always_honoured(name: str, progress: float) -> None:
    generator = np.random.default_rng(0)
    masks = generator.random((500, 7)) < 0.3
    masks[np.arange(500), generator.integers(0, 7, 500)] = True
    q = generator.normal(size=(500, 7)).astype(np.float32)
    q[:, 0] = 1e6  # tempting, and often illegal
    explorer = make_exploration(name)
    for seed in range(5):
        actions = select(explorer, q, seed, masks, progress)
        assert actions.dtype == np.int64
        assert masks[np.arange(500), actions].all()


@pytest.mark.parametrize("name", EXPLORATIONS)
def test_same_generator_same_choices(name: str) -> None:
    q = np.zeros((200, 9), np.float32)
    first, second, other = (select(make_exploration(name), q, seed, progress=0.5) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


@pytest.mark.parametrize("name", EXPLORATIONS)
def test_equal_values_are_decided_at_random(name: str) -> None:
    q = np.zeros((4000, 8), np.float32)
    q[:, 6:] = -5.0
    counts = np.bincount(select(make_exploration(name), q, progress=1.0), minlength=8)
    assert counts[:6].min() > 500  # a fair share is 667
    assert counts[6:].max() < 50  # ε-greedy still makes some random moves


def test_epsilon_greedy_flips_a_coin_for_each_row() -> None:
    q = np.tile(np.arange(4, dtype=np.float32), (10_000, 1))
    explorer = EpsilonGreedy(initial=0.8, final=0.2, fraction=0.5)
    for progress, epsilon in ((0.0, 0.8), (0.25, 0.5), (0.5, 0.2), (1.0, 0.2)):
        best = np.mean(select(explorer, q, progress=progress) == 3)
        assert best == pytest.approx(1 - 0.75 * epsilon, abs=0.02)


def test_random_moves_are_uniform_over_legal_actions() -> None:
    masks = np.tile([True, False, True, True, False], (9000, 1))
    counts = np.bincount(select(EpsilonGreedy(1.0, 1.0), np.zeros((9000, 5)), masks=masks), minlength=5)
    np.testing.assert_allclose(counts, [3000, 0, 3000, 3000, 0], atol=200)


def test_boltzmann_draws_from_the_softmax() -> None:
    q = np.array([0.0, 0.5, 1.0], np.float32)
    explorer = Boltzmann(initial_temperature=0.5, final_temperature=0.001, fraction=1.0)
    counts = np.bincount(select(explorer, np.tile(q, (50_000, 1)), progress=0.0), minlength=3)
    softmax = np.exp(q / 0.5) / np.exp(q / 0.5).sum()
    np.testing.assert_allclose(counts / 50_000, softmax, atol=0.01)
    assert (select(explorer, np.tile(q, (1000, 1)), progress=1.0) == 2).all()


def test_ucb_follows_its_formula() -> None:
    explorer = ContextUCB(coefficient=0.5)
    contexts = np.full(5, 77, np.uint64)
    explorer.observe(contexts, np.array([0, 0, 0, 1, 2]))
    q = np.array([[0.9, 0.5, 0.5, 0.4]], np.float32)
    score = q[0] + 0.5 * np.sqrt(np.log(6) / np.array([4, 2, 2, 1]))
    choice = explorer.select(q, None, contexts[:1], np.random.default_rng(0), 0.0)
    assert choice[0] == score.argmax() == 0
    explorer.observe(contexts, np.zeros(5, np.int64))
    score = q[0] + 0.5 * np.sqrt(np.log(11) / np.array([9, 2, 2, 1]))
    choice = explorer.select(q, None, contexts[:1], np.random.default_rng(0), 0.0)
    assert choice[0] == score.argmax() == 3


def test_ucb_is_greedy_in_a_context_never_seen() -> None:
    explorer = ContextUCB(coefficient=100.0)
    q = np.random.default_rng(0).normal(size=(64, 1500)).astype(np.float32)
    np.testing.assert_array_equal(select(explorer, q), q.argmax(axis=1))


@pytest.mark.parametrize("n_rows", [10, 64, 200])
def test_rows_in_the_same_context_spread_out(n_rows: int) -> None:
    explorer = ContextUCB(coefficient=1.0)
    contexts = np.full(n_rows, 5, np.uint64)
    q = np.zeros((n_rows, 10), np.float32)
    counts = np.bincount(explorer.select(q, None, contexts, np.random.default_rng(0), 0.0), minlength=10)
    assert counts.min() >= n_rows // 10 * 0.4
    assert (counts == 1).all() or n_rows > 10  # one after the other: ten rows try ten actions


def test_ucb_counts_exactly_under_duplicates_and_after_pickling() -> None:
    generator = np.random.default_rng(0)
    contexts = context_keys(np.array([[1], [2], [3]]), np.ones(3, np.int64), 1)
    chosen, actions = generator.integers(0, 3, 3000), generator.integers(0, 6, 3000)
    explorer = ContextUCB()
    for part in np.array_split(np.arange(3000), 7):
        explorer.observe(contexts[chosen[part]], actions[part])
    expected = np.zeros((3, 6))
    np.add.at(expected, (chosen, actions), 1)
    copy = pickle.loads(pickle.dumps(explorer))
    for each in (explorer, copy):
        pairs, visits = each.counts(contexts, 6)
        np.testing.assert_array_equal(pairs, expected)
        np.testing.assert_array_equal(visits, expected.sum(axis=1))
    copy.observe(contexts[:1], np.array([5]))
    assert copy.counts(contexts[:1], 6)[0][0, 5] == expected[0, 5] + 1
    assert len(pickle.dumps(explorer)) < 10_000  # occupied counters only, not 18 MB of zeros


def test_the_last_context_of_the_table_has_room_for_every_action() -> None:
    explorer = ContextUCB(table_size=10)
    context = np.array([9], np.uint64)
    explorer.observe(context, np.array([0]))
    explorer.observe(context, np.array([7]))
    np.testing.assert_array_equal(explorer.counts(context, 12)[0], [[1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]])
    explorer.observe(context[:0], np.zeros(0, np.int64))
    assert explorer.counts(context, 3)[1] == 2


def bandit_regret(explorer: Exploration, seed: int, steps: int = 1000) -> float:
    """Mean regret per step of 20 Bernoulli bandits with 10 arms, played with running means as values."""
    generator = np.random.default_rng(seed)
    means = generator.random((20, 10))
    wins, pulls, rows = np.zeros((20, 10)), np.zeros((20, 10)), np.arange(20)
    contexts = np.arange(20, dtype=np.uint64) * np.uint64(2**33 + 100)
    regret = 0.0
    for step in range(steps):
        q = ((wins + 0.5) / (pulls + 1)).astype(np.float32)
        arms = explorer.select(q, None, contexts, generator, step / steps)
        explorer.observe(contexts, arms)
        wins[rows, arms] += generator.random(20) < means[rows, arms]
        pulls[rows, arms] += 1
        regret += float((means.max(axis=1) - means[rows, arms]).mean())
    return regret / steps


def test_boltzmann_and_ucb_beat_epsilon_greedy_on_bandits() -> None:
    # The second ε-greedy was the best of seven schedules on these bandits; the others play with their defaults.
    names = ("epsilon", "boltzmann", "ucb")
    regrets = {name: [bandit_regret(make_exploration(name), seed) for seed in range(4)] for name in names}
    tuned = [bandit_regret(EpsilonGreedy(1.0, 0.02, 0.05), seed) for seed in range(4)]
    for name in names[1:]:
        assert max(regrets[name]) < min(regrets["epsilon"] + tuned), (name, regrets, tuned)


def test_ensemble_ucb_follows_its_formula() -> None:
    # Means 0.5, 0.6 and 0.2; deviations (with divisor 2) 0.2, 0 and 0.6.
    q = np.array([[[0.3, 0.6, 0.8], [0.7, 0.6, -0.4]]], np.float32)
    contexts = np.zeros(1, np.uint64)
    for coefficient, best in ((0.0, 1), (0.4, 1), (0.6, 0), (0.7, 0), (0.8, 2)):
        choice = EnsembleUCB(coefficient).select(q, None, contexts, np.random.default_rng(0), 0.0)
        assert choice.tolist() == [best], coefficient
    scores = EnsembleUCB(0.7).scores(q)
    np.testing.assert_allclose(scores, [[0.64, 0.6, 0.62]], rtol=1e-6)
    assert scores.dtype == np.float32
    masks = np.array([[False, True, True]])
    assert EnsembleUCB(0.7).select(q, masks, contexts, np.random.default_rng(0), 0.0).tolist() == [2]
    random = EnsembleUCB(0.0, initial_epsilon=1.0, fraction=1.0)
    many, contexts = np.repeat(q, 900, axis=0), np.zeros(900, np.uint64)
    counts = np.bincount(random.select(many, None, contexts, np.random.default_rng(0), 0.0))
    assert counts.min() > 200  # a third each


@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 3)])
def test_ensemble_ucb_needs_several_estimates(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"q_values must have shape \(n, K, V\) with K at least 2, got"):
        EnsembleUCB().select(np.zeros(shape, np.float32), None, np.zeros(2, np.uint64), np.random.default_rng(0), 0.0)


def learned_bandit_regret(explorer: Exploration, n_heads: int, seed: int, steps: int = 200) -> float:
    """Mean regret of linear contextual bandits with 10 arms: 20 contexts a step, and heads that learn from replay.

    Features have the norm 8 that those of an encoder with 64 dimensions have.
    """
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(8, 10)) * 0.3 / 8
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = QHead(8, 10, n_ensemble=n_heads)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.004, fused=True)
    seen, rows = 0, np.arange(20)
    features, rewards = torch.zeros(steps * 20, 8), torch.zeros(steps * 20)
    actions = torch.zeros(steps * 20, dtype=torch.long)
    regret = 0.0
    for step in range(steps):
        context = generator.normal(size=(20, 8)) * 8**0.5
        means = context @ weights  # (20, 10)
        inputs = torch.as_tensor(context, dtype=torch.float32)
        with torch.no_grad():
            q = (head.ensemble(inputs) if explorer.ensemble else head(inputs)).numpy()
        arms = explorer.select(q, None, rows.astype(np.uint64), generator, step / steps)
        regret += float((means.max(axis=1) - means[rows, arms]).mean())
        new = slice(seen, seen + 20)
        features[new], actions[new] = inputs, torch.from_numpy(arms)
        rewards[new] = torch.as_tensor(means[rows, arms] + 0.1 * generator.normal(size=20), dtype=torch.float32)
        seen += 20
        batch = torch.from_numpy(generator.integers(seen, size=128))
        loss = (head.of_ensemble(features[batch], actions[batch]) - rewards[batch, None]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return regret / steps


def test_ensemble_ucb_beats_epsilon_greedy_where_heads_learn() -> None:
    # The best of five schedules of ε on these bandits, greedy play among them.
    epsilon = [learned_bandit_regret(EpsilonGreedy(1.0, 0.01, 0.03), 1, seed) for seed in range(4)]
    ensemble = [learned_bandit_regret(EnsembleUCB(), 5, seed) for seed in range(4)]
    assert np.mean(ensemble) < 0.9 * np.mean(epsilon), (ensemble, epsilon)


def test_the_bonus_needs_heads_that_differ() -> None:
    head, features = QHead(8, 10, n_ensemble=5), torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    q = head.ensemble(features).detach().numpy()
    assert (EnsembleUCB(1.0).scores(q) - q.mean(axis=1)).min() > 0
    equal = np.repeat(q[:, :1], 5, axis=1)
    np.testing.assert_allclose(EnsembleUCB(1.0).scores(equal), q[:, 0], atol=1e-7)


def test_simhash_depends_on_seed_size_and_bits_alone() -> None:
    observations = np.random.default_rng(0).normal(size=(50, 3, 4))
    keys = SimHash(seed=1).keys(observations)
    assert keys.dtype == np.uint64
    assert keys.shape == (50,)
    hasher = SimHash(seed=1)
    hasher.keys(np.zeros((2, 5)))  # another size in between
    hasher = pickle.loads(pickle.dumps(hasher))
    np.testing.assert_array_equal(hasher.keys(observations.reshape(50, 12)), keys)
    np.testing.assert_array_equal(np.concatenate([hasher.keys(row) for row in observations[:, None]]), keys)
    assert (SimHash(seed=2).keys(observations) != keys).all()
    assert len(pickle.dumps(hasher)) < 1000


def test_simhash_bits_agree_as_often_as_the_angle_says() -> None:
    # One bit, many seeds: two vectors at 60 degrees agree with probability 2/3.
    pair = np.array([[1.0, 0.0], [0.5, 3**0.5 / 2]])
    agreement = np.mean([len(set(SimHash(1, seed).keys(pair).tolist())) == 1 for seed in range(2000)])
    assert agreement == pytest.approx(2 / 3, abs=0.04)


def test_simhash_tells_observations_apart_and_groups_similar_ones() -> None:
    observations = np.random.default_rng(0).normal(size=(1000, 64)).astype(np.float32)
    keys = SimHash(64).keys(observations)
    assert len(np.unique(keys)) == 1000
    assert len(np.unique(keys % np.uint64(2**22))) > 990  # spread over a table
    assert np.mean(SimHash(8).keys(observations * 1.001 + 1e-4) == SimHash(8).keys(observations)) > 0.95
    assert len(np.unique(SimHash(3).keys(observations))) == 8
    images = np.random.default_rng(0).integers(256, size=(4, 3, 5, 5), dtype=np.uint8)
    np.testing.assert_array_equal(SimHash().keys(images), SimHash().keys(images.astype(np.float64)))


def test_simhash_takes_dictionaries_and_discrete_observations() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(6, 2, 2)), generator.normal(size=(6,))
    keys = SimHash().keys({"b": second, "a": first})
    np.testing.assert_array_equal(keys, SimHash().keys(np.column_stack([first.reshape(6, 4), second])))
    states = SimHash(4).keys(np.arange(500))  # names of states, not measurements: all of them differ
    assert len(np.unique(states)) == 500
    with pytest.raises(ValueError, match=r"n_bits must be in \[1, 64\], got 65"):
        SimHash(65)


def test_ucb_counts_observations_that_are_no_text() -> None:
    explorer, hasher = ContextUCB(coefficient=1.0), SimHash(16)
    observations = np.array([[0.1, 0.2, -0.3], [-0.5, 0.1, 0.2]])
    keys = hasher.keys(observations)
    explorer.observe(keys, np.array([0, 1]))
    q = np.zeros((2, 2), np.float32)
    choice = explorer.select(q, None, hasher.keys(observations * 1.01), np.random.default_rng(0), 0.0)
    assert choice.tolist() == [1, 0]  # the action that each of them has not tried


def test_context_keys_depend_on_the_last_tokens_alone() -> None:
    pad = 9
    observations = np.array(
        [
            [1, 2, 3, 4, pad, pad],
            [5, 2, 3, 4, pad, pad],  # same last three
            [1, 2, 4, 3, pad, pad],  # other order
            [2, 3, 4, pad, pad, pad],  # all it has
            [3, 4, pad, pad, pad, pad],  # fewer than three
            [0, 3, 4, pad, pad, pad],  # a token 0 is not a missing token
            [1, 1, 1, 2, 3, 4],  # a full row
        ],
        np.int32,
    )
    lengths = np.array([4, 4, 4, 3, 2, 3, 6])
    keys = context_keys(observations, lengths, 3)
    assert keys.dtype == np.uint64
    assert keys[0] == keys[1] == keys[3] == keys[6]
    assert len(set(keys.tolist())) == 4
    assert len(set(context_keys(observations, lengths, 0).tolist())) == 1
    assert len(set(context_keys(observations, lengths, 99).tolist())) == 7


def test_context_keys_rarely_collide() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(40)] * 3), axis=-1).reshape(-1, 3).astype(np.int32)  # 64,000 contexts
    keys = context_keys(grid, np.full(len(grid), 3), 3)
    assert len(np.unique(keys)) == len(grid)
    # As many distinct slots in a table of 65,536 as random hashing fills: 1 - exp(-64000/65536) of them.
    assert len(np.unique(keys % np.uint64(2**16))) == pytest.approx(65_536 * (1 - np.exp(-64_000 / 65_536)), rel=0.02)


def test_linear_schedule() -> None:
    values = [linear_schedule(1.0, 0.2, 0.5, progress) for progress in (0.0, 0.25, 0.5, 1.0)]
    assert values == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert linear_schedule(1.0, 0.2, 0.0, 0.0) == 0.2


def test_make_exploration() -> None:
    explorer = make_exploration("ucb", coefficient=0.7)
    assert isinstance(explorer, ContextUCB)
    assert explorer.coefficient == 0.7
    assert make_exploration(explorer) is explorer
    with pytest.raises(ValueError, match=r"must be one of \['boltzmann', 'ensemble_ucb', 'epsilon', 'ucb'\]"):
        make_exploration("greedy")
    with pytest.raises(ValueError, match="need exploration to be a name"):
        make_exploration(explorer, coefficient=1.0)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("epsilon", {"initial": 1.5}, r"initial must be in \[0, 1\], got 1.5"),
        ("boltzmann", {"final_temperature": 0.0}, "final_temperature must be greater than 0, got 0.0"),
        ("ucb", {"coefficient": -1}, "coefficient must be at least 0, got -1"),
        ("ensemble_ucb", {"coefficient": -1}, "coefficient must be at least 0, got -1"),
        ("ensemble_ucb", {"fraction": 2.0}, r"fraction must be in \[0, 1\], got 2.0"),
        ("ucb", {"table_size": 0}, "table_size must be at least 1, got 0"),
    ],
)
def test_arguments_are_checked(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_exploration(name, **kwargs)


def test_masks_are_checked() -> None:
    q = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"action_masks must have shape \(2, 3\)"):
        select(EpsilonGreedy(), q, masks=np.ones((2, 4), np.bool_))
    with pytest.raises(ValueError, match="none in row 1"):
        select(EpsilonGreedy(), q, masks=np.array([[True, True, True], [False, False, False]]))
