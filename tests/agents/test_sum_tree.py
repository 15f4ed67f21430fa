import pickle

import numpy as np
import pytest

from agents.replay.sum_tree import SumTree


@pytest.mark.parametrize("capacity", [1, 2, 31, 32, 33, 1000, 1025, 40_000])
def test_find_agrees_with_a_linear_search(capacity: int) -> None:
    generator = np.random.default_rng(capacity)
    priorities = generator.integers(0, 4, capacity).astype(float)  # exact sums, many zeros
    priorities[generator.integers(capacity)] = 3.0
    tree = SumTree(capacity)
    tree.set(np.arange(capacity), priorities)
    prefix_sums = generator.random(500) * priorities.sum()
    assert tree.total == priorities.sum()
    np.testing.assert_array_equal(tree.find(prefix_sums), np.searchsorted(np.cumsum(priorities), prefix_sums, "right"))


def test_boundaries_of_prefix_sums() -> None:
    tree = SumTree(5)
    tree.set([1, 3], [2.0, 1.0])
    np.testing.assert_array_equal(tree.find([0.0, 1.999, 2.0, 2.999, 3.0, 1e9]), [1, 1, 3, 3, 3, 3])


def test_last_value_counts_under_repeated_indices() -> None:
    tree = SumTree(100)
    tree.set([7, 8, 7, 7], [1.0, 2.0, 3.0, 5.0])
    np.testing.assert_array_equal(tree.get([7, 8, 7]), [5.0, 2.0, 5.0])
    assert tree.total == 7.0


def test_sums_stay_exact_after_many_updates() -> None:
    generator = np.random.default_rng(0)
    tree, expected = SumTree(3000), np.zeros(3000)
    for _ in range(300):
        indices, values = generator.integers(0, 3000, 64), generator.random(64) * 10.0 ** generator.integers(-12, 12)
        tree.set(indices, values)
        expected[indices] = values
    np.testing.assert_array_equal(tree.get(np.arange(3000)), expected)
    assert tree.total == pytest.approx(expected.sum(), rel=1e-14)
    tree.set(np.arange(3000), 0.0)
    assert tree.total == 0.0  # a tree that adds differences would be left with rounding errors


def test_zero_priorities_are_never_drawn() -> None:
    generator = np.random.default_rng(1)
    priorities = np.where(generator.random(5000) < 0.5, 0.0, 10.0 ** generator.uniform(-20, 20, 5000))
    tree = SumTree(5000)
    tree.set(np.arange(5000), priorities)
    for _ in range(50):
        assert (tree.get(tree.sample(256, generator)) > 0).all()


def test_samples_are_proportional_and_stratified() -> None:
    tree = SumTree(50)
    tree.set([3, 10, 49], [1.0, 2.0, 5.0])
    counts = np.bincount(tree.sample(8000, np.random.default_rng(2)), minlength=50)
    # Each of 8,000 strata yields one draw, so that counts are off by at most the strata that two items share.
    np.testing.assert_allclose(counts[[3, 10, 49]], [1000, 2000, 5000], atol=1)
    assert counts.sum() == 8000


def test_sampling_is_reproducible() -> None:
    tree = SumTree(100)
    tree.set(np.arange(100), np.arange(100.0))
    first, second = (tree.sample(10, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_pickle_keeps_priorities() -> None:
    tree = SumTree(70)
    tree.set(np.arange(70), np.arange(70.0))
    copy = pickle.loads(pickle.dumps(tree))
    copy.set([0], [5.0])
    assert (copy.total, tree.total) == (2420.0, 2415.0)


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        SumTree(0)
    tree = SumTree(4)
    with pytest.raises(ValueError, match="every priority is 0"):
        tree.sample(1, np.random.default_rng(0))
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"priorities must be finite and at least 0, got {bad}"):
            tree.set([0, 1], [1.0, bad])
    assert tree.total == 0.0  # nothing was written
    for index in (-1, 4):
        with pytest.raises(IndexError, match=rf"indices must be in \[0, 4\), got {index}"):
            tree.set([index], [1.0])
        with pytest.raises(IndexError, match=rf"got {index}"):
            tree.get([index])
    tree.set([0], [1.0])
    with pytest.raises(ValueError, match="prefix_sums must be at least 0"):
        tree.find([-0.5])
    assert tree.find([]).shape == (0,)
    assert tree.sample(0, np.random.default_rng(0)).shape == (0,)
