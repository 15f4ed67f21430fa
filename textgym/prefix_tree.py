"""All continuations of a prefix as a tree, one length after the other, and soft values backed up through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textgym.tasks.base import Episodes, Task
from textgym.vector_env import TextGenVectorEnv

LogPrior = Callable[[Episodes, NDArray[np.bool_]], NDArray[np.float64]]
_Continuations = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
_ROWS, _CELLS = 8_192, 4_000_000  # at once: rows, and rows times actions


@dataclass(slots=True)
class Layer:
    """n prefixes of one length that have not ended, and their m continuations, those of each prefix side by side.

    Attributes:
        starts: Where the continuations of each prefix begin, and ``m``, shape ``(n + 1,)``.
        actions: The token of each continuation, shape ``(m,)``, as all that follow up to ``log_probs``.
        prior: Its log-probability under the prior.
        child: Its row in the next layer; -1 where it ends the episode.
        rewards: What it is paid.
        q_values: Its reward and the value of what follows.
        log_probs: Its log-probability under the optimal policy.
        values: Value, expected return and KL divergence of each prefix, shape ``(n, 3)``.
    """

    starts: NDArray[np.int64]
    actions: NDArray[np.int64]
    prior: NDArray[np.float64]
    child: NDArray[np.int64]
    rewards: NDArray[np.float64]
    q_values: NDArray[np.float64]
    log_probs: NDArray[np.float64]
    values: NDArray[np.float64]


def legal(task: Task, episodes: Episodes) -> NDArray[np.bool_]:
    """Legal actions of each row, shape ``(n, V)``."""
    if task.masked:
        return task.allowed(episodes)
    return np.broadcast_to(np.True_, (len(episodes), task.vocab_size))


def advance(
    task: Task, episodes: Episodes, actions: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], Episodes]:
    """Take an action in each of n running episodes, which stay as they are.

    Returns:
        Rewards, shape ``(n,)``; which rows have ended, shape ``(n,)``; the episodes after it.
    """
    envs = TextGenVectorEnv(len(actions), task)
    envs.reset()  # what it draws is replaced at once
    envs.set_state(envs.get_state() | {"episodes": episodes})
    rewards, terminated, _, _ = envs.advance(actions)
    return rewards, terminated, envs.episodes


def solve(task: Task, start: Episodes, log_prior: LogPrior, eta: float, max_states: int) -> list[Layer]:
    """Enumerate what may follow one running episode, and back its soft values up.

    Args:
        task: A deterministic task.
        start: One row.
        log_prior: From running episodes and their masks to log-probabilities, shape ``(n, V)``, normalised.
        eta: Weight of the KL divergence (above 0).
        max_states: Most prefixes, the start and ended ones included.

    Returns:
        A layer for each number of actions; the first has one row.

    Raises:
        ValueError: If there are more prefixes.
    """
    layers: list[Layer] = []
    chunk, count = max(1, min(_ROWS, _CELLS // task.vocab_size)), 1
    parts: list[Episodes] = []
    opened: list[_Continuations] = []

    def go_on(episodes: Episodes) -> None:
        nonlocal count
        parts.append(episodes)
        opened.append(_open(task, episodes, log_prior))
        count += len(opened[-1][1])
        if count > max_states:
            raise ValueError(
                f"max_states must be at least the number of texts that go on from the one asked about, got "
                f"{max_states}, and there are {count} of up to {len(layers) + 1} tokens: raise it, "
                f"ask about a longer prefix, or make the task smaller"
            )

    go_on(start)
    while parts:
        episodes, layer = _concatenate(parts), _layer(opened)
        layers.append(layer)
        rows = np.repeat(np.arange(len(episodes)), np.diff(layer.starts))
        parts.clear()
        opened.clear()
        n_children = 0
        for at in range(0, len(rows), chunk):
            part = slice(at, at + chunk)
            layer.rewards[part], ended, after = advance(task, episodes.take(rows[part]), layer.actions[part])
            running = np.flatnonzero(~ended)
            if len(running):
                layer.child[at + running] = n_children + np.arange(len(running))
                n_children += len(running)
                go_on(after.take(running))
    for layer, following in zip(reversed(layers), [None, *reversed(layers[1:])], strict=True):
        _back_up(layer, following, eta)
    return layers


def follow(layers: list[Layer], actions: Sequence[int]) -> int:
    """The row that some actions lead to, in layer ``len(actions)``; -1 where there is none."""
    row = 0
    for layer, action in zip(layers, actions, strict=False):
        own = layer.actions[layer.starts[row] : layer.starts[row + 1]]
        places = np.flatnonzero(own == action)
        row = int(layer.child[layer.starts[row] + places[0]]) if len(places) else -1
        if row < 0:
            return -1
    return row


def _open(task: Task, episodes: Episodes, log_prior: LogPrior) -> _Continuations:
    """How many continuations each row has, their actions and their prior log-probabilities."""
    log_probs = log_prior(episodes, legal(task, episodes))
    possible = np.isfinite(log_probs)
    return possible.sum(axis=1), possible.nonzero()[1], log_probs[possible]


def _layer(opened: list[_Continuations]) -> Layer:
    counts, actions, prior = (np.concatenate(parts) for parts in zip(*opened, strict=True))
    m = len(actions)
    starts = np.concatenate([[0], np.cumsum(counts)])
    child, rewards = np.full(m, -1), np.zeros(m)
    return Layer(starts, actions, prior, child, rewards, np.zeros(m), np.zeros(m), np.zeros((len(counts), 3)))


def _concatenate(parts: list[Episodes]) -> Episodes:
    if len(parts) == 1:
        return parts[0]
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    tokens, prompt_lengths, lengths, steps = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("tokens", "prompt_lengths", "lengths", "steps")
    )
    return Episodes(tokens, prompt_lengths, lengths, steps, columns)


def _back_up(layer: Layer, following: Layer | None, eta: float) -> None:
    """Q-values, optimal log-probabilities and values of a layer, from those of the next one."""
    starts, counts = layer.starts[:-1], np.diff(layer.starts)

    def total(terms: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.add.reduceat(terms, starts)

    after = np.zeros((len(layer.actions), 3))
    if following is not None:
        goes_on = layer.child >= 0
        after[goes_on] = following.values[layer.child[goes_on]]
    layer.q_values[:] = layer.rewards + after[:, 0]
    best = np.maximum.reduceat(layer.q_values, starts)
    with np.errstate(over="ignore"):  # a gap over a tiny eta is infinite: the token is as good as ruled out
        gaps = (layer.q_values - np.repeat(best, counts)) / eta  # ≤ 0
    # log Σ π0 exp(gap): where eta is large, by 1 + Σ π0 (exp(gap) - 1), as the differences are all that counts.
    shift = total(np.exp(layer.prior) * np.expm1(gaps))
    tilted = layer.prior + gaps
    highest = np.maximum.reduceat(tilted, starts)
    log_total = highest + np.log(total(np.exp(tilted - np.repeat(highest, counts))))
    log_total = np.where(shift > -0.5, np.log1p(np.maximum(shift, -0.5)), log_total)
    layer.log_probs[:] = tilted - np.repeat(log_total, counts)
    probs = np.exp(layer.log_probs)
    ratios = np.where(probs > 0, gaps - np.repeat(log_total, counts), 0.0)  # log π*(a|s) - log π0(a|s)
    layer.values[:, 0] = best + eta * log_total
    layer.values[:, 1] = total(probs * (layer.rewards + after[:, 1]))
    layer.values[:, 2] = np.maximum(total(probs * (ratios + after[:, 2])), 0.0)
