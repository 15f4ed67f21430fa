"""Any single reward at the end of a text, paid as the text grows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.tasks.base import Episodes, Prompts, Replies, Task


def unshaped(task: Task) -> Task:
    """The task itself, without shaping around it."""
    while isinstance(task, Shaped):
        task = task.task
    return task


class Shaped(Task):
    """Potential-based shaping of a task that pays at the end alone (Ng, Harada and Russell 1999).

    The potential of an unfinished text is what the task would pay if the text ended there, less what it would pay for
    an empty one. Each action earns ``discount`` times the potential after it minus the potential before it; the end
    adds the task's own reward, and its potential is 0. So the return of an episode, discounted by ``discount``, is the
    task's own, and so is the best policy; only the time at which it is paid differs.

    The price is one call of the reward per step instead of one per episode.

    Args:
        task: The task: its ``final_reward`` has to make sense for unfinished texts, and its steps pay nothing. A
            :class:`~textgym.tasks.text_generation.TextGeneration` with any reward of your own does.
        discount: The agent's discount (above 0, at most 1).

    Attributes:
        task: The task inside.

    Raises:
        ValueError: If the task pays steps already, or ``discount`` is out of range.

    Example:
        >>> from textgym import TextGenVectorEnv
        >>> from textgym.rewards import KeywordCoverage
        >>> from textgym.tasks.text_generation import TextGeneration
        >>> task = TextGeneration(["tell me about the"], reward=KeywordCoverage(["good", "food"]))
        >>> envs = TextGenVectorEnv(1, Shaped(task))
        >>> _ = envs.reset(seed=0)
        >>> [float(envs.step(np.array(task.tokenizer.encode(word)))[1][0]) for word in ("good", "a", "food")]
        [0.5, 0.0, 0.5]
    """

    _PAID, _BEFORE, _START = "shaped_potential", "shaped_previous", "shaped_start"

    def __init__(self, task: Task, discount: float = 1.0) -> None:
        if not 0 < discount <= 1:
            raise ValueError(f"discount must be above 0 and at most 1, got {discount!r}")
        if not task.pays_at_end or getattr(task, "dense", False):
            raise ValueError(f"task must pay at the end alone, and {type(task).__name__} pays its steps")
        self.task, self.discount = task, float(discount)
        for name in ("vocab_size", "eos_id", "pad_id", "context_length", "max_new_tokens", "masked"):
            setattr(self, name, getattr(task, name))
        self.deterministic = task.deterministic  # type: ignore[misc]  # of a class elsewhere, of the inner task here
        self.reward_range, self.cheat_bound = task.reward_range, task.cheat_bound
        self.cheats_that_solve = task.cheats_that_solve  # type: ignore[misc]

    def __getattr__(self, name: str) -> Any:
        if name == "task":  # not there yet while a copy is made
            raise AttributeError(name)
        return getattr(self.task, name)

    def prompts(self, random: Any) -> Prompts:
        """The task's own."""
        tokens, lengths, columns = self.task.prompts(random)
        empty = Episodes(
            np.full((len(lengths), self.context_length), self.pad_id, np.int32),
            lengths,
            lengths,
            np.zeros(len(lengths), np.int64),
            dict(columns),
        )
        width = tokens.shape[1]
        is_text = np.arange(width) < lengths[:, None]
        empty.tokens[:, :width] = np.where(is_text, tokens, self.pad_id)
        zeros = np.zeros(len(lengths))
        start = self._final(empty)
        return Prompts(tokens, lengths, columns | {self._PAID: zeros, self._BEFORE: zeros, self._START: start})

    def step_reward(self, episodes: Episodes, actions: NDArray[np.int64]) -> NDArray[np.float64]:
        """``discount`` times the potential after the action, minus that before it."""
        columns = episodes.columns
        before = columns[self._PAID]
        after = self._final(episodes) - columns[self._START]
        columns[self._BEFORE], columns[self._PAID] = before, after
        return self.discount * after - before

    def final_reward(self, episodes: Episodes) -> NDArray[np.float64]:
        """The task's own reward; the potential that the last step has paid is taken back."""
        return self._final(episodes) - self.discount * episodes.columns[self._PAID]

    def forfeit_reward(self, episodes: Episodes) -> NDArray[np.float64]:
        """What the task pays for an illegal action, less the potential that the steps have paid."""
        return self.task.forfeit_reward(episodes) - episodes.columns[self._BEFORE]

    def _final(self, episodes: Episodes) -> NDArray[np.float64]:
        rewards = self.task.final_reward(episodes)
        assert rewards is not None  # pays_at_end
        return rewards

    # What the task inside decides, unchanged.

    def token_text(self, token: int) -> str:
        """The task's own."""
        return self.task.token_text(token)

    def allowed(self, episodes: Episodes) -> NDArray[np.bool_]:
        """The task's own."""
        return self.task.allowed(episodes)

    def finished(self, episodes: Episodes, actions: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """The task's own."""
        return self.task.finished(episodes, actions)

    def reply(self, episodes: Episodes, actions: NDArray[np.int64]) -> Replies | None:
        """The task's own."""
        return self.task.reply(episodes, actions)

    def oracle(self, episodes: Episodes) -> NDArray[np.int64] | None:
        """The task's own."""
        return self.task.oracle(episodes)

    def decode(self, tokens: NDArray[np.integer]) -> str:
        """The task's own."""
        return self.task.decode(tokens)

    def join(self, texts: list[str]) -> str:
        """The task's own."""
        return self.task.join(texts)
