"""What a head over a frozen language model learns: pure functions, in the shapes of :mod:`agents.double_dqn.targets`.

The goal is the policy that maximises the return less η times the KL divergence from the model: π₀·exp(Q/η) with
V(s) = η·log Σ π₀(a|s)·exp(Q(s, a)/η) (Todorov 2006; of language models arXiv:2502.20548).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from agents.double_dqn.targets import q_lambda_targets, td_cross_entropy
from agents.double_dqn.targets.losses import weighted_mean

OBJECTIVES = ("soft_q", "qsharp", "ilql", "pcl")
SPANS = ("step", "prefix", "trajectory")


def soft_values(q_values: Tensor, log_prior: Tensor, eta: float) -> Tensor:
    """V = η·log Σ π₀(a)·exp(Q(a)/η), over the last axis.

    Args:
        q_values: Shape ``(..., k)``.
        log_prior: Normalised log-probabilities, shape ``(..., k)``, -inf allowed.
        eta: Weight of the divergence, in units of reward a nat (> 0).
    """
    return eta * (log_prior + q_values / eta).logsumexp(dim=-1)


def policy_log_probs(q_values: Tensor, log_prior: Tensor, eta: float) -> Tensor:
    """Log π(a) of π ∝ π₀·exp(Q/η), shape ``(..., k)``."""
    return (log_prior + q_values / eta).log_softmax(dim=-1)


def nucleus(log_probs: Tensor, top_p: float) -> Tensor:
    """Of the likeliest tokens as few as have a probability of ``top_p`` together (arXiv:1904.09751).

    Args:
        log_probs: Log-probabilities of all tokens, shape ``(..., V)``, -inf allowed.
        top_p: In (0, 1]; 1 leaves everything as it is, and the likeliest token is always among them.

    Returns:
        Log-probabilities, which sum to 1 among those tokens and are -inf elsewhere, shape ``(..., V)``.
    """
    if top_p == 1:
        return log_probs
    ordered, tokens = log_probs.sort(dim=-1, descending=True)
    likelier = ordered.exp().cumsum(dim=-1).roll(1, dims=-1)
    likelier[..., 0] = 0.0  # nothing is likelier than the first
    kept = ordered.masked_fill(likelier >= top_p, -torch.inf).log_softmax(dim=-1)
    return torch.empty_like(log_probs).scatter(-1, tokens, kept)


def divergence(policy: Tensor, log_prior: Tensor, mass: Tensor) -> Tensor:
    """KL divergence of a policy from the model, in nats, shape ``(...)``; what is no candidate is as likely in both.

    Args:
        policy: Log-probabilities of the policy among the candidates, shape ``(..., k)``.
        log_prior: The model's among them, shape ``(..., k)``.
        mass: Probability of all candidates together, shape ``(...)``.
    """
    terms = torch.where(policy > -torch.inf, policy.exp() * (policy - log_prior), 0.0)
    return mass * terms.sum(dim=-1)


def soft_lambda_targets(
    rewards: Tensor,
    valid: Tensor,
    q_taken: Tensor,
    values: Tensor,
    gamma: float,
    lambda_: float,
) -> Tensor:
    """λ-returns of the KL-regularised values, right for data of any policy.

    For the optimal values, V(s) = Q(s, a) − η·log(π*(a|s)/π₀(a|s)) for *every* action a, so what follows can be read
    off any path: G_t = r_t + γ·[(1 − λ)·V_{t+1} + λ·(G_{t+1} − (Q_{t+1} − V_{t+1}))] (path consistency,
    arXiv:1702.08892): Q(λ) in which each later action has to pay what it departs from the model. At λ = 0 it bootstraps
    after one step, at 1 at the end of the episode. Nothing is worth anything after the last action, truncated or not.

    Args:
        rewards: Rewards, shape ``(B, T)``.
        valid: Actions that were taken, bool, shape ``(B, T)``.
        q_taken: Target network's values of the actions taken, shape ``(B, T)``.
        values: Its soft values of the states acted in, shape ``(B, T)``.
        gamma: Discount a token, in [0, 1].
        lambda_: λ, in [0, 1].

    Returns:
        Targets, shape ``(B, T)``, without a gradient.
    """
    follows = F.pad(valid[:, 1:], (0, 1))
    departures = torch.where(follows, F.pad((q_taken - values)[:, 1:], (0, 1)), 0.0)
    paid = rewards - gamma * lambda_ * departures
    ended = torch.ones_like(valid[:, 0])
    return q_lambda_targets(paid, F.pad(values[:, 1:], (0, 1)), valid, ended, gamma, lambda_)


def path_residuals(
    rewards: Tensor, valid: Tensor, q_taken: Tensor, values: Tensor, gamma: float, span: str
) -> tuple[Tensor, Tensor]:
    """By how much values break path consistency (arXiv:1702.08892) along the stretches of episodes of any policy.

    For the optimal values V(s_t) = Σ_{j<d} γ^j·(r_{t+j} − η·log(π/π₀)(a_{t+j}|s_{t+j})) + γ^d·V(s_{t+d}) holds for
    all stretches, where η·log(π/π₀)(a|s) is Q(s, a) − V(s). Nothing is worth anything after the last action.

    Args:
        rewards: Rewards, shape ``(B, T)``.
        valid: Actions that were taken, bool, shape ``(B, T)``.
        q_taken: Values of the actions taken, shape ``(B, T)``.
        values: Soft values of the states acted in, shape ``(B, T)``.
        gamma: Discount a token, in [0, 1].
        span: ``"step"``: each action (arXiv:2106.07704); ``"prefix"``: from the first action to each
            (arXiv:2412.16145); ``"trajectory"``: from the first to the last (arXiv:2505.15311).

    Returns:
        Right side less left side, with a gradient through both, shape ``(B, T)``: that of the stretch that ends with
        action t; and which of them count, bool, shape ``(B, T)``.
    """
    follows = F.pad(valid[:, 1:], (0, 1))
    following = torch.where(follows, F.pad(values[:, 1:], (0, 1)), 0.0)
    paid = torch.where(valid, rewards - (q_taken - values), 0.0)
    if span == "step":
        return torch.where(valid, paid + gamma * following - values, 0.0), valid
    discounts = gamma ** torch.arange(valid.shape[1], device=rewards.device)
    along = (discounts * paid).cumsum(dim=1) + discounts * gamma * following - values[:, :1]
    counts = valid if span == "prefix" else valid & ~follows
    return torch.where(counts, along, 0.0), counts


def candidate_reward_loss(predicted: Tensor, rewards: Tensor, counts: Tensor, weights: Tensor) -> Tensor:
    """Squared error of what candidates earn themselves, averaged over those that somebody asked for.

    Args:
        predicted: Shape ``(B, T, k)``; the only argument that gets a gradient.
        rewards: Shape ``(B, T, k)``; NaN where nobody asked.
        counts: Which candidates there are, bool, shape ``(B, T, k)``.
        weights: Of the episodes, shape ``(B,)``.
    """
    known = counts & ~rewards.isnan()
    errors = torch.where(known, predicted - rewards, 0.0)
    return weighted_mean(errors.square(), known, weights)


def in_sample_targets(rewards: Tensor, valid: Tensor, values: Tensor, gamma: float) -> Tensor:
    """Reward plus the next state's value, which no action outside the data has a part in (arXiv:2206.11871).

    Args:
        rewards: Rewards, shape ``(B, T)``.
        valid: Actions that were taken, bool, shape ``(B, T)``.
        values: Values of the states acted in, shape ``(B, T)``: expectiles, see :func:`expectile_cross_entropy`.
        gamma: Discount a token, in [0, 1].

    Returns:
        Targets, shape ``(B, T)``, without a gradient; nothing is worth anything after the last action.
    """
    return q_lambda_targets(rewards, F.pad(values[:, 1:], (0, 1)), valid, torch.ones_like(valid[:, 0]), gamma, 0.0)


def expectile_cross_entropy(logits: Tensor, goals: Tensor, weights: Tensor, expectile: float) -> Tensor:
    """Cross-entropy in which a value below its goal counts τ, and one above it 1 − τ.

    Its minimum is that of the squared error of the same weights (arXiv:2110.06169), the expectile τ of the goals: their
    mean at ½, and towards 1 their maximum. Its gradient does not vanish where σ is flat.

    Args:
        logits: Of values in [0, 1], shape ``(B, T)``; the only argument that gets a gradient.
        goals: Values of the actions taken, in [0, 1], shape ``(B, T)``.
        weights: Not negative, shape ``(B, T)``; entries of weight 0 do not count, even if they are NaN.
        expectile: τ, in (0, 1).
    """
    above = logits.detach().sigmoid() > goals
    asymmetry = torch.where(above, 1 - expectile, expectile)
    return td_cross_entropy(logits, goals, weights > 0, weights * asymmetry)[0]


def from_the_prior(log_ratios: Tensor, valid: Tensor) -> Tensor:
    """Actions after which the episode went on as the model alone would: their returns are samples under π₀.

    Args:
        log_ratios: log π(a|s) − log π₀(a|s) of the policy that acted, shape ``(B, T)``; 0 where it was the model.
        valid: Actions that were taken, bool, shape ``(B, T)``.

    Returns:
        Bool, shape ``(B, T)``.
    """
    guided = (log_ratios != 0) & valid
    after = guided.flip(1).cumsum(dim=1).flip(1) - guided.long()  # guided actions after t
    return valid & (after == 0)


def distribution_loss(logits: Tensor, goals: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy between a return and its predicted distribution over bins, averaged with weights.

    Args:
        logits: Shape ``(B, T, bins)``; one bin stands for a Bernoulli variable, whose mean is the return.
        goals: Returns, in [0, 1], shape ``(B, T)``; between two bins they are split (two-hot, arXiv:1707.06887).
        weights: Not negative, shape ``(B, T)``; entries of weight 0 do not count, even if they are NaN.
    """
    counts = weights > 0
    if logits.shape[-1] == 1:
        return td_cross_entropy(logits.squeeze(-1), goals, counts, weights)[0]
    place = torch.where(counts, goals, 0.0).clamp(0, 1) * (logits.shape[-1] - 1)
    below = place.floor().clamp(max=logits.shape[-1] - 2).long()
    upper = (place - below).unsqueeze(-1)
    pair = logits.log_softmax(dim=-1).gather(-1, torch.stack([below, below + 1], dim=-1))
    losses = -(pair * torch.cat([1 - upper, upper], dim=-1)).sum(dim=-1)
    return weighted_mean(losses, counts, weights)
