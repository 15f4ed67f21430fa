"""The contract between :class:`agents.DoubleDQN` and what it learns from: whole episodes, or single transitions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecEnv

from agents.double_dqn.base import LearningAgent


class Choice(NamedTuple):
    """Actions of n rows, shape (n,), and the contexts in which they were explored, shape (n,); None if greedy."""

    actions: NDArray[np.int64]
    contexts: NDArray[np.uint64] | None


class Loss(NamedTuple):
    """What one batch teaches.

    Attributes:
        loss: A scalar with a gradient.
        td_error: Mean absolute temporal-difference error, a scalar without one.
        q_mean: Mean value of the actions taken, a scalar without one.
        q_range: Lowest and highest value of the actions taken, scalars without one.
        priorities: New priorities of the batch's indices, shape (B,), without a gradient; not finite if the loss isn't.
    """

    loss: torch.Tensor
    td_error: torch.Tensor
    q_mean: torch.Tensor
    q_range: tuple[torch.Tensor, torch.Tensor]
    priorities: torch.Tensor


class LearningPath(ABC):
    """What differs between learning from episodes and from transitions; ``model`` owns everything that is saved.

    Attributes:
        name: Field of :class:`agents.double_dqn.defaults.Default`.
        default_n_envs: Rows that an environment given as one of TextGym's ids gets.
        default_log_interval: Episodes between two rows of the log.
        explorer_defaults: Arguments of named explorers that differ from their own defaults.
        limits: An environment, the most tokens of its episodes and its largest reward: see
            :mod:`agents.double_dqn.health`.
    """

    name: ClassVar[str]
    default_n_envs: ClassVar[int]
    default_log_interval: ClassVar[int]
    acts_from_start: ClassVar[bool] = False  # whether it chooses the first, random, actions itself
    explores: ClassVar[bool] = True  # whether the model's explorer has a part in that
    explorer_defaults: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, model: LearningAgent) -> None:
        self.model = model
        self.limits: tuple[VecEnv, float, float] | None = None

    @abstractmethod
    def check(self) -> None:
        """Check the model's arguments against its spaces.

        Raises:
            ValueError: If they do not fit.
        """

    @abstractmethod
    def policy_arguments(self) -> dict[str, Any]:
        """Arguments of the policy that the model's flags decide."""

    def kept_policy_arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """The user's arguments of the policy as they are kept with the model, once the policy is built."""
        return given

    @torch.no_grad()
    def values(self, observations: Any, masks: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """Values of every action, of n observations: ``(n, V)``; -inf for those that are illegal, or not valued."""
        policy = self.model.policy
        values = policy.q_net(policy.obs_to_tensor(observations)[0]).double().cpu().numpy()
        return values if masks is None else np.where(masks, values, -np.inf)

    @abstractmethod
    def buffer(self) -> tuple[type[ReplayBuffer], dict[str, Any]]:
        """Class of the replay buffer, and the arguments that the model's flags decide."""

    @abstractmethod
    def predict(
        self,
        observation: Any,
        state: Any,
        episode_start: NDArray[np.bool_] | None,
        masks: NDArray[np.bool_] | None,
        explore: bool,
    ) -> tuple[NDArray[np.int64], Any]:
        """See :meth:`agents.DoubleDQN.predict`."""

    @abstractmethod
    def act(self, masks: NDArray[np.bool_] | None) -> Choice:
        """Explore from the model's last observations."""

    @abstractmethod
    def store(
        self,
        replay_buffer: Any,
        new_obs: Any,
        actions: NDArray[np.int64],
        rewards: NDArray[np.floating],
        dones: NDArray[np.bool_],
        infos: list[dict[str, Any]],
        masks: NDArray[np.bool_] | None,
    ) -> None:
        """Put a step of the environments into replay, and ``new_obs`` in the place of the model's last observations.

        ``masks`` are those of the observations acted in; the model's are those of ``new_obs`` by now.
        """

    @abstractmethod
    def sample(self, batch_size: int, beta: float) -> Any:
        """Draw a batch from the model's replay."""

    @abstractmethod
    def loss(self, batch: Any) -> Loss:
        """The loss of a batch."""

    @abstractmethod
    def on_learn(self, resets: bool) -> None:
        """Learning begins; the environments are about to be reset, maybe in mid-episode, or go on."""

    def get_acting_state(self) -> dict[str, Any] | None:
        """What is remembered of the environments trained in, as plain values and arrays; None for nothing."""
        return None

    def set_acting_state(self, state: dict[str, Any] | None) -> None:  # noqa: B027
        """Return to what :meth:`get_acting_state` gave."""

    def on_step(self) -> None:  # noqa: B027
        """The environments have taken a step."""

    def on_update(self, env_steps: float) -> None:  # noqa: B027
        """The network has been updated; ``env_steps`` is the number of environment steps that the update stands for."""
