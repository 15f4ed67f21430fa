"""Experience replay: whole episodes as token rows, single transitions, and the sum tree that samples by priority."""

from agents.replay.episodes import EpisodeBatch, EpisodeReplayBuffer, sequence_priorities
from agents.replay.prioritized import PrioritizedDictReplayBuffer, PrioritizedReplayBuffer, TransitionBatch
from agents.replay.sum_tree import SumTree

__all__ = [
    "EpisodeBatch",
    "EpisodeReplayBuffer",
    "PrioritizedDictReplayBuffer",
    "PrioritizedReplayBuffer",
    "SumTree",
    "TransitionBatch",
    "sequence_priorities",
]
