"""RandomWalks: the shortest way through a fixed graph, of which only random walks may be known."""

from __future__ import annotations

import string

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least, check_range
from textgym.random import RowStreams
from textgym.tasks.base import Episodes, Prompts, Task

_GOAL = 0
_MOST_DRAWS = 1_000


class RandomWalks(Task):
    """Write the shortest path from the node of the prompt to a goal, in a graph that is always the same.

    ## Description
    The prompt is a node of a directed graph, the completion a walk from there along its edges. The goal is node 0 in
    every episode, and the graph depends on ``graph_seed`` alone: nothing of it stands in the prompt, so that it has to
    be learned, by trial or from random walks. Those are mostly far from optimal, yet their pieces make up the shortest
    paths: a method that imitates them is no better than they are, one that backs up values is. The setting is that of
    Decision Transformer's illustration (arXiv:2106.01345), of trlX's ``randomwalks`` and, as a method, ILQL
    (arXiv:2206.11871). trlX scores a walk by ``(limit - length) / (limit - shortest)``; here it is a ratio of lengths.

    ## Action Space
    ``Discrete(nodes + 1)``: the nodes, then EOS, which gives up. Every action is legal in every state, but one that
    follows no edge ends the walk. With ``masked=True`` a mask admits the successors of the last node alone, and no
    EOS: a uniform policy then walks at random.

    ## Observation Space
    ``TokenSequence(max_length)``: the walk so far, its first node being the prompt; the padding id is ``nodes + 1``.

    ## Rewards
    At the goal: edges of the shortest path from the first node, over edges of the walk. 0 for a walk that uses a pair
    of nodes without an edge, gives up or does not arrive. Returns lie in [0, 1].

    ## Starting State
    A node drawn uniformly from those that are not the goal.

    ## Episode End
    The goal, a pair of nodes without an edge, EOS and the budget of ``max_length - 1`` actions terminate.

    ## Arguments
    ``nodes=21``, ``max_length=10``, ``edge_probability=0.1``, ``graph_seed=1``, ``masked=False``; see below.

    Random walks, each a prompt, a completion and a reward, are demonstrations with a mask and nothing but errors:
    ``textgym.demonstrations("TextGen/RandomWalks-v0", 1000, error_rate=1.0, masked=True)``. An agent whose environment
    has no mask can learn from them, too.

    ## Version History
    * v0: first version.

    Args:
        nodes: Nodes of the graph, the goal included (≥ 2).
        max_length: Most nodes of a walk, the first included (≥ 2).
        edge_probability: Chance of an edge from any node to any other, in (0, 1]. A node that gets none is drawn again,
            and so is a graph in which a shortest path has more than ``max_length`` nodes.
        graph_seed: Seed of the graph (≥ 0).
        masked: Whether only successors are legal, see above.

    Attributes:
        edges: Whether an edge leads from the first node to the second, bool, shape ``(nodes, nodes)``; none leads out
            of the goal.
        distances: Edges of the shortest path from each node to the goal, int64, shape ``(nodes,)``.

    Raises:
        ValueError: If an argument is out of range, or there is no graph to be found.
    """

    def __init__(
        self,
        nodes: int = 21,
        max_length: int = 10,
        edge_probability: float = 0.1,
        graph_seed: int = 1,
        masked: bool = False,
    ) -> None:
        self.nodes = check_at_least("nodes", nodes, 2)
        self.max_length = check_at_least("max_length", max_length, 2)
        check_range("edge_probability", edge_probability, 0.0, 1.0)
        self.edge_probability = float(edge_probability)
        self.graph_seed = check_at_least("graph_seed", graph_seed, 0)
        self.masked = bool(masked)
        self.vocab_size = self.nodes + 1
        self.eos_id = self.nodes
        self.pad_id = self.vocab_size
        self.max_new_tokens = self.max_length - 1
        self.context_length = self.max_length
        self.edges, self.distances = self._draw_graph()
        # With rows and columns for EOS and padding, which no edge touches; flat, as one index is faster than two.
        self._is_edge = np.pad(self.edges, (0, 2)).ravel()
        successors = np.where(self.edges, self.distances, self.max_length)
        self._next = np.append(successors.argmin(axis=1), self.eos_id)
        self._masks = np.pad(self.edges, (0, 1))
        self._masks[~self._masks.any(axis=1), self.eos_id] = True
        # Saying the goal at once, and walking at random.
        self.cheat_bound = max(float((self.distances == 1).sum()) / (self.nodes - 1), self._mean_of_random_walks())

    def _draw_graph(self) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        generator = np.random.default_rng(self.graph_seed)
        edges = np.zeros((self.nodes, self.nodes), np.bool_)
        lonely = np.arange(self.nodes) != _GOAL
        for _ in range(_MOST_DRAWS):
            edges[lonely] = generator.random((int(lonely.sum()), self.nodes)) < self.edge_probability
            np.fill_diagonal(edges, False)
            lonely = ~edges.any(axis=1) & (np.arange(self.nodes) != _GOAL)
            if lonely.any():
                continue
            distances = self._distances(edges)
            if (distances >= 0).all():
                return edges, distances
            lonely = np.arange(self.nodes) != _GOAL
        raise ValueError(
            f"edge_probability must be high enough for graphs of {self.nodes} nodes in which all paths to the goal "
            f"have at most max_length={self.max_length} nodes, got {self.edge_probability}: none was found"
        )

    def _distances(self, edges: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Breadth first, backwards from the goal; -1 where the budget does not suffice."""
        distances = np.full(self.nodes, -1)
        distances[_GOAL] = 0
        for distance in range(1, self.max_length):
            distances[edges[:, distances == distance - 1].any(axis=1) & (distances < 0)] = distance
        return distances

    def _mean_of_random_walks(self) -> float:
        """Mean return of walks along uniformly drawn edges, exactly."""
        step = self.edges / np.maximum(self.edges.sum(axis=1, keepdims=True), 1)
        walkers, total = np.eye(self.nodes)[1:], 0.0  # (starts, nodes)
        for length in range(1, self.max_length):
            walkers = walkers @ step
            total += float((walkers[:, _GOAL] * self.distances[1:]).sum()) / length
        return total / (self.nodes - 1)

    def prompts(self, random: RowStreams) -> Prompts:
        """A node that is not the goal."""
        tokens = (random.integers(self.nodes - 1) + 1)[:, None]
        return Prompts(tokens, np.ones(len(tokens), np.int64), {})

    def _walked(self, episodes: Episodes) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """Whether an edge leads to the last node, and that node, each of shape ``(n,)``."""
        ends = np.arange(0, episodes.tokens.size, self.context_length) + episodes.lengths
        flat = episodes.tokens.ravel()
        last = flat.take(ends - 1)
        return self._is_edge.take(flat.take(ends - 2) * (self.pad_id + 1) + last), last

    def finished(self, episodes: Episodes, actions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Rows that have arrived, or left the graph."""
        follows, last = self._walked(episodes)
        return ~follows | (last == _GOAL)

    def final_reward(self, episodes: Episodes) -> NDArray[np.float64]:
        """The ratio of lengths, if the last edge leads to the goal; those before it exist, or the walk had ended."""
        follows, last = self._walked(episodes)
        shortest = self.distances.take(episodes.tokens[:, 0])
        return (follows & (last == _GOAL)) * shortest / np.maximum(episodes.steps, 1)

    def allowed(self, episodes: Episodes) -> NDArray[np.bool_]:
        """Successors of the last node; EOS where there is none."""
        last = episodes.tokens[np.arange(len(episodes)), episodes.lengths - 1]
        return self._masks[last]

    def oracle(self, episodes: Episodes) -> NDArray[np.int64]:
        """The successor that is nearest to the goal."""
        return self._next[episodes.tokens[np.arange(len(episodes)), episodes.lengths - 1]]

    def token_text(self, token: int) -> str:
        """A letter where the alphabet is long enough for the nodes, else a number."""
        if token == self.eos_id:
            return "<eos>"
        if token == self.pad_id:
            return "<pad>"
        return string.ascii_lowercase[token] if self.nodes <= 26 else str(token)
