"""The shared machinery of tasks whose prompt has exactly one right answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from textgym.tasks.base import Episodes, Task


class ExactAnswer(Task):
    """Write the one right answer, token by token.

    Subclasses set the attributes of :class:`textgym.tasks.base.Task`, and return
    :meth:`answer_columns` with their prompts. Where the answer's length differs between prompts, the answer ends with
    EOS; where it is as long as the budget, the budget ends the episode.

    The dense variant pays the same share for each token that stands where it belongs, whatever stands elsewhere; the
    sparse one pays 1 for the whole answer at the end of the episode, and nothing else.

    Args:
        dense: Which of the two variants this is.
    """

    def __init__(self, dense: bool) -> None:
        self.dense = bool(dense)
        self.pays_at_end = not self.dense

    def answer_columns(self, target: NDArray[np.integer], n_tokens: int | NDArray[np.integer]) -> dict[str, NDArray]:
        """The columns that the rewards and the oracle read.

        Args:
            target: Right tokens, the closing EOS included, and -1 where nothing can be right, shape
                ``(n, max_new_tokens)``.
            n_tokens: Number of right tokens in each row, shape ``(n,)``, or one number for all.
        """
        return {"target": target.astype(np.int32), "share": np.broadcast_to(1.0 / n_tokens, len(target))}

    def step_reward(self, episodes: Episodes, actions: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """An equal share for each token that stands where it belongs (dense variant)."""
        if not self.dense:
            return None
        expected = episodes.columns["target"][np.arange(len(actions)), episodes.steps - 1]
        return (expected == actions) * episodes.columns["share"]

    def final_reward(self, episodes: Episodes) -> NDArray[np.float64]:
        """1 for the whole answer (sparse variant)."""
        target = episodes.columns["target"]
        columns = episodes.prompt_lengths[:, None] + np.arange(target.shape[1])
        written = np.take_along_axis(episodes.tokens, columns, axis=1)
        return np.all((written == target) | (target < 0), axis=1).astype(np.float64)

    def oracle(self, episodes: Episodes) -> NDArray[np.int64]:
        """The answer token by token; EOS where nothing right is left to write."""
        expected = episodes.columns["target"][np.arange(len(episodes)), episodes.steps]
        return np.where(expected < 0, self.eos_id, expected).astype(np.int64)


def gather(symbols: NDArray[np.int64], source: NDArray[np.int64]) -> NDArray[np.int64]:
    """``np.take_along_axis(symbols, source, axis=1)``, three times as fast on the small arrays of a reset.

    Args:
        symbols: Shape ``(n, S)``, contiguous.
        source: Columns of ``symbols``, each in [0, S), shape ``(n, K)``.

    Returns:
        ``symbols[i, source[i, k]]``, shape ``(n, K)``.
    """
    n, width = symbols.shape
    return symbols.ravel().take(source + np.arange(0, n * width, width)[:, None])
