"""Numerical health of the updates: losses that are no numbers stop training, impossible values are reported."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgym import TokenSequence

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

    from agents.double_dqn.base import LearningAgent
    from agents.double_dqn.paths import Loss

DIVERGENCE_MARGIN = 2.0
"""How far beyond any possible return a value must lie: estimates overshoot a little on their way."""
_MOST_NAMED = 8


class NumericalError(ArithmeticError):
    """A loss, a gradient or a priority is NaN or infinite.

    Attributes:
        step: Environment steps so far.
        update: Number of the update, from 0.
        indices: Numbers of the episodes (places of the transitions) in replay that the batch came from.
        checkpoint: The last checkpoint, which is from before; None if none has been written.
    """

    def __init__(self, message: str, step: int, update: int, indices: list[int], checkpoint: str | None) -> None:
        super().__init__(message)
        self.step, self.update, self.indices, self.checkpoint = step, update, indices, checkpoint


class DivergenceWarning(UserWarning):
    """The network's values are beyond what any return could be."""


class UpdateWatch:
    """Looks at the updates of one call of ``train`` and logs what it saw.

    Nothing here waits for the device: the priorities, which a NaN in the loss reaches too, are in main memory for
    replay anyway, and the other figures are fetched once, at the end, together with the loss.

    Args:
        model: The model that is trained.
    """

    def __init__(self, model: LearningAgent) -> None:
        self.model = model
        self._figures: list[Tensor] = []
        self._indices: list[Any] = []

    def check(self, batch: Any, priorities: NDArray[np.float64]) -> None:
        """Stop before the weights are touched if the loss of a batch is no number.

        Args:
            batch: The batch.
            priorities: Those of its loss, shape (B,).

        Raises:
            NumericalError: If a priority, and so the loss, is NaN or infinite.
        """
        self._indices.append(getattr(batch, "indices", None))
        # A sum is NaN or infinite if one of its terms is, and costs a third of asking each.
        if not math.isfinite(priorities.sum()):
            self._fail_by_errors(batch, priorities, len(self._indices) - 1)

    def check_loss(self, batch: Any, update: int, loss: float, td_errors: Tensor) -> None:
        """The same for learning from texts, where the loss is in main memory, and errors (B, T) are not.

        Raises:
            NumericalError: If the loss is NaN or infinite.
        """
        if not math.isfinite(loss):
            self._fail_by_errors(batch, td_errors, update)

    def _fail_by_errors(self, batch: Any, errors: Any, number: int) -> None:
        finite_errors = torch.as_tensor(errors).isfinite().cpu().numpy()
        bad = np.array(~finite_errors.reshape(len(finite_errors), -1).all(axis=1))  # (B,)
        if not bad.any():
            bad[:] = True
        rewards = batch.rewards.isfinite().flatten(1).all(dim=1).cpu().numpy()
        cause = "their rewards are finite" if rewards[bad].all() else "their rewards are NaN or infinite, too"
        self._fail("the loss", number, getattr(batch, "indices", None), bad, cause)

    def add(self, batch: Any, result: Loss, gradient_norm: Tensor) -> None:
        """Remember the figures of an update."""
        figures = [result.loss.detach(), result.td_error, result.q_mean, gradient_norm, *result.q_range]
        self._figures.append(torch.stack([*figures, batch.rewards.abs().amax()]))

    def log(self) -> None:
        """Fetch the figures, log them, and warn once if the values have diverged.

        Raises:
            NumericalError: If a gradient, or a loss whose priorities were finite, is NaN or infinite: the weights are
                lost then.
        """
        if not self._figures:
            return
        rows = torch.stack(self._figures).tolist()
        for number, row in enumerate(rows):
            if not all(map(math.isfinite, row)):
                what = "the gradient" if math.isfinite(row[0]) else "the loss"
                self._fail(what, number, self._indices[number], None, "the weights are lost")
        model = self.model
        columns = list(zip(*rows, strict=True))
        for name, values in zip(("loss", "td_error", "q_mean", "grad_norm"), columns, strict=False):
            model.logger.record(f"train/{name}", sum(values) / len(values))
        q_min, q_max = min(columns[4]), max(columns[5])
        model.logger.record("train/q_min", q_min)
        model.logger.record("train/q_max", q_max)
        model._largest_reward = max(model._largest_reward, *columns[6])
        bound = value_bound(model)
        if bound is None or bound == 0.0:
            return
        share = max(-q_min, q_max) / bound
        model.logger.record("train/q_over_bound", share)
        if share > DIVERGENCE_MARGIN and not model._diverged:
            model._diverged = True
            warnings.warn(
                f"values have diverged after {model.num_timesteps} steps: they range from {q_min:.4g} to {q_max:.4g}, "
                f"and no return can be beyond {bound:.4g}; a lower learning_rate or tau, or a smaller gamma, may help",
                DivergenceWarning,
                stacklevel=3,
            )

    def _fail(self, what: str, number: int, indices: Any, bad: Any, cause: str) -> None:
        model = self.model
        origin: list[int] = []
        if indices is not None:
            origin = np.unique(indices if bad is None else indices[bad]).tolist()
        kind = "transitions" if model._path.name == "transitions" else "episodes"
        named = ", ".join(map(str, origin[:_MOST_NAMED])) + (" …" if len(origin) > _MOST_NAMED else "")
        update, saved = model._n_updates + number, model.last_checkpoint
        raise NumericalError(
            f"{what} is NaN or infinite after {model.num_timesteps} steps, in update {update}, whose batch came from "
            f"the {kind} {named or 'drawn'} of replay; {cause}; "
            + (f"the last good checkpoint is {saved}" if saved else "no checkpoint has been written"),
            model.num_timesteps,
            update,
            origin,
            saved,
        )


def value_bound(model: LearningAgent) -> float | None:
    """The largest amount that a discounted return can have: largest reward × the steps that count.

    The largest reward is that of the task's ``reward_range``, where it is known, or any larger one that updates have
    seen. The steps that count are ``1 / (1 - gamma)``, or the tokens that fit in an episode, if that is less.

    Returns:
        The bound; None where neither limits the number of steps.
    """
    path, env = model._path, model.env
    if env is not None and (path.limits is None or path.limits[0] is not env):
        path.limits = env, *_task_limits(env)
    reward, tokens = model._largest_reward, math.inf
    if path.limits is not None:
        tokens = path.limits[1]
        if model._vec_normalize_env is None:
            reward = max(reward, path.limits[2])
    if isinstance(model.observation_space, TokenSequence):
        tokens = min(tokens, model.observation_space.context_length)
    steps = min(tokens, math.inf if model.gamma == 1.0 else 1.0 / (1.0 - model.gamma))
    return None if math.isinf(steps) else reward * steps


def _task_limits(env: VecEnv) -> tuple[float, float]:
    """Most tokens of an episode, and the largest reward; infinity and 0 where the environment does not tell."""
    if not env.has_attr("task"):
        return math.inf, 0.0
    task = env.get_attr("task")[0]
    known = max(map(abs, getattr(task, "reward_range", (0.0, 0.0))))
    return float(getattr(task, "max_new_tokens", math.inf)), known if math.isfinite(known) else 0.0
