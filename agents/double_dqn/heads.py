"""The Q-value head: all values of a state, or only those that a loss needs; one estimate of them, or several."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

EMBEDDING_SHARE = 0.3
"""Of the embeddings that a head may start from: what counts as found is rated high at once, and not as certain."""


class QHead(nn.Module):
    """Linear Q-values, optionally dueling: Q(s, a) = V(s) + A(s, a) − mean over a′ of A(s, a′) (arXiv:1511.06581).

    Double-Q learning needs the whole row of values only to find its best action, and there without a gradient. The
    loss and the target read single actions, which :meth:`of` computes from the weights of those actions alone: at a
    vocabulary of 1,500 that is several times cheaper, forwards and backwards, than three whole rows.

    With ``n_ensemble`` K > 1 there are K such heads on the same features (arXiv:1602.04621, arXiv:1706.01502). Each
    starts from weights of its own and learns from its own target, so that they agree where there was much to learn from
    and differ elsewhere. ``forward``, :meth:`of` and :meth:`greedy` use the mean of the K values; the methods with
    ``ensemble`` in their name give all of them, with an axis of length K in the end (before that of the actions), also
    where K is 1.

    With a ``value_range`` (low, high), as where a return is known to lie between two bounds, what the linear layers
    give is a logit z, and the value is Q = low + (high − low)·σ(z), for the cross-entropy of
    :func:`agents.double_dqn.targets.td_cross_entropy`. σ is monotone, so the best action is that of the logits; of
    several heads it is that of the mean value. Methods with ``logits`` in their name give z; without a range, that is
    the value.

    Args:
        features_dim: Number of features D (≥ 1).
        n_actions: Number of actions V (≥ 1).
        dueling: Whether to split values from advantages.
        n_ensemble: Number of heads K (≥ 1).
        value_range: Lowest and highest value; None for values without bounds.

    Raises:
        ValueError: If ``n_ensemble`` is less than 1, or the range is empty or infinite.
    """

    def __init__(
        self,
        features_dim: int,
        n_actions: int,
        dueling: bool = True,
        n_ensemble: int = 1,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        if n_ensemble < 1:
            raise ValueError(f"n_ensemble must be at least 1, got {n_ensemble}")
        self.value_range = None if value_range is None else checked_value_range(value_range)
        self.dueling, self.n_actions, self.n_ensemble = dueling, n_actions, n_ensemble
        # Head k has rows k·V to (k + 1)·V − 1.
        self.advantage = nn.Linear(features_dim, n_ensemble * n_actions)
        self.value = nn.Linear(features_dim, n_ensemble) if dueling else None
        for layer in (self.advantage, self.value):
            if layer is not None:
                # Values near 0 at the start: the first targets are rewards, not the noise of the initialisation. But
                # not at 0: heads that start alike, and learn from the same replay, would stay alike.
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
        if self.value_range is not None:
            nn.init.constant_((self.value or self.advantage).bias, _initial_logit(*self.value_range))

    @torch.no_grad()
    def start_from(self, embeddings: Tensor) -> None:
        """Rate a token at first by how much of its embedding the features hold; embeddings ``(≥ V, D)``."""
        rows = EMBEDDING_SHARE * embeddings[: self.n_actions]
        self.advantage.weight.add_(rows.repeat(self.n_ensemble, 1))

    def to_values(self, logits: Tensor) -> Tensor:
        """Values of any shape from what the linear layers gave."""
        if self.value_range is None:
            return logits
        low, high = self.value_range
        values = logits.sigmoid()
        return values if (low, high) == (0.0, 1.0) else low + (high - low) * values

    def forward(self, features: Tensor) -> Tensor:
        """Q-values of every action: ``(..., D)`` → ``(..., V)``."""
        if self.n_ensemble > 1:
            return self.ensemble(features).mean(dim=-2)
        advantage = self.advantage(features)  # (..., V)
        if self.value is None:
            return self.to_values(advantage)
        mean = advantage.mean(dim=-1, keepdim=True)
        # In place: at a vocabulary of 1,500 another table costs more than the sums in it.
        return self.to_values(advantage.add_(self.value(features)).sub_(mean))

    def ensemble(self, features: Tensor) -> Tensor:
        """Each head's Q-values of every action: ``(..., D)`` → ``(..., K, V)``."""
        return self.to_values(self.ensemble_logits(features))

    def ensemble_logits(self, features: Tensor) -> Tensor:
        """Each head's logits of every action: ``(..., D)`` → ``(..., K, V)``."""
        advantage = self.advantage(features).unflatten(-1, (self.n_ensemble, self.n_actions))  # (..., K, V)
        if self.value is None:
            return advantage
        return self.value(features).unsqueeze(-1) + advantage - advantage.mean(dim=-1, keepdim=True)

    def of(self, features: Tensor, actions: Tensor) -> Tensor:
        """Q-values of one action a state: ``(..., D)`` and ``(...)`` → ``(...)``."""
        if self.n_ensemble > 1:
            return self.of_ensemble(features, actions).mean(dim=-1)
        return self.to_values(self._single_logits(features, actions))

    def _single_logits(self, features: Tensor, actions: Tensor) -> Tensor:
        weight, bias = self.advantage.weight, self.advantage.bias
        advantage_weight = F.embedding(actions, weight)  # (..., D)
        q_values = (features * advantage_weight).sum(dim=-1) + bias[actions]
        if self.value is None:
            return q_values
        # V(s) − mean A(s, ·) is linear in the features too: one vector instead of V of them.
        baseline = self.value.weight[0] - weight.mean(dim=0)  # (D,)
        return q_values + features @ baseline + (self.value.bias - bias.mean())

    def of_ensemble(self, features: Tensor, actions: Tensor) -> Tensor:
        """Each head's Q-value of one action a state, the same for all heads or one for each.

        Args:
            features: Shape ``(..., D)``.
            actions: Shape ``(...)``, or ``(..., K)`` as :meth:`greedy_ensemble` gives them.

        Returns:
            Shape ``(..., K)``.
        """
        return self.to_values(self.logits_of_ensemble(features, actions))

    def logits_of_ensemble(self, features: Tensor, actions: Tensor) -> Tensor:
        """Each head's logit of one action a state: arguments and shape are those of :meth:`of_ensemble`."""
        shared = actions.ndim < features.ndim
        if self.n_ensemble == 1:
            return self._single_logits(features, actions if shared else actions.squeeze(-1)).unsqueeze(-1)
        first_rows = torch.arange(self.n_ensemble, device=actions.device) * self.n_actions  # (K,)
        rows = (actions.unsqueeze(-1) if shared else actions) + first_rows  # (..., K)
        weight, bias = self.advantage.weight, self.advantage.bias
        advantage_weight = F.embedding(rows, weight)  # (..., K, D)
        q_values = (advantage_weight @ features.unsqueeze(-1)).squeeze(-1) + bias[rows]
        if self.value is None:
            return q_values
        by_head = (self.n_ensemble, self.n_actions)
        baseline = self.value.weight - weight.unflatten(0, by_head).mean(dim=1)  # (K, D)
        return q_values + F.linear(features, baseline, self.value.bias - bias.unflatten(0, by_head).mean(dim=1))

    @torch.no_grad()
    def greedy(self, features: Tensor, action_masks: Tensor | None = None) -> Tensor:
        """Best legal action of each state: ``(..., D)`` → ``(...)``; state values do not matter for it."""
        weight, bias = self.advantage.weight, self.advantage.bias
        if self.n_ensemble > 1 and self.value_range is not None:  # the mean of σ(z) is not σ of the mean
            return legal_argmax(self.forward(features), action_masks)
        if self.n_ensemble > 1:
            # Constant over the actions, like the state value: each head's mean advantage. So it is left out as well.
            weight = weight.unflatten(0, (self.n_ensemble, self.n_actions)).mean(dim=0)
            bias = bias.unflatten(0, (self.n_ensemble, self.n_actions)).mean(dim=0)
        return legal_argmax(F.linear(features, weight, bias), action_masks)

    @torch.no_grad()
    def greedy_ensemble(self, features: Tensor, action_masks: Tensor | None = None) -> Tensor:
        """Each head's own best legal action: ``(..., D)``, with masks ``(..., V)`` → ``(..., K)``."""
        scores = self.advantage(features).unflatten(-1, (self.n_ensemble, self.n_actions))  # (..., K, V)
        return legal_argmax(scores, None if action_masks is None else action_masks.unsqueeze(-2))


def checked_value_range(value_range: Any) -> tuple[float, float]:
    """The range as two floats.

    Raises:
        ValueError: If it is no pair of finite numbers, the lower one first.
    """
    try:
        low, high = map(float, value_range)
        valid = math.isfinite(low) and math.isfinite(high) and low < high
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(f"value_range must be two finite numbers, the lower one first, or None, got {value_range!r}")
    return low, high


def _initial_logit(low: float, high: float) -> float:
    """Where values start: near 0 if that is in the range, but not so far out that σ would be flat (|z| ≤ 2)."""
    share = min(max(-low / (high - low), 1e-6), 1 - 1e-6)
    return min(max(math.log(share / (1 - share)), -2.0), 2.0)


def legal_argmax(scores: Tensor, action_masks: Tensor | None) -> Tensor:
    """Best legal action: scores, and masks where there are any, ``(..., V)`` → ``(...)``."""
    if action_masks is not None:
        scores = scores.masked_fill(~action_masks, -torch.inf)
    if scores.device.type == "cpu":  # NumPy's argmax is ten times as fast as torch's there
        return torch.from_numpy(np.asarray(scores.numpy().argmax(axis=-1)))
    return scores.argmax(dim=-1)
