"""Samples of a steered model, and of the model itself, in an environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from agents.double_dqn.language_models import objectives
from agents.double_dqn.language_models.policy import LanguageModelPolicy
from agents.double_dqn.language_models.reader import Reader, States

if TYPE_CHECKING:
    from agents.double_dqn.base import LearningAgent


class Writer:
    """Draws texts by π ∝ π₀·exp(strength · Q/η), with randomness of its own; has ``predict``, as models of SB3 have.

    Args:
        model: A :class:`agents.DoubleDQN` with a :class:`LanguageModelPolicy`.
        strength: See :func:`agents.double_dqn.language_models.steering`; 0 is the language model itself.
        seed: Seed of the draws.
        top_p: Draw among the likeliest tokens of that policy alone, as few as have this probability together, in
            (0, 1]: see :func:`agents.double_dqn.language_models.objectives.nucleus`.
        rewards_of: What candidates would earn in the rows as they are, ``(n, k)`` → ``(n, k)``, to be asked instead of
            what was learned of it: :meth:`textgym.TextGenVectorEnv.rewards_of` of a dense environment whose
            observations are read. Needs ``candidate_rewards``.

    Attributes:
        nats: KL divergence from the language model of each row's first text, shape ``(n,)``, in nats: of the policy
            that wrote it, be it all of π, its top-p, or its likeliest token (``deterministic``).

    Raises:
        ValueError: If the model has another policy, or ``top_p`` is out of range.
    """

    def __init__(
        self,
        model: LearningAgent,
        strength: float = 1.0,
        seed: int = 0,
        top_p: float = 1.0,
        rewards_of: Callable[[NDArray[np.int64]], ArrayLike] | None = None,
    ) -> None:
        if not isinstance(model.policy, LanguageModelPolicy):
            raise ValueError(f"model must have a LanguageModelPolicy, got {type(model.policy).__name__}")
        if isinstance(top_p, bool) or not isinstance(top_p, (int, float)) or not 0 < top_p <= 1:
            raise ValueError(f"top_p must be a number in (0, 1], got {top_p!r}")
        if rewards_of is not None:
            model.policy.check_asks("rewards_of")
        self.policy, self.strength, self.top_p, self.rewards_of = model.policy, strength, float(top_p), rewards_of
        self.nats = np.zeros(0)
        self._random = np.random.default_rng(seed)
        self._started = np.zeros(0, np.int64)

    @torch.no_grad()
    def predict(
        self,
        observation: Any,
        state: Reader | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int64], Reader]:
        """Draw the next tokens of n texts; see :meth:`agents.DoubleDQN.predict`."""
        rows, policy = np.asarray(observation), self.policy
        reader = policy.reader() if state is None else state
        if state is None:
            self.nats, self._started = np.zeros(len(rows)), np.ones(len(rows), np.int64)
        elif episode_start is not None:
            self._started += np.asarray(episode_start, bool)
        states = reader.read(rows, action_masks)
        asked = None if self.rewards_of is None else torch.as_tensor(self.rewards_of(states.tokens.numpy()))
        values = self.strength * policy.q_net.q_values(states, policy.eta, asked).cpu()
        log_probs = objectives.policy_log_probs(values, states.prior(), policy.eta)
        tokens, nats = self._chosen(reader, states, log_probs, deterministic)
        self.nats += np.where(self._started == 1, nats.numpy(), 0.0)
        return tokens, reader

    def _chosen(
        self, reader: Reader, states: States, log_probs: Tensor, deterministic: bool
    ) -> tuple[NDArray[np.int64], Tensor]:
        """A token of each row, and what choosing it so costs in nats, ``(n,)`` each; candidates are ``(n, k)``."""
        if deterministic:
            best = log_probs.argmax(dim=1, keepdim=True)
            return states.tokens.gather(1, best).squeeze(1).numpy(), -states.log_probs.gather(1, best).squeeze(1)
        if self.top_p == 1:
            tokens = reader.draw(states, log_probs.numpy(), self._random)[0]
            return tokens, objectives.divergence(log_probs, states.prior(), states.mass)
        plain = reader.log_probs
        whole = plain.scatter(1, states.tokens, states.among_all(log_probs))  # (n, V)
        policy = objectives.nucleus(whole, self.top_p)
        tokens = (policy.numpy() + self._random.gumbel(size=tuple(policy.shape))).argmax(axis=1)
        return tokens, objectives.divergence(policy, plain, torch.ones(len(plain)))
