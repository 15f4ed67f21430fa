"""Values of candidate tokens from a frozen model's hidden state and its own output embedding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from agents.double_dqn.language_models.reader import States

if TYPE_CHECKING:
    from agents.double_dqn.language_models.lora import AdaptedLM


class CandidateQNetwork(BasePolicy):
    """Q(s, a) = V(h) + ⟨A·g(h), E_a⟩ − its mean under the prior, for the candidates a of a state with hidden state h.

    E is the language model's output embedding, which stays as it is, and g a layer with a nonlinearity: 49,152 actions
    cost no head of 28 million parameters. The output is a distribution over ``n_bins`` returns within ``value_range``,
    as logits; one bin stands for a mean: its share of the range is a Bernoulli variable's, as its logit.

    Args:
        observation_space: The environment's.
        action_space: The tokens.
        hidden_dim: Size D of a hidden state.
        embedding: E, shape ``(V, D')``.
        width: Width of g (≥ 1).
        n_bins: See above (≥ 1).
        state_value: Whether it values states beside them, for ``"ilql"``: see :meth:`state_logits`.
        value_range: Lowest and highest return; of what follows a token, where its own reward is learned apart.
        candidate_rewards: Whether a token's own reward is learned apart: see :class:`CandidateRewards`.

    Attributes:
        rewards: The model of a token's own reward; None where a value is learned as a whole.
        trunk: The model whose hidden states it values, if that has adapters, which learn with it; None for the plain
            one's.
    """

    embedding: Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        hidden_dim: int,
        embedding: Tensor,
        width: int = 256,
        n_bins: int = 1,
        state_value: bool = False,
        value_range: tuple[float, float] = (0.0, 1.0),
        candidate_rewards: bool = False,
    ) -> None:
        super().__init__(observation_space, action_space)
        self.n_bins, self.value_range = n_bins, value_range
        self.register_buffer("embedding", embedding, persistent=False)
        self.scale = _unit_scale(embedding)
        self.body = _body(hidden_dim, width)
        self.value = nn.Linear(width, n_bins)
        self.query = nn.Linear(width, n_bins * embedding.shape[1])
        layers = [self.value, self.query]
        if state_value:
            self.state = nn.Linear(width, 1)
            layers.append(self.state)
        _start_small(layers)
        self.rewards = CandidateRewards(hidden_dim, embedding, width) if candidate_rewards else None
        self.trunk: AdaptedLM | None = None

    def adapt(self, trunk: AdaptedLM) -> None:
        """Value the hidden states of a model with adapters, which become parameters of this network."""
        self.trunk, self.adapters = trunk, trunk.adapters

    def logits(self, states: States) -> Tensor:
        """Logits of the return of each candidate: states of shape ``(...)`` → ``(..., k, n_bins)``.

        Where a token's own reward is learned apart, of the return that follows it.
        """
        states = self._here(states)
        features = self.body(states.hidden)
        queries = self.scale * self.query(features).unflatten(-1, (self.n_bins, -1))  # (..., bins, D')
        if self.n_bins == 1:
            advantages = candidate_products(queries.squeeze(-2), states.tokens, self.embedding).unsqueeze(-1)
        else:
            candidates = F.embedding(states.tokens, self.embedding).to(queries.dtype)  # (..., k, D')
            advantages = candidates @ queries.mT  # (..., k, bins)
        mean = (states.prior().exp().unsqueeze(-1) * advantages).sum(dim=-2, keepdim=True)
        return self.value(features).unsqueeze(-2) + advantages - mean

    def state_logits(self, states: States) -> Tensor:
        """Logits of the values of states, ``(...)`` → ``(...)``: of their own, not of the candidates'."""
        return self.state(self.body(self._here(states).hidden)).squeeze(-1)

    def q_values(self, states: States, eta: float, own_rewards: Tensor | None = None) -> Tensor:
        """Soft values of the candidates, ``(...)`` → ``(..., k)``.

        Of several bins, they are η·log E[exp(return / η)] (arXiv:2502.20548), so that ``eta`` can be chosen at use.

        Args:
            states: Where they stand.
            eta: η, see above.
            own_rewards: What the candidates themselves earn, ``(..., k)``, on any device; NaN where it is not known.
                What has been learned of it stands in, for all of them if it is None. Of no account where a value is
                learned as a whole.
        """
        logits = self.logits(states)
        if self.n_bins == 1:
            values = self.mean_returns(logits)
        else:
            values = eta * (logits.log_softmax(dim=-1) + self._returns(logits) / eta).logsumexp(dim=-1)
        if self.rewards is None:
            return values
        own = torch.full_like(values, torch.nan) if own_rewards is None else own_rewards.to(values)
        unknown = own.isnan()
        if unknown.any():
            own = torch.where(unknown, self.own_rewards(states).detach(), own)
        return values + own

    def own_rewards(self, states: States) -> Tensor:
        """Rewards of the candidates themselves, ``(...)`` → ``(..., k)``; needs ``candidate_rewards``."""
        assert self.rewards is not None
        states = self._here(states)
        rewards: Tensor = self.rewards(states.hidden, states.tokens, self.embedding)
        return rewards

    def mean_returns(self, logits: Tensor) -> Tensor:
        """Mean of the returns that logits stand for: ``(..., n_bins)`` → ``(...)``."""
        if self.n_bins == 1:
            return self.to_values(logits.squeeze(-1))
        return (logits.softmax(dim=-1) * self._returns(logits)).sum(dim=-1)

    def to_values(self, logits: Tensor) -> Tensor:
        """Values that logits of one bin stand for, of any shape."""
        low, high = self.value_range
        return low + (high - low) * logits.sigmoid()

    def shares(self, values: Tensor) -> Tensor:
        """Where values lie within the range, in [0, 1], of any shape."""
        low, high = self.value_range
        return ((values - low) / (high - low)).clamp(0, 1)

    def _here(self, states: States) -> States:
        """The states on the head's device, which need not be that of the language model."""
        return States(*(part.to(self.embedding.device) for part in states))

    def _returns(self, logits: Tensor) -> Tensor:
        """The return of each bin, (n_bins,)."""
        return torch.linspace(*self.value_range, self.n_bins, device=logits.device)

    def forward(self, obs: PyTorchObs) -> Tensor:
        """Not for whole observations, which the language model has to read first.

        Raises:
            TypeError: Always.
        """
        raise TypeError("values of observations need the language model's states: use DoubleDQN.predict")

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> Tensor:
        return self(observation)


class CandidateRewards(nn.Module):
    """The reward of each candidate a in a state with hidden state h: (1 + w(h))·b_a + v(h) + ⟨B·g(h), E_a⟩.

    A token is worth b_a by itself, and more or less in a state: less, say, where much has been said already.

    Args:
        hidden_dim: Size D of a hidden state.
        embedding: The model's output embedding E, shape ``(V, D')``.
        width: Width of g (≥ 1).
    """

    def __init__(self, hidden_dim: int, embedding: Tensor, width: int) -> None:
        super().__init__()
        self.scale = _unit_scale(embedding)
        self.body = _body(hidden_dim, width)
        self.state = nn.Linear(width, 1)
        self.query = nn.Linear(width, embedding.shape[1])
        self.token = nn.Embedding(len(embedding), 1)
        self.worth = nn.Linear(width, 1)
        _start_small([self.state, self.query, self.worth])
        nn.init.zeros_(self.token.weight)

    def forward(self, hidden: Tensor, tokens: Tensor, embedding: Tensor) -> Tensor:
        """Hidden states ``(..., D)`` and candidates ``(..., k)`` → rewards ``(..., k)``."""
        features = self.body(hidden)
        products = candidate_products(self.scale * self.query(features), tokens, embedding)
        # Twenty times the step of the others: a token is seen in few of the states.
        own = 20 * self.token(tokens).squeeze(-1)
        return own * (1 + self.worth(features)) + self.state(features) + products


def _body(hidden_dim: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(hidden_dim), nn.Linear(hidden_dim, width), nn.GELU(), nn.LayerNorm(width))


def _start_small(layers: Iterable[nn.Linear]) -> None:
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)


def _unit_scale(embedding: Tensor) -> float:
    """What makes embeddings have a mean length of 1."""
    return float(embedding.float().pow(2).sum(dim=1).mean().rsqrt())


def candidate_products(queries: Tensor, tokens: Tensor, embedding: Tensor) -> Tensor:
    """⟨q, E_a⟩ for the candidates a of each state, without a copy of their embeddings if these are of the same type.

    Such a copy is the largest array of an update by far: 124 MB for 2,560 states of 21 candidates and 576 numbers.

    Args:
        queries: Shape ``(..., D)``.
        tokens: Candidates, int64, shape ``(..., k)``.
        embedding: E, which gets no gradient, shape ``(V, D)``.

    Returns:
        Shape ``(..., k)``.
    """
    if embedding.dtype != queries.dtype:
        return (F.embedding(tokens, embedding).to(queries.dtype) @ queries.unsqueeze(-1)).squeeze(-1)
    products: Tensor = _CandidateProducts.apply(queries.flatten(0, -2), tokens.flatten(0, -2), embedding)
    return products.view(tokens.shape)


class _CandidateProducts(torch.autograd.Function):
    """The derivative of a weighted sum of embeddings by its weights, and backwards that weighted sum."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, tokens: Tensor, embedding: Tensor) -> Tensor:
        ctx.save_for_backward(tokens, embedding)
        n, k = tokens.shape
        first = torch.arange(0, n * k, k, device=tokens.device)
        row = torch.arange(n, device=tokens.device).repeat_interleave(k)
        products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            queries.contiguous(), embedding, tokens.reshape(-1), first, row, _SUM
        )
        return products.view(n, k)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tokens, embedding = ctx.saved_tensors
        weights = gradient.contiguous()
        return F.embedding_bag(tokens, embedding, per_sample_weights=weights, mode="sum"), None, None


_SUM = 0  # the mode of torch's embedding bags
