"""What acting remembers between two steps: environments in mid-episode, the encoder's memory, explorer, generator.

Whoever is given it goes on acting bit for bit: a run that is resumed, or an actor on another machine.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from agents.double_dqn.paths import LearningPath
from agents.double_dqn.sequences import SequencePath
from agents.double_dqn.transitions import TransitionPath
from agents.replay.episodes import EpisodeReplayBuffer
from agents.replay.prioritized import PrioritizedReplayBuffer
from agents.vec_env import TextGenVecEnv
from textgym.tasks.base import Episodes

if TYPE_CHECKING:
    from agents.double_dqn.double_dqn import DoubleDQN


def resumable_parts(model: Any, purpose: str = "to be resumed") -> tuple[LearningPath, TextGenVecEnv]:
    """The path and the environment of a model whose acting state can be taken.

    Args:
        model: The model.
        purpose: What it is for, for the error.

    Raises:
        ValueError: If it is no :class:`agents.DoubleDQN` with a replay of ours on the native batched environment.
    """
    path: Any = getattr(model, "_path", None)
    kinds = ((SequencePath, EpisodeReplayBuffer), (TransitionPath, PrioritizedReplayBuffer))
    if not any(isinstance(path, kind) and isinstance(model.replay_buffer, buffer) for kind, buffer in kinds):
        buffers = " or a ".join(buffer.__name__ for _, buffer in kinds)
        raise ValueError(f"model must be a DoubleDQN with an {buffers} {purpose}, got {type(model).__name__}")
    if not isinstance(model.env, TextGenVecEnv):
        raise ValueError(f"env must be that of agents.make_vec_env {purpose}, got {type(model.env).__name__}")
    return path, model.env


def sequence_env(model: Any, purpose: str) -> TextGenVecEnv:
    """The environment of a model on token sequences whose acting state can be taken.

    Raises:
        ValueError: If it is none; see :func:`resumable_parts`.
    """
    path = getattr(model, "_path", None)
    if not isinstance(path, SequencePath) or path.name != SequencePath.name:
        raise ValueError(f"model must be a DoubleDQN on token sequences {purpose}, got {type(model).__name__}")
    return resumable_parts(model, purpose)[1]


def get_acting_state(model: DoubleDQN) -> dict[str, Any]:
    """Everything that decides how a model goes on acting with its weights, as plain values and arrays of their own.

    Episodes under way are also in replay, which has a state of its own.

    Raises:
        ValueError: See :func:`resumable_parts`.
    """
    path, env = resumable_parts(model)
    assert model._generator is not None
    environment = env.get_state()
    episodes = environment["envs"]["episodes"]
    environment["envs"] |= {
        "episodes": {field.name: getattr(episodes, field.name) for field in dataclasses.fields(episodes)}
    }
    return {
        "explorer": model.explorer.get_state(),
        "generator": model._generator.bit_generator.state,
        "observations": model._last_obs,
        "episode_starts": model._last_episode_starts,
        "acting": path.get_acting_state(),
        "environment": environment,
    }


def set_acting_state(model: DoubleDQN, state: dict[str, Any]) -> None:
    """Return to a state that :func:`get_acting_state` gave, of a model with the same arguments that began to learn.

    Raises:
        ValueError: See :func:`resumable_parts`. What does not fit the model raises whatever it meets.
    """
    path, env = resumable_parts(model)
    assert model._generator is not None
    environment = dict(state["environment"])
    environment["envs"] = environment["envs"] | {"episodes": Episodes(**environment["envs"]["episodes"])}
    env.set_state(environment)
    model.explorer.set_state(state["explorer"])
    model._generator.bit_generator.state = state["generator"]
    model._last_obs, model._last_episode_starts = state["observations"], state["episode_starts"]
    path.set_acting_state(state["acting"])
    model._masks = model._legal_actions()
