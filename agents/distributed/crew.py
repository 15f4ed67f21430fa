"""The actors' processes as the learner sees them: who is idle, what has come, who died and was replaced."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from agents.distributed.engines import ActorDied, AnswerLost, Engine
from agents.distributed.reports import Ledger, Report

MOST_DEATHS = 5
"""How often in a row an actor may die before it has reported anything: then something is wrong with all of them."""


class Crew:
    """Actors of one call of ``learn``.

    Args:
        engine: Where they run.
        n_actors: How many (≥ 1).
        ledger: Account of what they report; it knows how many processes each has had.
        timeout: Seconds after which an actor that does not answer is killed.
        spec: What :func:`agents.distributed.actor.actor_spec` gave, shared by the engine.
        version: Updates that the weights in it have had.
        states: What the first actors go on from; the others begin anew.

    Attributes:
        inbox: Reports that are not in replay yet.
        versions: Updates that each actor's weights have had, by number.
        replaced: Actors that died and were replaced.
    """

    def __init__(
        self,
        engine: Engine,
        n_actors: int,
        ledger: Ledger,
        timeout: float,
        spec: Any,
        version: int,
        states: list[dict[str, Any]],
    ) -> None:
        self.engine, self.ledger, self.timeout = engine, ledger, timeout
        self.inbox: deque[Report] = deque()
        self.versions = [version] * n_actors
        self.replaced = 0
        self._spec, self._spec_version = spec, version
        self._deaths = [0] * n_actors
        self._calls: dict[int, tuple[str, float]] = {}  # actor → method called, and when
        for actor in range(n_actors):
            self._start(actor, states[actor] if actor < len(states) else None)

    @property
    def idle(self) -> list[int]:
        """Actors that wait for a call, and whose reports are all in replay."""
        reported = {report.actor for report in self.inbox}
        return [actor for actor in range(len(self.versions)) if actor not in self._calls and actor not in reported]

    @property
    def acting(self) -> list[int]:
        """Actors that have an order and have not reported yet."""
        return [actor for actor, (method, _) in self._calls.items() if method == "act"]

    def call(self, actor: int, method: str, *arguments: Any) -> None:
        """Call a method of an idle actor."""
        self._calls[actor] = method, time.perf_counter()
        self.engine.call(actor, method, *arguments)

    def states(self) -> list[dict[str, Any]]:
        """What the actors remember, once they have reported; reports stay in the inbox."""
        found: dict[int, dict[str, Any]] = {}
        while len(found) < len(self.versions):
            for actor in range(len(self.versions)):
                if actor not in self._calls and actor not in found:
                    self.call(actor, "get_state")
            found |= self.wait()
        return [found[actor] for actor in range(len(self.versions))]

    def wait(self) -> dict[int, dict[str, Any]]:
        """Take what has come: reports into the inbox, the dead are replaced; returned are states that were asked for.

        Raises:
            ActorDied: If an actor died five times in a row before it reported anything.
            Exception: Whatever an actor's own code raised, such as a reward.
        """
        states = {}
        for actor, answer in self.engine.wait(1.0):
            method, _ = self._calls.pop(actor)
            if isinstance(answer, AnswerLost):
                continue  # it is idle, and reports again with its next order
            if isinstance(answer, ActorDied):
                self._replace(actor, answer)
            elif isinstance(answer, BaseException):
                raise answer
            elif method == "act":
                self._deaths[actor] = 0
                self.inbox.extend(report for report in answer if self.ledger.receive(report))
            else:
                states[actor] = answer
        for actor, (_, since) in list(self._calls.items()):
            if time.perf_counter() - since > self.timeout:
                self.engine.kill(actor)
        return states

    def _start(self, actor: int, state: dict[str, Any] | None) -> None:
        self.ledger.incarnations[actor] += 1
        self.versions[actor] = self._spec_version
        self.engine.start(actor, int(self.ledger.incarnations[actor]), self._spec, self._spec_version, state)

    def _replace(self, actor: int, death: ActorDied) -> None:
        self._deaths[actor] += 1
        if self._deaths[actor] >= MOST_DEATHS:
            raise ActorDied(f"actor {actor} died {MOST_DEATHS} times before it reported anything: {death}") from death
        self.replaced += 1
        self._start(actor, None)
