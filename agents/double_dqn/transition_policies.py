"""Policies of :class:`agents.DoubleDQN` on the transition path: Stable-Baselines3's own, or with a head of ours."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.dqn.policies import CnnPolicy as DQNCnnPolicy
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from stable_baselines3.dqn.policies import MultiInputPolicy as DQNMultiInputPolicy
from torch import Tensor, nn

from agents.double_dqn.heads import QHead


class HeadQNetwork(QNetwork):
    """Stable-Baselines3's ``QNetwork`` whose last layer is a :class:`agents.double_dqn.heads.QHead`.

    Args:
        *args: As for ``QNetwork``.
        dueling: See :class:`agents.double_dqn.heads.QHead`.
        n_ensemble: Likewise.
        **kwargs: As for ``QNetwork``.
    """

    def __init__(self, *args: Any, dueling: bool = True, n_ensemble: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        trunk = create_mlp(self.features_dim, -1, self.net_arch, self.activation_fn)
        self.q_net = nn.Sequential(*trunk)  # in the place of the one whose last layer gives action values
        width = self.net_arch[-1] if self.net_arch else self.features_dim
        self.head = QHead(width, int(self.action_space.n), dueling, n_ensemble)

    def forward(self, obs: PyTorchObs) -> Tensor:
        """Q-values of every action: B observations → ``(B, V)``."""
        return self.head(super().forward(obs))

    def ensemble(self, obs: PyTorchObs) -> Tensor:
        """Each head's Q-values of every action: B observations → ``(B, K, V)``."""
        return self.head.ensemble(super().forward(obs))


class TransitionPolicy(DQNPolicy):
    """Stable-Baselines3's ``DQNPolicy``, ``"MlpPolicy"``, optionally with dueling heads or several of them.

    With one head that is not dueling, the networks, the names and the initial values of their parameters are ``DQN``'s.

    Args:
        *args: As for ``DQNPolicy``.
        dueling: See :class:`agents.double_dqn.heads.QHead`.
        n_ensemble: Likewise; more than 1 is what ``exploration="ensemble_ucb"`` needs.
        **kwargs: As for ``DQNPolicy``.
    """

    def __init__(self, *args: Any, dueling: bool = True, n_ensemble: int = 1, **kwargs: Any) -> None:
        self.head_arguments: dict[str, Any] = {"dueling": dueling, "n_ensemble": n_ensemble}
        super().__init__(*args, **kwargs)

    def make_q_net(self) -> QNetwork:
        """Build one of the two networks."""
        if self.head_arguments == {"dueling": False, "n_ensemble": 1}:
            return super().make_q_net()
        return HeadQNetwork(**self._update_features_extractor(self.net_args), **self.head_arguments).to(self.device)

    def _predict(self, obs: PyTorchObs, deterministic: bool = True) -> Tensor:
        return super()._predict(obs, deterministic) + int(self.action_space.start)  # type: ignore[attr-defined]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self.head_arguments


class CnnPolicy(TransitionPolicy, DQNCnnPolicy):
    """:class:`TransitionPolicy` of images."""


class MultiInputPolicy(TransitionPolicy, DQNMultiInputPolicy):
    """:class:`TransitionPolicy` of dictionaries of observations."""


MlpPolicy = TransitionPolicy
"""The name that Stable-Baselines3 gives it."""
