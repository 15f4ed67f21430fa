"""Temporal-difference updates a second, and bytes of replay, beside Stable-Baselines3's DQN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv

from agents import DoubleDQN, PerformerExtractor, make_vec_env
from benchmarks.baselines import ShippedPerformerExtractor
from benchmarks.cells import REVERSE
from benchmarks.comparison import Figure, best_rates

NETWORK = {"features_dim": 64, "n_layers": 2}
"""The network of all agents, ours and theirs."""
EPISODES = 256
"""Episodes in each replay."""


def _fill(model: DQN, steps: int, full: bool) -> None:
    """Put random play into a model's replay: at least ``steps`` environment steps, without EOS if ``full``."""
    env, generator = model.get_env(), np.random.default_rng(0)
    assert env is not None and model.replay_buffer is not None and isinstance(env.action_space, spaces.Discrete)
    n_actions = int(env.action_space.n) - full  # EOS is the last action
    new_observations: Any
    observations: Any = env.reset()
    for _ in range(-(-steps // env.num_envs)):
        actions = generator.integers(n_actions, size=env.num_envs)
        new_observations, rewards, dones, infos = env.step(actions)
        next_observations = new_observations.copy()
        for row in np.flatnonzero(dones).tolist():
            next_observations[row] = infos[row]["terminal_observation"]
        # DoubleDQN's replay takes the last observation from the infos as well; SB3's takes it from here.
        model.replay_buffer.add(observations, next_observations, actions, rewards, dones, infos)
        observations = new_observations


def _env(length: int) -> VecEnv:
    return make_vec_env(REVERSE, n_envs=16, seed=0, env_kwargs={"length": length})


def replaying_agent(length: int, full: bool, device: str = "cpu", network: Mapping[str, Any] = NETWORK) -> DoubleDQN:
    """Our agent, with :data:`EPISODES` episodes of random play in its replay.

    Args:
        length: Length of the Reverse task; an episode has up to ``length + 2`` decisions.
        full: Whether EOS is never drawn, so that every episode has as many.
        device: Where it learns.
        network: ``policy_kwargs``.
    """
    model = DoubleDQN("PerformerPolicy", _env(length), seed=0, device=device, policy_kwargs=dict(network))
    model.set_logger(Logger(None, []))
    _fill(model, EPISODES * (length + 2), full)
    return model


def _sb3(length: int, full: bool, extractor: type[BaseFeaturesExtractor]) -> DQN:
    model = DQN(
        "MlpPolicy",
        _env(length),
        seed=0,
        device="cpu",
        buffer_size=EPISODES * (length + 2),
        policy_kwargs={
            "features_extractor_class": extractor,
            "features_extractor_kwargs": dict(NETWORK),
            "net_arch": [],
        },
    )
    model.set_logger(Logger(None, []))
    _fill(model, EPISODES * (length + 2), full)
    return model


def _count_valid_steps(model: DoubleDQN) -> Callable[[], int]:
    """A function that gives the unpadded steps of all batches drawn since it was last called."""
    drawn = [0]
    sample = model.replay_buffer.sample

    def counting(*args: Any, **kwargs: Any) -> Any:
        batch = sample(*args, **kwargs)
        drawn[0] += int(batch.valid.sum())
        return batch

    model.replay_buffer.sample = counting

    def take() -> int:
        steps, drawn[0] = drawn[0], 0
        return steps

    return take


def update_figures(
    length: int,
    batch_size: int,
    updates: int,
    repeats: int,
    *,
    full: bool,
    bar: float | None = None,
    shipped: bool = False,
    shipped_bar: float | None = None,
) -> list[Figure]:
    """Valid (unpadded) temporal-difference updates a second of ``DoubleDQN.train`` and of SB3's ``DQN.train``.

    Both replay the same kind of random play with the same network.

    Args:
        length: Length of the Reverse task; the context is ``2 · length + 2`` tokens.
        batch_size: Episodes B in one update of ours; SB3's batch has B × T transitions, T being the budget.
        updates: Updates of ours in one repeat; SB3 makes one.
        repeats: Timed repeats.
        full: Whether EOS is never drawn, so that every episode has T decisions. Otherwise all actions are drawn alike,
            and the padding of short episodes slows ours, because it is computed and not counted.
        bar: Least ratio to SB3 with the same extractor; None for none.
        shipped: Whether SB3's ``DQN`` with performer-pytorch's own attention is timed too. What it materialises grows
            with the context, and so does the ratio.
        shipped_bar: Least ratio to that; None for none.

    Returns:
        One or two speeds, and the bytes of replay for a step.
    """
    decisions, context = length + 2, 2 * length + 2
    ours = replaying_agent(length, full)
    take_valid_steps = _count_valid_steps(ours)

    def train_ours() -> int:
        ours.train(updates, batch_size)
        return take_valid_steps()

    def trainer(model: DQN) -> Callable[[], int]:
        def train() -> int:
            model.train(1, batch_size * decisions)
            return batch_size * decisions

        return train

    extractors: dict[str, type[BaseFeaturesExtractor]] = {"same": PerformerExtractor}
    if shipped:
        extractors["shipped"] = ShippedPerformerExtractor
    theirs = {name: _sb3(length, full, extractor) for name, extractor in extractors.items()}
    contestants = {"ours": train_ours} | {name: trainer(model) for name, model in theirs.items()}
    rates = best_rates(contestants, repeats)

    play = "full episodes" if full else "random play"
    name, unit = f"training, context {context}, {batch_size} × {decisions}, {play}", "TD updates/s"
    figures = [
        Figure(name, unit, rates["ours"], rates["same"], "SB3 DQN, same extractor", rates["ours"] / rates["same"], bar)
    ]
    if shipped:
        against, ratio = "SB3 DQN, performer-pytorch", rates["ours"] / rates["shipped"]
        figures.append(Figure(name, unit, rates["ours"], rates["shipped"], against, ratio, shipped_bar))
    per_step = ours.replay_buffer.nbytes / ours.replay_buffer.size()
    other = _bytes_per_step(theirs["same"])
    figures.append(
        Figure(f"replay, context {context}", "bytes/step", per_step, other, "SB3 ReplayBuffer", other / per_step)
    )
    return figures


def _bytes_per_step(model: DQN) -> float:
    buffer = model.replay_buffer
    assert isinstance(buffer, ReplayBuffer)
    arrays = (buffer.observations, buffer.next_observations, buffer.actions, buffer.rewards, buffer.dones)
    return sum(array.nbytes for array in arrays) / (buffer.buffer_size * buffer.n_envs)
