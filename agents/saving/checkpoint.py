"""Checkpoints: everything that decides how training goes on, so that a run that was killed ends as if it had not been.

A checkpoint is taken between two rollouts, when the last step is in replay and the last update in the network. It holds
weights, target weights, optimizer, replay with its priorities, exploration counts, schedules, the environments in
mid-episode, the encoder's memory of their texts, and every random state. Reading one executes nothing: see
:mod:`agents.saving.state_file`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from agents.double_dqn.acting import get_acting_state, resumable_parts, set_acting_state
from agents.offline.rehearsal import Rehearsal
from agents.replay.shards import join
from agents.saving.checkpoint_folder import CheckpointError, CheckpointFolder, CheckpointWriter
from agents.saving.random_states import random_states, set_random_states
from agents.saving.state_file import StateFileError, read_state

if TYPE_CHECKING:
    from agents.double_dqn.double_dqn import DoubleDQN

_COUNTERS = (
    "num_timesteps",
    "exploration_rate",
    "_episode_num",
    "_n_updates",
    "_n_calls",
    "_current_progress_remaining",
    "_updates_due",
    "_env_steps_collected",
    "_steps_since_target_update",
    "_largest_reward",
)


def get_state(model: DoubleDQN) -> dict[str, Any]:
    """Everything that decides how training goes on, as plain values and arrays.

    Call it between two rollouts (``on_rollout_start`` of a callback), on a model that is learning.

    Args:
        model: A :class:`agents.DoubleDQN` on the native batched environment, with a replay buffer of ours.

    Raises:
        ValueError: If the model is of another kind.
    """
    resumable_parts(model)
    if model.actors is not None:
        model.actors.sync()
    assert model.ep_info_buffer is not None
    return {
        "counters": {name: getattr(model, name) for name in _COUNTERS},
        "policy": dict(model.policy.state_dict()),
        "optimizer": model.policy.optimizer.state_dict(),
        "replay": model.replay_buffer.get_state(),
        "rehearsal": None if model.rehearsal is None else model.rehearsal.get_state(),
        **get_acting_state(model),
        "actors": None if model.actors is None else model.actors.get_state(),
        # Without their times of day, so that two runs can be compared.
        "episode_infos": [
            {name: value for name, value in info.items() if name != "t"} for info in model.ep_info_buffer
        ],
        "successes": list(model.ep_success_buffer or ()),
        "random": random_states(),
    }


def set_state(model: DoubleDQN, state: dict[str, Any]) -> None:
    """Return to a state that :func:`get_state` gave, of a model with the same arguments that has begun to learn.

    Raises:
        CheckpointError: If the state does not fit the model.
    """
    resumable_parts(model)
    assert model.ep_info_buffer is not None and model.ep_success_buffer is not None
    try:
        model.policy.load_state_dict(state["policy"])
        model.policy.optimizer.load_state_dict(state["optimizer"])
        shards = [state["replay"], *(state.get("actors") or {}).get("shards", ())]  # of several learners
        if len(shards) > 1:
            join(model.replay_buffer, shards)
        else:
            model.replay_buffer.set_state(state["replay"])
        texts = state.get("rehearsal")
        model.rehearsal = None if texts is None else Rehearsal.from_state(texts, model.replay_buffer)
        for name in _COUNTERS:
            setattr(model, name, state["counters"][name])
        set_acting_state(model, state)
        if model.actors is not None:
            model.actors.set_state(state.get("actors"), shards)
        for buffer, values in (
            (model.ep_info_buffer, [{"t": 0.0, **info} for info in state["episode_infos"]]),
            (model.ep_success_buffer, state["successes"]),
        ):
            buffer.clear()
            buffer.extend(values)
        set_random_states(state["random"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"state must be that of a model with the same arguments: {error}") from error


def _pending_records(model: DoubleDQN) -> list[tuple[str, float, tuple[str, ...]]]:
    """Numbers that have been logged since the last row of the log was written."""
    excluded = model.logger.name_to_excluded
    return [
        (name, float(value) if isinstance(value, float) else int(value), tuple(excluded[name]))
        for name, value in model.logger.name_to_value.items()
        if isinstance(value, (int, float, np.integer))
    ]


def _description(model: DoubleDQN) -> dict[str, Any] | None:
    from agents.saving.export import describe

    try:
        return describe(model)
    except ValueError:  # classes of the user's own: no harm to resuming
        return None


def load_checkpointed(path: str | Path, device: torch.device | str = "auto", language_model: Any = None) -> DoubleDQN:
    """The model in a checkpoint, to act with: without replay, optimizer and environment.

    Args:
        path: The file.
        device: Torch device.
        language_model: See :func:`agents.saving.export.load`.

    Raises:
        StateFileError: If the file can't be read, or holds a model that only its user's own code can build.
        ModelFileError: If its parts do not fit each other.
    """
    from agents.saving.export import rebuild

    value = read_state(path)
    description, policy = value.get("model"), value.get("state", {}).get("policy", {})
    if description is None:
        raise StateFileError(f"{path} holds a model of classes of its user's own; it can only be resumed")
    weights = {name.removeprefix("q_net."): item for name, item in policy.items() if name.startswith("q_net.")}
    return rebuild(description, weights, str(path), device, language_model)


class SaveCheckpoints(BaseCallback):
    """Writes checkpoints while :class:`agents.DoubleDQN` learns, and takes training up again where one was written.

    To resume, build the model with the same arguments, and call ``learn`` with the same number of steps: training goes
    on from ``resume`` and ends as if it had never stopped, bit for bit on the same machine and versions. Put it first
    among the callbacks, so that they find the model as it was.

    Args:
        folder: Where the last two checkpoints are kept.
        every_seconds: See :class:`agents.saving.checkpoint_folder.CheckpointWriter`; 0 writes one after each rollout.
        resume: What :meth:`CheckpointFolder.load` gave, second part; None begins anew.
        stop: Asked before each rollout; if it says yes, a checkpoint is written and training ends with
            :class:`agents.saving.checkpoint_folder.TrainingInterrupted`. None never stops.
        extra: What else is written with each checkpoint, under ``"extra"``; None for nothing.

    Attributes:
        elapsed: Seconds of training before ``resume`` was written.

    Raises:
        ValueError: If ``every_seconds`` is negative; when training starts, if the model can't be resumed.
        CheckpointError: When training starts, if ``resume`` does not fit the model.
        OSError: During training, if a checkpoint can't be written; the earlier ones are still there.

    Example:
        >>> from agents import DoubleDQN
        >>> model = DoubleDQN("PerformerPolicy", "TextGen/Reverse-v0", seed=0)
        >>> model = model.learn(1_000, SaveCheckpoints("checkpoints"))  # doctest: +SKIP
    """

    model: DoubleDQN

    def __init__(
        self,
        folder: str | Path,
        every_seconds: float | None = None,
        resume: dict[str, Any] | None = None,
        stop: Callable[[], bool] | None = None,
        extra: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.elapsed = 0.0 if resume is None else float(resume["elapsed"])
        self.writer = CheckpointWriter(CheckpointFolder(folder), every_seconds, stop, self.elapsed)
        self.resume, self.extra = resume, extra

    def _on_training_start(self) -> None:
        self.writer.start()
        if self.resume is None:
            resumable_parts(self.model)
            return
        set_state(self.model, self.resume["state"])
        for name, value, excluded in self.resume["log"]:
            self.model.logger.record(name, value, excluded)
        self.num_timesteps = self.model.num_timesteps
        self.model.start_time = time.time_ns() - int(self.elapsed * 1e9)
        self.model._num_timesteps_at_start = 0
        newest = next(iter(self.writer.folder.files()), None)
        self.model.last_checkpoint = None if newest is None else str(newest)
        self.resume = None  # a second learn() goes on from the first

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.writer.save_if_due(self.save)

    def _on_training_end(self) -> None:
        if self.num_timesteps >= self.locals["total_timesteps"]:  # else it was stopped in the middle of a step
            self.save()

    def save(self) -> Path:
        """Write a checkpoint now; only between two rollouts."""
        path = self.writer.write(self.model.num_timesteps, self._content)
        self.model.last_checkpoint = str(path)
        return path

    def _content(self) -> dict[str, Any]:
        return {
            "model": _description(self.model),
            "state": get_state(self.model),
            "log": _pending_records(self.model),
            "extra": {} if self.extra is None else self.extra(),
        }
