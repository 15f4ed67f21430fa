"""Replay of whole episodes: what a causal encoder needs to learn from every token in one pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from agents.replay.best_episodes import BestEpisodes
from agents.replay.episode_store import EpisodeStore, FinishedEpisodes
from agents.replay.partial_episodes import PartialEpisodes
from agents.replay.sum_tree import SumTree
from agents.replay.transfer import to_device
from textgym.spaces import sequence_lengths

_PRIORITY_FLOOR = 1e-6  # keeps episodes without an error in the draw


class EpisodeBatch(NamedTuple):
    """A batch of B episodes with up to T actions in up to L tokens, padded on the right.

    Attributes:
        tokens: Token ids, int64, shape (B, L).
        lengths: Tokens in each row, int64, shape (B,).
        action_positions: Where the t-th action's token stands, int64, shape (B, T). The state in which it was chosen is
            everything before, so that state's features are those at `action_positions - 1`. 1 where not valid.
        actions: Action ids, int64, shape (B, T); 0 where not valid.
        rewards: Rewards, float32, shape (B, T); 0 where not valid.
        valid: Which of the T actions exist, bool, shape (B, T).
        terminated: Whether nothing follows the last action (otherwise the episode was cut off), bool, shape (B,).
        weights: Importance weights in (0, 1], float32, shape (B,).
        action_masks: Legal actions of the T+1 states, bool, shape (B, T + 1, V); None if everything was legal.
        indices: Number of each episode, for `EpisodeReplayBuffer.update_priorities`, int64, shape (B,).
        n_imitated: How many of them, the last ones, are successes to imitate.
    """

    tokens: Tensor
    lengths: Tensor
    action_positions: Tensor
    actions: Tensor
    rewards: Tensor
    valid: Tensor
    terminated: Tensor
    weights: Tensor
    action_masks: Tensor | None
    indices: NDArray[np.int64]
    n_imitated: int = 0


class EpisodeReplayBuffer(ReplayBuffer):
    """Prioritized replay of whole episodes of token observations.

    Observations of a text environment only grow, so an episode is stored as its last row: some 4 bytes a token, where a
    buffer of transitions takes twice the context for every action. Episodes are drawn, with replacement, in proportion
    to priority^alpha (arXiv:1511.05952), with one priority an episode as in R2D2: see `sequence_priorities`.

    It is a Stable-Baselines3 `ReplayBuffer`, so that saving and loading agents works, but has none of its arrays.
    Everything is pickled, unfinished episodes and the generator included.

    Args:
        buffer_size: Actions to hold, over all environments, ≥ 1. The oldest episodes make room for new ones; one longer
            than `buffer_size` is kept, alone.
        observation_space: Integer `Box` of shape (context_length,), as is `textgym.spaces.TokenSequence`: right-padded
            token ids, of which the highest is the padding.
        action_space: `Discrete(V)`; action i is token i.
        device: Where sampled tensors go.
        n_envs: Environments that `add` is called for.
        optimize_memory_usage: Accepted as part of Stable-Baselines3's signature; next observations are never stored.
        handle_timeout_termination: Whether episodes that end with `TimeLimit.truncated` keep the value of their last
            state; if not, they count as terminated.
        prioritized: Draw by priority; otherwise uniformly, with weights of 1.
        alpha: Exponent of the priorities, ≥ 0.
        beta: Exponent of the importance weights, in [0, 1]; `sample` can override it.
        seed: Seed of `generator`, the buffer's own source of randomness.
        keep_best: Whether the best episodes, see :class:`agents.replay.best_episodes.BestEpisodes`, stay for good, in
            up to a quarter of `buffer_size`, while all the others make room for new ones.
        best_share: Share of a batch that is drawn from them, in [0, 1), whatever their priorities; needs `keep_best`.

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
        seed: int | None = None,
        keep_best: bool = False,
        best_share: float = 0.0,
    ) -> None:
        if not 0 <= best_share < 1:
            raise ValueError(f"best_share must be at least 0 and less than 1, got {best_share}")
        if best_share and not keep_best:
            raise ValueError(f"best_share must be 0 without keep_best=True, got {best_share}")
        if buffer_size < 1:
            raise ValueError(f"buffer_size must be at least 1, got {buffer_size}")
        if not (isinstance(observation_space, spaces.Box) and len(observation_space.shape) == 1):
            raise ValueError(f"observation_space must be a one-dimensional Box of token ids, got {observation_space}")
        if not isinstance(action_space, spaces.Discrete):
            raise ValueError(f"action_space must be Discrete, got {action_space}")
        if not alpha >= 0:
            raise ValueError(f"alpha must be at least 0, got {alpha}")
        # Not ReplayBuffer's constructor: it would allocate two whole observations for every step.
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs=n_envs)
        self.optimize_memory_usage = optimize_memory_usage
        self.handle_timeout_termination = handle_timeout_termination
        self.pad_id = int(observation_space.high.max())
        self.n_actions = int(action_space.n)
        self.prioritized, self.alpha, self.beta = prioritized, alpha, beta
        self.generator = np.random.default_rng(seed)
        self.keep_best, self.best_share = keep_best, best_share
        self.reset()

    def reset(self) -> None:
        """Forget every episode, finished or not, and their priorities."""
        self._store = EpisodeStore(self.buffer_size, self.pad_id, self.n_actions)
        self._tree = SumTree(self._store.n_slots)
        self._best = BestEpisodes(self.buffer_size // 4 if self.keep_best else 0)
        self._max_priority = 1.0
        self.discard_unfinished()

    def discard_unfinished(self) -> None:
        """Forget the episodes that are under way: call it when the environments are reset in the middle of them."""
        self._partial = PartialEpisodes(self.n_envs, self.n_actions)

    def size(self) -> int:
        """Actions stored, in finished episodes."""
        return self._store.n_steps

    @property
    def n_episodes(self) -> int:
        """Finished episodes stored."""
        return self._store.end_id - self._store.first_id

    @property
    def success_is_rare(self) -> bool:
        """Whether success is all or nothing, and rare: see :class:`agents.replay.best_episodes.BestEpisodes`."""
        return bool(self._best.rare)

    @property
    def nbytes(self) -> int:
        """Bytes allocated for finished episodes and their priorities."""
        return self._store.nbytes + self._tree.nbytes

    def add(
        self,
        obs: NDArray[np.integer],
        next_obs: NDArray[np.integer],
        action: NDArray[np.integer],
        reward: NDArray[np.floating],
        done: NDArray[np.bool_],
        infos: list[dict[str, Any]],
        action_masks: NDArray[np.bool_] | None = None,
    ) -> None:
        """Record one step of every environment; episodes become available once they are done.

        Args:
            obs: Observations acted in, shape (n_envs, context_length).
            next_obs: Observations after the step, after a reset where `done`.
            action: Actions, shape (n_envs,) or (n_envs, 1).
            reward: Rewards, shape (n_envs,).
            done: Whether the episode is over, shape (n_envs,).
            infos: One a row. Where done: `terminal_observation`, the last row of the episode (else `next_obs` is
                taken for it); `TimeLimit.truncated`; and, if masks are used, `action_mask`, that of the last
                state, shape (V,).
            action_masks: Legal actions in `obs`, bool, shape (n_envs, V); all of them if None.

        Raises:
            ValueError: If an observation is empty, or the last row of an episode lacks its last action.
        """
        positions = sequence_lengths(obs, self.pad_id)
        self._partial.add(obs, positions, np.asarray(action).reshape(-1), reward, action_masks)
        ended = np.flatnonzero(done)
        if ended.size == 0:
            return
        tokens = np.stack([infos[i].get("terminal_observation", next_obs[i]) for i in ended])
        truncated = np.array([bool(infos[i].get("TimeLimit.truncated", False)) for i in ended])
        final_masks = [infos[i].get("action_mask") if cut else None for i, cut in zip(ended, truncated, strict=True)]
        terminated = ~truncated if self.handle_timeout_termination else np.ones_like(truncated)
        lengths = sequence_lengths(tokens, self.pad_id)
        self._append(self._partial.finish(ended, tokens, lengths, terminated, final_masks))

    def add_episode(
        self,
        tokens: ArrayLike,
        action_positions: ArrayLike,
        rewards: ArrayLike,
        terminated: bool,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> None:
        """Store one finished episode: the arguments of `add_episodes` without their first dimension."""
        positions = np.asarray(action_positions, np.int64)
        self.add_episodes(
            np.asarray(tokens)[None],
            positions[None],
            np.array([len(positions)]),
            np.asarray(rewards, np.float32)[None],
            np.array([terminated]),
            None if action_masks is None else action_masks[None],
        )

    def add_episodes(
        self,
        tokens: NDArray[np.integer],
        action_positions: NDArray[np.integer],
        n_actions: NDArray[np.integer],
        rewards: NDArray[np.floating],
        terminated: NDArray[np.bool_],
        action_masks: NDArray[np.bool_] | None = None,
    ) -> None:
        """Store m finished episodes, with no environment behind them.

        Args:
            tokens: Whole episodes, right-padded token ids, shape (m, L).
            action_positions: Where each action's token stands, strictly increasing from at least 1, shape (m, T).
            n_actions: Actions in each episode, in [1, T], shape (m,).
            rewards: Rewards, shape (m, T).
            terminated: Whether nothing follows the last action, bool, shape (m,).
            action_masks: Legal actions of the T+1 states, bool, shape (m, T + 1, V); all of them if None.

        Raises:
            ValueError: If a position is out of range, or the token there is no action.
        """
        if len(tokens) == 0:
            return
        steps = np.arange(action_positions.shape[1])
        valid = steps < n_actions[:, None]  # (m, T)
        lengths = sequence_lengths(tokens, self.pad_id)
        previous = np.concatenate([np.zeros_like(action_positions[:, :1]), action_positions[:, :-1]], axis=1)
        if n_actions.min() < 1 or n_actions.max() > len(steps):
            raise ValueError(f"n_actions must be in [1, {len(steps)}], got {n_actions.min()} to {n_actions.max()}")
        if not ((action_positions > previous) & (action_positions < lengths[:, None]))[valid].all():
            raise ValueError(
                "action_positions must increase from at least 1 to less than the number of tokens in the row"
            )
        chosen = np.take_along_axis(tokens, np.where(valid, action_positions, 0), axis=1)[valid]
        if chosen.min() < 0 or chosen.max() >= self.n_actions:
            raise ValueError(f"tokens at action_positions must be actions in [0, {self.n_actions}), got {chosen.max()}")
        masks = None if action_masks is None or action_masks.all() else np.packbits(action_masks, axis=-1)
        self._append(
            FinishedEpisodes(
                tokens, lengths, action_positions, n_actions, rewards.astype(np.float32), terminated, masks
            )
        )

    def sample(  # type: ignore[override]
        self, batch_size: int, env: VecNormalize | None = None, beta: float | None = None, imitated_share: float = 0.0
    ) -> EpisodeBatch:
        """Draw episodes, with replacement.

        Args:
            batch_size: Number of episodes, ≥ 1.
            env: Normalises the rewards, if given.
            beta: Exponent of the importance weights, in [0, 1]: 0 leaves the bias of prioritized sampling in, 1
                corrects it fully. The weights (N·P)^-beta are divided by their maximum.
            imitated_share: In place of `best_share`: share of the batch that is drawn from the best episodes to be
                imitated, in [0, 1), each of them as often as it comes.

        Raises:
            ValueError: If no finished episode is stored.
        """
        if self.n_episodes == 0:
            raise ValueError("cannot sample from an empty EpisodeReplayBuffer: no episode is finished yet")
        first, end = self._store.first_id, self._store.end_id
        imitates = imitated_share > 0 and len(self._best) > 0
        if imitates:
            n_best = min(round(imitated_share * batch_size), batch_size - 1)
        else:
            n_best = min(round(self.best_share * batch_size), len(self._best), batch_size - 1)
        batch_size -= n_best
        weights = np.ones(batch_size)
        if not self.prioritized:
            ids = self.generator.integers(first, end, batch_size)
        else:
            slots = self._tree.sample(batch_size, self.generator)
            probabilities = self._tree.get(slots) / self._tree.total
            weights = (self.n_episodes * probabilities) ** -(self.beta if beta is None else beta)
            weights /= weights.max()
            ids = first + (slots - first) % self._store.n_slots
        if n_best > 0:
            ids = np.concatenate([ids, self.generator.choice(self._best.ids, n_best, replace=imitates)])
            weights = np.concatenate([weights, np.ones(n_best)])
        batch = self._get_samples(ids, env)._replace(weights=self._tensor(weights.astype(np.float32)))
        return batch._replace(n_imitated=n_best if imitates else 0)

    def _get_samples(  # type: ignore[override]
        self, batch_inds: NDArray[np.int64], env: VecNormalize | None = None
    ) -> EpisodeBatch:
        episodes = self._store.read(batch_inds)
        masks = None
        if episodes.masks is not None:
            unpacked = np.unpackbits(episodes.masks, axis=-1, count=self.n_actions)
            masks = self._tensor(unpacked.view(np.bool_))
        return EpisodeBatch(
            tokens=self._tensor(episodes.tokens.astype(np.int64)),
            lengths=self._tensor(episodes.n_tokens),
            action_positions=self._tensor(episodes.action_positions),
            actions=self._tensor(episodes.actions),
            rewards=self._tensor(self._normalize_reward(episodes.rewards, env)),
            valid=self._tensor(episodes.valid),
            terminated=self._tensor(episodes.terminated),
            weights=self._tensor(np.ones(len(batch_inds), np.float32)),
            action_masks=masks,
            indices=batch_inds,
        )

    def update_priorities(self, indices: NDArray[np.int64], priorities: ArrayLike) -> None:
        """Set the priorities of sampled episodes; those that have been dropped since are skipped.

        Args:
            indices: Episode numbers, `EpisodeBatch.indices`, shape (n,).
            priorities: Before the exponent alpha, finite and ≥ 0, shape (n,). New episodes get the highest ever given.

        Raises:
            ValueError: If a priority is negative, NaN or infinite.
            IndexError: If an episode was never stored.
        """
        values = np.asarray(priorities, np.float64)
        if values.size and not (values.min() >= 0 and values.max() < np.inf):
            raise ValueError(f"priorities must be finite and at least 0, got {values.min()} to {values.max()}")
        if indices.size and indices.max() >= self._store.end_id:
            raise IndexError(f"indices must be less than {self._store.end_id}, got {indices.max()}")
        stored = indices >= self._store.first_id
        if not stored.any():
            return
        values = values[stored] + _PRIORITY_FLOOR
        self._max_priority = max(self._max_priority, float(values.max()))
        self._tree.set(self._store.slots(indices[stored]), values**self.alpha)

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what is drawn next, as arrays and plain values: episodes, priorities, generator."""
        return {
            "store": self._store.get_state(),
            "tree": self._tree.get_state(),
            "partial": self._partial.get_state(),
            "best": self._best.get_state(),
            "max_priority": self._max_priority,
            "generator": self.generator.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that :meth:`get_state` gave, of a buffer with the same arguments."""
        self._store.set_state(state["store"])
        self._tree.set_state(state["tree"])
        self._partial.set_state(state["partial"])
        if "best" in state:  # older states know of none
            self._best.set_state(state["best"])
        self._max_priority = state["max_priority"]
        self.generator.bit_generator.state = state["generator"]

    def _append(self, episodes: FinishedEpisodes) -> None:
        """Store episodes, and the best of those that would have to make room for them once more."""
        if len(self._best):
            doomed = self._doomed(int(episodes.n_steps.sum()))
            if doomed.size:
                priorities = self._tree.get(self._store.slots(doomed))
                self._best.move(doomed, self._store_all(self._store.read(doomed).finished(), priorities))
        self._best.offer(self._store_all(episodes, self._max_priority**self.alpha), episodes)
        if len(self._best):
            self._best.forget_before(self._store.first_id)

    def _doomed(self, new_steps: int) -> NDArray[np.int64]:
        """Numbers of the best episodes that would be dropped for so many new actions, and for their own copies."""
        doomed = self._best.ids[:0]
        while True:
            needed = new_steps + int(self._store.n_steps_of(doomed).sum())
            first = self._store.first_kept(self.buffer_size - needed)
            if first == self._store.end_id:  # no room for both
                return doomed[:0]
            found = self._best.ids[: np.searchsorted(self._best.ids, first)]
            if len(found) == len(doomed):
                return doomed
            doomed = found

    def _store_all(self, episodes: FinishedEpisodes, priorities: NDArray[np.float64] | float) -> NDArray[np.int64]:
        """Store episodes, bring the tree of priorities in line, and give the numbers of the episodes."""
        old_first, old_end = self._store.first_id, self._store.end_id
        self._store.append(episodes)
        first, end = self._store.first_id, self._store.end_id
        surviving = np.arange(first, old_end)
        if self._store.n_slots != self._tree.capacity:  # the table has grown, and everything in it has moved
            kept = self._tree.get(surviving % self._tree.capacity)
            self._tree = SumTree(self._store.n_slots)
            self._tree.set(self._store.slots(surviving), kept)
        else:
            self._tree.set(self._store.slots(np.arange(old_first, min(first, old_end))), 0.0)
        new = np.arange(old_end, end)
        stored = new >= first
        values = priorities[stored] if isinstance(priorities, np.ndarray) else priorities
        self._tree.set(self._store.slots(new[stored]), values)
        return new

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return to_device(array, self.device)  # every array here is fresh


def sequence_priorities(td_errors: Tensor, valid: Tensor, eta: float = 0.9) -> Tensor:
    """One priority for an episode: η·max|δ| + (1 - η)·mean|δ| (R2D2, Kapturowski et al. 2019).

    Args:
        td_errors: Temporal-difference errors, shape (B, T).
        valid: Which of them exist, bool, shape (B, T).
        eta: Share of the maximum, in [0, 1]. A mean alone would hide one surprising token among many expected ones.

    Returns:
        Priorities, shape (B,), on the errors' device; 0 for a row without valid errors.
    """
    errors = torch.where(valid, td_errors.detach().abs(), 0.0)
    mean = errors.sum(dim=1) / valid.sum(dim=1).clamp(min=1)
    return eta * errors.amax(dim=1) + (1 - eta) * mean
