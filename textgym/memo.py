"""A function that remembers its answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Memo:
    """A function of hashable arguments that remembers its last answers; unlike an ``lru_cache``, it can be pickled.

    A copy starts with nothing remembered.

    Args:
        function: A method or a function of a module; the same arguments give the same answer.
        size: Answers kept (≥ 1); the oldest is dropped for a new one.
    """

    def __init__(self, function: Callable[..., Any], size: int) -> None:
        self.function, self.size = function, size
        self._answers: dict[tuple[Any, ...], Any] = {}

    def __call__(self, *arguments: Any) -> Any:
        """The answer."""
        if arguments not in self._answers:
            answer = self.function(*arguments)
            if len(self._answers) >= self.size:
                del self._answers[next(iter(self._answers))]
            self._answers[arguments] = answer
        return self._answers[arguments]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_answers": {}}
