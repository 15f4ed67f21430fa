"""Rewards by a name that a file and a command line can hold: ``module:function``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.saving.files import CommandError
from textgym.rewards import RewardFunction


def named_reward(name: str) -> RewardFunction:
    """The function, or an object of the class, that a name stands for; its module is imported, which runs its code.

    Modules are looked for in the working directory too.

    Args:
        name: ``"module:function"``, as in ``"my_rewards:brevity"`` or ``"textgym.rewards:Distinctness"``.

    Raises:
        CommandError: If there is none.
    """
    module, separator, attribute = name.partition(":")
    if not (separator and module and attribute):
        raise CommandError(f"reward must be module:function, got {name!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), attribute)
        reward = found() if isinstance(found, type) else found
    except Exception as error:  # whatever the user's module does when it is imported
        reason = " ".join(str(error).split())
        raise CommandError(f"reward {name!r} can't be imported: {type(error).__name__}: {reason}") from error
    if not callable(reward):
        raise CommandError(
            f"reward must be a function reward(prompts, completions, **columns), got {name} = {reward!r}"
        )
    return reward


def is_named(env_args: Mapping[str, Any]) -> bool:
    """Whether an environment's arguments name a reward, so that making it imports code of the user's own."""
    return isinstance(env_args.get("reward"), str)


def with_reward(env_args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with the function in place of its name."""
    return {**env_args, "reward": named_reward(env_args["reward"])} if is_named(env_args) else dict(env_args)


def without_reward(env_args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for an environment whose rewards nobody asks for, only its tokens: nothing is imported."""
    return {**env_args, "reward": _never} if is_named(env_args) else dict(env_args)


def check_trust(env_args: Mapping[str, Any], source: str | Path) -> None:
    """Refuse to import a reward that a file names.

    Raises:
        CommandError: If it names one.
    """
    if is_named(env_args):
        raise CommandError(
            f"{source} names the reward {env_args['reward']!r}, and to import it is to run its code; --trust does so"
        )


def _never(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    raise AssertionError("no reward was to be asked for")
