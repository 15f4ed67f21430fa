"""The agents that are compared, by name, and the features extractors that only the comparisons need.

Every agent plays the native batched environment. The others are Stable-Baselines3's and sb3-contrib's, with inputs that
suit tokens: our Performer, or an embedding of every position before an MLP, never token ids as if they were magnitudes.

Tianshou's Rainbow is not among them: the releases that know Gymnasium 1 need virtualenv, which does not go with the
pinned filelock, and pip's choice beside the pins is a release from before Gymnasium 1. Random, prompt-blind and best
policies are no agents here: their scores are those of :func:`textgym.references`, and every report shows them.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import torch
from gymnasium import spaces
from performer_pytorch import PerformerLM
from sb3_contrib import QRDQN, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from agents import DoubleDQN, PerformerExtractor, StateAutoEncoder, StateEmbeddingExtractor, make_vec_env
from agents.encoders.base import features_at
from agents.representations.extractors import token_row
from agents.saving.arguments import constructor_arguments, merge
from agents.saving.presets import PRESETS, Preset
from benchmarks.cells import Cell

N_ENVS = 16
EXPLORATION_STEPS = 20_000
EXPLORATION_SHARE = 0.2
"""Share of a budget of seconds alone over which random exploration falls, unless tuned."""
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
    """Environment steps of a cell: its own, else as many as its seconds allow, else those of our agent's preset.

    Raises:
        ValueError: If the cell has no budget at all.
    """
    if cell.budget_steps is not None:
        return cell.budget_steps
    if cell.budget_seconds is not None:
        return UNLIMITED_STEPS
    if cell.agent == "ours":
        return _preset(cell).steps
    raise ValueError(f"budget_steps or budget_seconds must be given for {cell.agent!r}, got neither")


def _preset(cell: Cell) -> Preset:
    # A preset was chosen by hand on its task: where all have the same seconds, all have the same help, which is none.
    seconds_alone = cell.budget_steps is None and cell.budget_seconds is not None
    return Preset() if seconds_alone else PRESETS.get(cell.task, Preset())


def _ours(policy: str) -> Callable[[Cell], DoubleDQN]:
    def build(cell: Cell) -> DoubleDQN:
        preset = _preset(cell)
        env = make_vec_env(cell.task, n_envs=preset.n_envs, seed=cell.seed, env_kwargs=cell.env_kwargs)
        kwargs = preset.kwargs
        if policy != "PerformerPolicy":  # what a preset says of the Performer is for the Performer
            kwargs = {name: value for name, value in kwargs.items() if name != "policy_kwargs"}
        kwargs = constructor_arguments(merge(kwargs, cell.agent_kwargs))
        return DoubleDQN(policy, env, seed=cell.seed, device="cpu", **kwargs)

    return build


TRANSITIONS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "buffer_size": 50_000,
    "learning_starts": 500,
    "batch_size": 64,
    "train_freq": 1,
    "gradient_steps": N_ENVS // 4,
    "target_update_interval": 500,
    "exploration_fraction": 0.3,
}
"""Arguments of ours on transitions."""


def _transitions(features: str) -> Callable[[Cell], DoubleDQN]:
    """Ours on transitions: the flags of the sequence path, but every state is read anew in each update."""

    def build(cell: Cell) -> DoubleDQN:
        kwargs = merge(TRANSITIONS | {"policy_kwargs": _policy_kwargs(features)}, cell.agent_kwargs)
        return DoubleDQN("MlpPolicy", _native(cell), seed=cell.seed, device="cpu", **constructor_arguments(kwargs))

    return build


def _compressed(cell: Cell) -> DoubleDQN:
    """Ours on transitions, from a learned embedding of the text, optionally with a :class:`StateAutoEncoder` behind it.

    ``agent_kwargs``: ``latent_dim`` (None for no autoencoder), ``auxiliary_coefficient``, and the constructor's.
    """
    kwargs: dict[str, Any] = TRANSITIONS | cell.agent_kwargs
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


PPO_ARGUMENTS: dict[str, Any] = {
    "n_steps": 64,
    "batch_size": 256,
    "n_epochs": 4,
    "learning_rate": 5e-4,
    "ent_coef": 0.01,
}
_A2C: dict[str, Any] = {"n_steps": 8, "learning_rate": 7e-4, "ent_coef": 0.01}
_DQN: dict[str, Any] = {
    "learning_rate": 5e-4,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    # SB3's own ratio of one update for four steps, whatever the number of environments.
    "train_freq": 1,
    "gradient_steps": N_ENVS // 4,
    "target_update_interval": 1_000,
}


def _baseline(
    algorithm: type[BaseAlgorithm], features: str, arguments: dict[str, Any], policy: str = "MlpPolicy", **more: Any
) -> Callable[[Cell], BaseAlgorithm]:
    """Another agent.

    Args:
        algorithm: Its class.
        features: ``"performer"`` or ``"mlp"``.
        arguments: Its arguments.
        policy: Name of its policy.
        **more: Further arguments of the policy.
    """

    def build(cell: Cell) -> BaseAlgorithm:
        kwargs = {**arguments, "policy_kwargs": _policy_kwargs(features) | more}
        if arguments is _DQN:
            share = EXPLORATION_SHARE if cell.budget_steps is None else EXPLORATION_STEPS / cell.budget_steps
            kwargs["exploration_fraction"] = min(1.0, share)
        kwargs = merge(kwargs, cell.agent_kwargs)
        return algorithm(policy, _native(cell), seed=cell.seed, device="cpu", **kwargs)

    return build


def _native(cell: Cell) -> Any:
    return make_vec_env(cell.task, n_envs=N_ENVS, seed=cell.seed, env_kwargs=cell.env_kwargs)


AGENTS: dict[str, Callable[[Cell], BaseAlgorithm]] = {
    "ours": _ours("PerformerPolicy"),
    "ours-transformer": _ours("TransformerPolicy"),
    "ours-gru": _ours("GRUPolicy"),
    "ours-transitions": _transitions("performer"),
    "ours-mlp": _transitions("mlp"),
    "ours-compressed": _compressed,
    "ppo-performer": _baseline(PPO, "performer", PPO_ARGUMENTS),
    "ppo-mlp": _baseline(PPO, "mlp", PPO_ARGUMENTS),
    "maskable-ppo-mlp": _baseline(MaskablePPO, "mlp", PPO_ARGUMENTS),
    "recurrent-ppo-mlp": _baseline(RecurrentPPO, "mlp", PPO_ARGUMENTS, "MlpLstmPolicy", lstm_hidden_size=64),
    "a2c-performer": _baseline(A2C, "performer", _A2C),
    "a2c-mlp": _baseline(A2C, "mlp", _A2C),
    "dqn-performer": _baseline(DQN, "performer", _DQN),
    "dqn-mlp": _baseline(DQN, "mlp", _DQN),
    # 50 quantiles, not 200: the head has one for each of up to 1,500 tokens.
    "qrdqn-performer": _baseline(QRDQN, "performer", _DQN, n_quantiles=50),
    "qrdqn-mlp": _baseline(QRDQN, "mlp", _DQN, n_quantiles=50),
}
"""Name → function that builds the agent of a cell."""


def n_updates(model: BaseAlgorithm) -> int:
    """Gradient steps that the agent has made, counted by its optimizer (SB3's own counters differ in their units)."""
    states = model.policy.optimizer.state.values()
    return max((int(torch.as_tensor(state["step"])) for state in states), default=0)
