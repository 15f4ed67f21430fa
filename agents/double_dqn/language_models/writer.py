"""Samples of a steered model, and of the model itself, in an environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents.double_dqn.language_models import objectives
from agents.double_dqn.language_models.policy import LanguageModelPolicy
from agents.double_dqn.language_models.reader import Reader

if TYPE_CHECKING:
    from agents.double_dqn.base import LearningAgent


class Writer:
    """Draws texts by π ∝ π₀·exp(strength · Q/η), with randomness of its own; has ``predict``, as models of SB3 have.

    Args:
        model: A :class:`agents.DoubleDQN` with a :class:`LanguageModelPolicy`.
        strength: See :func:`agents.double_dqn.language_models.steering`; 0 is the language model itself.
        seed: Seed of the draws.

    Attributes:
        nats: KL divergence from the language model of each row's first text, shape ``(n,)``, in nats.

    Raises:
        ValueError: If the model has another policy.
    """

    def __init__(self, model: LearningAgent, strength: float = 1.0, seed: int = 0) -> None:
        if not isinstance(model.policy, LanguageModelPolicy):
            raise ValueError(f"model must have a LanguageModelPolicy, got {type(model.policy).__name__}")
        self.policy, self.strength = model.policy, strength
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
        values = self.strength * policy.q_net.q_values(states, policy.eta).cpu()
        log_probs = objectives.policy_log_probs(values, states.prior(), policy.eta)
        nats = objectives.divergence(log_probs, states.prior(), states.mass).numpy()
        self.nats += np.where(self._started == 1, nats, 0.0)
        scores = log_probs.numpy()
        if deterministic:
            return states.tokens.numpy()[np.arange(len(rows)), scores.argmax(axis=1)], reader
        return reader.draw(states, scores, self._random)[0], reader
