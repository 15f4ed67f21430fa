"""Texts as finished episodes: token ids, where the actions stand, and what they earned."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.offline.replaying import replay_actions
from agents.offline.rows import TextRow, read_rows, read_text
from agents.replay.episodes import EpisodeReplayBuffer
from textgym.adapters.minari import open_minari
from textgym.checks import check_at_least
from textgym.demonstrations import Demonstrations
from textgym.language_models import LanguageModel
from textgym.rewards import RewardFunction, call_reward
from textgym.task_encoder import TaskEncoder
from textgym.tasks.base import Task
from textgym.tasks.shaped import unshaped
from textgym.tasks.text_generation import TextGeneration

RewardSource = RewardFunction | LanguageModel | Literal["environment"] | None
_FLOOR = -20.0  # log-probability of a word that a language model does not know
_CHUNK = 256


@dataclass(frozen=True)
class TextEpisodes:
    """m finished episodes with up to T actions in up to L tokens, padded on the right.

    Attributes:
        tokens: Token ids, int32, shape ``(m, L)``.
        action_positions: Where each action's token stands, int64, shape ``(m, T)``.
        n_actions: Actions in each episode, int64, shape ``(m,)``.
        rewards: Rewards, float32, shape ``(m, T)``; 0 beyond the actions.
        terminated: Whether nothing follows the last action; else the text was cut off there, bool, shape ``(m,)``.
        action_masks: Legal actions of the T+1 states, bool, shape ``(m, T + 1, V)`` (a view that is broadcast where
            they are the same everywhere); None where everything is legal, or the masks are not known.
    """

    tokens: NDArray[np.int32]
    action_positions: NDArray[np.int64]
    n_actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    action_masks: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.n_actions)

    def take(self, rows: slice | NDArray[np.integer]) -> TextEpisodes:
        """Some of the episodes."""
        return TextEpisodes(
            self.tokens[rows],
            self.action_positions[rows],
            self.n_actions[rows],
            self.rewards[rows],
            self.terminated[rows],
            None if self.action_masks is None else self.action_masks[rows],
        )

    def store(self, replay: EpisodeReplayBuffer) -> None:
        """Put all of them into a replay buffer."""
        for start in range(0, len(self), _CHUNK):
            part = self.take(slice(start, start + _CHUNK))
            replay.add_episodes(
                part.tokens, part.action_positions, part.n_actions, part.rewards, part.terminated, part.action_masks
            )


class _Encoded(NamedTuple):
    """One text: ids, which of them are actions, how many come before the first, and whether the text is complete."""

    tokens: list[int]
    is_action: NDArray[np.bool_]
    prompt_length: int
    complete: bool


def text_to_episodes(
    data: Any, task: Task, *, reward: RewardSource = None, prompt_tokens: int = 1, window: int | None = None
) -> TextEpisodes:
    """Encode texts as a task's episodes.

    A text without a prompt of its own gives its first ``prompt_tokens`` tokens for one, and is cut into pieces that the
    task's budget has room for; a piece that does not end the text counts as cut off, not as complete. Where it holds
    EOS it is several texts; a completion may hold EOS at its end alone. A complete text ends with EOS, unless it uses
    up the budget, or the task ends episodes by rules of its own.

    Args:
        data: See :func:`agents.offline.rows.read_rows`.
        task: Whose tokens.
        reward: Who pays. A reward function with TRL's signature pays at the end; a language model pays each token its
            log-probability (or their mean at the end, where its tokens are not the task's); ``"environment"`` replays
            the actions in the task under each row's ``seed``. None stands for ``"environment"`` where the data are
            :func:`textgym.demonstrations`; elsewhere for the rows' own rewards, and for 1 a token where they have none.
        prompt_tokens: Tokens of a text without a prompt that serve as its prompt (≥ 1).
        window: Actions in a piece of text; None for the task's budget. A file is then cut without regard to its lines.

    Raises:
        ValueError: If an argument is out of range, or a row can't be encoded, is too long, or lacks what the reward
            needs; the message names its number.
    """
    check_at_least("prompt_tokens", prompt_tokens, 1)
    room = task.max_new_tokens
    if window is not None and not check_at_least("window", window, 1) <= room:
        raise ValueError(f"window must be at most {room}, the budget of the task, got {window}")
    if reward is None and isinstance(data, Demonstrations):
        reward = "environment"
    whole = window is not None and isinstance(data, (str, os.PathLike)) and open_minari(data) is None
    rows = [TextRow(None, read_text(data))] if whole else read_rows(data)
    if reward == "environment":
        return _replayed(rows, task)
    encoder = TaskEncoder(task)
    encoded: list[_Encoded] = []
    kept: list[TextRow] = []
    for number, row in enumerate(rows):
        try:
            pieces = list(_encode(row, encoder, prompt_tokens, window or room))
        except ValueError as error:
            raise ValueError(f"data[{number}]: {error}") from None
        encoded += pieces
        kept += [row] * len(pieces)
    if not encoded:
        raise ValueError(f"data must hold a text of more than {prompt_tokens} tokens, the prompt, got none")
    return _assemble(kept, encoded, task, reward)


def _encode(row: TextRow, encoder: TaskEncoder, prompt_tokens: int, room: int) -> Iterator[_Encoded]:
    task = encoder.task
    if row.completion_tokens is not None and row.prompt_tokens is not None:
        prompt, text = row.prompt_tokens.tolist(), row.completion_tokens.tolist()
        is_action = np.ones(len(text), np.bool_) if row.is_action is None else row.is_action
        if not len(text) == len(is_action) or not is_action.any():
            raise ValueError(f"is_action must mark some of {len(text)} completion_tokens, got {is_action}")
        _check_eos([token for token, acted in zip(text, is_action, strict=True) if acted], task)
        complete = text[-1] == task.eos_id or int(is_action.sum()) >= task.max_new_tokens or _ends_itself(task)
        if row.terminated is not None:
            complete = row.terminated
        yield _Encoded(
            [*prompt, *text], np.concatenate([np.zeros(len(prompt), np.bool_), is_action]), len(prompt), complete
        )
        return
    text = encoder.encode(row.completion)
    if row.prompt is not None:
        prompt = encoder.prompt(row.prompt)
        _check_eos(text, task)
        if len(text) > task.max_new_tokens or len(prompt) + len(text) > task.context_length:
            raise ValueError(
                f"completion must have at most {task.max_new_tokens} tokens, {task.context_length} with its prompt, "
                f"got {len(text)} after {len(prompt)}"
            )
        yield _piece(prompt, text, task, complete=True)
        return
    separator = [] if (sep_id := getattr(task, "sep_id", None)) is None else [sep_id]
    room = min(room, task.context_length - prompt_tokens - len(separator))
    for part in _split_at(task.eos_id, text):
        for start in range(0, len(part) - prompt_tokens, room):
            prompt = [*part[start : start + prompt_tokens], *separator]
            rest = part[start + prompt_tokens : start + prompt_tokens + room]
            yield _piece(prompt, rest, task, complete=start + prompt_tokens + len(rest) == len(part))


def _check_eos(actions: list[int], task: Task) -> None:
    if task.eos_id in actions[:-1]:
        place = actions.index(task.eos_id)
        raise ValueError(f"completion must hold EOS at its end alone, as it ends an episode, got it at token {place}")


def _split_at(eos_id: int, text: list[int]) -> Iterator[list[int]]:
    """The texts between EOS."""
    start = 0
    for place, token in enumerate([*text, eos_id]):
        if token == eos_id:
            yield text[start:place]
            start = place + 1


def _piece(prompt: list[int], text: list[int], task: Task, complete: bool) -> _Encoded:
    if not prompt:
        raise ValueError("prompt must hold at least one token, got none")
    fits = len(text) < task.max_new_tokens and len(prompt) + len(text) < task.context_length
    if complete and fits and not _ends_itself(task) and text[-1:] != [task.eos_id]:
        text = [*text, task.eos_id]
    if not text:
        raise ValueError("completion must hold at least one token, got none")
    is_action = np.arange(len(prompt) + len(text)) >= len(prompt)
    return _Encoded([*prompt, *text], is_action, len(prompt), complete)


def _ends_itself(task: Task) -> bool:
    """Whether episodes end by the task's own rules, as a game that is won: then a text's end is the episode's."""
    return type(unshaped(task)).finished is not Task.finished


def _assemble(rows: list[TextRow], encoded: list[_Encoded], task: Task, reward: Any) -> TextEpisodes:
    n_actions = np.array([int(one.is_action.sum()) for one in encoded])
    tokens = np.full((len(encoded), max(len(one.tokens) for one in encoded)), task.pad_id, np.int32)
    positions = np.ones((len(encoded), int(n_actions.max())), np.int64)
    for number, one in enumerate(encoded):
        tokens[number, : len(one.tokens)] = one.tokens
        positions[number, : n_actions[number]] = np.flatnonzero(one.is_action)
    masks = None
    if task.masked and isinstance(task, TextGeneration):
        assert task.tokenizer.allowed is not None
        masks = np.broadcast_to(task.tokenizer.allowed, (len(encoded), positions.shape[1] + 1, task.vocab_size))
    complete = np.array([one.complete for one in encoded])
    rewards = _rewards(rows, encoded, tokens, n_actions, task, reward)
    return TextEpisodes(tokens, positions, n_actions, rewards, complete, masks)


def _rewards(
    rows: list[TextRow],
    encoded: list[_Encoded],
    tokens: NDArray[np.int32],
    n_actions: NDArray[np.int64],
    task: Task,
    reward: Any,
) -> NDArray[np.float32]:
    shape = (len(rows), int(n_actions.max()))
    valid = np.arange(shape[1]) < n_actions[:, None]
    result = np.zeros(shape, np.float32)
    last = np.arange(len(rows)), n_actions - 1
    if reward is None:
        if all(row.reward is None for row in rows):
            return valid.astype(np.float32)
        for number, row in enumerate(rows):
            if row.reward is None:
                raise ValueError(f"data[{number}] must have a reward, as other rows do, got none")
            if not isinstance(row.reward, Sequence):
                result[number, n_actions[number] - 1] = row.reward
            elif len(row.reward) == n_actions[number]:
                result[number, : n_actions[number]] = row.reward
            else:
                raise ValueError(
                    f"data[{number}] must have one reward, or one for each of its {n_actions[number]} actions (EOS "
                    f"included), got {len(row.reward)}"
                )
        return result
    prompts, completions = [], []
    for number, one in enumerate(encoded):
        prompts.append(task.decode(tokens[number, : one.prompt_length]))
        completions.append(task.decode(tokens[number, one.prompt_length : len(one.tokens)]))
    if isinstance(reward, LanguageModel):
        for number, log_probs in enumerate(reward.text_log_probs(prompts, completions)):
            values = np.maximum(log_probs, _FLOOR)
            if len(values) == n_actions[number] - (encoded[number].tokens[-1] == task.eos_id):
                result[number, : len(values)] = values
            else:
                result[number, n_actions[number] - 1] = values.mean() if len(values) else _FLOOR
    elif callable(reward):
        names = rows[0].columns.keys()
        columns = {name: [row.columns.get(name) for row in rows] for name in names}
        result[last] = call_reward(reward, prompts, completions, columns)
    else:
        raise ValueError(f"reward must be a function, a language model, 'environment' or None, got {reward!r}")
    return result


def _replayed(rows: list[TextRow], task: Task) -> TextEpisodes:
    encoder = TaskEncoder(task)
    actions, prompts = [], []
    for number, row in enumerate(rows):
        if row.seed is None:
            raise ValueError(
                f"data[{number}] must have a seed for reward='environment', under which the task shows its prompt, got "
                "none"
            )
        try:
            if row.completion_tokens is None or row.prompt_tokens is None:
                (one,) = _encode(TextRow(row.prompt or "", row.completion), encoder, 1, task.max_new_tokens)
            else:
                (one,) = _encode(row, encoder, 1, task.max_new_tokens)
        except ValueError as error:
            raise ValueError(f"data[{number}]: {error}") from None
        ids = np.array(one.tokens)
        actions.append(ids[one.is_action])
        prompts.append(ids[: one.prompt_length])
    replayed = replay_actions(task, prompts, actions, [int(row.seed or 0) for row in rows])
    return TextEpisodes(*replayed)
