"""Values of next states, and targets of one step, of n steps and of all."""

from __future__ import annotations

import torch
from torch import Tensor

from agents.double_dqn.targets.checks import check_episodes, check_shapes


def masked_argmax(q: Tensor, mask: Tensor | None = None) -> Tensor:
    """Best legal action.

    Args:
        q: Action values, shape (..., V).
        mask: Legal actions, bool, shape (..., V); all of them if None.

    Returns:
        Action ids, shape (...), int64. Where no action is legal, an arbitrary one.
    """
    return _mask_illegal(q, mask).argmax(dim=-1)


def max_q_values(q_tp1: Tensor, mask_tp1: Tensor | None = None) -> Tensor:
    """Value of each next state under Q-learning: its best legal action's (Mnih et al. 2015).

    Args:
        q_tp1: Action values of the next states, shape (B, T, V).
        mask_tp1: Their legal actions, bool, shape (B, T, V); all of them if None.

    Returns:
        Values, shape (B, T). A state without a legal action is worth 0.
    """
    return _zero_dead_ends(_mask_illegal(q_tp1, mask_tp1).amax(dim=-1), mask_tp1).detach()


def double_q_values(q_online_tp1: Tensor, q_target_tp1: Tensor, mask_tp1: Tensor | None = None) -> Tensor:
    """Value of each next state under Double Q-learning: one network picks the action, the other rates it.

    This removes most of the upward bias of a maximum over noisy estimates (arXiv:1509.06461).

    Args:
        q_online_tp1: Action values of the next states by the network in training, shape (B, T, V).
        q_target_tp1: The same by the target network, shape (B, T, V).
        mask_tp1: Their legal actions, bool, shape (B, T, V); all of them if None.

    Returns:
        Values, shape (B, T). A state without a legal action is worth 0.

    Raises:
        ValueError: If the shapes differ.
    """
    check_shapes(q_online_tp1.shape, q_target_tp1=q_target_tp1)
    best = masked_argmax(q_online_tp1, mask_tp1)
    return _zero_dead_ends(q_target_tp1.gather(-1, best.unsqueeze(-1)).squeeze(-1), mask_tp1).detach()


def n_step_targets(r_t: Tensor, v_tp1: Tensor, valid: Tensor, terminated: Tensor, gamma: float, n: int) -> Tensor:
    """Sum of the next `n` rewards plus the value of the state after them (Sutton 1988; arXiv:1710.02298).

    A window that would cross the end of its episode stops there.

    Args:
        r_t: Rewards, shape (B, T).
        v_tp1: Values of the states that the actions led to, shape (B, T).
        valid: Actions that were taken, bool, shape (B, T).
        terminated: Episodes that ended by their own rules, bool, shape (B,).
        gamma: Discount per action, in [0, 1].
        n: Rewards per window, ≥ 1.

    Returns:
        Targets, shape (B, T).

    Raises:
        ValueError: If `n` is less than 1 or the shapes don't agree.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    check_episodes(r_t, valid, v_tp1=v_tp1, terminated=terminated)
    length = r_t.shape[1]
    rewards = torch.where(valid, r_t, 0.0)
    returns = rewards.clone()
    for k in range(1, min(n, length)):
        returns[:, :-k] += gamma**k * rewards[:, k:]
    step = torch.arange(length, device=r_t.device)
    # Last action of each window: n-1 later, or the episode's last.
    window_end = torch.minimum(step + (n - 1), valid.sum(dim=1, keepdim=True) - 1).clamp(min=0)  # (B, T)
    bootstrap = _bootstrap_values(v_tp1, valid, terminated).gather(1, window_end)
    discount = torch.full((), gamma, dtype=r_t.dtype, device=r_t.device) ** (window_end - step + 1).clamp(min=0)
    return torch.where(valid, returns + discount * bootstrap, 0.0).detach()


def q_lambda_targets(
    r_t: Tensor,
    v_tp1: Tensor,
    valid: Tensor,
    terminated: Tensor,
    gamma: float,
    lambda_: float,
    greedy_tp1: Tensor | None = None,
) -> Tensor:
    """Exponentially weighted mixture of all n-step targets: Q(λ).

    Peng's version (Peng and Williams 1996; for deep networks arXiv:1810.09967) mixes along the whole episode, whoever
    chose the actions. Watkins's (1989) trusts the rewards only as long as the actions were greedy: give `greedy_tp1`.

    Args:
        r_t: Rewards, shape (B, T).
        v_tp1: Values of the states that the actions led to, shape (B, T).
        valid: Actions that were taken, bool, shape (B, T).
        terminated: Episodes that ended by their own rules, bool, shape (B,).
        gamma: Discount per action, in [0, 1].
        lambda_: Weight of the longer windows, in [0, 1]: 0 gives one-step targets, 1 the return.
        greedy_tp1: Whether the action taken *after* action t was a greedy one, bool, shape (B, T).

    Returns:
        Targets, shape (B, T).

    Raises:
        ValueError: If the shapes don't agree.
    """
    check_episodes(r_t, valid, v_tp1=v_tp1, terminated=terminated)
    values = _bootstrap_values(v_tp1, valid, terminated)
    weight = torch.full_like(values, lambda_)
    if greedy_tp1 is not None:
        check_shapes(r_t.shape, greedy_tp1=greedy_tp1)
        weight = torch.where(greedy_tp1, weight, 0.0)
    # At the end of an episode (as at the last column) there is no longer window: bootstrap with full weight.
    weight = torch.where(_last_steps(valid), 0.0, weight)
    one_step = torch.where(valid, r_t + gamma * (1 - weight) * values, 0.0)
    carry = torch.where(valid, gamma * weight, 0.0)
    targets = torch.zeros_like(one_step)
    following = torch.zeros_like(one_step[:, 0])
    for t in reversed(range(r_t.shape[1])):
        following = one_step[:, t] + carry[:, t] * following
        targets[:, t] = following
    return targets.detach()


def monte_carlo_returns(r_t: Tensor, valid: Tensor, gamma: float) -> Tensor:
    """Discounted sum of the rewards from action t to the end of the episode.

    Args:
        r_t: Rewards, shape (B, T).
        valid: Actions that were taken, bool, shape (B, T).
        gamma: Discount per action, in [0, 1].

    Returns:
        Returns, shape (B, T).

    Raises:
        ValueError: If the shapes don't agree.
    """
    check_episodes(r_t, valid)
    rewards = torch.where(valid, r_t, 0.0)
    returns = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(r_t.shape[1])):
        following = rewards[:, t] + gamma * following
        returns[:, t] = following
    return returns.detach()


def lower_bound_targets(targets: Tensor, r_t: Tensor, valid: Tensor, terminated: Tensor, gamma: float) -> Tensor:
    """Raise targets to the return that was in fact obtained (the lower bound of arXiv:1611.01606).

    Where rewards and transitions are deterministic, whoever acts best from s_t on gets at least what this episode got,
    so that a target below it is known to be wrong. With a random reward a lucky episode proves nothing: don't use it.
    Truncated episodes are left as they are: what they earned so far is no bound once a negative reward may follow.

    Args:
        targets: Targets, shape (B, T).
        r_t: Rewards, shape (B, T).
        valid: Actions that were taken, bool, shape (B, T).
        terminated: Episodes that ended by their own rules, bool, shape (B,).
        gamma: Discount per action, in [0, 1].

    Returns:
        Targets, shape (B, T).

    Raises:
        ValueError: If the shapes don't agree.
    """
    check_episodes(r_t, valid, targets=targets, terminated=terminated)
    bound = torch.maximum(targets, monte_carlo_returns(r_t, valid, gamma))
    return torch.where(valid & terminated.unsqueeze(1), bound, targets).detach()


def _mask_illegal(q: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return q
    check_shapes(q.shape, mask=mask)
    return q.masked_fill(~mask, -torch.inf)


def _zero_dead_ends(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else torch.where(mask.any(dim=-1), values, 0.0)


def _last_steps(valid: Tensor) -> Tensor:
    """The last action of each episode, bool, shape (B, T)."""
    step = torch.arange(valid.shape[1], device=valid.device)
    return step == valid.sum(dim=1, keepdim=True) - 1


def _bootstrap_values(v_tp1: Tensor, valid: Tensor, terminated: Tensor) -> Tensor:
    """`v_tp1`, with 0 for the state after the end of a terminated episode and for padding."""
    worthless = ~valid | (_last_steps(valid) & terminated.unsqueeze(1))
    return torch.where(worthless, 0.0, v_tp1)
