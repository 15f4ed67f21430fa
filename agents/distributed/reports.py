"""What actors and the learner tell each other, and the learner's account of the episodes in its replay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.replay.episode_store import FinishedEpisodes


class EpisodeId(NamedTuple):
    """Name of an episode; no two of a run have the same.

    Attributes:
        actor: Number of the actor.
        incarnation: Which process of that number: each that takes another's place counts one more.
        number: How many episodes it had finished before.
    """

    actor: int
    incarnation: int
    number: int


class Order(NamedTuple):
    """What the learner asks of an actor.

    Attributes:
        version: Updates that the actor's weights are to have had.
        num_timesteps: Environment steps of the run so far.
        total_timesteps: Those that it is to have.
        progress_remaining: SB3's ``_current_progress_remaining``, in [0, 1].
        vector_steps: Steps to take with all rows (≥ 1).
        acknowledged: Number of the first report that is not in replay: the actor may forget those before.
    """

    version: int
    num_timesteps: int
    total_timesteps: int
    progress_remaining: float
    vector_steps: int
    acknowledged: int


class VectorStep(NamedTuple):
    """One step of all rows of an actor.

    Attributes:
        infos: Row → info, of the rows whose episode ended; without the observation, which the episodes hold.
        episodes: The episodes that ended, in the order of the rows; None if none did.
    """

    infos: dict[int, dict[str, Any]]
    episodes: FinishedEpisodes | None


class Report(NamedTuple):
    """What an actor did for one order.

    Attributes:
        actor: Number of the actor.
        incarnation: See :class:`EpisodeId`.
        number: Number of the report, from 0 for each incarnation.
        first_episode: Number of its first episode.
        version: Updates that the weights had had with which it acted.
        seconds: How long it took.
        steps: The steps, in order.
    """

    actor: int
    incarnation: int
    number: int
    first_episode: int
    version: int
    seconds: float
    steps: list[VectorStep]


def compact(episodes: FinishedEpisodes) -> FinishedEpisodes:
    """The same episodes in as few bytes as replay needs: int32, trimmed to the longest."""
    n_tokens = int(episodes.n_tokens.max())
    return episodes._replace(
        tokens=episodes.tokens[:, :n_tokens].astype(np.int32),
        n_tokens=episodes.n_tokens.astype(np.int32),
        action_positions=episodes.action_positions.astype(np.int32),
        n_steps=episodes.n_steps.astype(np.int32),
    )


class Ledger:
    """Which reports of each process have come, and how many of its episodes are in replay.

    Args:
        incarnations: Processes that each actor has had so far.
    """

    def __init__(self, incarnations: Iterable[int]) -> None:
        self.incarnations: NDArray[np.int64] = np.array(list(incarnations), np.int64)
        self._received: dict[tuple[int, int], int] = {}
        self._stored: dict[tuple[int, int], int] = {}
        self._episodes: dict[tuple[int, int], int] = {}

    @property
    def n_episodes(self) -> int:
        """Episodes put into replay."""
        return sum(self._episodes.values())

    @property
    def n_processes(self) -> int:
        """Processes whose first report is in replay."""
        return len(self._stored)

    def receive(self, report: Report) -> bool:
        """Whether a report is new; one that has come already is to be ignored.

        Raises:
            RuntimeError: If one before it has not come.
        """
        key = report.actor, report.incarnation
        expected = self._received.get(key, 0)
        if report.number > expected:
            raise RuntimeError(f"actor {report.actor}: report {expected} must come next, got {report.number}")
        if report.number < expected:
            return False
        self._received[key] = expected + 1
        return True

    def store(self, report: Report, n_episodes: int) -> list[EpisodeId]:
        """Note that the next episodes of a report are in replay, and name them."""
        key = report.actor, report.incarnation
        first = self._episodes.get(key, 0)
        self._episodes[key] = first + n_episodes
        return [EpisodeId(*key, number) for number in range(first, first + n_episodes)]

    def finish(self, report: Report) -> None:
        """Note that all of a report is in replay.

        Raises:
            RuntimeError: If episodes before it are not.
        """
        key = report.actor, report.incarnation
        if report.number != self._stored.get(key, 0):
            raise RuntimeError(f"actor {report.actor}: report {self._stored.get(key, 0)} is not in replay yet")
        self._stored[key] = report.number + 1

    def acknowledged(self, actor: int) -> int:
        """Number of the first report of an actor's present process that is not in replay."""
        return self._stored.get((actor, int(self.incarnations[actor])), 0)
