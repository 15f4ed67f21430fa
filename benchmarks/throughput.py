"""Speed and memory of every part that claims to be fast, beside its alternative, in one process.

What is compared takes turns, and of each the fastest repeat counts, so that a busy machine slows both alike.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common import env_util
from stable_baselines3.common.vec_env import DummyVecEnv

from agents import DoubleDQN, TextGenVecEnv, make_vec_env
from benchmarks.attention import attention_figures, step_figures
from benchmarks.cells import REVERSE, TEXTGEN
from benchmarks.comparison import Figure, best_rates
from benchmarks.updates import NETWORK, update_figures
from textgym import TextGenVectorEnv

ROWS = 1_024
ACTING_ROWS, ACTING_STEPS = 64, 16


# ---------------------------------------------------------------------- environments


def _batched(env_id: str, steps: int) -> Callable[[], int]:
    spec = gym.spec(env_id)
    envs = TextGenVectorEnv(ROWS, **spec.kwargs)
    envs.reset(seed=0)
    actions = np.random.default_rng(0).integers(envs.task.vocab_size, size=(steps, ROWS))

    def work() -> int:
        for row in actions:
            envs.step(row)
        return actions.size

    return work


def _dummy(steps: int) -> Callable[[], int]:
    envs = env_util.make_vec_env(REVERSE, n_envs=64, seed=0, vec_env_cls=DummyVecEnv)
    envs.reset()
    assert isinstance(envs.action_space, spaces.Discrete)
    actions = np.random.default_rng(0).integers(envs.action_space.n, size=(steps, 64))

    def work() -> int:
        for row in actions:
            envs.step(row)
        return actions.size

    return work


def _single(steps: int) -> Callable[[], int]:
    env = gym.make(REVERSE)
    env.reset(seed=0)
    assert isinstance(env.action_space, spaces.Discrete)
    actions = np.random.default_rng(0).integers(env.action_space.n, size=steps).tolist()

    def work() -> int:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return steps

    return work


def environment_figures(repeats: int) -> list[Figure]:
    """Token-steps a second of random actions: the batched environment, SB3's way, and the single environment."""
    rates = best_rates(
        {"batched": _batched(REVERSE, 500), "dummy": _dummy(100), "single": _single(3_000)}, repeats
    ) | best_rates({"textgen": _batched(TEXTGEN, 30)}, repeats)
    unit, ratio = "steps/s", rates["batched"] / rates["dummy"]
    return [
        Figure(f"{REVERSE}, {ROWS:,} rows", unit, rates["batched"], bar=10e6),
        Figure("the same", unit, rates["batched"], rates["dummy"], "SB3 DummyVecEnv, 64 rows", ratio, 100),
        Figure(f"{REVERSE}, one row, gym.make", unit, rates["single"], bar=30e3),
        Figure(f"{TEXTGEN}, {ROWS:,} rows", unit, rates["textgen"], bar=100e3),
    ]


# ---------------------------------------------------------------------- acting


class _Actor:
    """Greedy writing near the end of a context, always from the same place; EOS is illegal, so no row ends."""

    def __init__(self, context: int) -> None:
        length = context // 2 - 1
        env = make_vec_env(REVERSE, n_envs=ACTING_ROWS, seed=0, env_kwargs={"length": length})
        assert isinstance(env, TextGenVecEnv)
        self.env = env
        self.model = DoubleDQN("PerformerPolicy", env, seed=0, device="cpu", policy_kwargs=dict(NETWORK))
        self.masks = np.tile(np.arange(env.envs.task.vocab_size) != env.envs.task.eos_id, (ACTING_ROWS, 1))
        observations: Any = env.reset()
        generator = np.random.default_rng(0)
        state = None
        for _ in range(length + 1 - ACTING_STEPS):
            observations, *_ = env.step(generator.integers(15, size=ACTING_ROWS))
        for end in (*range(512, context - ACTING_STEPS, 512), context):  # a long text in pieces: less memory
            piece = observations.copy()
            piece[:, end:] = env.envs.task.pad_id
            _, state = self.model.predict(piece, state)
        self.start = env.get_state(), observations, state

    def seconds(self) -> float:
        """Seconds of one step: ``predict`` and the environment."""
        env_state, observations, state = self.start
        self.env.set_state(env_state)
        starts = np.zeros(ACTING_ROWS, np.bool_)
        began = time.perf_counter()
        for _ in range(ACTING_STEPS):
            actions, state = self.model.predict(
                observations, state, starts, deterministic=True, action_masks=self.masks
            )
            observations, _, starts, _ = self.env.step(actions)
        seconds = time.perf_counter() - began
        if starts.any():
            raise RuntimeError("no row should have ended while its steps were timed")
        return seconds / ACTING_STEPS


def acting_figures(repeats: int, contexts: tuple[int, int] = (64, 4_096)) -> list[Figure]:
    """Milliseconds of one acting step at the end of a long context and of a short one."""
    actors = {context: _Actor(context) for context in contexts}
    best = dict.fromkeys(contexts, np.inf)
    for repeat in range(repeats + 1):
        for context, actor in actors.items():
            seconds = actor.seconds()
            if repeat:
                best[context] = min(best[context], seconds)
    short, long = (1e3 * best[context] for context in contexts)
    encoder = {int(row["context"]): row["step_ms"] for row in step_figures(10 * repeats)}
    (a, b), against = sorted(encoder), f"context {contexts[0]:,}"
    ratio = encoder[b] / encoder[a]
    return [
        Figure(f"one step, encoder and head, context {b:,}", "ms", encoder[b], encoder[a], against, ratio, 1.15, True),
        Figure(
            f"one step, predict and env, context {contexts[1]:,}", "ms", long, short, against, long / short, 1.5, True
        ),
    ]


# ---------------------------------------------------------------------- all of it


def _attention(repeats: int) -> list[Figure]:
    row = attention_figures(512, repeats)
    ours, theirs = row["ours_ms"], row["performer_pytorch_ms"]
    difference = row["max_abs_difference"]
    return [
        Figure("attention, 512 tokens, fwd + bwd", "ms", ours, theirs, "performer-pytorch", row["speedup"], 8.0),
        Figure("the same, largest difference", "", difference, bar=1e-5, at_most=True),
    ]


def measure(quick: bool, threads: int, progress: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """Measure everything.

    Args:
        quick: Fewer repeats, and without what takes long (context 512, performer-pytorch's attention).
        threads: PyTorch threads.
        progress: Called with the name of each part before it starts.

    Returns:
        Plain JSON values: ``machine`` and ``figures``, each the fields of a :class:`Figure` and ``met``.
    """
    torch.set_num_threads(threads)
    repeats = 2 if quick else 5
    parts: dict[str, Callable[[], list[Figure]]] = {
        "environments": lambda: environment_figures(repeats),
        "attention": lambda: _attention(2 * repeats),
        "acting": lambda: acting_figures(2 * repeats),
        "training": lambda: update_figures(6, 64, 4, repeats, full=True, bar=5.0, shipped=not quick),
        "training on short episodes": lambda: update_figures(6, 64, 4, repeats, full=False)[:1],
    }
    if not quick:
        parts["training, context 32"] = lambda: update_figures(15, 32, 4, 3, full=True, shipped=True, shipped_bar=30.0)
        # One episode is 257 transitions of up to 512 tokens for SB3: more would take gigabytes.
        parts["training, context 512"] = lambda: update_figures(255, 1, 8, 3, full=True, bar=0.5 * (255 + 2))
    figures: list[Figure] = []
    for name, part in parts.items():
        progress(name)
        figures += part()
    return {
        "machine": {
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": threads,
        },
        "figures": [asdict(figure) | {"met": figure.met} for figure in figures],
    }
