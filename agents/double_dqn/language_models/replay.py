"""Replay of episodes with what the frozen model said of every state, so that no update has to ask it again."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from agents.double_dqn.language_models.reader import States
from agents.replay.episodes import EpisodeBatch, EpisodeReplayBuffer

COLUMNS = ("hidden", "tokens", "log_probs", "log_ratios", "own_rewards")
"""What is kept of an episode of T actions, D numbers a state and k + 1 candidates: float16, ``(T, D)``; int32 and
float16, ``(T, k + 1)``; float16, ``(T,)``; float16, ``(T, k + 1)``, or ``(T, 0)`` where they are not asked for."""


class StatesBatch(NamedTuple):
    """A batch of B episodes with up to T actions.

    Attributes:
        episodes: Tokens, actions, rewards.
        states: Of each action, shape ``(B, T)``; zeros, and a uniform prior, where there is none.
        chosen: Place of each action among the candidates, int64, shape ``(B, T)``.
        log_ratios: log π − log π₀ of each action, under the policy that acted, shape ``(B, T)``; 0 for the model's own.
        own_rewards: What each candidate would have earned, shape ``(B, T, k + 1)``; NaN where nobody asked.
    """

    episodes: EpisodeBatch
    states: States
    chosen: Tensor
    log_ratios: Tensor
    own_rewards: Tensor

    @property
    def indices(self) -> NDArray[np.int64]:
        """Numbers of the episodes."""
        return self.episodes.indices

    @property
    def rewards(self) -> Tensor:
        """Rewards, shape ``(B, T)``."""
        return self.episodes.rewards


class StatesReplayBuffer(EpisodeReplayBuffer):
    """Episodes with the frozen model's states, in half precision: 2·D + 6·(k + 1) + 2 bytes an action.

    With what each candidate would earn, 2·(k + 1) more.

    A state has one candidate more than the agent chooses among: the action, where it was none of them. Under adapters,
    which are asked again, D is 0. Arguments are those of :class:`agents.replay.EpisodeReplayBuffer`, without
    ``keep_best``, which gives episodes new numbers; masks are not stored, because the candidates of a state are legal.

    Raises:
        ValueError: If ``keep_best`` is True, or as for :class:`agents.replay.EpisodeReplayBuffer`.
    """

    def __init__(self, *args: Any, keep_best: bool = False, **kwargs: Any) -> None:
        if keep_best:
            raise ValueError("keep_best must be False for StatesReplayBuffer, whose states go by an episode's number")
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        """Forget every episode, finished or not, and their priorities."""
        self._states: dict[int, dict[str, NDArray[Any]]] = {}
        super().reset()

    def discard_unfinished(self) -> None:
        """Forget the episodes that are under way."""
        super().discard_unfinished()
        self._open: list[list[tuple[NDArray[Any], ...]]] = [[] for _ in range(self.n_envs)]

    def add_states(
        self,
        obs: NDArray[np.integer],
        next_obs: NDArray[np.integer],
        action: NDArray[np.integer],
        reward: NDArray[np.floating],
        done: NDArray[np.bool_],
        infos: list[dict[str, Any]],
        states: States,
        log_ratios: NDArray[np.floating],
        own_rewards: NDArray[np.floating],
    ) -> None:
        """:meth:`add`, with the states acted in, shape ``(n_envs,)``, and the rest of :data:`COLUMNS` of each."""
        parts = as_columns(states, log_ratios, own_rewards)
        for row, history in enumerate(self._open):
            history.append(tuple(part[row] for part in parts))
        first = self._store.end_id
        self.add(obs, next_obs, action, reward, done, infos)
        for number, row in enumerate(np.flatnonzero(done).tolist()):
            history, self._open[row] = self._open[row], []
            self._states[first + number] = _columns(history)
        self._forget_dropped()

    def _forget_dropped(self) -> None:
        while self._states and (oldest := next(iter(self._states))) < self._store.first_id:
            del self._states[oldest]

    def add_texts(self, episodes: tuple[Any, ...], states: list[dict[str, NDArray[Any]]]) -> None:
        """:meth:`add_episodes`, whose arguments ``episodes`` are, with the states of each: see :data:`COLUMNS`."""
        first = self._store.end_id
        self.add_episodes(*episodes)
        self._states |= {first + number: columns for number, columns in enumerate(states)}
        self._forget_dropped()

    def sample_states(self, batch_size: int, env: VecNormalize | None = None, beta: float | None = None) -> StatesBatch:
        """Draw episodes as :meth:`sample` does, with their states."""
        episodes = self.sample(batch_size, env, beta)
        found = [self._states[number] for number in episodes.indices.tolist()]
        shape = tuple(episodes.valid.shape)
        arrays = {}
        for name in COLUMNS:
            example = found[0][name]
            arrays[name] = np.zeros((*shape, *example.shape[1:]), example.dtype)
            for row, columns in enumerate(found):
                arrays[name][row, : len(columns[name])] = columns[name]
        tokens = self._tensor(arrays["tokens"].astype(np.int64))
        states = States(
            self._tensor(arrays["hidden"].astype(np.float32)),
            tokens,
            self._tensor(arrays["log_probs"].astype(np.float32)),
        )
        is_action = (tokens == episodes.actions.unsqueeze(-1)) & (states.log_probs > -torch.inf)
        chosen = is_action.long().argmax(dim=-1)
        rest = (self._tensor(arrays[name].astype(np.float32)) for name in ("log_ratios", "own_rewards"))
        return StatesBatch(episodes, states, chosen, *rest)

    @property
    def nbytes(self) -> int:
        """Bytes allocated for finished episodes, their priorities and their states."""
        return super().nbytes + sum(array.nbytes for columns in self._states.values() for array in columns.values())

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what is drawn next; see :meth:`EpisodeReplayBuffer.get_state`."""
        episodes = list(self._states.values())
        opened = [_columns(history) for history in self._open if history]
        return super().get_state() | {
            "numbers": np.array(list(self._states), np.int64),
            "states": _joined(episodes),
            "open_rows": np.array([row for row, history in enumerate(self._open) if history], np.int64),
            "open": _joined(opened),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that :meth:`get_state` gave, of a buffer with the same arguments."""
        super().set_state(state)
        self._states = dict(zip(state["numbers"].tolist(), _split(state["states"]), strict=True))
        self._open = [[] for _ in range(self.n_envs)]
        for row, columns in zip(state["open_rows"].tolist(), _split(state["open"]), strict=True):
            self._open[row] = list(zip(*(columns[name] for name in COLUMNS), strict=True))


def as_columns(
    states: States, log_ratios: NDArray[np.floating], own_rewards: NDArray[np.floating]
) -> tuple[NDArray[Any], ...]:
    """What is kept of one action in each of n states: a row for each in each of :data:`COLUMNS`."""
    return (
        states.hidden.cpu().numpy().astype(np.float16),
        states.tokens.cpu().numpy().astype(np.int32),
        states.log_probs.cpu().numpy().astype(np.float16),
        log_ratios.astype(np.float16),
        own_rewards.astype(np.float16),
    )


def _columns(history: list[tuple[NDArray[Any], ...]]) -> dict[str, NDArray[Any]]:
    """The steps of an episode as one array a column."""
    return dict(zip(COLUMNS, (np.stack(column) for column in zip(*history, strict=True)), strict=True))


def _joined(episodes: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The columns of many episodes, one after another, and their lengths: a file of few arrays is a quick one."""
    lengths = np.array([len(columns["tokens"]) for columns in episodes], np.int64)
    if not episodes:
        return {"lengths": lengths}
    return {"lengths": lengths} | {name: np.concatenate([one[name] for one in episodes]) for name in COLUMNS}


def _split(joined: dict[str, NDArray[Any]]) -> list[dict[str, NDArray[Any]]]:
    """What :func:`_joined` joined; each array is one of its own, so that a dropped episode frees its memory."""
    if "own_rewards" not in joined and "tokens" in joined:  # a file from before there were any
        joined = joined | {"own_rewards": np.zeros((len(joined["tokens"]), 0), np.float16)}
    ends = np.cumsum(joined["lengths"]).tolist()
    starts = [0, *ends][:-1]
    return [{name: joined[name][start:end].copy() for name in COLUMNS} for start, end in zip(starts, ends, strict=True)]
