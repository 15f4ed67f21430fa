"""Experience replay: whole episodes as token rows, and the sum tree that samples them by priority."""

from agents.replay.episodes import EpisodeBatch, EpisodeReplayBuffer, sequence_priorities
from agents.replay.sum_tree import SumTree

__all__ = ["EpisodeBatch", "EpisodeReplayBuffer", "SumTree", "sequence_priorities"]
