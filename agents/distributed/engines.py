"""Where actors and learners run: threads of this process, and beside it, here; Ray in :mod:`agents.distributed.ray`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from agents.distributed.actor import Actor
from agents.distributed.processes import LearnerProcesses, LocalProcesses


class ActorDied(RuntimeError):
    """The process of an actor is gone, or its machine is."""


class AnswerLost(RuntimeError):
    """The actor is there, but what it said is not."""


class Engine(ABC):
    """Starts actors, calls their methods and waits for the answers; each actor has one call at a time."""

    @abstractmethod
    def start(self, actor: int, *arguments: Any) -> None:
        """Start an actor, in the place of one of the same number if there was one.

        Args:
            actor: Its number.
            *arguments: The other arguments of :class:`agents.distributed.actor.Actor`.
        """

    @abstractmethod
    def call(self, actor: int, method: str, *arguments: Any) -> None:
        """Call a method of an idle actor; the answer comes from :meth:`wait`."""

    @abstractmethod
    def wait(self, seconds: float) -> list[tuple[int, Any]]:
        """Answers that are there, at least one unless ``seconds`` pass before, as actor and value.

        The value is an exception if the method raised it, :class:`ActorDied` if the actor is gone, and
        :class:`AnswerLost` if its answer is.
        """

    @abstractmethod
    def kill(self, actor: int) -> None:
        """End an actor at once; its call is answered by :class:`ActorDied`."""

    def share(self, value: Any) -> Any:
        """The value in a form in which it is sent to many actors at little cost."""
        return value

    def learner_processes(self) -> LearnerProcesses:
        """Where learners run, other than this process."""
        return LocalProcesses()

    @abstractmethod
    def close(self) -> None:
        """End all actors."""


class ThreadEngine(Engine):
    """Actors in threads of this process: their waiting for slow rewards overlaps, their computing does not."""

    def __init__(self) -> None:
        self._actors: dict[int, Actor] = {}
        self._pools: dict[int, ThreadPoolExecutor] = {}
        self._calls: dict[int, Future[Any]] = {}

    def start(self, actor: int, *arguments: Any) -> None:
        """See :meth:`Engine.start`. A thread can't be ended: what a killed one still does, nobody hears."""
        self._abandon(actor)
        # In the caller's thread: networks are built with torch's global generator, which is lent and given back.
        self._actors[actor] = Actor(actor, *arguments)
        self._pools[actor] = ThreadPoolExecutor(1, f"actor-{actor}")

    def call(self, actor: int, method: str, *arguments: Any) -> None:  # noqa: D102
        if actor in self._pools:
            self._calls[actor] = self._pools[actor].submit(getattr(self._actors[actor], method), *arguments)
        else:
            self.kill(actor)

    def wait(self, seconds: float) -> list[tuple[int, Any]]:  # noqa: D102
        wait(self._calls.values(), seconds, FIRST_COMPLETED)
        done = {actor: call for actor, call in sorted(self._calls.items()) if call.done()}
        for actor in done:
            del self._calls[actor]
        return [(actor, call.exception() or call.result()) for actor, call in done.items()]

    def kill(self, actor: int) -> None:  # noqa: D102
        self._abandon(actor)
        self._calls[actor] = Future()
        self._calls[actor].set_exception(ActorDied(f"actor {actor} was killed"))

    def close(self) -> None:  # noqa: D102
        for actor in list(self._pools):
            self._abandon(actor)
        self._calls.clear()

    def _abandon(self, actor: int) -> None:
        pool = self._pools.pop(actor, None)
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
        self._actors.pop(actor, None)
