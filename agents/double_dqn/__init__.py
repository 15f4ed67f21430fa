"""DoubleDQN: the agent, in the shape of an sb3-contrib algorithm."""

from agents.double_dqn.double_dqn import DoubleDQN
from agents.double_dqn.policies import ActingState, PerformerPolicy, SequencePolicy

__all__ = ["ActingState", "DoubleDQN", "PerformerPolicy", "SequencePolicy"]
