"""StarGraph: what the prompts are, what is paid, masks, and the chance of following any arm."""

import math
from collections import Counter

import numpy as np
import pytest

import textgym
from textgym.tasks.star_graph import StarGraph

SHAPES = [(5, 5, 50), (2, 3, 6), (2, 2, 3), (3, 4, 10), (10, 10, 100)]


def read(text):
    """Edges, centre and goal of a prompt's text."""
    edges, _, question = text.partition(" / ")
    start, goal, equals = question.split()
    assert equals == "="
    return [tuple(map(int, edge.split())) for edge in edges.split(" | ")], int(start), int(goal)


@pytest.mark.parametrize(("degree", "path_length", "nodes"), SHAPES)
def test_prompts_are_stars_and_answers_their_only_paths(degree, path_length, nodes):
    envs = textgym.TextGenVectorEnv(20, "star_graph", degree=degree, path_length=path_length, nodes=nodes)
    envs.reset(seed=0)
    task = envs.task
    assert task.context_length == 3 * degree * (path_length - 1) + 3 + path_length
    for row in range(20):
        edges, start, goal = read(task.decode(envs.episodes.prompt(row)))
        assert len(edges) == degree * (path_length - 1)
        parents = {child: parent for parent, child in edges}
        children = Counter(parent for parent, _ in edges)
        assert len(parents) == len(edges) and start not in parents and max(*parents, start) < nodes
        assert children.pop(start) == degree and set(children.values()) <= {1}
        path = [goal]
        while path[-1] != start:
            path.append(parents[path[-1]])
        assert len(path) == path_length and goal not in children
        assert envs.episodes.columns["target"][row].tolist() == path[::-1]


def test_every_edge_comes_first_and_every_arm_is_the_goals():
    envs = textgym.TextGenVectorEnv(4000, "star_graph", degree=2, path_length=3, nodes=5)
    envs.reset(seed=0)
    tokens, target = envs.episodes.tokens, envs.episodes.columns["target"]
    assert np.bincount(target[:, 0], minlength=5).min() > 680  # 800 ± 5 standard deviations
    places = [(tokens[:, 1:12:3] == target[:, depth : depth + 1]).argmax(axis=1) for depth in (1, 2)]
    assert min(np.bincount(place, minlength=4).min() for place in places) > 860  # 1,000 ± 5


def test_prompts_look_as_documented():
    (shown,) = textgym.demonstrations("TextGen/StarGraph-v0", 1, degree=2, path_length=3, nodes=6)
    assert len(shown.prompt.split()) == 15 and shown.prompt.count("|") == 3
    assert shown.completion.split()[0] == shown.prompt.split()[-3]
    assert shown.completion.split()[-1] == shown.prompt.split()[-2]
    assert shown.reward == 1.0 and shown.is_action.all()


@pytest.mark.parametrize(
    ("written", "reward"),
    [
        (("right",) * 3, 1.0),
        (("right", "right", "wrong"), 0.0),
        (("wrong", "right", "right"), 0.0),
        (("right", "right", "eos"), 0.0),
        (("eos",), 0.0),
    ],
)
def test_rewards(written, reward):
    envs = textgym.TextGenVectorEnv(1, "star_graph", degree=2, path_length=3, nodes=6)
    envs.reset(seed=3)
    target = envs.episodes.columns["target"][0].copy()
    for step, kind in enumerate(written):
        action = {"right": target[step], "wrong": (target[step] + 1) % 6, "eos": 6}[kind]
        _, paid, terminated, _, _ = envs.step(np.array([action]))
        assert terminated[0] == (step == len(written) - 1)
        assert paid[0] == (reward if terminated[0] else 0.0)


@pytest.mark.parametrize(("degree", "path_length", "nodes"), SHAPES)
def test_masks_admit_successors_alone(degree, path_length, nodes):
    envs = textgym.TextGenVectorEnv(32, "star_graph", degree=degree, path_length=path_length, nodes=nodes, masked=True)
    envs.reset(seed=0)
    graphs = [read(envs.task.decode(envs.episodes.prompt(row))) for row in range(32)]
    generator, last = np.random.default_rng(0), [None] * 32
    for step in range(path_length):
        masks = envs.action_masks()
        for row, (edges, start, _) in enumerate(graphs):
            expected = [start] if step == 0 else [child for parent, child in edges if parent == last[row]]
            assert np.flatnonzero(masks[row]).tolist() == sorted(expected)
        last = np.where(masks, generator.random(masks.shape), -1.0).argmax(axis=1)
        _, rewards, terminated, _, _ = envs.step(last)
    assert terminated.all()
    assert rewards.tolist() == [float(goal == node) for (_, _, goal), node in zip(graphs, last, strict=True)]


def test_a_random_arm_is_right_once_in_degree_and_data_say_so():
    """The figure that methods are compared with: 0.2 at degree 5."""
    shown = list(textgym.demonstrations("TextGen/StarGraph-v0", 2000, error_rate=1.0, masked=True))
    mean = np.mean([one.reward for one in shown])
    assert abs(mean - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 2000)
    assert all(len(one.completion_tokens) == 5 and one.is_action.all() for one in shown)
    assert textgym.make_task("star_graph").cheat_bound == 0.2


def test_references_are_the_chances_of_any_answer():
    easy = textgym.references("TextGen/StarGraph-Easy-v0")
    assert (easy.random, easy.blind, easy.best) == (pytest.approx(7.0**-3), pytest.approx(1 / (6 * 5 * 4)), 1.0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"degree": 1}, "degree must be an integer of at least 2, got 1"),
        ({"path_length": 1}, "path_length must be an integer of at least 2, got 1"),
        ({"nodes": 20}, "nodes must be an integer of at least 21, got 20"),
        ({"degree": 2.0}, "degree must be an integer of at least 2, got 2.0"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        StarGraph(**kwargs)
