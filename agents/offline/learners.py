"""Which learner of texts suits a model."""

from __future__ import annotations

from stable_baselines3.common.buffers import DictReplayBuffer

from agents.double_dqn import DoubleDQN
from agents.double_dqn.language_models import LanguageModelPolicy
from agents.double_dqn.policies import SequencePolicy
from agents.double_dqn.transitions import TransitionPath
from agents.offline.learner import TextLearner
from agents.offline.states import StatesLearner
from agents.offline.transitions import TransitionLearner
from agents.replay.episodes import EpisodeReplayBuffer


def learner_of(model: DoubleDQN) -> type[TextLearner]:
    """What learns from texts in the place of a model's updates.

    Raises:
        ValueError: If its observations are no texts.
    """
    policy, replay = model.policy, model.replay_buffer
    if isinstance(policy, SequencePolicy) and isinstance(replay, EpisodeReplayBuffer):
        return TextLearner
    if isinstance(policy, LanguageModelPolicy):
        return StatesLearner
    if isinstance(model._path, TransitionPath) and not isinstance(replay, DictReplayBuffer):
        return TransitionLearner
    raise ValueError(f"model must have a policy for sequences or for texts as vectors, got {model.policy_name}")
