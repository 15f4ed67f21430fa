"""The learner's side: orders to actors, their reports into replay, weights out, and what happens when one dies."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import RolloutReturn, TrainFreq, TrainFrequencyUnit

from agents.distributed.actor import actor_spec
from agents.distributed.crew import Crew
from agents.distributed.engine_by_name import ENGINES, make_engine
from agents.distributed.engines import Engine
from agents.distributed.learners import Learners, check_n_learners
from agents.distributed.rates import Rates
from agents.distributed.reports import Ledger, Order, Report
from agents.double_dqn.acting import get_acting_state, sequence_env, set_acting_state
from textgym.checks import check_at_least, check_positive

if TYPE_CHECKING:
    from agents.double_dqn.double_dqn import DoubleDQN

__all__ = ["ENGINES", "Actors"]


class Actors:
    """Actors in the place of a model's own environments; inside the ``with`` block ``learn`` collects through them.

    Each actor has as many rows as the model's environment, a copy of it, of the network and of the explorer, and
    reports finished episodes. The learner, this process, has replay and its priorities, the target network, the
    optimizer, callbacks, the log and checkpoints, as without actors. More learners can share its updates.

    Episodes have a name (actor, incarnation, number). A report is acknowledged once it is in replay; until then the
    actor keeps it and sends it again, and what comes twice is put into replay once. An actor that dies is replaced by
    one that begins new texts, with the next incarnation's seeds.

    With ``max_staleness=0`` the actors and the learner take turns, and one seed repeats a run bit for bit, whatever the
    engine; with one actor it is the run without actors. Otherwise actors go on while the learner learns, and what
    comes first depends on time.

    The log gets ``distributed/staleness`` (updates since an actor's weights when its report comes into replay; mean,
    and the largest so far as ``staleness_max``), ``episodes_per_second`` (of the last ten seconds), ``waiting`` (share
    of the time in which the learner waited), ``report_seconds`` (how long an actor takes for one), ``weights_sent``,
    ``replaced``, ``actors`` and, where there are several, ``learners``. Callbacks find ``episode_ids`` among their
    locals.

    Args:
        model: A :class:`agents.DoubleDQN` on token sequences and an environment of :func:`agents.make_vec_env`.
        n_actors: Number of actors (≥ 1).
        engine: ``"threads"`` for threads of this process, which suits slow rewards, or ``"ray"``.
        address: Of a Ray cluster whose machines have this package; None for that of the environment variable
            ``RAY_ADDRESS``, or else for a local Ray, started here.
        max_staleness: Most updates (≥ 0) between an actor's weights and its report; the learner waits for those who
            would exceed it.
        weights_every: Updates (≥ 1) between two weights for an actor, at least.
        vector_steps: Steps of all rows of an actor in a report (≥ 1); None for the model's ``train_freq``.
        cpus: Cores that Ray reserves for an actor (> 0); less than 1 where actors mostly wait.
        timeout: Seconds after which an actor that does not answer counts as dead (> 0), and a learner.
        n_learners: Learners, this process among them (≥ 1, at most the model's ``batch_size``): see
            :class:`agents.distributed.learners.Learners`.

    Attributes:
        learners: Those that share the updates; None where this process makes them alone.
        ledger: What has come and what is in replay.
        staleness_max: The largest staleness so far.
        weights_sent: How often weights went to an actor.

    Raises:
        ValueError: If an argument is out of range, the model is of another kind, or Ray is not installed.
        ActorDied: While learning, if an actor dies five times in a row before it has reported.
        LearnerDied: While learning, if another learner dies. What is in a checkpoint is not lost.

    Example:
        >>> from agents import DoubleDQN
        >>> from agents.distributed import Actors
        >>> model = DoubleDQN("PerformerPolicy", "TextGen/Reverse-v0", seed=0)
        >>> with Actors(model, n_actors=2):
        ...     model = model.learn(1_000)
    """

    def __init__(
        self,
        model: DoubleDQN,
        n_actors: int = 1,
        engine: str | Engine = "threads",
        *,
        address: str | None = None,
        max_staleness: int = 0,
        weights_every: int = 1,
        vector_steps: int | None = None,
        cpus: float = 1.0,
        timeout: float = 600.0,
        n_learners: int = 1,
    ) -> None:
        self._env = sequence_env(model, "to act through actors")
        self.model = model
        self.n_actors = check_at_least("n_actors", n_actors, 1)
        self.max_staleness = check_at_least("max_staleness", max_staleness, 0)
        self.weights_every = check_at_least("weights_every", weights_every, 1)
        if weights_every > max(1, max_staleness):
            raise ValueError(f"weights_every must be at most max_staleness={max_staleness}, got {weights_every}")
        self.vector_steps = None if vector_steps is None else check_at_least("vector_steps", vector_steps, 1)
        self.timeout = check_positive("timeout", timeout)
        cpus = check_positive("cpus", cpus)
        check_n_learners(model, n_learners)
        self.n_learners = n_learners
        if not isinstance(engine, Engine):
            engine = make_engine(engine, n_actors, address, cpus, n_learners)
        self.engine = engine
        self.learners = None
        if n_learners > 1:
            self.learners = Learners(model, n_learners, engine.learner_processes(), self.timeout)
        self.ledger = Ledger([-1] * n_actors)
        self.weights_sent = self.staleness_max = 0
        self._others: list[dict[str, Any]] = []
        self._shards: list[dict[str, Any]] | None = None  # of the other learners, in a checkpoint
        self._crew: Crew | None = None  # while learning
        self._replaced_before = 0

    def __enter__(self) -> Actors:
        if self.model.actors is not None:
            raise ValueError("model must have no other actors, got one that has them already")
        self.model.actors = self
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the actors; the model acts by itself again."""
        try:
            if self.learners is not None:
                self.learners.close()
        finally:
            self.engine.close()
            if self.model.actors is self:
                self.model.actors = None

    @property
    def replaced(self) -> int:
        """Actors that died and were replaced."""
        return self._replaced_before + (0 if self._crew is None else self._crew.replaced)

    # ------------------------------------------------------------------ what the model calls

    def on_learn(self, resets: bool) -> None:
        """Learning begins; the environments have been reset, or go on."""
        self._dismiss()
        if self.learners is not None:
            self.learners.end_learning()
        if resets:
            self._others = []

    def on_learned(self) -> None:
        """Learning has ended: the model knows all that is to be kept."""
        self.sync()
        if self.learners is not None:
            self.learners.end_learning()

    def collect(
        self, callback: BaseCallback, train_freq: TrainFreq, learning_starts: int, log_interval: int | None
    ) -> RolloutReturn:
        """Give orders, wait for reports, and put them into replay.

        See SB3's ``collect_rollouts``. The callback's ``on_step`` is called for every step of an actor's rows; its
        locals are ``dones``, ``infos`` (of rows that ended), ``actor`` and ``episode_ids``.
        """
        model = self.model
        if train_freq.unit != TrainFrequencyUnit.STEP:
            raise ValueError(f"train_freq must be in steps with actors, got {train_freq}")
        vector_steps = self.vector_steps or train_freq.frequency
        model.policy.set_training_mode(False)
        if self.learners is not None and not self.learners.learning:
            self.learners.begin_learning(self._shards)
            self._shards = None
        callback.on_rollout_start()
        if self._crew is None:
            self._crew = self._begin()
        crew = self._crew
        steps_before, waited = model.num_timesteps, -time.perf_counter()
        due = 0
        while True:
            self._dispatch(crew, vector_steps, due)
            self._gather(crew, vector_steps)
            waited += time.perf_counter()
            while crew.inbox and model.num_timesteps < model._total_timesteps:
                if not self._store(crew.inbox.popleft(), callback, log_interval):
                    return RolloutReturn(0, 0, continue_training=False)
            due = self._due(model.num_timesteps - steps_before, learning_starts)
            waited -= time.perf_counter()
            if not self._is_late(crew, due) or model.num_timesteps >= model._total_timesteps:
                break
        if self.max_staleness:
            self._dispatch(crew, vector_steps, due)
        waited += time.perf_counter()
        self._log(waited)
        callback.on_rollout_end()
        return RolloutReturn(model.num_timesteps - steps_before, 0, continue_training=True)

    def sync(self) -> None:
        """Wait for all actors, and put what the first one remembers into the model: its texts and its explorer."""
        if self._crew is None:
            return
        first, *self._others = self._crew.states()
        set_acting_state(self.model, first)
        self.model.replay_buffer._partial.set_state(first["partial"])

    def get_state(self) -> dict[str, Any]:
        """What the other actors remember since :meth:`sync`, and how many processes each has had."""
        state = {"incarnations": self.ledger.incarnations.copy(), "others": self._others}
        if self.learners is not None and self.learners.learning:
            state["shards"] = self.learners.get_state()
        return state

    def set_state(self, state: dict[str, Any] | None, shards: list[dict[str, Any]]) -> None:
        """Return to a state that :meth:`get_state` gave; actors beyond those that it knows begin anew.

        Args:
            state: The state; None: there were no actors.
            shards: States of the shards of replay, which is whole now. As many learners take them up as they were.
        """
        self._dismiss()
        self._others = []
        self._shards = shards if len(shards) == self.n_learners > 1 else None
        if state is not None:
            known = min(len(state["incarnations"]), self.n_actors)
            self.ledger.incarnations[:known] = state["incarnations"][:known]
            self._others = list(state["others"])[: self.n_actors - 1]

    # ------------------------------------------------------------------ actors

    def _dismiss(self) -> None:
        """The actors' processes will be started anew."""
        self._replaced_before, self._crew = self.replaced, None

    def _begin(self) -> Crew:
        """Have every actor go on from what it remembers; the first one from what the model does."""
        model = self.model
        spec, version = self.engine.share(actor_spec(model)), model._n_updates
        first = {**get_acting_state(model), "partial": model.replay_buffer._partial.get_state()}
        self._weights, self._weights_version = None, -1
        self._rates = Rates(self.ledger.n_episodes)
        states = [first, *self._others]
        return Crew(self.engine, self.n_actors, self.ledger, self.timeout, spec, version, states)

    def _dispatch(self, crew: Crew, vector_steps: int, due: int) -> None:
        """Give orders to the idle actors whose reports will not be too late after ``due`` updates."""
        model = self.model
        for actor in crew.idle:
            weights, version = None, crew.versions[actor]
            if model._n_updates - version >= self.weights_every:
                weights, version = self._shared_weights(), model._n_updates
            if due and model._n_updates + due - version > self.max_staleness:
                continue
            self.weights_sent += weights is not None
            crew.versions[actor] = version
            order = Order(
                version,
                model.num_timesteps,
                model._total_timesteps,
                model._current_progress_remaining,
                vector_steps,
                self.ledger.acknowledged(actor),
            )
            crew.call(actor, "act", order, weights)

    def _shared_weights(self) -> Any:
        model = self.model
        if self._weights_version != model._n_updates:
            weights = {name: tensor.detach().cpu().clone() for name, tensor in model.q_net.state_dict().items()}
            self._weights, self._weights_version = self.engine.share(weights), model._n_updates
        return self._weights

    def _gather(self, crew: Crew, vector_steps: int) -> None:
        """Wait for a report; in turns, for those of all, which are put in the order of the actors."""
        in_turns = self.max_staleness == 0
        while not crew.inbox or (in_turns and crew.acting):
            crew.wait()
            self._dispatch(crew, vector_steps, 0)  # to actors that have taken another's place
        if in_turns:
            crew.inbox = deque(sorted(crew.inbox, key=lambda report: report.actor))

    def _is_late(self, crew: Crew, due: int) -> bool:
        """Whether an actor that has not reported yet will be too late after ``due`` updates."""
        now = self.model._n_updates + due
        return any(now - crew.versions[actor] > self.max_staleness for actor in crew.acting)

    # ------------------------------------------------------------------ the learner

    def _due(self, steps: int, learning_starts: int) -> int:
        """Updates that will follow ``steps`` environment steps."""
        model = self.model
        if model.num_timesteps <= learning_starts:
            return 0
        if model.fixed_gradient_steps:
            return model.gradient_steps if model.gradient_steps >= 0 else steps
        return int(model._updates_due + steps * model.updates_per_step)

    def _store(self, report: Report, callback: BaseCallback, log_interval: int | None) -> bool:
        """Put a report into replay, step by step as SB3 does; False where the callback ends training."""
        model, n_rows = self.model, self._env.num_envs
        staleness = model._n_updates - report.version
        self.staleness_max = max(self.staleness_max, staleness)
        model.logger.record_mean("distributed/staleness", float(staleness))
        model.logger.record_mean("distributed/report_seconds", report.seconds)
        for step in report.steps:
            model.num_timesteps += n_rows
            ended = list(step.infos)
            dones, infos = np.zeros(n_rows, np.bool_), [step.infos.get(row, {}) for row in range(n_rows)]
            dones[ended] = True
            callback.update_locals({"dones": dones, "infos": infos, "actor": report.actor, "episode_ids": []})
            if not callback.on_step():
                return False
            model._update_info_buffer(infos, dones)
            if step.episodes is not None:
                if self.learners is not None:
                    self.learners.add(step.episodes)
                else:
                    model.replay_buffer._append(step.episodes)
                callback.update_locals({"episode_ids": self.ledger.store(report, len(ended))})
            model._update_current_progress_remaining(model.num_timesteps, model._total_timesteps)
            for _ in ended:
                model._episode_num += 1
                if log_interval is not None and model._episode_num % log_interval == 0:
                    model.dump_logs()
        self.ledger.finish(report)
        return True

    def _log(self, waited: float) -> None:
        rate, waiting = self._rates.add(self.ledger.n_episodes, waited)
        record = self.model.logger.record
        record("distributed/staleness_max", self.staleness_max)
        record("distributed/episodes_per_second", rate)
        record("distributed/waiting", waiting)
        record("distributed/weights_sent", self.weights_sent)
        record("distributed/replaced", self.replaced)
        record("distributed/actors", self.n_actors)
        if self.n_learners > 1:
            record("distributed/learners", self.n_learners)
