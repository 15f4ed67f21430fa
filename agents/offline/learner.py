"""The updates of learning from text, and what is kept so that they can be gone on with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import polyak_update
from torch import Tensor, nn

from agents.double_dqn import DoubleDQN
from agents.double_dqn.health import UpdateWatch
from agents.double_dqn.policies import SequencePolicy
from agents.offline.episodes import TextEpisodes
from agents.offline.losses import OBJECTIVES, OfflineObjective, offline_loss
from agents.replay.episodes import sequence_priorities
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


class Learned(NamedTuple):
    """What one batch teaches.

    Attributes:
        loss: A scalar with a gradient.
        errors: Temporal-difference errors and the like, shape ``(B, T)``, without one.
        q_t: Values of the data's actions, shape ``(B, T)``.
        valid: Which of them exist, bool, shape ``(B, T)``.
        priorities: New ones of the batch, shape ``(B,)``; None for :func:`agents.replay.episodes.sequence_priorities`.
    """

    loss: Tensor
    errors: Tensor
    q_t: Tensor
    valid: Tensor
    priorities: Tensor | None = None


class TextLearner:
    """Updates the network of a model with a policy for sequences from the texts in its replay.

    Args:
        model: What learns; its replay holds the texts.
        objective: What is learned from them.
        updates: Updates in all (≥ 0).
        batch_size: Texts in each (≥ 1).
        learning_rate: Learning rate, or a function of the remaining progress.
        prioritized: Whether texts with large errors are drawn more often, if replay can.

    Attributes:
        losses: Loss of each update so far.
        rehearses: Whether later online updates can go on learning from the texts.
        unused: Arguments of :func:`agents.learn_from_text` that have no part in it.
    """

    rehearses: ClassVar[bool] = True
    unused: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        model: DoubleDQN,
        objective: OfflineObjective,
        updates: int,
        batch_size: int,
        learning_rate: float | Schedule,
        prioritized: bool,
    ) -> None:
        self.model, self.policy, self.replay, self.objective = model, model.policy, model.replay_buffer, objective
        self.updates, self.batch_size, self.learning_rate = updates, batch_size, learning_rate
        self.prioritized = prioritized and getattr(self.replay, "prioritized", False)
        self.losses: list[float] = []
        policy = self.policy
        self._parameters = list(policy.q_net.parameters())
        self._optimizers: list[torch.optim.Optimizer] = [policy.optimizer]
        self._value_head: nn.Module | None = None
        if objective.name in ("ilql", "crr"):
            self._value_head = self._new_value_head()
        if self._value_head is not None:
            self._optimizers.append(torch.optim.Adam(self._value_head.parameters()))
            self._parameters += self._value_head.parameters()
        self._online, self._frozen = list(policy.q_net.parameters()), list(policy.q_net_target.parameters())
        self._watch = UpdateWatch(model)

    @classmethod
    def objectives(cls, model: DoubleDQN) -> tuple[str, ...]:
        """What can be learned from texts by the model."""
        return OBJECTIVES

    @staticmethod
    def value_range(model: DoubleDQN) -> tuple[float, float] | None:
        """Bounds of the model's values; None if there are none."""
        policy = model.policy
        assert isinstance(policy, SequencePolicy)
        return policy.q_net.head.value_range

    @staticmethod
    def store(model: DoubleDQN, episodes: TextEpisodes) -> None:
        """Put texts into the model's replay."""
        episodes.store(model.replay_buffer)

    def _new_value_head(self) -> nn.Module | None:
        """State values of the network's features: what ``"ilql"`` and ``"crr"`` learn beside it."""
        # The usual initialisation would draw from the global generator.
        head = nn.utils.skip_init(nn.Linear, self.policy.q_net.features_dim, 1, device=self.model.device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head

    def _sample(self) -> Any:
        return self.replay.sample(
            self.batch_size, env=self.model.get_vec_normalize_env(), beta=self.model.priority_beta
        )

    def _loss(self, batch: Any) -> Learned:
        policy, head = self.policy, self._value_head
        assert isinstance(policy, SequencePolicy) and (head is None or isinstance(head, nn.Linear))
        learned = offline_loss(policy.q_net, policy.q_net_target, head, batch, self.objective)
        return Learned(*learned, batch.valid)

    def _target_rate(self) -> float:
        """Share of the network that the target network takes over after each update."""
        return self.model.tau

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
        was_prioritized = getattr(self.replay, "prioritized", None)
        if was_prioritized is not None:
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
            if was_prioritized is not None:
                self.replay.prioritized = was_prioritized
            self.policy.set_training_mode(False)
        return self.losses

    def _update(self, report: bool) -> OfflineProgress | None:
        """One update, and what to tell of it."""
        model, number = self.model, len(self.losses)
        remaining = 1.0 - number / self.updates
        rate = self.learning_rate(remaining) if callable(self.learning_rate) else self.learning_rate
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        batch = self._sample()
        loss, errors, q_t, valid, priorities = self._loss(batch)
        value = loss.item()
        self._watch.check_loss(batch, number, value, errors)
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, model.max_grad_norm)
        for optimizer in self._optimizers:
            optimizer.step()
        polyak_update(self._online, self._frozen, self._target_rate())
        if self.prioritized:
            priorities = sequence_priorities(errors, valid) if priorities is None else priorities
            self.replay.update_priorities(batch.indices, priorities.cpu().numpy())
        self.losses.append(value)
        if not report:
            return None
        n_valid = valid.sum().clamp(min=1)
        error, q_mean = ((part * valid).sum().item() / n_valid.item() for part in (errors.abs(), q_t.detach()))
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
