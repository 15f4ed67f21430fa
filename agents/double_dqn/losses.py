"""Losses: of whole episodes, every token of a batch from one pass of each network; and of single transitions."""

from __future__ import annotations

import torch
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, PyTorchObs, ReplayBufferSamples
from stable_baselines3.dqn.policies import QNetwork
from torch import Tensor
from torch.nn import functional as F

from agents.double_dqn import targets
from agents.double_dqn.heads import QHead
from agents.double_dqn.sequence_network import SequenceQNetwork
from agents.double_dqn.transition_policies import HeadQNetwork
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
    q_lambda: float | None = None,
    watkins: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Temporal-difference loss of all actions of B episodes with up to T actions each.

    Args:
        q_net: The network to train.
        target_net: The network that rates the next states; ``q_net`` itself saves a pass.
        batch: The episodes. Its last ``n_imitated`` are also imitated: the cross-entropy of their actions, under the
            softmax of the logits, is added to the loss.
        gamma: Discount a token, in [0, 1].
        n_steps: Rewards in a target before it bootstraps (≥ 1).
        double_q: Whether ``q_net`` picks the action that ``target_net`` rates (arXiv:1509.06461).
        lower_bound: Whether the return that an episode earned bounds its targets from below (arXiv:1611.01606).
        q_lambda: λ of Q(λ), in [0, 1], in place of ``n_steps``: see :func:`agents.double_dqn.targets.q_lambda_targets`.
        watkins: Whether Q(λ) stops before the first action that ``q_net`` would not choose now.

    Returns:
        The loss, a scalar with a gradient, of all heads where there are several; temporal-difference errors,
        ``(B, T)``, without one; and the values of the actions, ``(B, T)``. Of several heads, the last two are means.
    """
    states = state_positions(batch)  # (B, T + 1)
    features = q_net.features_at(batch.tokens, states)  # (B, T + 1, D)
    logits_t = q_net.head.logits_of_ensemble(features[:, :-1], batch.actions)  # (B, T, K)
    n_heads = logits_t.shape[2]

    def fold(per_head: Tensor) -> Tensor:  # (B, T, K) → (K·B, T): each head as episodes of its own
        return per_head.permute(2, 0, 1).flatten(end_dim=1)

    rewards, valid = batch.rewards.repeat(n_heads, 1), batch.valid.repeat(n_heads, 1)
    terminated, weights = batch.terminated.repeat(n_heads), batch.weights.repeat(n_heads)
    masks_tp1 = None if batch.action_masks is None else batch.action_masks[:, 1:]
    with torch.no_grad():
        if target_net is not q_net:
            target_features = target_net.features_at(batch.tokens, states)[:, 1:]  # (B, T, D)
        else:
            target_features = features[:, 1:].detach()
        if double_q or watkins:
            best = q_net.head.greedy_ensemble(features[:, 1:], masks_tp1)  # (B, T, K)
        if double_q:
            v_tp1 = target_net.head.of_ensemble(target_features, best)  # (B, T, K)
        else:
            v_tp1 = _max_values(target_net.head.ensemble(target_features), masks_tp1)
        if q_lambda is None:
            target = targets.n_step_targets(rewards, fold(v_tp1), valid, terminated, gamma, n_steps)
        else:
            greedy_tp1 = None
            if watkins:  # nothing follows the last action
                greedy = batch.actions[:, 1:, None] == best[:, :-1]  # (B, T - 1, K)
                greedy_tp1 = fold(F.pad(greedy, (0, 0, 0, 1), value=True))
            target = targets.q_lambda_targets(rewards, fold(v_tp1), valid, terminated, gamma, q_lambda, greedy_tp1)
        if lower_bound:
            target = targets.lower_bound_targets(target, rewards, valid, terminated, gamma)
    loss, td_errors = head_loss(q_net.head, fold(logits_t), target, valid, weights)
    if batch.n_imitated:
        loss = loss + _imitation_loss(q_net.head, features, batch)
    return loss, td_errors.unflatten(0, (n_heads, -1)).mean(dim=0), q_net.head.to_values(logits_t.detach()).mean(dim=2)


def _imitation_loss(head: QHead, features: Tensor, batch: EpisodeBatch) -> Tensor:
    """Mean cross-entropy of the actions to imitate, over all heads; features ``(B, T + 1, D)``."""
    rows = slice(-batch.n_imitated, None)
    masks = None if batch.action_masks is None else batch.action_masks[rows, :-1]
    logits = head.ensemble_logits(features[rows, :-1])  # (N, T, K, V)
    losses = [
        targets.cross_entropy_loss(logits[:, :, k], batch.actions[rows], batch.valid[rows], masks)[0]
        for k in range(head.n_ensemble)
    ]
    return torch.stack(losses).mean()


def head_loss(
    head: QHead, logits_t: Tensor, target: Tensor, valid: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The loss that suits a head, and its errors: see :mod:`agents.double_dqn.targets`.

    Args:
        head: Whether its values are bounded decides.
        logits_t: Its logits of the actions taken, shape (B, T).
        target: What the actions' values should have been, shape (B, T).
        valid: Actions that were taken, bool, shape (B, T).
        weights: Importance weights, shape (B,) or (B, T).
    """
    if head.value_range is None:
        return targets.td_loss(logits_t, target, valid, weights)
    return targets.td_cross_entropy(logits_t, target, valid, weights, head.value_range)


def state_positions(batch: EpisodeBatch) -> Tensor:
    """Last token of each state, shape ``(B, T + 1)``: state t is the prefix before action t, the last one the text."""
    n_actions = batch.valid.sum(dim=1, keepdim=True)  # (B, 1)
    step = torch.arange(batch.valid.shape[1] + 1, device=batch.tokens.device)
    states = F.pad(batch.action_positions, (0, 1)) - 1
    return torch.where(step < n_actions, states, batch.lengths[:, None] - 1)


def transition_loss(
    q_net: QNetwork,
    target_net: QNetwork,
    batch: TransitionBatch | ReplayBufferSamples | DictReplayBufferSamples,
    *,
    gamma: float,
    double_q: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Temporal-difference loss of B transitions; without the enhancements it is SB3's, to the bit.

    Args:
        q_net: The network to train.
        target_net: The network that rates the next states.
        batch: The transitions, from this package's replay or from SB3's.
        gamma: Discount of the next state where the batch brings no ``discounts``, in [0, 1].
        double_q: Whether ``q_net`` picks the action that ``target_net`` rates (arXiv:1509.06461).

    Returns:
        The loss, a scalar with a gradient, of all heads where there are several; temporal-difference errors, ``(B,)``,
        without one; and the values of the actions, ``(B,)``. Of several heads, the last two are means.
    """
    masks, weights = getattr(batch, "next_action_masks", None), getattr(batch, "weights", None)
    with torch.no_grad():
        next_q_values = ensemble_values(target_net, batch.next_observations)  # (B, K, V)
        if double_q:
            online = ensemble_values(q_net, batch.next_observations)
            values = targets.double_q_values(online, next_q_values, _for_each_head(masks, online))  # (B, K)
        else:
            values = _max_values(next_q_values, masks)
        discounts = gamma if batch.discounts is None else batch.discounts
        target = batch.rewards + (1 - batch.dones) * discounts * values  # (B, K)
    estimates = ensemble_values(q_net, batch.observations)
    actions = batch.actions.long()[:, :, None].expand(-1, estimates.shape[1], 1)  # (B, K, 1)
    q_t = estimates.gather(2, actions).squeeze(2)  # (B, K)
    if weights is None:
        loss = F.smooth_l1_loss(q_t, target)
    else:
        loss = (weights[:, None] * F.smooth_l1_loss(q_t, target, reduction="none")).mean()
    return loss, (target - q_t.detach()).mean(dim=1), q_t.mean(dim=1)


def ensemble_values(q_net: QNetwork, observations: PyTorchObs) -> Tensor:
    """Each head's Q-values, ``(B, K, V)``, of B observations; SB3's own network has one head."""
    return q_net.ensemble(observations) if isinstance(q_net, HeadQNetwork) else q_net(observations).unsqueeze(1)


def _max_values(q_tp1: Tensor, masks: Tensor | None) -> Tensor:
    """Each head's value of its own best legal action: ``(..., K, V)``, masks ``(..., V)`` → ``(..., K)``."""
    return targets.max_q_values(q_tp1, _for_each_head(masks, q_tp1))


def _for_each_head(masks: Tensor | None, q_values: Tensor) -> Tensor | None:
    return None if masks is None else masks.unsqueeze(-2).expand_as(q_values)
