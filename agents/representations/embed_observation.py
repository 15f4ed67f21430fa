"""Wrappers that observe the embedding of a text in its place."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from agents.representations.state_embedding import PretrainedEmbedding, StateEmbedding, States
from textgym.vector_env import TextGenVectorEnv


class EmbedObservation(gym.ObservationWrapper[NDArray[np.float32], Any, Any], gym.utils.RecordConstructorArgs):
    """The embedding of the observation, a Box of float32, shape (D,).

    The agent sees vectors, so its replay stores vectors and no update ever runs the encoder. Vectors that were computed
    before come from the embedding's cache.

    Args:
        env: An environment that observes token rows, as TextGym's do, or a :class:`gymnasium.spaces.Text`.
        embedding: A frozen embedding. A pretrained one without ``decode`` gets the task's.
        embed_terminal: Whether to embed the last observation of an episode that terminated, too. Otherwise it is all
            zeros: no agent asks for the value of a state that nothing follows, and for short episodes those are most
            of the texts.

    Attributes:
        embedding: The embedding in use, with its cache.

    Raises:
        ValueError: If the embedding is not frozen, or cannot read the observations.
    """

    def __init__(self, env: gym.Env[Any, Any], embedding: StateEmbedding, embed_terminal: bool = True) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, embedding=embedding, embed_terminal=embed_terminal)
        super().__init__(env)
        self.embedding = _for_env(embedding, env, env.observation_space)
        self.embed_terminal = embed_terminal
        self.observation_space = vector_space(embedding.features_dim)

    def observation(self, observation: Any) -> NDArray[np.float32]:
        """The vector of one observation, (D,)."""
        return self.embedding.embed([observation] if isinstance(observation, str) else observation[None])[0]

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take a step; see ``embed_terminal``."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated and not self.embed_terminal:
            vector = np.zeros(self.embedding.features_dim, np.float32)
        else:
            vector = self.observation(observation)
        return vector, float(reward), terminated, truncated, info


class VectorEmbedObservation(gym.vector.VectorWrapper):
    """:class:`EmbedObservation` for the batched environment: the encoder reads all new texts at once.

    ``agents.vec_env.TextGenVecEnv(VectorEmbedObservation(...))`` is a ``VecEnv`` for Stable-Baselines3.

    Args:
        env: A :class:`textgym.TextGenVectorEnv`, wrapped or not.
        embedding: See :class:`EmbedObservation`.
        embed_terminal: See :class:`EmbedObservation`.

    Raises:
        ValueError: If ``env`` or the embedding cannot be used.
    """

    def __init__(
        self, env: gym.vector.VectorEnv[Any, Any, Any], embedding: StateEmbedding, embed_terminal: bool = True
    ) -> None:
        super().__init__(env)
        if not isinstance(env.unwrapped, TextGenVectorEnv):
            raise ValueError(f"env must be a batched TextGym environment, got {env}")
        self.embedding = _for_env(embedding, env, env.single_observation_space)
        self.embed_terminal = embed_terminal
        self.single_observation_space = vector_space(embedding.features_dim)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def __getattr__(self, name: str) -> Any:
        """What a ``VecEnv`` asks for besides Gymnasium's interface (masks, state) comes from the environment inside."""
        if name == "env" or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.env, name)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start a new episode in every row."""
        observations, infos = self.env.reset(seed=seed, options=options)
        return self._embed(observations), infos

    def step(
        self, actions: ArrayLike
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Take a step in every row; rows of ``infos["final_obs"]`` that did not end are zeros."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        if "final_obs" not in infos:
            return self._embed(observations), rewards, terminated, truncated, infos
        last = np.flatnonzero(truncated | terminated if self.embed_terminal else truncated & ~terminated)
        vectors = self._embed(np.concatenate([observations, infos["final_obs"][last]]))  # one batch for the encoder
        final = np.zeros((self.num_envs, self.embedding.features_dim), np.float32)
        final[last] = vectors[self.num_envs :]
        return vectors[: self.num_envs], rewards, terminated, truncated, infos | {"final_obs": final}

    def _embed(self, observations: States) -> NDArray[np.float32]:
        return self.embedding.embed(observations)


def vector_space(features_dim: int) -> spaces.Space[NDArray[np.float32]]:
    """The space of vectors of ``features_dim`` floats."""
    return spaces.Box(-np.inf, np.inf, (features_dim,), np.float32)


def _for_env(embedding: StateEmbedding, env: Any, space: spaces.Space[Any]) -> StateEmbedding:
    """The embedding, with the task's ``decode`` if it needs one."""
    if not embedding.frozen:
        raise ValueError("embedding must be frozen, since observations get no gradient: call freeze() first")
    if isinstance(space, spaces.Text) or not isinstance(embedding, PretrainedEmbedding) or embedding.decode is not None:
        return embedding
    task = getattr(env.unwrapped, "task", None)
    if task is None:
        raise ValueError(f"embedding must have a decode to read the token rows of an env without task, got {env}")
    return embedding.with_decoder(task.decode)
