"""StarGraph: find the one arm of a star that ends at the goal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.random import RowStreams
from textgym.tasks.base import Episodes, Prompts
from textgym.tasks.exact_answer import ExactAnswer, gather


class StarGraph(ExactAnswer):
    """Write the path from the centre of a star to the goal, which is the end of one of its arms.

    ## Description
    The path-star task (Bachmann and Nagarajan, arXiv:2403.06963). From a centre lead ``degree`` arms; a path along an
    arm has ``path_length`` nodes, the centre included. The prompt lists the directed edges in random order, then the
    centre and the goal. Two arms of which each path has three nodes may read ``3 7 | 5 1 | 3 5 | 7 2 / 3 1 =``, and
    the answer is ``3 5 1``. Only the second token is hard: it has to be found by going back from the goal, while every
    later one follows from its predecessor by a single edge. A policy that follows any arm is right with a chance of
    ``1 / degree``. Language models that were trained on the next token stay there, and so do policy gradients that
    start from them (arXiv:2502.20548): that is what tells methods apart here.

    ## Action Space
    ``Discrete(nodes + 1)``: the node labels, then EOS, which is never right. As in the papers, every action is legal in
    every state. With ``masked=True`` a mask admits the centre first, then the successors of the last node alone, and
    never EOS: a uniform policy then follows a random arm.

    ## Observation Space
    ``TokenSequence(3 * degree * (path_length - 1) + 3 + path_length)``: the prompt and the tokens written so far. The
    ids after EOS occur in prompts only: ``|`` between edges, ``/`` after the last, ``=`` at the end; the padding id is
    the next one. Prompts of one id all have the same length: 63 tokens by default.

    ## Rewards
    1 for the whole path, at its end, else 0.

    ## Starting State
    Labels drawn without replacement from ``nodes``; the order of the edges, drawn uniformly. So the arm of the goal is
    any of them with equal chance.

    ## Episode End
    After ``path_length`` actions; EOS terminates earlier.

    ## Arguments
    ``degree=5``, ``path_length=5``, ``nodes=50``, ``masked=False``; see below.

    Offline data are the oracle's paths, or, with a mask and nothing but errors, paths along random arms, of which one
    in ``degree`` is right: ``textgym.demonstrations("TextGen/StarGraph-v0", 1000, error_rate=1.0, masked=True)``.

    ## Version History
    * v0: first version.

    Args:
        degree: Arms of the star (≥ 2).
        path_length: Nodes of each path, the centre included (≥ 2).
        nodes: Number of different labels (at least the ``1 + degree * (path_length - 1)`` nodes of a graph).
        masked: Whether only successors are legal, see above.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, degree: int = 5, path_length: int = 5, nodes: int = 50, masked: bool = False) -> None:
        self.degree = check_at_least("degree", degree, 2)
        self.path_length = check_at_least("path_length", path_length, 2)
        self._n_edges = self.degree * (self.path_length - 1)
        self.nodes = check_at_least("nodes", nodes, 1 + self._n_edges)
        self.masked = bool(masked)
        super().__init__(dense=False)
        self.vocab_size = self.nodes + 1
        self.eos_id = self.nodes
        self._bar, self._slash, self._equals, self.pad_id = range(self.vocab_size, self.vocab_size + 4)
        self.max_new_tokens = self.path_length
        self.context_length = 3 * self._n_edges + 3 + self.path_length
        self.cheat_bound = 1 / self.degree
        # Node 0 is the centre, and edge e leads to node e + 1; the arms lie one after the other.
        edges = np.arange(self._n_edges)
        self._parent = np.where(edges % (self.path_length - 1) == 0, 0, edges)

    def prompts(self, random: RowStreams) -> Prompts:
        """Edges in random order, the centre and the goal."""
        n, end = len(random), 3 * self._n_edges
        labels = np.ascontiguousarray(random.permutation(self.nodes)[:, : 1 + self._n_edges])
        order = random.permutation(self._n_edges)
        tokens = np.full((n, end + 3), self._bar, np.int32)
        tokens[:, 0:end:3] = gather(labels, self._parent[order])
        tokens[:, 1:end:3] = gather(labels, order + 1)
        tokens[:, end - 1] = self._slash
        tokens[:, end] = labels[:, 0]
        # Labels are random, so the goal may always be the end of the arm that is drawn first.
        tokens[:, end + 1] = labels[:, self.path_length - 1]
        tokens[:, end + 2] = self._equals
        columns = self.answer_columns(labels[:, : self.path_length], self.path_length)
        if self.masked:
            columns["labels"] = labels.astype(np.int32)
        return Prompts(tokens, np.full(n, end + 3), columns)

    def allowed(self, episodes: Episodes) -> NDArray[np.bool_]:
        """The centre first, then the successors of the last node; EOS where there is none."""
        n, labels = len(episodes), episodes.columns["labels"]
        rows = np.arange(n)
        matches = labels == episodes.tokens[rows, episodes.lengths - 1][:, None]  # (n, 1 + edges)
        node = np.where(matches.any(axis=1), matches.argmax(axis=1), -1)
        masks = np.zeros((n, self.vocab_size), np.bool_)
        first = episodes.steps == 0
        at_centre = ~first & (node == 0)
        on_arm = ~first & (node > 0) & (node % (self.path_length - 1) != 0)
        masks[rows[first], labels[first, 0]] = True
        masks[rows[at_centre, None], labels[at_centre, 1 :: self.path_length - 1]] = True
        masks[rows[on_arm], labels[rows[on_arm], node[on_arm] + 1]] = True
        masks[~(first | at_centre | on_arm), self.eos_id] = True
        return masks

    def token_text(self, token: int) -> str:
        """The number of a node, or a sign."""
        if token < self.nodes:
            return str(token)
        return ("<eos>", "|", "/", "=", "<pad>")[token - self.nodes]
