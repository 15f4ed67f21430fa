"""An actor: environments and a copy of the network, in a process of its own, which acts and reports."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from torch import Tensor

from agents.distributed.reports import Order, Report, VectorStep, compact
from agents.double_dqn.acting import get_acting_state, sequence_env, set_acting_state
from agents.double_dqn.double_dqn import DoubleDQN
from agents.replay.episode_store import FinishedEpisodes
from agents.replay.episodes import EpisodeReplayBuffer

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

_NOT_FOR_OTHERS = ("rehearsal", "ep_info_buffer", "ep_success_buffer", "_last_obs", "_last_episode_starts")
_IN_REPLAY = ("terminal_observation", "action_mask")


def actor_spec(model: DoubleDQN) -> bytes:
    """All that an actor needs to know of a model, pickled: its arguments, weights, explorer and environment."""
    env = sequence_env(model, "to act for a learner")
    return cloudpickle.dumps((archive_of(model), env))


def archive_of(model: DoubleDQN) -> bytes:
    """A model as ``save`` leaves it, without what is this process's own business."""
    archive = io.BytesIO()
    model.save(archive, exclude=_NOT_FOR_OTHERS)
    return archive.getvalue()


class Actor:
    """What runs in the actor's process; an engine calls its methods one at a time.

    Args:
        number: Number of the actor, from 0.
        incarnation: See :class:`agents.distributed.reports.EpisodeId`.
        spec: What :func:`actor_spec` gave.
        version: Updates that the weights in it have had.
        state: What :meth:`get_state` gave; None begins with texts and random choices of the actor's own, which the
            model's seed, ``number`` and ``incarnation`` decide.
    """

    def __init__(self, number: int, incarnation: int, spec: bytes, version: int, state: dict[str, Any] | None) -> None:
        self.number = number
        archive, env = cloudpickle.loads(spec)
        self.model = model = DoubleDQN.load(io.BytesIO(archive), env, "cpu")
        model.tensorboard_log, model.verbose = None, 0
        self._outbox = model.replay_buffer = _Outbox.beside(model.replay_buffer, env)
        if state is None:
            seeds = np.random.SeedSequence(None if model.seed is None else [model.seed, self.number, incarnation])
            model._generator = np.random.default_rng(seeds.spawn(1)[0])
            env.seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))
        model._setup_learn(1, None)
        if state is not None:
            set_acting_state(model, state)
            self._outbox._partial.set_state(state["partial"])
        self._incarnation, self._version = incarnation, version
        self._n_reports = self._n_episodes = 0
        self._unacknowledged: list[Report] = []

    def act(self, order: Order, weights: Mapping[str, Tensor] | None) -> list[Report]:
        """Act in all rows, and report that and whatever the learner has not acknowledged yet.

        Args:
            order: What to do.
            weights: New ones, of ``order.version``; None to act with those that are there.
        """
        started = time.perf_counter()
        model = self.model
        assert model.env is not None
        self._unacknowledged = [report for report in self._unacknowledged if report.number >= order.acknowledged]
        if weights is not None:
            model.q_net.load_state_dict(weights)
            self._version = order.version
        model.num_timesteps, model._total_timesteps = order.num_timesteps, order.total_timesteps
        model._current_progress_remaining = order.progress_remaining
        recorder = _Recorder()
        recorder.init_callback(model)
        how_long = TrainFreq(order.vector_steps, TrainFrequencyUnit.STEP)
        # SB3's: DoubleDQN's would count the updates that are due, which is the learner's business.
        OffPolicyAlgorithm.collect_rollouts(
            model, model.env, recorder, how_long, self._outbox, learning_starts=model.learning_starts
        )
        blocks = iter(self._outbox.take())
        steps = [VectorStep(infos, next(blocks) if infos else None) for infos in recorder.infos]
        seconds = time.perf_counter() - started
        ids = self.number, self._incarnation, self._n_reports, self._n_episodes
        self._unacknowledged.append(Report(*ids, self._version, seconds, steps))
        self._n_reports += 1
        self._n_episodes += sum(len(step.infos) for step in steps)
        return self._unacknowledged

    def get_state(self) -> dict[str, Any]:
        """What it remembers of the texts under way."""
        return {**get_acting_state(self.model), "partial": self._outbox._partial.get_state()}


class _Recorder(BaseCallback):
    """Keeps the infos of the rows whose episodes end, one dictionary for each step."""

    def __init__(self) -> None:
        super().__init__()
        self.infos: list[dict[int, dict[str, Any]]] = []

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        ended = np.flatnonzero(self.locals["dones"]).tolist()
        kept = {row: {key: value for key, value in infos[row].items() if key not in _IN_REPLAY} for row in ended}
        self.infos.append(kept)
        return True


class _Outbox(EpisodeReplayBuffer):
    """Episodes on their way to the learner's replay."""

    @classmethod
    def beside(cls, replay: Any, env: VecEnv) -> _Outbox:
        """One that takes down episodes as ``replay`` would."""
        return cls(
            1,
            env.observation_space,
            env.action_space,
            torch.device("cpu"),
            env.num_envs,
            handle_timeout_termination=replay.handle_timeout_termination,
            prioritized=False,
        )

    def reset(self) -> None:
        super().reset()
        self._finished: list[FinishedEpisodes] = []

    def _append(self, episodes: FinishedEpisodes) -> None:
        self._finished.append(compact(episodes))

    def take(self) -> list[FinishedEpisodes]:
        """The episodes that ended since the last call, a block for each step."""
        finished, self._finished = self._finished, []
        return finished
