"""What a logged text teaches: pure loss functions of whole episodes, all of them batched and masked.

Shapes and names are those of :mod:`agents.double_dqn.targets`: a row per episode and a column per action, ``(B, T)``;
rows of Q-values have a last axis of V actions. ``valid`` marks the actions that exist; what stands elsewhere does not
count, even if it is NaN. Every loss is averaged over the valid actions, not over weights, so that small weights make
small steps, and is 0 where nothing is valid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agents.double_dqn.targets.checks import check_rows, check_shapes
from agents.double_dqn.targets.losses import weighted_mean


def expectile_loss(
    v_t: Tensor, target: Tensor, valid: Tensor, expectile: float, weights: Tensor | None = None
) -> Tensor:
    """Asymmetric squared error ``½ |τ − 1[target < v]| (target − v)²`` (arXiv:2110.06169, arXiv:2206.11871).

    Its minimum is the expectile τ of the targets: their mean at ½, and towards 1 their maximum, so that V becomes the
    value of the best actions *in the data*, and no action outside it is ever asked for its value.

    Args:
        v_t: State values, shape ``(B, T)``; the only argument that gets a gradient.
        target: Values of the data's actions, shape ``(B, T)``.
        valid: Which of them exist, bool, shape ``(B, T)``.
        expectile: τ, in (0, 1).
        weights: Weights, shape ``(B,)`` or ``(B, T)``; 1 if None.

    Raises:
        ValueError: If the shapes don't agree, or the expectile is out of range.
    """
    if not 0 < expectile < 1:
        raise ValueError(f"expectile must lie between 0 and 1, got {expectile}")
    check_shapes(v_t.shape, target=target, valid=valid)
    error = torch.where(valid, target.detach(), 0.0) - torch.where(valid, v_t, 0.0)
    asymmetry = torch.where(error.detach() < 0, 1 - expectile, expectile)
    return weighted_mean(0.5 * asymmetry * error**2, valid, weights)


def other_actions_loss(
    q_t: Tensor,
    actions: Tensor,
    valid: Tensor,
    value: float,
    action_masks: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Half the squared error of all legal actions but the data's, summed over the actions, against one known value.

    It is the other half of what a corpus says where any other token would have been wrong: the token that stands there
    has its target, and each of the rest earns ``value`` and ends the text. With a discount of 0 and rewards of 1,
    Q(s, a) then is the probability that the corpus goes on with ``a`` (the quadratic score is a proper one).

    Args:
        q_t: Values of all actions, shape ``(B, T, V)``; the only argument that gets a gradient.
        actions: The data's actions, int64, shape ``(B, T)``.
        valid: Which of them exist, bool, shape ``(B, T)``.
        value: What the other actions are worth.
        action_masks: Legal actions, bool, shape ``(B, T, V)``; all of them if None.
        weights: Weights, shape ``(B,)`` or ``(B, T)``; 1 if None.

    Raises:
        ValueError: If the shapes don't agree.
    """
    check_rows(q_t, actions=actions, valid=valid)
    counts = valid.unsqueeze(-1)
    if action_masks is not None:
        check_shapes(q_t.shape, action_masks=action_masks)
        counts = counts & action_masks
    counts = counts.expand(q_t.shape).scatter(-1, actions.unsqueeze(-1), False)
    errors = torch.where(counts, q_t - value, 0.0)
    return weighted_mean(0.5 * (errors**2).sum(dim=-1), valid, weights)


def advantage_weights(advantage: Tensor, valid: Tensor, sharpness: float, ceiling: float = 1.0) -> Tensor:
    """How much of each action to imitate: ``exp(sharpness · A / σ)``, at most ``ceiling`` (arXiv:1910.00177).

    σ is the root mean square of the batch's advantages, so that the weights do not depend on the unit of the rewards,
    and they are divided by their mean, so that the pace of learning does not depend on the sharpness. With a ceiling of
    1, as in critic-regularised regression (arXiv:2006.15134), what turned out badly counts less and nothing counts
    more: a higher one lets a few lucky actions, or errors of the state values, outweigh all the others.

    Args:
        advantage: Q(s, a) − V(s) of the data's actions, shape ``(B, T)``.
        valid: Which of them exist, bool, shape ``(B, T)``.
        sharpness: 0 imitates everything alike; larger values imitate what turned out well (≥ 0).
        ceiling: Highest weight before the division by the mean (> 0).

    Returns:
        Weights with a mean of 1, shape ``(B, T)``, without a gradient, 0 where not valid.

    Raises:
        ValueError: If the shapes don't agree, or ``sharpness`` or ``ceiling`` is out of range.
    """
    if not sharpness >= 0:
        raise ValueError(f"sharpness must be at least 0, got {sharpness}")
    if not ceiling > 0:
        raise ValueError(f"ceiling must be greater than 0, got {ceiling}")
    check_shapes(advantage.shape, valid=valid)
    values = torch.where(valid, advantage.detach(), 0.0)
    scale = ((values**2).sum() / valid.sum().clamp(min=1)).sqrt().clamp(min=1e-6)
    weights = torch.where(valid, (sharpness * values / scale).exp().clamp(max=ceiling), 0.0)
    return weights * (valid.sum() / weights.sum().clamp(min=1e-6))
