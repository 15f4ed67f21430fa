"""What both learning paths need of :class:`agents.DoubleDQN`: its flags, its explorer, and what it remembers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import RolloutReturn, Schedule, TrainFreq
from stable_baselines3.dqn.policies import DQNPolicy

from agents.exploration import EXPLORATIONS, Exploration

DEFAULT_N_ENSEMBLE = 5  # where the explorer needs several heads


class RehearsedTexts(Protocol):
    """Texts that are learned from beside the environment, see :mod:`agents.offline.rehearsal`."""

    def online_rows(self, batch_size: int) -> int:
        """How many rows of a batch are left to the environment's episodes."""

    def mix(self, loss: torch.Tensor, n_online: int, q_net: Any, q_net_target: Any, env: Any) -> torch.Tensor:
        """The loss with that of the texts."""

    def get_state(self) -> dict[str, Any]:
        """Everything that decides which texts come next."""


class RemoteActors(Protocol):
    """Who acts in the model's place, see :mod:`agents.distributed`."""

    def on_learn(self, resets: bool) -> None:
        """Learning begins; the environments have been reset, or go on."""

    def collect(
        self, callback: BaseCallback, train_freq: TrainFreq, learning_starts: int, log_interval: int | None
    ) -> RolloutReturn:
        """SB3's ``collect_rollouts``."""

    def sync(self) -> None:
        """Put what the first actor remembers into the model."""

    def on_learned(self) -> None:
        """Learning has ended as it should."""

    def get_state(self) -> dict[str, Any]:
        """What the other actors remember."""

    def set_state(self, state: dict[str, Any] | None, shards: list[dict[str, Any]]) -> None:
        """Return to a state that :meth:`get_state` gave; None: there were no actors. ``shards``: states of replays."""


class OtherLearners(Protocol):
    """Who learns beside the model, see :mod:`agents.distributed.learners`."""

    def begin(self, gradient_steps: int, batch_size: int) -> int:
        """So many updates follow; returned are the model's rows in each batch, 0 for no updates after all."""

    def average_gradients(self, parameters: Sequence[torch.Tensor], batch: Any) -> None:
        """Put the mean of all learners' gradients in the place of the model's, which come from ``batch``."""


class LearningAgent(DQN):
    """The part of the agent that its paths and its health checks see; :class:`agents.DoubleDQN` sets the attributes."""

    policy_class: type[DQNPolicy]
    replay_buffer: Any  # an EpisodeReplayBuffer or a PrioritizedReplayBuffer, as the path says
    double_q: bool
    dueling: bool | None  # None until the policy is built, where it was left open
    prioritized_replay: bool | None  # likewise
    priority_alpha: float
    priority_beta: float
    priority_beta_final: float
    lower_bound: bool
    keep_best: bool
    best_share: float
    self_imitation: bool
    loss: str | None
    value_range: tuple[float, float] | None
    q_lambda: float | Schedule | None
    watkins: bool
    exploration: str | Exploration
    exploration_kwargs: dict[str, Any]
    rehearsal: RehearsedTexts | None  # learn_from_text sets it
    actors: RemoteActors | None  # agents.distributed sets it
    learners: OtherLearners | None  # likewise
    last_checkpoint: str | None  # see agents.saving.checkpoint
    _path: Any  # a LearningPath: see agents.double_dqn.paths, which builds on this
    _generator: np.random.Generator | None
    _masks: NDArray[np.bool_] | None  # of the last observations
    _steps_since_target_update: float
    _largest_reward: float  # that updates have seen
    _diverged: bool

    def head_arguments(self) -> dict[str, Any]:
        """Arguments of the policy that decide its :class:`agents.double_dqn.heads.QHead`."""
        explorer = EXPLORATIONS.get(self.exploration) if isinstance(self.exploration, str) else self.exploration
        needs_ensemble = explorer is not None and explorer.ensemble
        return {"dueling": self.dueling, "n_ensemble": DEFAULT_N_ENSEMBLE if needs_ensemble else 1}

    @property
    def current_q_lambda(self) -> float | None:
        """λ at this point of the training; None for n-step targets."""
        if self.q_lambda is None or not callable(self.q_lambda):
            return self.q_lambda
        return float(self.q_lambda(self._current_progress_remaining))

    def priority_arguments(self) -> dict[str, Any]:
        """Arguments that both replay buffers take from the flags."""
        return {
            "prioritized": self.prioritized_replay,
            "alpha": self.priority_alpha,
            "beta": self.priority_beta,
            "seed": self.seed,
        }

    def _create_aliases(self) -> None:
        if not hasattr(self.policy, "q_net") or not hasattr(self.policy, "q_net_target"):
            raise ValueError(
                f"policy must have a q_net and a q_net_target, as DQNPolicy has, got {self.policy_class.__name__}"
            )
        super()._create_aliases()

    @property
    def first_action(self) -> int:
        """The lowest action: inside the agent actions are numbered from 0, whatever ``Discrete(n, start)`` says."""
        return int(self.action_space.start)  # type: ignore[attr-defined]

    @property
    def policy_name(self) -> str:
        """The policy's name, for messages."""
        names = [name for name, policy in self.policy_aliases.items() if policy is self.policy_class]
        return names[0] if names else self.policy_class.__name__

    @property
    def explorer(self) -> Exploration:
        """The explorer, built."""
        assert isinstance(self.exploration, Exploration)
        return self.exploration

    def explore(
        self,
        q_values: NDArray[np.float32],
        masks: NDArray[np.bool_] | None,
        contexts: NDArray[np.uint64],
        explorer: Exploration | None = None,
    ) -> NDArray[np.int64]:
        """Actions as during training: shapes ``(n, V)``, ``(n, V)`` or None, ``(n,)`` → ``(n,)``."""
        assert self._generator is not None
        progress = 1.0 - self._current_progress_remaining
        return (explorer or self.explorer).select(q_values, masks, contexts, self._generator, progress)
