"""RandomWalks: the graph, the shortest paths in it, what walks are paid, and walks as data."""

import numpy as np
import pytest

import textgym
from textgym.tasks.random_walks import RandomWalks
from textgym.tasks.shaped import Shaped


def shortest(edges):
    """Distances to node 0 by relaxation until nothing changes (Bellman and Ford), unlike the task's own search."""
    distances = np.full(len(edges), np.inf)
    distances[0] = 0
    for _ in range(len(edges)):
        distances = np.minimum(distances, np.where(edges, distances[None] + 1, np.inf).min(axis=1))
    return distances


@pytest.mark.parametrize(
    "kwargs", [{}, {"nodes": 10, "edge_probability": 0.2}, {"nodes": 2}, {"nodes": 60, "edge_probability": 1}]
)
@pytest.mark.parametrize("graph_seed", [0, 1, 2, 3])
def test_graphs(kwargs, graph_seed):
    task = RandomWalks(graph_seed=graph_seed, **kwargs)
    assert not task.edges.diagonal().any() and not task.edges[0].any() and task.edges[1:].any(axis=1).all()
    assert np.array_equal(task.distances, shortest(task.edges))
    assert task.distances.max() < task.max_length
    assert np.array_equal(task.edges, RandomWalks(graph_seed=graph_seed, **kwargs).edges)


def test_the_seed_decides_the_graph_alone():
    graphs = {RandomWalks(graph_seed=seed).edges.tobytes() for seed in range(20)}
    assert len(graphs) == 20


def test_edges_have_the_probability_asked_for():
    """Except that lonely nodes are drawn again, and with them about an eighth of the rows at 0.1."""
    counts = [RandomWalks(nodes=50, max_length=40, edge_probability=0.2, graph_seed=seed).edges for seed in range(20)]
    share = np.mean([edges[1:].sum() / (49 * 49) for edges in counts])
    assert share == pytest.approx(0.2, abs=0.01)


def walk(task, start, actions):
    """Rewards and ends of one episode that begins at a given node."""
    envs = textgym.TextGenVectorEnv(1, task)
    seed = 0
    envs.reset(seed=seed)
    while envs.episodes.tokens[0, 0] != start:
        seed += 1
        envs.reset(seed=seed)
    steps = [envs.step(np.array([action])) for action in actions]
    return [step[1][0] for step in steps], [bool(step[2][0]) for step in steps]


def test_rewards_by_hand(monkeypatch):
    """3 → 2 → 1 → 0, 3 → 1 and 2 → 3."""
    edges = np.zeros((4, 4), bool)
    edges[[3, 3, 2, 2, 1], [2, 1, 1, 3, 0]] = True
    monkeypatch.setattr(RandomWalks, "_draw_graph", lambda self: (edges, self._distances(edges)))
    task = RandomWalks(nodes=4, max_length=7)
    assert task.distances.tolist() == [0, 1, 2, 2]
    assert walk(task, 3, [1, 0]) == ([0.0, 1.0], [False, True])
    assert walk(task, 3, [2, 1, 0]) == ([0.0, 0.0, 2 / 3], [False, False, True])
    assert walk(task, 2, [3, 2, 1, 0]) == ([0.0, 0.0, 0.0, 2 / 4], [False, False, False, True])
    assert walk(task, 1, [0]) == ([1.0], [True])
    assert walk(task, 3, [0]) == ([0.0], [True])  # no such edge
    assert walk(task, 3, [3]) == ([0.0], [True])
    assert walk(task, 3, [2, 0]) == ([0.0, 0.0], [False, True])
    assert walk(task, 3, [1, 4]) == ([0.0, 0.0], [False, True])  # EOS
    assert walk(task, 3, [2, 3, 2, 3, 2, 3]) == ([0.0] * 6, [False] * 5 + [True])  # the budget
    # 1 → 0 is the only way out of 1: from 3, 2/2 with a chance of 1/2, or two more edges; from 2 alike.
    longer = [1 / 4, 1 / 8, 1 / 16, 1 / 32]  # chances of three, four, five and six edges
    from_3 = 1 / 2 + sum(chance * 2 / length for chance, length in zip(longer, (3, 4, 5, 6), strict=True))
    assert task._mean_of_random_walks() == pytest.approx((1 + 2 * from_3) / 3)


def test_masks_admit_successors_alone():
    task = RandomWalks(masked=True)
    envs = textgym.TextGenVectorEnv(64, task)
    envs.reset(seed=0)
    generator = np.random.default_rng(0)
    for _ in range(20):
        last = envs.episodes.tokens[np.arange(64), envs.episodes.lengths - 1]
        masks = envs.action_masks()
        assert np.array_equal(masks[:, :-1], task.edges[last]) and not masks[:, -1].any()
        envs.step(np.where(masks, generator.random(masks.shape), -1.0).argmax(axis=1))


def test_random_walks_are_demonstrations_of_errors_alone():
    task, rewards = RandomWalks(), []
    shown = textgym.demonstrations("TextGen/RandomWalks-v0", 3000, error_rate=1.0, masked=True)
    for one in shown:
        nodes = [*one.prompt_tokens.tolist(), *one.completion_tokens.tolist()]
        assert task.edges[nodes[:-1], nodes[1:]].all() and one.is_action.all()
        arrives = nodes[-1] == 0
        assert arrives or len(nodes) == task.max_length
        assert one.reward == (task.distances[nodes[0]] / (len(nodes) - 1) if arrives else 0.0)
        rewards.append(one.reward)
    error = np.std(rewards) / np.sqrt(len(rewards))
    assert abs(np.mean(rewards) - task._mean_of_random_walks()) < 4 * error
    pairs = {pair for one in shown for pair in zip(one.completion.split(), one.completion.split()[1:], strict=False)}
    used = {(task.token_text(i), task.token_text(j)) for i, j in zip(*np.nonzero(task.edges), strict=True)}
    assert len(used - pairs) <= 1  # walks of this number show the graph, so that it can be learned from them


def test_the_oracle_walks_the_shortest_paths():
    task = RandomWalks(graph_seed=3)
    envs = textgym.TextGenVectorEnv(200, task)
    envs.reset(seed=0)
    start, returns = envs.episodes.tokens[:, 0].copy(), np.zeros(200)
    running, length = np.ones(200, bool), np.zeros(200)
    while running.any():
        length += running
        _, rewards, terminated, _, _ = envs.step(task.oracle(envs.episodes))
        returns += rewards * running
        running &= ~terminated
    assert np.array_equal(length, task.distances[start]) and (returns == 1).all()


def test_shaping_of_unfinished_walks():
    """`Shaped` asks for the reward of texts that have not ended, empty ones among them."""
    with np.errstate(all="raise"):
        envs = textgym.TextGenVectorEnv(32, Shaped(RandomWalks()))
        envs.reset(seed=0)
        for _ in range(10):
            _, rewards, _, _, _ = envs.step(envs.task.oracle(envs.episodes))
            assert np.isfinite(rewards).all()


def test_numbers_where_letters_do_not_suffice():
    assert RandomWalks(nodes=26).token_text(25) == "z"
    assert RandomWalks(nodes=27).token_text(25) == "25"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"nodes": 1}, "nodes must be an integer of at least 2, got 1"),
        ({"max_length": 1}, "max_length must be an integer of at least 2, got 1"),
        ({"edge_probability": 1.5}, r"edge_probability must be in \[0.0, 1.0\], got 1.5"),
        ({"edge_probability": float("nan")}, r"edge_probability must be in \[0.0, 1.0\], got nan"),
        ({"edge_probability": 0.0}, "edge_probability must be high enough for graphs of 21 nodes .* got 0.0"),
        ({"max_length": 2}, "at most max_length=2 nodes, got 0.1: none was found"),
        ({"graph_seed": -1}, "graph_seed must be an integer of at least 0, got -1"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RandomWalks(**kwargs)
