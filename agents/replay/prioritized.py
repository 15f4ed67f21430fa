"""Prioritized replay of transitions: what any environment with discrete actions needs."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from agents.replay.sum_tree import SumTree
from agents.replay.transfer import to_device
from textgym.checks import check_ranges

_PRIORITY_FLOOR = 1e-6  # keeps transitions without an error in the draw

_Indices: TypeAlias = NDArray[np.int64]


class TransitionBatch(NamedTuple):
    """A batch of B transitions: Stable-Baselines3's ``ReplayBufferSamples``, with weights, masks and indices.

    Attributes:
        observations: Observations acted in, shape (B, ...), or a dictionary of them.
        actions: Actions, int64, shape (B, 1).
        next_observations: Observations after the last reward that counts, as `observations`.
        dones: 1 where nothing follows, float32, shape (B, 1).
        rewards: Discounted sum of the rewards of up to n steps, float32, shape (B, 1).
        discounts: What the value of the next observation is multiplied with, float32, shape (B, 1); None where n is 1,
            as it is then the discount factor throughout.
        weights: Importance weights in (0, 1], float32, shape (B,); None if the draw was uniform.
        next_action_masks: Legal actions in `next_observations`, bool, shape (B, V); None if everything was legal.
        indices: Places of the transitions, for `PrioritizedReplayBuffer.update_priorities`, int64, shape (B,).
    """

    observations: Tensor | dict[str, Tensor]
    actions: Tensor
    next_observations: Tensor | dict[str, Tensor]
    dones: Tensor
    rewards: Tensor
    discounts: Tensor | None
    weights: Tensor | None
    next_action_masks: Tensor | None
    indices: _Indices


class PrioritizedReplayBuffer(ReplayBuffer):
    """Stable-Baselines3's `ReplayBuffer` with priorities, n-step returns and action masks.

    Transitions are drawn, with replacement, in proportion to priority^alpha (arXiv:1511.05952). New ones enter with the
    highest priority ever given, so that each is likely to be seen once. The draw comes from the buffer's own generator,
    which is pickled with everything else: a buffer that was saved and loaded goes on with the same draws.

    Legal actions of the next state are taken from ``infos[i]["action_mask"]``, and stored as packed bits once there are
    any: V/8 bytes a transition.

    Args:
        buffer_size: Transitions to hold, over all environments, ≥ 1.
        observation_space: Any space that Stable-Baselines3 handles, but `Dict`, for which there is
            `PrioritizedDictReplayBuffer`.
        action_space: `Discrete(V)`.
        device: Where sampled tensors go.
        n_envs: Environments that `add` is called for.
        optimize_memory_usage: Store each observation once; as in `ReplayBuffer`, not together with
            `handle_timeout_termination`.
        handle_timeout_termination: Whether episodes that end with `TimeLimit.truncated` keep the value of their last
            state; if not, they count as terminated.
        prioritized: Draw by priority; otherwise uniformly, without weights.
        alpha: Exponent of the priorities, ≥ 0.
        beta: Exponent of the importance weights, in [0, 1]; `sample` can override it.
        n_steps: Rewards that a sampled transition sums, ≥ 1. It stops early where its episode ends, or at the newest
            transition.
        gamma: Discount of those rewards, in [0, 1].
        seed: Seed of `generator`, the buffer's own source of randomness.

    Raises:
        ValueError: If an argument is out of range or a space is of another kind.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        prioritized: bool = True,
        alpha: float = 0.6,
        beta: float = 0.4,
        n_steps: int = 1,
        gamma: float = 0.99,
        seed: int | None = None,
    ) -> None:
        if not isinstance(action_space, spaces.Discrete):
            raise ValueError(f"action_space must be Discrete, got {action_space}")
        check_ranges(alpha=(alpha, 0, np.inf), beta=(beta, 0, 1), gamma=(gamma, 0, 1), n_steps=(n_steps, 1, np.inf))
        super().__init__(
            buffer_size,
            observation_space,
            action_space,
            device,
            n_envs=n_envs,
            optimize_memory_usage=optimize_memory_usage,
            handle_timeout_termination=handle_timeout_termination,
        )
        self.n_actions = int(action_space.n)
        self.prioritized, self.alpha, self.beta = prioritized, alpha, beta
        self.n_steps, self.gamma = n_steps, gamma
        self.generator = np.random.default_rng(seed)
        self.reset()

    @property
    def nbytes(self) -> int:
        """Bytes allocated for transitions and their priorities."""
        arrays = [self.actions, self.rewards, self.dones, self.timeouts]
        for stored in (self.observations, getattr(self, "next_observations", {})):
            arrays += stored.values() if isinstance(stored, dict) else [stored]
        if self._illegal is not None:
            arrays.append(self._illegal)
        return sum(array.nbytes for array in arrays) + self._tree.nbytes

    def reset(self) -> None:
        """Forget every transition."""
        super().reset()
        # Item row · n_envs + environment of the tree is the transition at [row, environment] of the arrays.
        self._tree = SumTree(self.buffer_size * self.n_envs)
        self._max_priority = 1.0
        self._illegal: NDArray[np.uint8] | None = None  # packed; 0, the default, allows everything

    def add(
        self,
        obs: Any,
        next_obs: Any,
        action: NDArray[np.integer],
        reward: NDArray[np.floating],
        done: NDArray[np.bool_],
        infos: list[dict[str, Any]],
    ) -> None:
        """Record one step of every environment.

        Args:
            obs: Observations acted in, shape (n_envs, ...), or a dictionary of them.
            next_obs: Observations after the step and before a reset, likewise.
            action: Actions, shape (n_envs,) or (n_envs, 1).
            reward: Rewards, shape (n_envs,).
            done: Whether the episode is over, shape (n_envs,).
            infos: One a row: `TimeLimit.truncated`; and, if masks are used, `action_mask`, the legal actions in
                `next_obs`, shape (V,); without it everything is legal.
        """
        row = self.pos
        super().add(obs, next_obs, action, reward, done, infos)
        if not self.handle_timeout_termination:
            self.timeouts[row] = 0  # `cut` may have marked what this row held before
        masks = [info.get("action_mask") for info in infos]
        if self._illegal is None and any(mask is not None and not np.all(mask) for mask in masks):
            self._illegal = np.zeros((self.buffer_size, self.n_envs, -(-self.n_actions // 8)), np.uint8)
        if self._illegal is not None:
            legal = [np.ones(self.n_actions, bool) if mask is None else np.asarray(mask, bool) for mask in masks]
            self._illegal[row] = np.packbits(~np.stack(legal), axis=-1)
        self._tree.set(self._items(row), self._max_priority**self.alpha)
        if self.optimize_memory_usage and self.full:  # the next row's observation has just been overwritten
            self._tree.set(self._items(self.pos), 0.0)

    def cut(self) -> None:
        """End the episodes under way, as truncated: call it when the environments are reset in the middle of them.

        Otherwise an n-step return would add the rewards of two episodes. With `optimize_memory_usage` they count as
        terminated, because the first observation after the reset takes the place of their last one.
        """
        if self.size() == 0:
            return
        last = self.pos - 1
        if self.optimize_memory_usage:
            self.dones[last] = 1
        else:
            self.timeouts[last] = np.maximum(self.timeouts[last], 1 - self.dones[last])

    def sample(  # type: ignore[override]
        self, batch_size: int, env: VecNormalize | None = None, beta: float | None = None
    ) -> TransitionBatch:
        """Draw transitions, with replacement.

        Args:
            batch_size: Number of transitions, ≥ 1.
            env: Normalises observations and rewards, if given.
            beta: Exponent of the importance weights, in [0, 1]: 0 leaves the bias of prioritized sampling in, 1
                corrects it fully. The weights (N·P)^-beta are divided by their maximum.

        Raises:
            ValueError: If no transition is stored.
        """
        rows, first = self.size(), 0
        if self.optimize_memory_usage and self.full:
            rows, first = rows - 1, self.pos + 1
        if rows == 0:
            raise ValueError(f"cannot sample from an empty {type(self).__name__}")
        if not self.prioritized:
            items = self.generator.integers(rows * self.n_envs, size=batch_size)
            return self._get_samples((items + first * self.n_envs) % self._tree.capacity, env)
        items = self._tree.sample(batch_size, self.generator)
        probabilities = self._tree.get(items) / self._tree.total
        weights = (rows * self.n_envs * probabilities) ** -(self.beta if beta is None else beta)
        return self._get_samples(items, env)._replace(weights=self._float_tensor(weights / weights.max()))

    def _get_samples(self, batch_inds: _Indices, env: VecNormalize | None = None) -> TransitionBatch:  # type: ignore[override]
        rows, envs = np.divmod(batch_inds, self.n_envs)
        last, rewards, discounts = self._windows(rows, envs, env)
        if self.optimize_memory_usage:
            next_observations = self._observations(self.observations, (last + 1) % self.buffer_size, envs, env)
        else:
            next_observations = self._observations(self.next_observations, last, envs, env)
        masks = None
        if self._illegal is not None:
            illegal = np.unpackbits(self._illegal[last, envs], axis=-1, count=self.n_actions)
            masks = self.to_torch(illegal == 0, copy=False)
        return TransitionBatch(
            observations=self._observations(self.observations, rows, envs, env),
            actions=self.to_torch(self.actions[rows, envs]),
            next_observations=next_observations,
            dones=self.to_torch((self.dones[last, envs] * (1 - self.timeouts[last, envs]))[:, None]),
            rewards=self._float_tensor(rewards[:, None]),
            discounts=None if discounts is None else self._float_tensor(discounts[:, None]),
            weights=None,
            next_action_masks=masks,
            indices=batch_inds,
        )

    def _windows(
        self, rows: _Indices, envs: _Indices, env: VecNormalize | None
    ) -> tuple[_Indices, NDArray[np.floating], NDArray[np.float64] | None]:
        """Last row of each n-step window, its discounted rewards, and the discount of what follows: (B,) each."""
        if self.n_steps == 1:
            return rows, self._normalize_reward(self.rewards[rows, envs], env), None
        steps = np.arange(self.n_steps)
        window = (rows[:, None] + steps) % self.buffer_size  # (B, n)
        column = envs[:, None]
        newest = (self.pos - 1) % self.buffer_size  # the row after it is not its successor
        ends = (self.dones[window, column] > 0) | (self.timeouts[window, column] > 0) | (window == newest)
        ends[:, -1] = True
        length = ends.argmax(axis=1) + 1  # (B,)
        rewards = self._normalize_reward(self.rewards[window, column], env)
        powers = self.gamma ** np.arange(self.n_steps + 1)
        returns = (rewards * powers[:-1] * (steps < length[:, None])).sum(axis=1)
        return window[np.arange(len(rows)), length - 1], returns, powers[length]

    def _observations(
        self, stored: Any, rows: _Indices, envs: _Indices, env: VecNormalize | None
    ) -> Tensor | dict[str, Tensor]:
        if not isinstance(stored, dict):
            return self.to_torch(self._normalize_obs(stored[rows, envs], env))  # type: ignore[arg-type]
        chosen = self._normalize_obs({key: values[rows, envs] for key, values in stored.items()}, env)
        assert isinstance(chosen, dict)
        return {key: self.to_torch(values) for key, values in chosen.items()}

    def update_priorities(self, indices: _Indices, priorities: ArrayLike) -> None:
        """Set the priorities of sampled transitions, before any is overwritten.

        Args:
            indices: Places of the transitions, `TransitionBatch.indices`, shape (n,).
            priorities: Before the exponent alpha, finite and ≥ 0, shape (n,). New transitions get the highest ever
                given.

        Raises:
            ValueError: If a priority is negative, NaN or infinite.
            IndexError: If an index is out of range.
        """
        values = np.asarray(priorities, np.float64)
        if values.size == 0:
            return
        if not (values.min() >= 0 and values.max() < np.inf):
            raise ValueError(f"priorities must be finite and at least 0, got {values.min()} to {values.max()}")
        values = values + _PRIORITY_FLOOR
        self._tree.set(indices, values**self.alpha)
        self._max_priority = max(self._max_priority, float(values.max()))

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what is drawn next, as arrays and plain values."""
        rows = self.buffer_size
        if not self.full:  # one row more may hold a next observation
            rows = min(self.pos + 1, self.buffer_size)
        arrays = {name: _first(getattr(self, name), rows) for name in self._arrays()}
        return {
            "arrays": arrays,
            "illegal": None if self._illegal is None else self._illegal[:rows].copy(),
            "pos": self.pos,
            "full": self.full,
            "tree": self._tree.get_state(),
            "max_priority": self._max_priority,
            "generator": self.generator.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that :meth:`get_state` gave, of a buffer with the same arguments."""
        for name in self._arrays():
            _put(getattr(self, name), state["arrays"][name])
        self._illegal = None
        if state["illegal"] is not None:
            self._illegal = np.zeros((self.buffer_size, self.n_envs, -(-self.n_actions // 8)), np.uint8)
            _put(self._illegal, state["illegal"])
        self.pos, self.full = int(state["pos"]), bool(state["full"])
        self._tree.set_state(state["tree"])
        self._max_priority = state["max_priority"]
        self.generator.bit_generator.state = state["generator"]

    def _arrays(self) -> list[str]:
        names = ["observations", "actions", "rewards", "dones", "timeouts"]
        return names if self.optimize_memory_usage else [*names, "next_observations"]

    def _items(self, row: int) -> _Indices:
        return np.arange(row * self.n_envs, (row + 1) * self.n_envs)

    def to_torch(self, array: NDArray[Any], copy: bool = True) -> Tensor:
        """The array as a tensor on the buffer's device; a GPU takes it from pinned memory, without a wait."""
        return super().to_torch(array, copy) if self.device.type == "cpu" else to_device(array, self.device)

    def _float_tensor(self, array: NDArray[np.floating]) -> Tensor:
        return self.to_torch(np.asarray(array, np.float32), copy=False)


def _first(values: Any, rows: int) -> Any:
    """The first rows of an array, or of each array of a dictionary."""
    return (
        {key: _first(array, rows) for key, array in values.items()}
        if isinstance(values, dict)
        else values[:rows].copy()
    )


def _put(place: Any, values: Any) -> None:
    """Write the first rows of an array, or of each array of a dictionary."""
    if isinstance(place, dict):
        for key, array in place.items():
            _put(array, values[key])
    else:
        place[: len(values)] = values


class PrioritizedDictReplayBuffer(PrioritizedReplayBuffer, DictReplayBuffer):  # type: ignore[misc]
    """`PrioritizedReplayBuffer` of `Dict` observations: Stable-Baselines3's `DictReplayBuffer` keeps the arrays."""
