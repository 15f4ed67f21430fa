"""The updates of learning from text, and what is kept so that they can be gone on with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import polyak_update
from torch import nn

from agents.double_dqn import DoubleDQN
from agents.double_dqn.health import UpdateWatch
from agents.double_dqn.policies import SequencePolicy
from agents.offline.losses import OfflineObjective, offline_loss
from agents.replay.episodes import EpisodeReplayBuffer, sequence_priorities
from agents.saving.checkpoint_folder import CheckpointError, CheckpointFolder, CheckpointWriter
from agents.saving.random_states import random_states, set_random_states


@dataclass(frozen=True)
class OfflineProgress:
    """What a callback is told after each update.

    Attributes:
        update: Updates so far (≥ 1).
        updates: Updates in all.
        loss: Loss of this update.
        error: Mean absolute temporal-difference error of its actions (``"crr"``: of the state values), or their mean
            cross-entropy for ``"bc"``.
        q_mean: Mean value of the actions in it.
    """

    update: int
    updates: int
    loss: float
    error: float
    q_mean: float


class TextCheckpoints:
    """Checkpoints of :func:`agents.learn_from_text`, which goes on from the newest one in the folder.

    Learning ends as if it had never stopped, bit for bit on the same machine and versions.

    Args:
        folder: Where the last two checkpoints are kept, with names that begin with ``text-``.
        every_seconds: See :class:`agents.saving.checkpoint_folder.CheckpointWriter`.
        stop: Likewise; asked before each update.

    Raises:
        ValueError: If ``every_seconds`` is negative.
        StateFileError: If there are checkpoints, and all are damaged.

    Example:
        >>> from agents import DoubleDQN, learn_from_text
        >>> from textgym import demonstrations
        >>> model = DoubleDQN("PerformerPolicy", "TextGen/Reverse-v0", seed=0)
        >>> shown = demonstrations("TextGen/Reverse-v0", n=100)
        >>> result = learn_from_text(model, shown, checkpoints=TextCheckpoints("checkpoints"))  # doctest: +SKIP
    """

    def __init__(
        self, folder: str | Path, every_seconds: float | None = None, stop: Callable[[], bool] | None = None
    ) -> None:
        files = CheckpointFolder(folder, "text")
        found = files.load()
        self.state: dict[str, Any] | None = None if found is None else found[1]
        elapsed = 0.0 if self.state is None else float(self.state["elapsed"])
        self.writer = CheckpointWriter(files, every_seconds, stop, elapsed)

    @property
    def seconds(self) -> float:
        """Seconds of learning so far, in all processes."""
        return self.writer.seconds

    def resume(self, learner: TextLearner) -> None:
        """Put a learner where the newest checkpoint left one, if there is any.

        Raises:
            CheckpointError: If it is of a learner with other arguments.
        """
        if self.state is not None:
            learner.set_state(self.state)
            newest = next(iter(self.writer.folder.files()), None)
            learner.model.last_checkpoint = None if newest is None else str(newest)
            self.state = None

    def save_if_due(self, learner: TextLearner) -> None:
        """Write a checkpoint if it is time.

        Raises:
            TrainingInterrupted: After it, if learning is to stop.
        """

        def save() -> None:
            learner.model.last_checkpoint = str(self.writer.write(len(learner.losses), learner.get_state))

        self.writer.save_if_due(save)


class TextLearner:
    """Updates the network of a model from the texts in its replay.

    Args:
        model: What learns.
        policy: Its policy.
        replay: Its replay, with the texts.
        objective: What is learned from them.
        updates: Updates in all (≥ 0).
        batch_size: Texts in each (≥ 1).
        learning_rate: Learning rate, or a function of the remaining progress.
        prioritized: Whether texts with large errors are drawn more often, if replay can.

    Attributes:
        losses: Loss of each update so far.
    """

    def __init__(
        self,
        model: DoubleDQN,
        policy: SequencePolicy,
        replay: EpisodeReplayBuffer,
        objective: OfflineObjective,
        updates: int,
        batch_size: int,
        learning_rate: float | Schedule,
        prioritized: bool,
    ) -> None:
        self.model, self.policy, self.replay, self.objective = model, policy, replay, objective
        self.updates, self.batch_size, self.learning_rate = updates, batch_size, learning_rate
        self.prioritized = prioritized and replay.prioritized
        self.losses: list[float] = []
        self._parameters = list(policy.q_net.parameters())
        self._optimizers: list[torch.optim.Optimizer] = [policy.optimizer]
        self._value_head: nn.Linear | None = None
        if objective.name in ("ilql", "crr"):
            # The usual initialisation would draw from the global generator.
            self._value_head = nn.utils.skip_init(nn.Linear, policy.q_net.features_dim, 1, device=model.device)
            nn.init.zeros_(self._value_head.weight)
            nn.init.zeros_(self._value_head.bias)
            self._optimizers.append(torch.optim.Adam(self._value_head.parameters()))
            self._parameters += self._value_head.parameters()
        self._online, self._frozen = list(policy.q_net.parameters()), list(policy.q_net_target.parameters())
        self._watch = UpdateWatch(model)

    def learn(
        self,
        callback: Callable[[OfflineProgress], bool | None] | None = None,
        checkpoints: TextCheckpoints | None = None,
    ) -> list[float]:
        """Make the updates that are left; the loss of each, those before a checkpoint included.

        Args:
            callback: Called after each update; False ends the learning.
            checkpoints: Where to go on from, and where to keep the state.
        """
        if checkpoints is not None:
            checkpoints.resume(self)
        was_prioritized = self.replay.prioritized
        self.replay.prioritized = self.prioritized
        self.policy.set_training_mode(True)
        try:
            while len(self.losses) < self.updates:
                if checkpoints is not None:
                    checkpoints.save_if_due(self)
                progress = self._update(callback is not None)
                if callback is not None and progress is not None and callback(progress) is False:
                    break
        finally:
            self.replay.prioritized = was_prioritized
            self.policy.set_training_mode(False)
        return self.losses

    def _update(self, report: bool) -> OfflineProgress | None:
        """One update, and what to tell of it."""
        model, policy, number = self.model, self.policy, len(self.losses)
        remaining = 1.0 - number / self.updates
        rate = self.learning_rate(remaining) if callable(self.learning_rate) else self.learning_rate
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        batch = self.replay.sample(self.batch_size, env=model.get_vec_normalize_env(), beta=model.priority_beta)
        loss, errors, q_t = offline_loss(policy.q_net, policy.q_net_target, self._value_head, batch, self.objective)
        value = loss.item()
        self._watch.check_loss(batch, number, value, errors)
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, model.max_grad_norm)
        for optimizer in self._optimizers:
            optimizer.step()
        polyak_update(self._online, self._frozen, model.tau)
        if self.replay.prioritized:
            self.replay.update_priorities(batch.indices, sequence_priorities(errors, batch.valid))
        self.losses.append(value)
        if not report:
            return None
        n_valid = batch.valid.sum()
        error, q_mean = ((part * batch.valid).sum().item() / n_valid.item() for part in (errors.abs(), q_t.detach()))
        return OfflineProgress(number + 1, self.updates, value, error, q_mean)

    def get_state(self) -> dict[str, Any]:
        """Everything that decides how learning goes on, as plain values and arrays."""
        return {
            "arguments": self._arguments(),
            "losses": np.asarray(self.losses),
            "policy": dict(self.policy.state_dict()),
            "value_head": None if self._value_head is None else dict(self._value_head.state_dict()),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "replay": self.replay.get_state(),
            "random": random_states(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that :meth:`get_state` gave, of a learner with the same arguments.

        Raises:
            CheckpointError: If the state is of another one.
        """
        ours, theirs = self._arguments(), state.get("arguments")
        if theirs != ours:
            raise CheckpointError(f"the checkpoint must be of texts learned from with {ours}, got {theirs}")
        try:
            self.policy.load_state_dict(state["policy"])
            if self._value_head is not None:
                self._value_head.load_state_dict(state["value_head"])
            for optimizer, values in zip(self._optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(values)
            self.replay.set_state(state["replay"])
            self.losses = state["losses"].tolist()
            set_random_states(state["random"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise CheckpointError(f"state must be that of a model with the same arguments: {error}") from error

    def _arguments(self) -> dict[str, Any]:
        return {
            **asdict(self.objective),
            "updates": self.updates,
            "batch_size": self.batch_size,
            "prioritized": self.prioritized,
        }
