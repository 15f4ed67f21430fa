"""How fast a run through actors is, for its log."""

from __future__ import annotations

import time
from collections import deque

_WINDOW_S = 10.0


class Rates:
    """Episodes a second, and how long the learner waits.

    Args:
        n_episodes: Episodes so far.
    """

    def __init__(self, n_episodes: int) -> None:
        self._since, self._waited = time.perf_counter(), 0.0
        self._marks = deque([(self._since, n_episodes)])

    def add(self, n_episodes: int, waited: float) -> tuple[float, float]:
        """Note a rollout.

        Args:
            n_episodes: Episodes so far.
            waited: Seconds that the learner waited in it.

        Returns:
            Episodes a second, of the last ten seconds, and the share of the whole time in which the learner waited.
        """
        now = time.perf_counter()
        self._waited += waited
        self._marks.append((now, n_episodes))
        while now - self._marks[0][0] > _WINDOW_S and len(self._marks) > 2:
            self._marks.popleft()
        then, episodes = self._marks[0]
        return (n_episodes - episodes) / max(now - then, 1e-9), self._waited / max(now - self._since, 1e-9)
