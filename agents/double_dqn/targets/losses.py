"""Losses of values against their targets."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from agents.double_dqn.targets.checks import check_rows, check_shapes


def td_loss(
    q_t: Tensor,
    target: Tensor,
    valid: Tensor,
    weights: Tensor | None = None,
    kind: str = "huber",
    delta: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Temporal-difference loss, averaged over the actions that were taken.

    Args:
        q_t: Values of the actions taken, shape (B, T); the only argument that gets a gradient.
        target: What they should have been, shape (B, T).
        valid: Actions that were taken, bool, shape (B, T). The others don't count, even if they are NaN.
        weights: Importance weights (arXiv:1511.05952), shape (B,) or (B, T); 1 if None. The average is over actions,
            not over weights, so that small weights make small steps.
        kind: `"huber"` (quadratic up to an error of `delta`, linear beyond, with slope `delta`) or `"mse"` (half the
            squared error, so that both have the same gradient for small errors).
        delta: Where `"huber"` becomes linear, > 0.

    Returns:
        The loss, a scalar (0 if nothing is valid), and the errors `target - q_t`, shape (B, T), 0 where not valid and
        without a gradient.

    Raises:
        ValueError: If the shapes don't agree or `kind` is unknown.
    """
    check_shapes(q_t.shape, target=target, valid=valid)
    # Selecting before any arithmetic keeps NaN in the padding out of the loss and of the gradient.
    prediction = torch.where(valid, q_t, 0.0)
    goal = torch.where(valid, target.detach(), 0.0)
    if kind == "huber":
        losses = functional.huber_loss(prediction, goal, reduction="none", delta=delta)
    elif kind == "mse":
        losses = 0.5 * (prediction - goal) ** 2
    else:
        raise ValueError(f"kind must be 'huber' or 'mse', got {kind!r}")
    return weighted_mean(losses, valid, weights), (goal - prediction).detach()


def td_cross_entropy(
    logits_t: Tensor,
    target: Tensor,
    valid: Tensor,
    weights: Tensor | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of bounded values, averaged over the actions that were taken.

    Where returns lie between two bounds, Q = low + (high − low)·σ(z) can't leave them, and the target's place between
    the bounds, p = (target − low)/(high − low), is a probability: the loss is −p·log σ(z) − (1 − p)·log(1 − σ(z)). Its
    gradient by z is σ(z) − p, which does not vanish where σ is flat, as that of a squared error would. It is the
    categorical loss over two bins, of which arXiv:2403.03950 shows that value functions learn more from it than from
    regression. Targets beyond the bounds are taken for the bound.

    Args:
        logits_t: Logits z of the actions taken, shape (B, T); the only argument that gets a gradient.
        target: What their values should have been, in units of the value, shape (B, T).
        valid: Actions that were taken, bool, shape (B, T). The others don't count, even if they are NaN.
        weights: As in :func:`td_loss`.
        value_range: Lowest and highest value.

    Returns:
        The loss, a scalar (0 if nothing is valid), and the errors `target - q_t` in units of the value, the target
        within its bounds, shape (B, T), 0 where not valid and without a gradient.

    Raises:
        ValueError: If the shapes don't agree or the range is empty.
    """
    check_shapes(logits_t.shape, target=target, valid=valid)
    low, high = value_range
    if not low < high:
        raise ValueError(f"value_range must have its lower bound first, got {value_range}")
    logits = torch.where(valid, logits_t, 0.0)
    share = torch.where(valid, (target.detach() - low) / (high - low), 0.0)
    share = share.clamp(0.0, 1.0) + 0.0 * share  # an infinite target is no bound, but NaN, which stops the training
    losses = functional.binary_cross_entropy_with_logits(logits, share, reduction="none")
    errors = (high - low) * (share - logits.detach().sigmoid())
    return weighted_mean(losses, valid, weights), torch.where(valid, errors, 0.0)


def cross_entropy_loss(
    q_t: Tensor, actions: Tensor, valid: Tensor, action_masks: Tensor | None = None, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``logsumexp Q(s, ·) − Q(s, a)`` of the actions in the data.

    With Q-values read as logits this is the cross-entropy of behaviour cloning; beside a temporal-difference loss it
    is the regulariser of CQL(H) (arXiv:2006.04779), which pushes down what the data does not show and pushes up what
    it does.

    Args:
        q_t: Values of all actions, shape ``(B, T, V)``; the only argument that gets a gradient.
        actions: The data's actions, int64, shape ``(B, T)``.
        valid: Which of them exist, bool, shape ``(B, T)``.
        action_masks: Legal actions, bool, shape ``(B, T, V)``; all of them if None. The data's own always count.
        weights: Weights, shape ``(B,)`` or ``(B, T)``; 1 if None.

    Returns:
        The loss, a scalar, and the cross-entropies before weighting, shape ``(B, T)``, 0 where not valid and without a
        gradient.

    Raises:
        ValueError: If the shapes don't agree.
    """
    check_rows(q_t, actions=actions, valid=valid)
    scores = torch.where(valid.unsqueeze(-1), q_t, 0.0)
    chosen = scores.gather(-1, actions.unsqueeze(-1))  # (B, T, 1)
    if action_masks is not None:
        check_shapes(q_t.shape, action_masks=action_masks)
        legal = action_masks.scatter(-1, actions.unsqueeze(-1), True)
        scores = scores.masked_fill(~legal, -torch.inf)
    losses = torch.where(valid, scores.logsumexp(dim=-1) - chosen.squeeze(-1), 0.0)
    return weighted_mean(losses, valid, weights), losses.detach()


def weighted_mean(losses: Tensor, valid: Tensor, weights: Tensor | None) -> Tensor:
    """Mean over the valid actions of losses times weights; what stands elsewhere does not count, even if it is NaN.

    Args:
        losses: Shape (B, T), or of anything else of B episodes.
        valid: Those that count, bool, shaped as they are.
        weights: Shape (B,) or that of the losses, without a gradient; 1 if None.

    Raises:
        ValueError: If the weights have another shape.
    """
    if weights is not None:
        if weights.shape == losses.shape[:1]:
            weights = weights.view(-1, *[1] * (losses.ndim - 1))
        elif weights.shape != losses.shape:
            raise ValueError(
                f"weights must have shape {(losses.shape[0],)} or {tuple(losses.shape)}, got {tuple(weights.shape)}"
            )
        losses = losses * weights.detach()
    return torch.where(valid, losses, 0.0).sum() / valid.sum().clamp(min=1)
