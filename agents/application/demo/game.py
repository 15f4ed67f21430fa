"""An episode that a person plays: a prompt's seed and the tokens so far, from which everything follows."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np

from agents.application.visible import shown
from textgym import Task, sequence_lengths


@dataclass(frozen=True)
class Game:
    """An episode: playing the same tokens again gives the same texts and rewards.

    Attributes:
        env_id: A registered id.
        seed: Seed of the prompt (≥ 0).
        tokens: The tokens so far.
        env_args: Arguments of the environment, as JSON.
    """

    env_id: str
    seed: int
    tokens: tuple[int, ...] = ()
    env_args: str = "{}"


@dataclass(frozen=True)
class Played:
    """One token: its text, what the environment paid for it, and what it replied (empty for nothing)."""

    text: str
    reward: float
    reply: str


@dataclass(frozen=True)
class Position:
    """What a player sees.

    Attributes:
        prompt: The prompt.
        text: What has been written after it, replies included.
        played: The tokens so far.
        total: Return so far.
        left: Tokens that remain, at most.
        ended: Whether the episode is over.
        legal: Legal tokens and their texts; empty at the end.
    """

    prompt: str
    text: str
    played: tuple[Played, ...]
    total: float
    left: int
    ended: bool
    legal: tuple[tuple[int, str], ...]


def position(game: Game) -> Position:
    """Play an episode's tokens, from its prompt on.

    Not for several threads at once: there is one environment of each id and its arguments.

    Raises:
        ValueError: If the seed is negative, or a token is not legal where it stands.
        ImportError: If the task needs a package that is not installed.
    """
    if game.seed < 0:
        raise ValueError(f"seed must be at least 0, got {game.seed}")
    env = _environment(game.env_id, game.env_args)
    task: Task = env.get_wrapper_attr("task")
    observation, info = env.reset(seed=game.seed)
    start = _length(observation, task)
    prompt, ended = shown(task.decode(observation[:start])), False
    played: list[Played] = []
    for token in game.tokens:
        if ended:
            raise ValueError(f"tokens must end with the episode, got {len(game.tokens)} instead of {len(played)}")
        if not 0 <= token < task.vocab_size or not info["action_mask"][token]:
            raise ValueError(f"token must be legal after {len(played)} tokens, got {token}")
        before = _length(observation, task)
        observation, reward, terminated, truncated, info = env.step(token)
        ended = bool(terminated or truncated)
        reply = observation[before + 1 : _length(observation, task)]
        played.append(Played(shown(task.token_text(token)), float(reward), shown(task.decode(reply))))
    legal = np.asarray(info["action_mask"], bool).nonzero()[0].tolist()
    return Position(
        prompt,
        task.decode(observation[start : _length(observation, task)]),
        tuple(played),
        sum(one.reward for one in played),
        0 if ended else task.max_new_tokens - len(played),
        ended,
        () if ended else tuple((token, shown(task.token_text(token))) for token in legal),
    )


def take(game: Game, token: int) -> Game:
    """The episode with one token more."""
    return replace(game, tokens=(*game.tokens, int(token)))


def undo(game: Game) -> Game:
    """The episode without its last token; an episode that has none stays as it is."""
    return replace(game, tokens=game.tokens[:-1])


@lru_cache(maxsize=8)
def _environment(env_id: str, env_args: str) -> gym.Env[Any, Any]:
    return gym.make(f"textgym:{env_id}", **json.loads(env_args))


def _length(observation: Any, task: Task) -> int:
    return int(sequence_lengths(observation[None], task.pad_id)[0])
