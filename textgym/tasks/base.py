"""What a task is: prompts, legal tokens, rewards, replies and an oracle, each for a whole batch of episodes at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym.random import RowStreams


class Prompts(NamedTuple):
    """A batch of prompts.

    Attributes:
        tokens: Token ids, shape ``(n, P)``, int; beyond ``lengths`` the content is ignored.
        lengths: Prompt lengths, shape ``(n,)``, each between 1 and ``P``.
        columns: The task's own arrays (answers, row numbers of a table …), each of shape ``(n, ...)``.
    """

    tokens: NDArray[np.integer]
    lengths: NDArray[np.int64]
    columns: dict[str, NDArray]


class Replies(NamedTuple):
    """Tokens that the environment appends after an action.

    Attributes:
        tokens: Token ids, shape ``(n, R)``, int; beyond ``lengths`` the content is ignored.
        lengths: Number of tokens appended to each row, shape ``(n,)``, each between 0 and ``R``.
    """

    tokens: NDArray[np.integer]
    lengths: NDArray[np.int64]


@dataclass(slots=True)
class Episodes:
    """The running episodes of ``n`` rows, as a struct of arrays.

    Attributes:
        tokens: Prompt, completion and replies, right-padded, shape ``(n, context_length)``, int32.
        prompt_lengths: Shape ``(n,)``, int64.
        lengths: Tokens in each row so far, shape ``(n,)``, int64.
        steps: Actions taken in each row so far, shape ``(n,)``, int64.
        columns: The task's own arrays, each of shape ``(n, ...)``; a task may write to them.
    """

    tokens: NDArray[np.int32]
    prompt_lengths: NDArray[np.int64]
    lengths: NDArray[np.int64]
    steps: NDArray[np.int64]
    columns: dict[str, NDArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, rows: NDArray[np.integer]) -> Episodes:
        """A copy of the given rows, in that order."""
        return Episodes(
            self.tokens[rows],
            self.prompt_lengths[rows],
            self.lengths[rows],
            self.steps[rows],
            {name: column[rows] for name, column in self.columns.items()},
        )

    def prompt(self, row: int) -> NDArray[np.int32]:
        """Token ids of one row's prompt."""
        return self.tokens[row, : self.prompt_lengths[row]]

    def completion(self, row: int) -> NDArray[np.int32]:
        """Token ids of one row's text after its prompt (with the environment's replies, where a task has them)."""
        return self.tokens[row, self.prompt_lengths[row] : self.lengths[row]]

    def begin(self, rows: NDArray[np.integer], prompts: Prompts, pad_id: int) -> None:
        """Put new episodes, which are their prompts, in the place of the given rows."""
        width = prompts.tokens.shape[1]
        self.tokens[rows, width:] = pad_id
        if (prompts.lengths == width).all():
            self.tokens[rows, :width] = prompts.tokens
        else:
            is_text = np.arange(width) < prompts.lengths[:, None]
            self.tokens[rows, :width] = np.where(is_text, prompts.tokens, pad_id)
        self.prompt_lengths[rows] = prompts.lengths
        self.lengths[rows] = prompts.lengths
        self.steps[rows] = 0
        for name, values in prompts.columns.items():
            if name not in self.columns:
                self.columns[name] = np.zeros((len(self), *values.shape[1:]), values.dtype)
            self.columns[name][rows] = values

    def append(self, replies: Replies, running: NDArray[np.bool_]) -> None:
        """Append the environment's replies to the rows that go on, bool, shape ``(n,)``."""
        lengths = np.where(running, replies.lengths, 0)
        columns = np.arange(replies.tokens.shape[1])
        chosen = (columns < lengths[:, None]).ravel().nonzero()[0]  # twice as fast as in two dimensions
        row_starts = np.arange(len(self)) * self.tokens.shape[1] + self.lengths
        places = (row_starts[:, None] + columns).ravel()[chosen]
        self.tokens.ravel()[places] = replies.tokens.ravel()[chosen]
        self.lengths += lengths


class Task(ABC):
    """A family of text-generation episodes: the part of an environment that differs from one id to the next.

    A task works on batches only; :class:`textgym.TextGenVectorEnv` runs it on many rows and
    :class:`textgym.TextGenEnv` on one. It holds no state of a running episode: what it must remember of a row lives in
    ``Episodes.columns``.

    The return of an episode is the sum of :meth:`step_reward` over its actions and :meth:`final_reward` once, at its
    end. Subclasses set the attributes below in ``__init__`` and implement :meth:`prompts`, :meth:`token_text` and at
    least one of the rewards.

    Attributes:
        vocab_size: Number of actions ``V``, EOS included; action ``i`` is token ``i``.
        eos_id: The action that ends the episode (below ``vocab_size``).
        pad_id: The padding id, the highest id of an observation.
        context_length: Length of an observation: longest prompt, all actions and all replies.
        max_new_tokens: Number of actions after which an episode ends.
        masked: Whether :meth:`allowed` forbids tokens; False means that every action is legal in every state.
        pays_at_end: Whether :meth:`final_reward` has to be asked; False saves the copy of the ended rows.
        deterministic: Whether the prompt determines every reward and reply. Where a secret is hidden from the
            observation, a lucky return is no lower bound of the value.
        reward_range: Lowest and highest return of an episode.
        cheat_bound: The highest mean return that cheap tricks may earn: only EOS, one token repeated, the prompt
            copied, the answer's tokens shuffled, random tokens. The tests try them.
        cheats_that_solve: Names of those tricks that are the task itself (copying the prompt in ``Copy``).
    """

    vocab_size: int
    eos_id: int
    pad_id: int
    context_length: int
    max_new_tokens: int
    masked: bool = False
    pays_at_end: bool = True
    deterministic: ClassVar[bool] = True
    reward_range: tuple[float, float] = (0.0, 1.0)
    cheat_bound: float = 0.5
    cheats_that_solve: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def prompts(self, random: RowStreams) -> Prompts:
        """Draw one prompt for each row of ``random``: a pure function of the row's own stream."""

    @abstractmethod
    def token_text(self, token: int) -> str:
        """The text of one token id, special ids in angle brackets."""

    def allowed(self, episodes: Episodes) -> NDArray[np.bool_]:
        """Legal actions in each row, shape ``(n, V)``, at least one a row. Asked only where ``masked`` is True."""
        raise TypeError(f"{type(self).__name__} sets masked=True and must implement allowed()")

    def step_reward(self, episodes: Episodes, actions: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Reward of the actions just appended to ``episodes``, shape ``(n,)``; None where only the end pays."""
        return None

    def final_reward(self, episodes: Episodes) -> NDArray[np.float64] | None:
        """Reward at the end of the given (ended) episodes, shape ``(n,)``; None where only steps pay."""
        return None

    def forfeit_reward(self, episodes: Episodes) -> NDArray[np.float64] | float:
        """Reward of an illegal action, which ends the episode; a shaped task takes back what it has advanced."""
        return 0.0

    def finished(self, episodes: Episodes, actions: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Rows that end for another reason than EOS or the budget, shape ``(n,)``; None where there is none."""
        return None

    def reply(self, episodes: Episodes, actions: NDArray[np.int64]) -> Replies | None:
        """Tokens to append after these actions (rows that have ended are skipped); None for single-turn tasks."""
        return None

    def oracle(self, episodes: Episodes) -> NDArray[np.int64] | None:
        """The next action of a policy that earns the best return, shape ``(n,)``; None where no such policy is known.

        It may read ``columns``, hidden answers included, and has to be right from the start of an episode only.
        """
        return None

    def decode(self, tokens: NDArray[np.integer]) -> str:
        """Text of a row of token ids; padding is left out and EOS ends it."""
        texts = []
        for token in tokens.tolist():
            if token == self.eos_id:
                break
            if token != self.pad_id:
                texts.append(self.token_text(token))
        return self.join(texts)

    def join(self, texts: list[str]) -> str:
        """Join the texts of single tokens."""
        return " ".join(texts)

    def summary(self) -> Mapping[str, object]:
        """What ``textgym list`` shows of a task."""
        return {"vocabulary": self.vocab_size, "budget": self.max_new_tokens, "context": self.context_length}
