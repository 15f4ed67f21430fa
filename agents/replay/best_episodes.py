"""Which of the episodes stored are the best ones, at most one for each prompt."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.replay.episode_store import FinishedEpisodes

RARE_SHARE = 1 / 10
"""Success is rare if it is a smaller share than that of the first :data:`RARE_EPISODES`."""
RARE_EPISODES = 1_000


class BestEpisodes:
    """Numbers of the best episodes, for a replay that must not forget them (self-imitation, arXiv:1806.05635).

    An episode is among them if it earned more than the worst one ever seen and more than the best known one with the
    same prompt, so that a hundred copies of one success don't take the place of a hundred others. If they have more
    than `max_steps` actions altogether, those that earned least go; of equals, the older ones.

    Args:
        max_steps: Actions that they may have altogether, ≥ 0.

    Attributes:
        rare: Whether success is all or nothing, and rare: the first :data:`RARE_EPISODES` had at most two different
            returns, the better one less often than :data:`RARE_SHARE`, and none has had a third one since. None as long
            as there have not been so many.
    """

    rare: bool | None = False  # of those that were pickled before it existed

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps
        self._by_prompt: dict[bytes, tuple[float, int, int]] = {}  # return, number, actions
        self._prompts: dict[int, bytes] = {}  # by number
        self._heap: list[tuple[float, int]] = []  # return, number; some are outdated
        self._n_steps = 0
        self._worst = np.inf
        self._ids: NDArray[np.int64] | None = None
        self.rare = None
        self._n_of_return: dict[float, int] = {}  # episodes; nothing where success is known not to be rare

    def __len__(self) -> int:
        return len(self._prompts)

    @property
    def ids(self) -> NDArray[np.int64]:
        """Their numbers, increasing, shape (n,)."""
        if self._ids is None:
            self._ids = np.array(sorted(self._prompts), np.int64)
        return self._ids

    def offer(self, ids: NDArray[np.int64], episodes: FinishedEpisodes) -> None:
        """Look at episodes that have been stored under the numbers `ids` (m,)."""
        if not self.max_steps:
            return
        steps = np.arange(episodes.rewards.shape[1])
        returns = np.where(steps < episodes.n_steps[:, None], episodes.rewards, 0.0).sum(axis=1, dtype=np.float64)
        self._worst = min(self._worst, float(returns.min()))
        self._count(returns)
        fits = episodes.n_steps <= self.max_steps
        for row in np.flatnonzero(fits & (returns > self._worst)).tolist():
            prompt = episodes.tokens[row, : episodes.action_positions[row, 0]].astype(np.int32).tobytes()
            known = self._by_prompt.get(prompt)
            if known is not None:
                if returns[row] <= known[0]:
                    continue
                self._remove(known[1])
            self._insert(prompt, float(returns[row]), int(ids[row]), int(episodes.n_steps[row]))
        while self._n_steps > self.max_steps:
            earned, number = heapq.heappop(self._heap)
            if self._is_current(earned, number):
                self._remove(number)

    def _count(self, returns: NDArray[np.float64]) -> None:
        """Decide on :attr:`rare`, which more returns (m,) may change."""
        if self.rare is False:
            return
        for value, count in zip(*np.unique(returns, return_counts=True), strict=True):
            self._n_of_return[float(value)] = self._n_of_return.get(float(value), 0) + int(count)
        n_episodes = sum(self._n_of_return.values())
        if self.rare is None and n_episodes >= RARE_EPISODES:
            n_worst = self._n_of_return[min(self._n_of_return)]
            self.rare = n_episodes - n_worst < RARE_SHARE * n_episodes
        if len(self._n_of_return) > 2:
            self.rare = False
        if self.rare is False:
            self._n_of_return = {}

    def move(self, old: NDArray[np.int64], new: NDArray[np.int64]) -> None:
        """Note that the episodes with the numbers `old` (n,) are stored under `new` (n,) now."""
        for before, after in zip(old.tolist(), new.tolist(), strict=True):
            prompt = self._prompts[before]
            earned, _, n_steps = self._by_prompt[prompt]
            self._remove(before)
            self._insert(prompt, earned, after, n_steps)

    def forget_before(self, first: int) -> None:
        """Drop those with lower numbers: they are no longer stored."""
        for number in self.ids[self.ids < first].tolist():
            self._remove(number)

    def get_state(self) -> dict[str, Any]:
        """All that is known, as arrays and plain values."""
        entries = [self._by_prompt[self._prompts[number]] for number in self.ids.tolist()]
        prompts = [self._prompts[number] for number in self.ids.tolist()]
        return {
            "returns": np.array([entry[0] for entry in entries], np.float64),
            "ids": self.ids,
            "n_steps": np.array([entry[2] for entry in entries], np.int64),
            "prompt_bytes": np.array([len(prompt) for prompt in prompts], np.int64),
            "prompts": np.frombuffer(b"".join(prompts), np.int32).copy(),
            "worst": float(self._worst),
            "rare": self.rare,
            "values": np.array(list(self._n_of_return), np.float64),
            "counts": np.array(list(self._n_of_return.values()), np.int64),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that :meth:`get_state` gave."""
        self.__init__(self.max_steps)  # type: ignore[misc]
        self._worst = state["worst"]
        self.rare = state.get("rare", False)  # older states know of no rule
        if self.rare is not False:
            self._n_of_return = dict(zip(state["values"].tolist(), state["counts"].tolist(), strict=True))
        joined, end = state["prompts"].tobytes(), np.cumsum(state["prompt_bytes"]).tolist()
        start = [0, *end[:-1]]
        values = (state[name].tolist() for name in ("returns", "ids", "n_steps"))
        for first, last, earned, number, n_steps in zip(start, end, *values, strict=False):
            self._insert(joined[first:last], earned, number, n_steps)

    def _insert(self, prompt: bytes, earned: float, number: int, n_steps: int) -> None:
        self._by_prompt[prompt], self._prompts[number] = (earned, number, n_steps), prompt
        self._n_steps += n_steps
        self._ids = None
        heapq.heappush(self._heap, (earned, number))

    def _remove(self, number: int) -> None:
        self._n_steps -= self._by_prompt.pop(self._prompts.pop(number))[2]
        self._ids = None

    def _is_current(self, earned: float, number: int) -> bool:
        prompt = self._prompts.get(number)
        return prompt is not None and self._by_prompt[prompt][0] == earned
