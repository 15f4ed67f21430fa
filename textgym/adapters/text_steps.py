"""The core of every adapter: an episode as an exchange of messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from textgym.env import TextGenEnv
from textgym.task_encoder import TaskEncoder
from textgym.tasks.base import Task
from textgym.tasks.shaped import unshaped

_NAMED = 64  # tokens that a message to the writer names one by one
_SHOWN = 300  # characters of an error
_NOTHING = np.empty(0, np.int64)


class TextSteps:
    """An environment that is written to in messages, for agents that speak text: language models above all.

    A message is read with the task's own symbols and its tokens are stepped one after the other, so the same seed and
    the same tokens earn what they earn in the environment inside, to the last bit. In a task of one turn a message is
    the whole answer, and EOS is added at its end. In a game (GuessNumber, Hangman, Wordle) a message is a turn, and
    the answer is what the game replies; a message that ends in the middle of a guess is gone on with by the next one,
    and one of several guesses plays them all. An empty message says EOS. Every message takes at least one token, so an
    episode ends after at most ``task.max_new_tokens`` of them.

    A message that cannot be read as tokens raises nothing: it ends the episode, its answer says why, and the return
    becomes the task's floor (the low end of ``task.reward_range``, or what an illegal token earns where that is
    infinite).

    Args:
        id_or_task: A registered id; or a task's name, class or instance, see :func:`textgym.make_task`.
        **kwargs: Arguments of the environment or task.

    Attributes:
        task: The task.
        instructions: What to write, in words: the task, its symbols, and what a message is.
        takes_turns: Whether the task replies, so that an episode takes several messages.

    Raises:
        ValueError: If the id or the name is unknown, or an argument is out of range.
        TypeError: If the task does not take one of the arguments.

    Example:
        >>> steps = TextSteps("TextGen/Reverse-v0", length=3, vocab_size=4)
        >>> steps.reset(seed=0)
        'd b d'
        >>> answer, reward, terminated, truncated, info = steps.step("d b d")
        >>> reward, terminated, info["action_tokens"].tolist()
        (1.0, True, [3, 1, 3, 4])
    """

    def __init__(self, id_or_task: str | type[Task] | Task, **kwargs: Any) -> None:
        self._env = _make(id_or_task, kwargs)
        self.task = self._env.task
        self._encoder = TaskEncoder(self.task)
        self.takes_turns = _replies(self.task)
        self.instructions = _instructions(self.task, self.takes_turns)
        self._over = True
        self._is_action = np.zeros(self.task.context_length, np.bool_)
        self._info: dict[str, Any] = {}
        self._legal: tuple[NDArray[np.bool_], NDArray[np.int64], tuple[str, ...]] | None = None

    @property
    def info(self) -> dict[str, Any]:
        """What the last :meth:`reset` or :meth:`step` left: see :meth:`step`."""
        return self._info

    def reset(self, seed: int | None = None) -> str:
        """Start a new episode.

        Args:
            seed: Decides the episode, wherever and in whichever process it is played; None goes on with the random
                stream.

        Returns:
            The prompt as text.
        """
        self._env.reset(seed=seed)
        self._over = False
        self._is_action[:] = False
        self._info = self._describe()
        return self.task.decode(self._episode())

    def step(self, text: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Send one message.

        Args:
            text: The message.

        Returns:
            The environment's replies as text (why it was refused, for a message that could not be read or held an
            illegal token; else empty where there is none), the sum of the rewards of its tokens, terminated,
            truncated (always False: a task's budget terminates), and infos:

            * ``tokens``: ids of the whole episode so far, prompt and replies included, shape ``(L,)``, int32;
            * ``is_action``: which of them were written, not replied, bool, shape ``(L,)``;
            * ``action_tokens``, ``reply_tokens``: ids that this message wrote and got, int32, shape ``(A,)``, ``(R,)``;
            * ``unused_tokens``: ids of the message that came after the end of the episode, int32;
            * ``legal``, ``legal_tokens``: what may be written next, as words and as ids; empty after the end;
            * ``refusal``: why a message was refused, else None.

        Raises:
            ValueError: If ``text`` is no string.
            gymnasium.error.ResetNeeded: If the episode has ended.
        """
        if not isinstance(text, str):
            raise ValueError(f"text must be a string, got {text!r:.80}")
        self._check_running()
        try:
            tokens = self._encoder.encode(text)
            foreign = [token for token in tokens if token >= self.task.vocab_size]
            if foreign:
                raise ValueError(f"text must hold no token that only prompts have, got {self._text(foreign[0])!r}")
        except ValueError as error:
            return self._refuse(f"This can't be read: {str(error)[:_SHOWN]}. Write only {_symbols(self.task)}.")
        if not tokens:
            return self._play([self.task.eos_id], [])
        return self._play(tokens, [] if self.takes_turns else [self.task.eos_id])

    def step_tokens(self, tokens: Sequence[int] | NDArray[np.integer]) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Send one message as token ids, exactly as they are: nothing is read again, and no EOS is added.

        Args:
            tokens: Ids in [0, V), at least one, shape ``(A,)``.

        Returns:
            As :meth:`step`.

        Raises:
            ValueError: If there is no id, or one is out of range.
            gymnasium.error.ResetNeeded: If the episode has ended.
        """
        array = np.asarray(tokens)
        v = self.task.vocab_size
        if array.ndim != 1 or not array.size or array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= v:
            raise ValueError(f"tokens must be a list of at least one integer in [0, {v}), got {tokens!r:.80}")
        self._check_running()
        return self._play(array.tolist(), [])

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what comes next; may be taken in the middle of an episode."""
        return {
            "env": self._env.get_state(),
            "over": self._over,
            "is_action": self._is_action.copy(),
            "info": dict(self._info),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that :meth:`get_state` gave, of an object with the same arguments.

        Raises:
            ValueError: If the state is of another shape.
        """
        self._env.set_state(state["env"])
        self._over = state["over"]
        self._is_action = state["is_action"].copy()
        self._info = dict(state["info"])

    def _check_running(self) -> None:
        if self._over:
            raise gym.error.ResetNeeded("the episode is over: call reset() before step()")

    def _play(self, tokens: list[int], ending: list[int]) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Step the message's tokens, and then those that end it if the episode still runs."""
        total, refusal = 0.0, None
        written: list[int] = []
        replies: list[int] = []
        answers: list[str] = []
        for token in (*tokens, *ending):
            place, legal = len(self._episode()), self._env.action_masks()
            _, reward, self._over, _, env_info = self._env.step(token)
            self._is_action[place] = True
            written.append(token)
            total += reward
            if "illegal_action" in env_info:
                refusal = f"{self._text(token)!r} is not legal here. Legal: {_listed(self._names(legal)[1])}."
                answers.append(refusal)
            if len(reply := self._episode()[place + 1 :]):
                replies += reply.tolist()
                answers.append(self.task.decode(reply))
            if self._over:
                break
        self._info = self._describe(written, replies, tokens[len(written) :], refusal)
        return "\n".join(answers), total, self._over, False, self._info

    def _refuse(self, why: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """End the episode with the task's floor as its return."""
        batch = self._env._batch
        floor = self.task.reward_range[0]
        if not np.isfinite(floor):
            floor = float(np.broadcast_to(self.task.forfeit_reward(batch.episodes), (1,))[0])
        self._over = True
        self._info = self._describe(refusal=why)
        return why, floor - float(batch.returns[0]), True, False, self._info

    def _episode(self) -> NDArray[np.int32]:
        episodes = self._env._batch.episodes
        return episodes.tokens[0, : episodes.lengths[0]]

    def _text(self, token: int) -> str:
        return self.task.token_text(token)

    def _describe(
        self,
        actions: Sequence[int] = (),
        replies: Sequence[int] = (),
        unused: Sequence[int] = (),
        refusal: str | None = None,
    ) -> dict[str, Any]:
        tokens = self._episode().copy()
        legal_tokens, legal = (_NOTHING, ()) if self._over else self._names(self._env.action_masks())
        return {
            "tokens": tokens,
            "is_action": self._is_action[: len(tokens)].copy(),
            "action_tokens": np.array(actions, np.int32),
            "reply_tokens": np.array(replies, np.int32),
            "unused_tokens": np.array(unused, np.int32),
            "legal_tokens": legal_tokens,
            "legal": legal,
            "refusal": refusal,
        }

    def _names(self, legal: NDArray[np.bool_]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Legal ids and their texts; made anew only where others are legal."""
        if self._legal is None or not np.array_equal(self._legal[0], legal):
            tokens = np.flatnonzero(legal)
            tokens.flags.writeable = False
            self._legal = legal.copy(), tokens, tuple(map(self._text, tokens.tolist()))
        return self._legal[1], self._legal[2]


def _make(id_or_task: str | type[Task] | Task, kwargs: dict[str, Any]) -> TextGenEnv:
    if isinstance(id_or_task, str) and id_or_task.removeprefix("textgym:") in gym.registry:
        env = gym.make(id_or_task, **kwargs).unwrapped
        if not isinstance(env, TextGenEnv):
            raise ValueError(f"id_or_task must be an id of TextGym or a task, got {id_or_task!r}, which is {env}")
        return env
    try:
        return TextGenEnv(id_or_task, **kwargs)
    except ValueError as error:
        if not isinstance(id_or_task, str) or "task must be" not in str(error):
            raise
        raise ValueError(f"id_or_task must be one of textgym.env_ids() or a task, got {id_or_task!r}") from None


def _replies(task: Task) -> bool:
    return type(unshaped(task)).reply is not Task.reply


def _instructions(task: Task, takes_turns: bool) -> str:
    described = (type(unshaped(task)).__doc__ or "").strip().partition("\n\n")[0]
    lines = [" ".join(described.split()), f"Write only {_symbols(task)}."]
    if takes_turns:
        lines.append(f"A message is one turn; {task.max_new_tokens} tokens are all there are.")
    else:
        lines.append(f"The message is the whole answer, of at most {task.max_new_tokens} tokens; its end says EOS.")
    return "\n".join(filter(None, lines))


def _symbols(task: Task) -> str:
    """The tokens that may be written, in words."""
    texts = [task.token_text(token) for token in range(min(task.vocab_size, _NAMED + 2)) if token != task.eos_id]
    blanks = " with blanks between them" if task.join(["a", "b"]) == "a b" else " without blanks between them"
    more = task.vocab_size - 1 - len(texts[:_NAMED])
    return f"these{blanks}: {' '.join(texts[:_NAMED])}" + (f" … and {more:,} more" if more else "")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return " ".join(names[:_NAMED]) + (f" … and {more:,} more" if more > 0 else "")
