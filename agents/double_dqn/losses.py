"""Losses: of whole episodes, every token of a batch from one pass of each network; and of single transitions."""

from __future__ import annotations

import torch
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
from stable_baselines3.dqn.policies import QNetwork
from torch import Tensor
from torch.nn import functional as F

from agents import targets
from agents.double_dqn.policies import SequenceQNetwork
from agents.replay.episodes import EpisodeBatch
from agents.replay.prioritized import TransitionBatch


def sequence_loss(
    q_net: SequenceQNetwork,
    target_net: SequenceQNetwork,
    batch: EpisodeBatch,
    *,
    gamma: float,
    n_steps: int = 1,
    double_q: bool = True,
    lower_bound: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Temporal-difference loss of all actions of B episodes with up to T actions each.

    Args:
        q_net: The network to train.
        target_net: The network that rates the next states.
        batch: The episodes.
        gamma: Discount a token, in [0, 1].
        n_steps: Rewards in a target before it bootstraps (≥ 1).
        double_q: Whether ``q_net`` picks the action that ``target_net`` rates (arXiv:1509.06461).
        lower_bound: Whether the return that an episode earned bounds its targets from below (arXiv:1611.01606).

    Returns:
        The loss, a scalar with a gradient; temporal-difference errors, ``(B, T)``, without one; and the values of the
        actions, ``(B, T)``.
    """
    n_actions = batch.valid.sum(dim=1, keepdim=True)  # (B, 1)
    step = torch.arange(batch.valid.shape[1] + 1, device=batch.tokens.device)
    # State t is the prefix before action t; the state after the last action is the whole text.
    states = F.pad(batch.action_positions, (0, 1)) - 1  # (B, T + 1)
    states = torch.where(step < n_actions, states, batch.lengths[:, None] - 1)
    features = q_net.features_at(batch.tokens, states)  # (B, T + 1, D)
    q_t = q_net.head.of(features[:, :-1], batch.actions)  # (B, T)
    masks_tp1 = None if batch.action_masks is None else batch.action_masks[:, 1:]
    with torch.no_grad():
        target_features = target_net.features_at(batch.tokens, states)[:, 1:]  # (B, T, D)
        if double_q:
            best = q_net.head.greedy(features[:, 1:], masks_tp1)
            v_tp1 = target_net.head.of(target_features, best)
        else:
            v_tp1 = targets.max_q_values(target_net.head(target_features), masks_tp1)
        target = targets.n_step_targets(batch.rewards, v_tp1, batch.valid, batch.terminated, gamma, n_steps)
        if lower_bound:
            target = targets.lower_bound_targets(target, batch.rewards, batch.valid, batch.terminated, gamma)
    loss, td_errors = targets.td_loss(q_t, target, batch.valid, batch.weights)
    return loss, td_errors, q_t


def transition_loss(
    q_net: QNetwork,
    target_net: QNetwork,
    batch: TransitionBatch | ReplayBufferSamples | DictReplayBufferSamples,
    *,
    gamma: float,
    double_q: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Temporal-difference loss of B transitions; without Double-Q, weights and masks it is SB3's, to the bit.

    Args:
        q_net: The network to train.
        target_net: The network that rates the next states.
        batch: The transitions, from this package's replay or from SB3's.
        gamma: Discount of the next state where the batch brings no ``discounts``, in [0, 1].
        double_q: Whether ``q_net`` picks the action that ``target_net`` rates (arXiv:1509.06461).

    Returns:
        The loss, a scalar with a gradient; temporal-difference errors, ``(B,)``, without one; and the values of the
        actions, ``(B,)``.
    """
    masks, weights = getattr(batch, "next_action_masks", None), getattr(batch, "weights", None)
    with torch.no_grad():
        next_q_values = target_net(batch.next_observations)  # (B, V)
        if double_q:
            values = targets.double_q_values(q_net(batch.next_observations), next_q_values, masks)
        else:
            values = targets.max_q_values(next_q_values, masks)
        discounts = gamma if batch.discounts is None else batch.discounts
        target = batch.rewards + (1 - batch.dones) * discounts * values.reshape(-1, 1)  # (B, 1)
    q_t = q_net(batch.observations).gather(1, batch.actions.long())  # (B, 1)
    if weights is None:
        loss = F.smooth_l1_loss(q_t, target)
    else:
        loss = (weights * F.smooth_l1_loss(q_t, target, reduction="none").squeeze(1)).mean()
    return loss, (target - q_t.detach()).squeeze(1), q_t.squeeze(1)
