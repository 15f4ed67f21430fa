"""The loss of a replayed batch under each objective: from one pass of the network to the pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from agents.double_dqn import targets
from agents.double_dqn.losses import head_loss, sequence_loss, state_positions
from agents.double_dqn.sequence_network import SequenceQNetwork
from agents.offline.objectives import advantage_weights, expectile_loss, other_actions_loss
from agents.replay.episodes import EpisodeBatch

Objective = Literal["td", "cql", "ilql", "mc", "crr", "bc"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
OF_LOGITS = ("crr", "bc")
"""Objectives that leave logits in the place of values."""
DEFAULT_CONSERVATISM = {"td": 0.0, "cql": 1.0, "ilql": 1.0, "mc": 0.0, "crr": 1.0, "bc": 1.0}
"""Weight of the cross-entropy of the data's actions, for rewards whose returns are around 1."""
DEFAULT_EXPECTILE = {"ilql": 0.8, "crr": 0.5}
DEFAULT_SHARPNESS = {"ilql": 1.0, "crr": 2.0}
CEILING = {"ilql": 20.0, "crr": 1.0}
"""Highest weight of an action in the cross-entropy: see :func:`agents.offline.objectives.advantage_weights`."""


@dataclass(frozen=True)
class OfflineObjective:
    """What is learned from logged episodes.

    Attributes:
        name: One of :data:`OBJECTIVES`; see :func:`agents.offline.learn_from_text`.
        gamma: Discount a token, in [0, 1].
        n_steps: Rewards in a target before it bootstraps (≥ 1).
        double_q: Whether the network picks the action that the target network rates.
        lower_bound: Whether the return that an episode earned bounds its targets from below.
        conservatism: Weight of the cross-entropy of the data's actions (≥ 0).
        expectile: ``"ilql"`` and ``"crr"`` alone: see :func:`agents.offline.objectives.expectile_loss`.
        sharpness: ``"ilql"`` and ``"crr"`` alone: see :func:`agents.offline.objectives.advantage_weights`.
        other_reward: What each token that the data does not show in its place earns, as the last of its text; None
            where nothing is known of it. Not for ``"crr"`` and ``"bc"``.
    """

    name: str
    gamma: float
    n_steps: int = 1
    double_q: bool = True
    lower_bound: bool = False
    conservatism: float = 0.0
    expectile: float = 0.8
    sharpness: float = 1.0
    other_reward: float | None = None


def offline_loss(
    q_net: SequenceQNetwork,
    target_net: SequenceQNetwork,
    value_head: nn.Linear | None,
    batch: EpisodeBatch,
    objective: OfflineObjective,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of all actions of B episodes with up to T actions each.

    Args:
        q_net: The network to train.
        target_net: The network that rates the next states.
        value_head: Of ``"ilql"`` and ``"crr"``: state values of ``q_net``'s features, ``(..., D)`` → ``(..., 1)``.
        batch: The episodes.
        objective: What to learn.

    Returns:
        The loss, a scalar with a gradient, of all heads where there are several; errors, ``(B, T)``, without one
        (temporal-difference errors, for ``"crr"`` those of the state values, or the cross-entropies of ``"bc"``); and
        the values of the actions, ``(B, T)``.
    """
    plain = objective.conservatism == 0 and objective.other_reward is None
    if objective.name == "td" and plain:  # no need of whole rows of values
        return sequence_loss(
            q_net,
            target_net,
            batch,
            gamma=objective.gamma,
            n_steps=objective.n_steps,
            double_q=objective.double_q,
            lower_bound=objective.lower_bound,
        )
    states = state_positions(batch)  # (B, T + 1)
    features = q_net.features_at(batch.tokens, states)  # (B, T + 1, D)
    n_heads = q_net.head.n_ensemble

    def fold(per_head: Tensor) -> Tensor:  # (B, T, K, ...) → (K·B, T, ...): each head as episodes of its own
        return per_head.movedim(2, 0).flatten(end_dim=1)

    def repeat(shared: Tensor) -> Tensor:
        return shared.repeat(n_heads, *[1] * (shared.ndim - 1))

    # Of bounded values, the logits in front of them: a softmax of values in [0, 1] would be next to uniform.
    logit_rows = fold(q_net.head.ensemble_logits(features))  # (K·B, T + 1, V)
    q_rows = q_net.head.to_values(logit_rows)
    actions, valid, weights = repeat(batch.actions), repeat(batch.valid), repeat(batch.weights)
    rewards, terminated = repeat(batch.rewards), repeat(batch.terminated)
    masks = None if batch.action_masks is None else repeat(batch.action_masks)
    masks_t, masks_tp1 = (None, None) if masks is None else (masks[:, :-1], masks[:, 1:])
    logits_t = logit_rows[:, :-1].gather(-1, actions.unsqueeze(-1)).squeeze(-1)  # (K·B, T)
    q_t = q_net.head.to_values(logits_t)

    def unfold(errors: Tensor) -> Tensor:
        return errors.unflatten(0, (n_heads, -1)).mean(dim=0)

    if objective.name == "bc":
        loss, entropies = targets.cross_entropy_loss(logit_rows[:, :-1], actions, valid, masks_t, weights)
        return loss, unfold(entropies), unfold(q_t)

    values = None
    if objective.name in ("ilql", "crr"):
        assert value_head is not None
        values = repeat(value_head(features).squeeze(-1))  # (K·B, T + 1)
        v_tp1 = values[:, 1:].detach()
    else:
        with torch.no_grad():
            target_features = target_net.features_at(batch.tokens, states)[:, 1:]
            target_rows = fold(target_net.head.ensemble(target_features))  # (K·B, T, V)
            if objective.double_q:
                v_tp1 = targets.double_q_values(q_rows[:, 1:].detach(), target_rows, masks_tp1)
            else:
                v_tp1 = targets.max_q_values(target_rows, masks_tp1)
    # The whole rest of the episode is a window too; a text that was cut off still ends in the value of its last state.
    n_steps = batch.valid.shape[1] if objective.name == "mc" else objective.n_steps
    target = targets.n_step_targets(rewards, v_tp1, valid, terminated, objective.gamma, n_steps)
    if objective.lower_bound:
        target = targets.lower_bound_targets(target, rewards, valid, terminated, objective.gamma)
    imitation, loss = weights, torch.zeros((), device=q_t.device)
    if values is not None:
        critic = target  # what the data's action is worth
        if objective.name == "ilql":
            with torch.no_grad():
                target_features = target_net.features_at(batch.tokens, states[:, :-1])  # (B, T, D)
                critic = fold(target_net.head.of_ensemble(target_features, batch.actions).unsqueeze(-1)).squeeze(-1)
        loss = expectile_loss(values[:, :-1], critic, valid, objective.expectile, weights)
        shares = advantage_weights(critic - values[:, :-1], valid, objective.sharpness, CEILING[objective.name])
        imitation = shares * weights.unsqueeze(1)
    if objective.name == "crr":
        entropy, _ = targets.cross_entropy_loss(logit_rows[:, :-1], actions, valid, masks_t, imitation)
        assert values is not None
        errors = torch.where(valid, target - values[:, :-1].detach(), 0.0)
        return loss + objective.conservatism * entropy, unfold(errors), unfold(q_t)
    td_loss, td_errors = head_loss(q_net.head, logits_t, target, valid, weights)
    loss = loss + td_loss
    if objective.conservatism:
        entropy, _ = targets.cross_entropy_loss(logit_rows[:, :-1], actions, valid, masks_t, imitation)
        loss = loss + objective.conservatism * entropy
    if objective.other_reward is not None:
        loss = loss + other_actions_loss(q_rows[:, :-1], actions, valid, objective.other_reward, masks_t, weights)
    return loss, unfold(td_errors), unfold(q_t)
