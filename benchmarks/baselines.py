"""The agents that are compared, by name, and the features extractors that only the comparisons need.

Every agent plays the native batched environment. The others are Stable-Baselines3's, with inputs that suit tokens:
our Performer, or an embedding of every position before an MLP, never token ids as if they were magnitudes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import torch
from gymnasium import spaces
from performer_pytorch import PerformerLM
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from agents import DoubleDQN, PerformerExtractor, StateAutoEncoder, StateEmbeddingExtractor, make_vec_env
from agents.encoders.base import features_at
from agents.extractors import token_row
from agents.options import constructor_arguments, merge
from agents.presets import PRESETS, Preset
from benchmarks.sweep import Cell

N_ENVS = 16
EXPLORATION_STEPS = 20_000
UNLIMITED_STEPS = 1_000_000_000
"""Steps given to an agent whose budget is seconds alone."""


class EmbeddingExtractor(BaseFeaturesExtractor):
    """A learned vector for the token at each position, side by side; what an MLP can read of a text.

    Args:
        observation_space: Right-padded token ids, shape (L,).
        embedding_dim: Size E of a vector (≥ 1). Padding is a vector of zeros.

    Raises:
        ValueError: If the space is no row of token ids.
    """

    def __init__(self, observation_space: spaces.Space[Any], embedding_dim: int = 32) -> None:
        context_length, pad_id = token_row(observation_space)
        super().__init__(observation_space, context_length * embedding_dim)
        self.embedding = nn.Embedding(pad_id + 1, embedding_dim, padding_idx=pad_id)

    def forward(self, observations: Tensor) -> Tensor:
        """Token ids, (B, L), as integers or floats, to features, (B, L·E)."""
        return self.embedding(observations.long()).flatten(1)


class ShippedPerformerExtractor(BaseFeaturesExtractor):
    """performer-pytorch's language model as shipped: its own causal attention, in the size of ``PerformerExtractor``.

    Where its CUDA extension is missing, that attention builds an outer product for every token. The random features
    are as many and of the same kind as in :class:`agents.PerformerExtractor`; the rest is the library's default.

    Args:
        observation_space: Right-padded token ids, shape (L,).
        features_dim: Number of features D, a multiple of ``n_heads``.
        n_layers: Number of blocks (≥ 1).
        n_heads: Number of attention heads (≥ 1).

    Raises:
        ValueError: If the space is no row of token ids.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], features_dim: int = 64, n_layers: int = 2, n_heads: int = 4
    ) -> None:
        context_length, self.pad_id = token_row(observation_space)
        super().__init__(observation_space, features_dim)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that its CUDA extension is missing
            self.model = PerformerLM(
                num_tokens=self.pad_id + 1,
                max_seq_len=context_length,
                dim=features_dim,
                depth=n_layers,
                heads=n_heads,
                dim_head=features_dim // n_heads,
                causal=True,
                nb_features=32,
                generalized_attention=True,
            )

    def forward(self, observations: Tensor) -> Tensor:
        """Token ids, (B, L), as integers or floats, to the features of each row's last token, (B, D)."""
        tokens = observations.long()
        lengths = (tokens != self.pad_id).sum(dim=1)  # (B,)
        longest = max(1, int(lengths.max()))
        features = self.model(tokens[:, :longest], return_encodings=True)  # (B, longest, D)
        return features_at(features, (lengths - 1).clamp(min=0))


def make_agent(cell: Cell) -> BaseAlgorithm:
    """Build the agent of a cell, with its environments.

    Raises:
        ValueError: If the agent is unknown.
        gymnasium.error.NameNotFound: If the task is unknown.
    """
    if cell.agent not in AGENTS:
        raise ValueError(f"agent must be one of {sorted(AGENTS)}, got {cell.agent!r}")
    return AGENTS[cell.agent](cell)


def default_steps(cell: Cell) -> int:
    """Environment steps of a cell: its own, else the preset's for our agent, else as many as its seconds allow.

    Raises:
        ValueError: If the cell has no budget at all.
    """
    if cell.budget_steps is not None:
        return cell.budget_steps
    if cell.agent == "ours":
        return _preset(cell).steps
    if cell.budget_seconds is None:
        raise ValueError(f"budget_steps or budget_seconds must be given for {cell.agent!r}, got neither")
    return UNLIMITED_STEPS


def _preset(cell: Cell) -> Preset:
    return PRESETS.get(cell.task, Preset())


def _ours(cell: Cell) -> DoubleDQN:
    preset = _preset(cell)
    env = make_vec_env(cell.task, n_envs=preset.n_envs, seed=cell.seed, env_kwargs=cell.env_kwargs)
    kwargs = constructor_arguments(merge(preset.kwargs, cell.agent_kwargs))
    return DoubleDQN("PerformerPolicy", env, seed=cell.seed, device="cpu", **kwargs)


def _compressed(cell: Cell) -> DoubleDQN:
    """Ours on transitions, from a learned embedding of the text, optionally with a :class:`StateAutoEncoder` behind it.

    ``agent_kwargs``: ``latent_dim`` (None for no autoencoder), ``auxiliary_coefficient``, and the constructor's.
    """
    kwargs: dict[str, Any] = {
        "learning_rate": 1e-3,
        "buffer_size": 50_000,
        "learning_starts": 500,
        "batch_size": 64,
        "train_freq": 1,
        "gradient_steps": N_ENVS // 4,
        "target_update_interval": 500,
        "exploration_fraction": 0.3,
    } | cell.agent_kwargs
    width, latent_dim = 64, kwargs.pop("latent_dim", None)
    extractor = {"features_dim": width, "auxiliary_coefficient": kwargs.pop("auxiliary_coefficient", 1.0)}
    if latent_dim is not None:
        with torch.random.fork_rng(devices=[]):  # a module's weights come from the global generator
            torch.random.default_generator.manual_seed(cell.seed)
            extractor["autoencoder"] = StateAutoEncoder(width, latent_dim, hidden=(64,), neighbour_weight=0.0)
    policy = {
        "features_extractor_class": StateEmbeddingExtractor,
        "features_extractor_kwargs": extractor,
        "net_arch": [64],
    }
    return DoubleDQN("MlpPolicy", _native(cell), policy_kwargs=policy, seed=cell.seed, device="cpu", **kwargs)


def _policy_kwargs(features: str) -> dict[str, Any]:
    if features == "performer":
        return {"features_extractor_class": PerformerExtractor, "net_arch": []}
    return {"features_extractor_class": EmbeddingExtractor, "net_arch": [128, 128]}


def _ppo(features: str) -> Callable[[Cell], PPO]:
    def build(cell: Cell) -> PPO:
        kwargs: dict[str, Any] = {
            "n_steps": 64,
            "batch_size": 256,
            "n_epochs": 4,
            "learning_rate": 5e-4,
            "ent_coef": 0.01,
            "policy_kwargs": _policy_kwargs(features),
        }
        return PPO("MlpPolicy", _native(cell), seed=cell.seed, device="cpu", **{**kwargs, **cell.agent_kwargs})

    return build


def _dqn(features: str) -> Callable[[Cell], DQN]:
    def build(cell: Cell) -> DQN:
        kwargs: dict[str, Any] = {
            "learning_rate": 5e-4,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1_000,
            # SB3's own ratio of one update for four steps, whatever the number of environments.
            "train_freq": 1,
            "gradient_steps": N_ENVS // 4,
            "target_update_interval": 1_000,
            "exploration_fraction": min(1.0, EXPLORATION_STEPS / default_steps(cell)),
            "policy_kwargs": _policy_kwargs(features),
        }
        return DQN("MlpPolicy", _native(cell), seed=cell.seed, device="cpu", **{**kwargs, **cell.agent_kwargs})

    return build


def _native(cell: Cell) -> Any:
    return make_vec_env(cell.task, n_envs=N_ENVS, seed=cell.seed, env_kwargs=cell.env_kwargs)


AGENTS: dict[str, Callable[[Cell], BaseAlgorithm]] = {
    "ours": _ours,
    "ours-compressed": _compressed,
    "ppo-performer": _ppo("performer"),
    "ppo-mlp": _ppo("mlp"),
    "dqn-performer": _dqn("performer"),
    "dqn-mlp": _dqn("mlp"),
}
"""Name → function that builds the agent of a cell."""


def n_updates(model: BaseAlgorithm) -> int:
    """Gradient steps that the agent has made, counted by its optimizer (SB3's own counters differ in their units)."""
    states = model.policy.optimizer.state.values()
    return max((int(torch.as_tensor(state["step"])) for state in states), default=0)
