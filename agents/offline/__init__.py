"""Learning from text before, or without, any environment."""

from agents.offline.episodes import TextEpisodes, text_to_episodes
from agents.offline.learning import OfflineProgress, OfflineResult, learn_from_text
from agents.offline.losses import OBJECTIVES, OfflineObjective, offline_loss
from agents.offline.rows import TextRow, read_rows

__all__ = [
    "OBJECTIVES",
    "OfflineObjective",
    "OfflineProgress",
    "OfflineResult",
    "TextEpisodes",
    "TextRow",
    "learn_from_text",
    "offline_loss",
    "read_rows",
    "text_to_episodes",
]
