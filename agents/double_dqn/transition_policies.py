"""Policies of :class:`agents.DoubleDQN` on the transition path: Stable-Baselines3's own, with a dueling head."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.dqn.policies import CnnPolicy as DQNCnnPolicy
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from stable_baselines3.dqn.policies import MultiInputPolicy as DQNMultiInputPolicy
from torch import Tensor, nn

from agents.double_dqn.heads import QHead


class DuelingQNetwork(QNetwork):
    """Stable-Baselines3's ``QNetwork`` whose last layer is a :class:`agents.double_dqn.heads.QHead`.

    The arguments are those of ``QNetwork``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        trunk = create_mlp(self.features_dim, -1, self.net_arch, self.activation_fn)
        self.q_net = nn.Sequential(*trunk)  # in the place of the one whose last layer gives action values
        width = self.net_arch[-1] if self.net_arch else self.features_dim
        self.head = QHead(width, int(self.action_space.n), dueling=True)

    def forward(self, obs: PyTorchObs) -> Tensor:
        """Q-values of every action: B observations → ``(B, V)``."""
        return self.head(super().forward(obs))


class TransitionPolicy(DQNPolicy):
    """Stable-Baselines3's ``DQNPolicy``, ``"MlpPolicy"``, optionally with dueling networks (arXiv:1511.06581).

    Without them the networks, their parameters' names and their initial values are those of ``DQN``.

    Args:
        *args: As for ``DQNPolicy``.
        dueling: Whether the last layer splits values from advantages.
        **kwargs: As for ``DQNPolicy``.
    """

    def __init__(self, *args: Any, dueling: bool = True, **kwargs: Any) -> None:
        self.dueling = dueling
        super().__init__(*args, **kwargs)

    def make_q_net(self) -> QNetwork:
        """Build one of the two networks."""
        if not self.dueling:
            return super().make_q_net()
        return DuelingQNetwork(**self._update_features_extractor(self.net_args)).to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {"dueling": self.dueling}


class CnnPolicy(TransitionPolicy, DQNCnnPolicy):
    """:class:`TransitionPolicy` of images."""


class MultiInputPolicy(TransitionPolicy, DQNMultiInputPolicy):
    """:class:`TransitionPolicy` of dictionaries of observations."""


MlpPolicy = TransitionPolicy
"""The name that Stable-Baselines3 gives it."""
