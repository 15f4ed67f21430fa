"""GEM: its string interface on every id, and ids for ``gem.make``."""

from __future__ import annotations

from typing import Any

import numpy as np

from textgym.adapters.text_steps import TextSteps
from textgym.registration import env_ids
from textgym.rewards.base import require
from textgym.tasks.base import Task

_PREFIX = "textgym:"


class GEMEnvironment:
    """An environment with GEM's interface: ``reset() -> (observation, info)`` and steps of strings.

    Observations are text: the instructions and the prompt at first, then what the environment replies. What an action
    is, and what happens to one that cannot be read, says :class:`textgym.adapters.TextSteps`; infos are its, too.

    Args:
        id_or_task: A registered id, or a task.
        seed: Seed of the first :meth:`reset` without one, and of random actions; ``gem.make_vec`` gives each
            environment its own.
        **kwargs: Arguments of the environment or task.

    Attributes:
        steps: The episode.

    Raises:
        ValueError: If the id is unknown, or an argument is out of range.

    Example:
        >>> env = GEMEnvironment("TextGen/Reverse-v0", length=3, vocab_size=4)
        >>> observation, info = env.reset(seed=0)
        >>> observation.splitlines()[-1]
        'd b d'
        >>> env.step("d b d")[:3]
        ('', 1.0, True)
    """

    def __init__(self, id_or_task: str | type[Task] | Task, seed: int | None = None, **kwargs: Any) -> None:
        self.steps = TextSteps(id_or_task, **kwargs)
        self._arguments = {"id_or_task": id_or_task, **kwargs}
        self._seed = seed
        self._random = np.random.default_rng(seed)

    @property
    def unwrapped(self) -> GEMEnvironment:
        """The environment itself."""
        return self

    def reset(self, seed: int | None = None) -> tuple[str, dict[str, Any]]:
        """Start a new episode, which the seed fixes; without one, the random stream goes on."""
        if seed is None:
            seed, self._seed = self._seed, None
        prompt = self.steps.reset(seed=seed)
        return f"{self.steps.instructions}\n\n{prompt}", self.steps.info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Send one message; see :meth:`textgym.adapters.TextSteps.step`."""
        return self.steps.step(action)

    def sample_random_action(self) -> str:
        """One legal token, as text; empty where EOS was drawn or the episode is over."""
        legal = self.steps.info.get("legal_tokens", ())
        if not len(legal):
            return ""
        token = int(self._random.choice(legal))
        return "" if token == self.steps.task.eos_id else self.steps.task.token_text(token)

    def spawn(self, same_state: bool = False, **kwargs: Any) -> GEMEnvironment:
        """A new environment with the same arguments.

        Args:
            same_state: Whether it goes on from the state of this one; then there are no other arguments.
            **kwargs: Arguments in the place of this one's.

        Raises:
            ValueError: If ``same_state`` comes with arguments.
        """
        if same_state and kwargs:
            raise ValueError(f"kwargs must be empty with same_state=True, got {sorted(kwargs)}")
        other = type(self)(**{**self._arguments, **kwargs})
        if same_state:
            other.steps.set_state(self.steps.get_state())
        return other


def register_gem() -> list[str]:
    """Make every id known to ``gem.make``, as ``"textgym:TextGen/Wordle-v0"``; doing so twice changes nothing.

    Returns:
        The ids.

    Raises:
        ModuleNotFoundError: If GEM is not installed.
    """
    registration = require("gem.envs.registration", "gem-llm", "register_gem()")
    names = [f"{_PREFIX}{env_id}" for env_id in env_ids()]
    for name, env_id in zip(names, env_ids(), strict=True):
        if name not in registration.ENV_REGISTRY:
            registration.register(name, "textgym.adapters.gem:GEMEnvironment", id_or_task=env_id)
    return names
