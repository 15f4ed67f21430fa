"""Processes of the learners other than the first: on this machine here, Ray's in :mod:`agents.distributed.ray`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from typing import IO

import torch

from agents.distributed.group import Place

_RUN = """
import json, sys
from agents.distributed.group import Place
from agents.distributed.learner import run
run(Place(*json.loads(sys.argv[1])))
"""


class LearnerDied(RuntimeError):
    """The process of a learner is gone, or has failed."""


class LearnerProcesses(ABC):
    """Starts and ends learners.

    Attributes:
        host: This machine's address, as the learners see it.
    """

    host = "127.0.0.1"

    @abstractmethod
    def start(self, place: Place) -> None:
        """Start one that calls :func:`agents.distributed.learner.run`."""

    @abstractmethod
    def ended(self, number: int) -> str | None:
        """Why a learner has ended, in a few words; None as long as it runs."""

    @abstractmethod
    def close(self) -> None:
        """End all of them at once."""

    def device(self, number: int, n_learners: int, of_model: torch.device) -> tuple[str, str]:
        """Device of a learner, and the backend that carries its gradients."""
        return str(of_model), "gloo"


class LocalProcesses(LearnerProcesses):
    """Processes of this machine."""

    def __init__(self) -> None:
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._errors: dict[int, IO[bytes]] = {}

    def start(self, place: Place) -> None:  # noqa: D102
        self._errors[place.number] = errors = tempfile.TemporaryFile()
        self._processes[place.number] = subprocess.Popen(
            [sys.executable, "-c", _RUN, json.dumps(place)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )

    def ended(self, number: int) -> str | None:  # noqa: D102
        code = self._processes[number].poll()
        if code is None:
            return None
        errors = self._errors[number]
        errors.seek(0)
        last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return f"{how}: {last[0]}" if last and code > 0 else how

    def close(self) -> None:  # noqa: D102
        for number, process in self._processes.items():
            process.kill()
            process.wait()
            self._errors[number].close()
        self._processes.clear()

    def device(self, number: int, n_learners: int, of_model: torch.device) -> tuple[str, str]:
        """A GPU for each, where the model is on one and there are enough of them; NCCL then, which needs that."""
        if of_model.type == "cuda" and torch.cuda.device_count() >= n_learners and (of_model.index or 0) == 0:
            return f"cuda:{number}", "nccl"
        return super().device(number, n_learners, of_model)
