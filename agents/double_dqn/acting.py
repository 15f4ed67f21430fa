"""What acting remembers between two steps: environments in mid-episode, the encoder's memory, explorer, generator.

Whoever is given it goes on acting bit for bit: a run that is resumed, or an actor on another machine.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from agents.double_dqn.policies import ActingState
from agents.double_dqn.sequences import SequencePath
from agents.replay.episodes import EpisodeReplayBuffer
from agents.vec_env import TextGenVecEnv
from textgym.tasks.base import Episodes

if TYPE_CHECKING:
    from agents.double_dqn.double_dqn import DoubleDQN


def sequence_parts(model: Any, purpose: str = "to be resumed") -> tuple[SequencePath, TextGenVecEnv]:
    """The path and the environment of a model whose acting state can be taken.

    Args:
        model: The model.
        purpose: What it is for, for the error.

    Raises:
        ValueError: If it is no :class:`agents.DoubleDQN` on token sequences and the native batched environment.
    """
    path, env = getattr(model, "_path", None), model.env
    if not isinstance(path, SequencePath) or not isinstance(model.replay_buffer, EpisodeReplayBuffer):
        raise ValueError(f"model must be a DoubleDQN on token sequences {purpose}, got {type(model).__name__}")
    if not isinstance(env, TextGenVecEnv):
        raise ValueError(f"env must be that of agents.make_vec_env {purpose}, got {type(env).__name__}")
    return path, env


def get_acting_state(model: DoubleDQN) -> dict[str, Any]:
    """Everything that decides how a model goes on acting with its weights, as plain values and arrays of their own.

    Episodes under way are also in replay, which has a state of its own.

    Raises:
        ValueError: See :func:`sequence_parts`.
    """
    path, env = sequence_parts(model)
    acting = path.state
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
        "acting": None
        if acting is None
        else {
            "lengths": acting.lengths,
            "features": acting.features.cpu().clone(),
            "encoder_lengths": acting.encoder.lengths.cpu().clone(),
            "encoder_tensors": tuple(tensor.cpu().clone() for tensor in acting.encoder.tensors),
        },
        "environment": environment,
    }


def set_acting_state(model: DoubleDQN, state: dict[str, Any]) -> None:
    """Return to a state that :func:`get_acting_state` gave, of a model with the same arguments that began to learn.

    Raises:
        ValueError: See :func:`sequence_parts`. What does not fit the model raises whatever it meets.
    """
    path, env = sequence_parts(model)
    assert model._generator is not None
    environment = dict(state["environment"])
    environment["envs"] = environment["envs"] | {"episodes": Episodes(**environment["envs"]["episodes"])}
    env.set_state(environment)
    model.explorer.set_state(state["explorer"])
    model._generator.bit_generator.state = state["generator"]
    model._last_obs, model._last_episode_starts = state["observations"], state["episode_starts"]
    path.state = None if state["acting"] is None else _acting_state(model, path, state["acting"])
    model._masks = model._legal_actions()


def _acting_state(model: DoubleDQN, path: SequencePath, state: dict[str, Any]) -> ActingState:
    device = model.device
    encoder = path.policy.q_net.encoder.initial_state(len(state["lengths"]))
    encoder = dataclasses.replace(
        encoder,
        lengths=torch.as_tensor(state["encoder_lengths"]).to(device),
        tensors=tuple(torch.as_tensor(tensor).to(device) for tensor in state["encoder_tensors"]),
    )
    return ActingState(encoder, torch.as_tensor(state["features"]).to(device), state["lengths"])
