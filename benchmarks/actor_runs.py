"""Runs through actors, timed, and what their parts cost on this machine."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from agents.distributed import Actors
from agents.distributed.actor import Actor, actor_spec
from agents.distributed.reports import Order, Report
from agents.double_dqn import DoubleDQN
from agents.vec_env import make_vec_env

PROMPTS = ("red green", "blue white", "black grey", "pink brown")
MAX_NEW_TOKENS = 8
_STEPS = 10**9  # never reached: runs end by the clock or by their episodes


class SlowReward:
    """Sleeps for every text, as a model, a compiler or a judge would, and pays for each word that is new.

    Args:
        seconds: For each text (≥ 0).
    """

    range = (0.0, 1.0)
    __name__ = "slow"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """One reward a completion, in [0, 1]."""
        if self.seconds:
            time.sleep(self.seconds * len(completions))
        return [len(set(text.split())) / MAX_NEW_TOKENS for text in completions]


def make_model(reward_seconds: float, n_envs: int, seed: int = 0, **options: Any) -> DoubleDQN:
    """A small agent on texts of up to eight words whose reward is slow."""
    env_kwargs = {
        "prompts": list(PROMPTS),
        "reward": SlowReward(reward_seconds),
        "max_new_tokens": MAX_NEW_TOKENS,
        "vocab_size": 50,
    }
    env = make_vec_env("TextGen-v0", n_envs, seed, env_kwargs=env_kwargs)
    small = {
        "policy_kwargs": {"features_dim": 16, "n_layers": 1},
        "learning_starts": 64,
        "batch_size": 8,
        "updates_per_step": 0.01,
    }
    return DoubleDQN("PerformerPolicy", env, seed=seed, **{**small, **options})


@dataclass(frozen=True)
class Measured:
    """A timed run.

    Attributes:
        n_actors: Actors; 0 for none.
        engine: Where they ran.
        seconds: How long was measured, after all of them had reported.
        texts_per_second: Episodes put into replay.
        steps_per_second: Environment steps.
        updates_per_second: Updates of the network.
        tokens_per_text: Actions of an episode, mean.
        staleness: Mean updates since an actor's weights.
        staleness_max: The largest.
        waiting: Share of the time in which the learner waited.
    """

    n_actors: int
    engine: str
    seconds: float
    texts_per_second: float
    steps_per_second: float
    updates_per_second: float
    tokens_per_text: float
    staleness: float
    staleness_max: int
    waiting: float


class _Clock(BaseCallback):
    """Measures from the moment at which ``is_warm`` says so."""

    model: DoubleDQN

    def __init__(self, seconds: float, is_warm: Callable[[], bool]) -> None:
        super().__init__()
        self.seconds, self.is_warm = seconds, is_warm
        self.marks: list[tuple[float, int, int, int]] = []

    def _mark(self) -> None:
        model = self.model
        self.marks.append((time.perf_counter(), model._episode_num, model.num_timesteps, model._n_updates))

    def _on_step(self) -> bool:
        if not self.marks:
            if self.is_warm():
                self._mark()
            return True
        if time.perf_counter() - self.marks[0][0] < self.seconds:
            return True
        self._mark()
        return False


def measure(model: DoubleDQN, n_actors: int, engine: str, seconds: float, **options: Any) -> Measured:
    """Train for so many seconds through actors, or without any, and count.

    Args:
        model: The model.
        n_actors: Actors; 0 for none.
        engine: See :class:`agents.distributed.Actors`.
        seconds: How long to measure, after every actor has reported.
        **options: Further arguments of :class:`agents.distributed.Actors`.
    """
    logged: dict[str, Any] = {}
    most = 0
    if n_actors == 0:
        clock = _Clock(seconds, lambda: model._n_updates > 0)
        model.learn(_STEPS, clock, log_interval=None)
    else:
        with Actors(model, n_actors, engine, **options) as actors:
            clock = _Clock(seconds, lambda: model._n_updates > 0 and actors.ledger.n_processes >= n_actors)
            model.learn(_STEPS, clock, log_interval=None)
            logged, most = dict(model.logger.name_to_value), actors.staleness_max
    differences = np.subtract(clock.marks[1], clock.marks[0])
    elapsed, texts, steps, updates = differences.tolist()
    staleness, waiting = (round(float(logged.get(f"distributed/{name}", 0.0)), 3) for name in ("staleness", "waiting"))
    return Measured(
        n_actors,
        engine,
        round(elapsed, 2),
        texts_per_second=round(texts / elapsed, 2),
        steps_per_second=round(steps / elapsed, 2),
        updates_per_second=round(updates / elapsed, 2),
        tokens_per_text=round(steps / max(texts, 1), 2),
        staleness=staleness,
        staleness_max=most,
        waiting=waiting,
    )


@dataclass(frozen=True)
class Costs:
    """What the parts of a run cost, in seconds and bytes.

    Attributes:
        step_seconds: One step of all rows of an actor, without the reward.
        store_seconds: One report into replay, at the learner.
        update_seconds: One update of the network.
        weights_seconds: Weights copied and pickled at the learner.
        message_seconds: An order there and a report back, without their work.
        weights_bytes: Weights, pickled.
        episode_bytes: An episode in a report, pickled, with what is told of it.
        tokens_per_text: Actions of an episode, mean.
    """

    step_seconds: float
    store_seconds: float
    update_seconds: float
    weights_seconds: float
    message_seconds: float
    weights_bytes: int
    episode_bytes: float
    tokens_per_text: float

    def as_dict(self) -> dict[str, float]:
        """Name → value, rounded to four digits."""
        return {name: float(f"{value:.4g}") for name, value in asdict(self).items()}


def costs(
    n_envs: int,
    vector_steps: int,
    engine: str,
    seconds: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
    **options: Any,
) -> Costs:
    """Measure them one by one in this process, the message through an actor of the engine.

    Args:
        n_envs: Rows of an actor.
        vector_steps: Steps of a report.
        engine: See :class:`agents.distributed.Actors`.
        seconds: How long the acting is measured.
        clock: ``time.process_time`` for what a core that is free would take, on a machine that is not.
        **options: Arguments of the agent.
    """
    model = make_model(0.0, n_envs, **options)
    model.learn(20 * MAX_NEW_TOKENS * n_envs, log_interval=None)
    actor = Actor(0, 0, actor_spec(model), 0, None)
    reports: list[Report] = []
    started, until = clock(), time.perf_counter() + seconds
    while time.perf_counter() < until:
        reports += actor.act(Order(0, 10**6, _STEPS, 0.5, vector_steps, len(reports)), None)[-1:]
    step_seconds = (clock() - started) / (len(reports) * vector_steps)
    texts = sum(len(step.infos) for report in reports for step in report.steps)

    def timed(function: Callable[[], Any], times: int) -> float:
        started = clock()
        for _ in range(times):
            function()
        return (clock() - started) / times

    def store() -> None:
        for step in reports[0].steps:
            if step.episodes is not None:
                model.replay_buffer._append(step.episodes)
            model._update_info_buffer([step.infos.get(row, {}) for row in range(n_envs)], np.ones(n_envs, bool))

    def weights() -> bytes:
        return pickle.dumps({name: tensor.detach().clone() for name, tensor in model.q_net.state_dict().items()})

    return Costs(
        step_seconds,
        timed(store, 200),
        timed(lambda: model.train(20, model.batch_size), 10) / 20,
        timed(weights, 50),
        _message_seconds(model, engine),
        len(weights()),
        sum(len(pickle.dumps(report)) for report in reports) / max(texts, 1),
        len(reports) * vector_steps * n_envs / max(texts, 1),
    )


def _message_seconds(model: DoubleDQN, engine: str, times: int = 50) -> float:
    """An order of one step through an engine, less the step."""
    with Actors(model, 1, engine) as actors:
        crew = actors._begin()
        waits, works = [], []
        for number in range(times):
            started = time.perf_counter()
            crew.call(0, "act", Order(0, 0, _STEPS, 0.5, 1, number), None)
            while not crew.inbox:
                crew.wait()
            waits.append(time.perf_counter() - started)
            works.append(crew.inbox.popleft().seconds)
    return float(np.median(waits) - np.median(works))
