"""What a reward function is, and how one is called."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_list

RewardFunction = Callable[..., list[float]]
Text = str | Sequence[Mapping[str, Any]]
"""A plain text, or a conversation: messages with a string under ``"content"``."""


class RewardError(ValueError, RuntimeError):
    """A reward function that raised, or returned what is no list of finite numbers, or of numbers that are allowed."""


class Reward(ABC):
    """A reward function that is an object.

    Subclasses implement :meth:`score` on plain texts; calling the object takes TRL's conversations as well.

    Attributes:
        range: Lowest and highest reward.
    """

    range: tuple[float, float] = (0.0, 1.0)

    @property
    def __name__(self) -> str:
        """The name that TRL logs the reward under."""
        return type(self).__qualname__.lower()

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
        """One reward a completion.

        Args:
            prompts: Texts, or conversations as TRL's trainers hand over.
            completions: As many texts or conversations.
            **columns: Further columns of the data set, each of as many values; what a reward does not know it ignores.
        """
        of = "texts or conversations"
        given = check_list("prompts", prompts, of), check_list("completions", completions, of)
        return self.score(*([plain_text(text) for text in texts] for texts in given), **columns)

    @abstractmethod
    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """One reward a completion, of plain texts."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Reward:
        return self  # never changes: gymnasium.make copies the arguments it is given


def plain_text(text: Text) -> str:
    """The text itself, or the contents of a conversation's messages, one a line."""
    return text if isinstance(text, str) else "\n".join(str(message["content"]) for message in text)


def column(columns: Mapping[str, Any], name: str, reward: Reward) -> list[Any]:
    """The values of a column, or a ValueError that says which reward needs it."""
    if columns.get(name) is None:
        raise ValueError(f"{type(reward).__name__} needs a column {name!r}, got columns {sorted(columns)}")
    return list(columns[name])


def require(module: str, package: str, user: str) -> Any:
    """Import an optional module, or raise a ModuleNotFoundError with the pip command.

    Args:
        module: Name to import.
        package: Name to install.
        user: What needs it, as the message shows it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the module is there, and something that it needs is not
        raise ModuleNotFoundError(f"{user} needs the package {package}: pip install {package}") from error


def reward_name(reward: RewardFunction) -> str:
    """The name of a reward function, as error messages and logs show it."""
    return getattr(reward, "__name__", type(reward).__name__)


def call_reward(
    reward: RewardFunction, prompts: list[str], completions: list[str], columns: Mapping[str, list[Any]]
) -> NDArray[np.float64]:
    """Call a reward function and check what it returns.

    Args:
        reward: The function.
        prompts: ``n`` prompts.
        completions: ``n`` completions.
        columns: Further columns, each of ``n`` values, passed as keyword arguments.

    Returns:
        Rewards, shape ``(n,)``, all finite.

    Raises:
        RewardError: If the function raises, or does not return ``n`` finite numbers.
    """
    name = reward_name(reward)
    try:
        returned = reward(prompts=prompts, completions=completions, **columns)
    except Exception as error:
        raise RewardError(
            f"reward {name!r} raised {type(error).__name__}: {error} "
            f"(first of {len(prompts)} prompts {prompts[0]!r}, completion {completions[0]!r})"
        ) from error
    try:
        rewards = np.asarray(returned, np.float64)
    except (TypeError, ValueError):
        raise RewardError(f"reward {name!r} must return a list of {len(prompts)} numbers, got {returned!r}") from None
    if rewards.shape != (len(prompts),):
        raise RewardError(f"reward {name!r} must return a list of {len(prompts)} numbers, got shape {rewards.shape}")
    if not np.isfinite(rewards).all():
        row = int(np.flatnonzero(~np.isfinite(rewards))[0])
        raise RewardError(
            f"reward {name!r} must return finite numbers, got {rewards[row]} "
            f"for prompt {prompts[row]!r}, completion {completions[row]!r}"
        )
    return rewards
