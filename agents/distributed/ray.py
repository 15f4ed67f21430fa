"""Ray: how one is reached or started, and actors as Ray's."""

from __future__ import annotations

import math
import os
import time
from typing import Any

from agents.distributed.actor import Actor
from agents.distributed.engines import ActorDied, AnswerLost, Engine
from agents.distributed.group import Place
from agents.distributed.processes import LearnerProcesses

_STORE_BYTES = 100_000_000
"""Shared memory of a Ray that is started here: what is sent is small, and Ray would take a third of the memory."""
_START_SECONDS = 300
"""How long it may take to start: it imports Python six times over, which takes minutes on a busy machine."""


def import_ray(instead: str) -> Any:
    """The module.

    Args:
        instead: The engine that needs no Ray, for the error.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ValueError(f"engine 'ray' needs Ray: pip install 'ray>=2', or take engine {instead!r}") from None
    return ray


def start_ray(ray: Any, address: str | None, cpus: int) -> None:
    """Connect to a cluster, or start one on this machine, which ends with this process.

    Args:
        ray: The module.
        address: Of a cluster; None for that of the environment variable ``RAY_ADDRESS``, or else for one started here.
        cpus: Cores that the one started here says it has.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    address = address or os.environ.get("RAY_ADDRESS")
    if address is not None:
        ray.init(address, **quiet)
        return
    started = time.monotonic()
    try:
        ray.init(num_cpus=cpus, include_dashboard=False, object_store_memory=_STORE_BYTES, **quiet)
        return
    except Exception as error:
        # Ray gives its own processes 30 s, and no argument changes that; but they go on starting.
        if "timed out during startup" not in str(error):
            raise
    while True:
        try:
            ray.init("auto", **quiet)
            return
        except Exception:
            if time.monotonic() - started > _START_SECONDS:
                raise
            time.sleep(2.0)


class RayEngine(Engine):
    """Actors as Ray's, spread over the machines of a cluster.

    Args:
        n_actors: How many there will be.
        address: See :func:`start_ray`.
        cpus: Cores that Ray reserves for each; less than 1 where they mostly wait.
        n_learners: Learners, with this process: the others get a core each, and a GPU if the model is on one.

    Raises:
        ValueError: If Ray is not installed.
    """

    def __init__(self, n_actors: int, address: str | None = None, cpus: float = 1.0, n_learners: int = 1) -> None:
        self._ray = ray = import_ray("threads")
        self._started = not ray.is_initialized()
        if self._started:
            start_ray(ray, address, max(2, math.ceil(n_actors * cpus)) + n_learners - 1)
        self._class = ray.remote(_Process).options(num_cpus=cpus, scheduling_strategy="SPREAD", max_restarts=0)
        self._handles: dict[int, Any] = {}
        self._calls: dict[int, Any] = {}

    def start(self, actor: int, *arguments: Any) -> None:  # noqa: D102
        if actor in self._handles:
            self._ray.kill(self._handles[actor])
        self._handles[actor] = self._class.remote(actor, *arguments)

    def call(self, actor: int, method: str, *arguments: Any) -> None:  # noqa: D102
        self._calls[actor] = self._handles[actor].do.remote(method, *arguments)

    def wait(self, seconds: float) -> list[tuple[int, Any]]:  # noqa: D102
        calls = list(self._calls.values())
        if not calls:
            return []
        self._ray.wait(calls, num_returns=1, timeout=seconds, fetch_local=False)
        ready, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0, fetch_local=False)
        answers = []
        for actor in [actor for actor, call in sorted(self._calls.items()) if call in ready]:
            answers.append((actor, self._answer(self._calls.pop(actor))))
        return answers

    def _answer(self, call: Any) -> Any:
        try:
            return self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            return error.cause or error  # what the actor's own code raised
        except self._ray.exceptions.RayActorError as error:
            return ActorDied(_first_sentence(error))
        except self._ray.exceptions.RayError as error:
            return AnswerLost(_first_sentence(error))

    def kill(self, actor: int) -> None:  # noqa: D102
        self._ray.kill(self._handles[actor])

    def share(self, value: Any) -> Any:  # noqa: D102
        return self._ray.put(value)

    def learner_processes(self) -> LearnerProcesses:  # noqa: D102
        return RayProcesses(self._ray)

    def close(self) -> None:  # noqa: D102
        for handle in self._handles.values():
            self._ray.kill(handle)
        if self._started:
            self._ray.shutdown()

    def process_ids(self) -> dict[int, int]:
        """Process of each actor that runs, on its own machine."""
        return {actor: self._ray.get(handle.process_id.remote()) for actor, handle in self._handles.items()}


class _Process:
    """An actor in a process of Ray's, with one torch thread: there is one process for each core."""

    def __init__(self, *arguments: Any) -> None:
        import torch

        torch.set_num_threads(1)
        self._actor = Actor(*arguments)

    def do(self, method: str, *arguments: Any) -> Any:
        return getattr(self._actor, method)(*arguments)

    def process_id(self) -> int:
        return os.getpid()


class RayProcesses(LearnerProcesses):
    """Learners as Ray's actors.

    Args:
        ray: The module.
    """

    def __init__(self, ray: Any) -> None:
        self._ray, self.host = ray, ray.util.get_node_ip_address()
        self._handles: dict[int, Any] = {}
        self._runs: dict[int, Any] = {}

    def start(self, place: Place) -> None:  # noqa: D102
        options = {"num_cpus": 1, "num_gpus": int(place.device == "cuda"), "scheduling_strategy": "SPREAD"}
        self._handles[place.number] = self._ray.remote(_LearnerProcess).options(max_restarts=0, **options).remote()
        self._runs[place.number] = self._handles[place.number].run.remote(place)

    def ended(self, number: int) -> str | None:  # noqa: D102
        if not self._ray.wait([self._runs[number]], timeout=0)[0]:
            return None
        try:
            return str(self._ray.get(self._runs[number]))
        except self._ray.exceptions.RayTaskError as error:
            return f"{type(error.cause).__name__}: {error.cause}"
        except self._ray.exceptions.RayError as error:
            return _first_sentence(error)

    def close(self) -> None:  # noqa: D102
        for handle in self._handles.values():
            self._ray.kill(handle)
        self._handles.clear()

    def device(self, number: int, n_learners: int, of_model: Any) -> tuple[str, str]:
        """The GPU that Ray gives it, where the model is on one; gradients go through main memory."""
        return of_model.type, "gloo"


class _LearnerProcess:
    """A learner in a process of Ray's."""

    def run(self, place: Place) -> None:
        from agents.distributed.learner import run

        run(place)


def _first_sentence(error: Exception) -> str:
    """What Ray says in the first place; identifiers, addresses and advice about memory follow."""
    return " ".join(str(error).split()).split(". ")[0]
