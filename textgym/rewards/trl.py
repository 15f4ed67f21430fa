"""Reward functions written for TRL, used here. The other way needs nothing: TRL's trainers call ours as they are."""

from __future__ import annotations

import inspect
from typing import Any

from textgym.rewards.base import Reward, RewardFunction, reward_name
from textgym.tokenizers import as_tokenizer


class FromTRL(Reward):
    """A TRL reward function as a reward of TextGym.

    A TRL function may ask for conversations, for token ids, or answer None where it does not apply. A function of plain
    texts that always answers needs no wrapping.

    Args:
        function: The function; it is called by keyword with the arguments it takes.
        conversational: Whether it expects a list of messages a text, as TRL's own functions do.
        tokenizer: Gives ``completion_ids`` to functions that ask for them; see
            :func:`textgym.tokenizers.as_tokenizer`.
        range: Lowest and highest reward, where known.

    Raises:
        ValueError: If ``function`` is not callable, or needs ``completion_ids`` and there is no tokenizer.
    """

    def __init__(
        self,
        function: RewardFunction,
        conversational: bool = True,
        tokenizer: Any = None,
        range: tuple[float, float] = (float("-inf"), float("inf")),
    ) -> None:
        if not callable(function):
            raise ValueError(f"function must be a reward function, got {function!r}")
        parameters = inspect.signature(function).parameters
        if "completion_ids" in parameters and tokenizer is None:
            raise ValueError(f"tokenizer is needed: {reward_name(function)} takes completion_ids")
        self.function, self.conversational, self.range = function, conversational, range
        self.tokenizer = None if tokenizer is None else as_tokenizer(tokenizer)
        takes_everything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        self._accepted = None if takes_everything else frozenset(parameters)

    @property
    def __name__(self) -> str:
        """The function's own name."""
        return reward_name(self.function)

    def score(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """What the function answers; 0 for None."""
        arguments: dict[str, Any] = {"prompts": prompts, "completions": completions, **columns}
        if self.conversational:
            arguments["prompts"] = [[{"role": "user", "content": text}] for text in prompts]
            arguments["completions"] = [[{"role": "assistant", "content": text}] for text in completions]
        if self.tokenizer is not None:
            arguments["completion_ids"] = [self.tokenizer.encode(text) for text in completions]
        if self._accepted is not None:
            arguments = {name: value for name, value in arguments.items() if name in self._accepted}
        return [0.0 if reward is None else float(reward) for reward in self.function(**arguments)]
