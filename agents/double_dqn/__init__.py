"""DoubleDQN: the agent, in the shape of an sb3-contrib algorithm."""

from agents.double_dqn.double_dqn import DoubleDQN
from agents.double_dqn.policies import PerformerPolicy, SequencePolicy
from agents.double_dqn.sequence_network import ActingState
from agents.double_dqn.transition_policies import CnnPolicy, MlpPolicy, MultiInputPolicy, TransitionPolicy

__all__ = [
    "ActingState",
    "CnnPolicy",
    "DoubleDQN",
    "MlpPolicy",
    "MultiInputPolicy",
    "PerformerPolicy",
    "SequencePolicy",
    "TransitionPolicy",
]
