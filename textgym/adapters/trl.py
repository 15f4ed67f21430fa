"""TRL: an environment class for ``GRPOTrainer``, and the data set that gives every group its episode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from textgym.adapters.text_steps import TextSteps
from textgym.checks import check_at_least
from textgym.rewards.base import require
from textgym.tasks.base import Task

if TYPE_CHECKING:
    from datasets import Dataset


class TRLEnvironment:
    """One rollout's environment, as TRL's ``environment_factory`` wants it; made by :func:`environment_factory`.

    TRL calls :meth:`reset` with the columns of a row, shows the model the method ``write`` as a tool, and asks
    :meth:`get_reward` at the end of the rollout.

    Attributes:
        instructions: What to write, in words.
        steps: The episode; its ``info`` has the token ids, see :meth:`textgym.adapters.TextSteps.step`.
    """

    instructions: ClassVar[str]
    _task: ClassVar[Task]

    def __init__(self) -> None:
        # Tasks hold no state of an episode, so all rollouts share one.
        self.steps = TextSteps(self._task)
        self._return = 0.0
        self._state = "not begun"

    def reset(self, seed: int | None = None, **row: Any) -> str:
        """Start the episode of a row.

        Args:
            seed: The row's seed: equal seeds are equal episodes, on every process and after every restart.
            **row: Its other columns, of which none is needed.

        Returns:
            The prompt, which TRL appends to the last message of the user.

        Raises:
            ValueError: If the row has no seed, so that the rollouts of a group would see different episodes.
        """
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f"seed must be an integer of at least 0 in each row (see seed_dataset()), got {seed!r}")
        self._return, self._state = 0.0, "begun"
        return self.steps.reset(seed=int(seed))

    def get_reward(self) -> float:
        """The return of the episode so far; the task's floor where nothing has been written at all."""
        floor = self.steps.task.reward_range[0]
        return self._return if self._state != "begun" or not np.isfinite(floor) else float(floor)

    def _write(self, text: Any) -> str:
        if self._state in ("over", "not begun"):
            return "The episode is over: nothing more can be written."
        answer, reward, over, _, info = self.steps.step(text if isinstance(text, str) else str(text))
        self._return += reward
        self._state = "over" if over else "running"
        if over:
            return "\n".join(filter(None, [answer, f"The episode is over and earned {self._return:.3f}."]))
        return answer or f"Go on: {' '.join(info['legal'][:64])}"


def environment_factory(id_or_task: str | type[Task] | Task, **kwargs: Any) -> type[TRLEnvironment]:
    """A class to pass to TRL as ``environment_factory``, for any id.

    The model sees one tool, ``write(text)``. A call of it is a message: the whole answer in a task of one turn, a turn
    in a game. Nothing that a model writes raises; see :class:`textgym.adapters.TextSteps`.

    Args:
        id_or_task: A registered id, or a task.
        **kwargs: Arguments of the environment or task.

    Returns:
        The class, named after the task: TRL logs its reward under this name.

    Raises:
        ValueError: If the id is unknown, or an argument is out of range.

    Example:
        >>> Reverse = environment_factory("TextGen/Reverse-v0", length=3, vocab_size=4)
        >>> environment = Reverse()
        >>> environment.reset(seed=0)
        'd b d'
        >>> environment.write("d b d"), environment.get_reward()
        ('The episode is over and earned 1.000.', 1.0)
    """
    steps = TextSteps(id_or_task, **kwargs)

    class Environment(TRLEnvironment):
        instructions = steps.instructions
        _task = steps.task

        def write(self, text: str) -> str:
            return self._write(text)

    part = "turn" if steps.takes_turns else "answer"
    Environment.write.__doc__ = (  # what the model is told of its tool
        f"{steps.instructions}\n\nArgs:\n    text: Your {part}.\n\nReturns:\n    What the environment replies.\n"
    )
    Environment.__name__ = Environment.__qualname__ = type(steps.task).__name__
    return Environment


def seed_dataset(environment: type[TRLEnvironment], n: int, seed: int = 0) -> Dataset:
    """Rows for TRL's trainers: the instructions as ``prompt``, and a ``seed``.

    TRL repeats each row ``num_generations`` times, so the rollouts of a group play one episode.

    Args:
        environment: From :func:`environment_factory`.
        n: Rows (≥ 1).
        seed: Seed of the first one (≥ 0); the others count up from there.

    Raises:
        ModuleNotFoundError: If the package ``datasets`` is not installed.
        ValueError: If an argument is out of range.
    """
    if not (isinstance(environment, type) and issubclass(environment, TRLEnvironment)):
        raise ValueError(f"environment must be a class that environment_factory() made, got {environment!r}")
    n, seed = check_at_least("n", n, 1), check_at_least("seed", seed, 0)
    datasets = require("datasets", "datasets", "seed_dataset()")
    # New messages in each row: TRL appends the episode's prompt to them.
    rows = [
        {"prompt": [{"role": "user", "content": f"{environment.instructions}\n\n"}], "seed": seed + i} for i in range(n)
    ]
    return datasets.Dataset.from_list(rows)
