"""What a GPU is worth: ``python -m benchmarks.gpu [--device cuda] [--quick] [--seconds 480] [--out FILE]``.

Runs the tests that need a GPU, then measures the main job, updates a second at several widths, acting at several
numbers of rows, and linear attention against softmax attention, on the device and on one core of the CPU in turns. Each
section has its share of the seconds and begins no further round after it. A section that fails is stored as failed, and
the others go on. Every figure is one line of ``results/gpu.jsonl``. With ``--device cpu`` the CPU is measured alone.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.util
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.logger import Logger

from agents import DoubleDQN, TextGenVecEnv, make_vec_env
from agents.encoders import causal_linear_attention
from agents.saving.files import versions
from agents.saving.json_lines import append
from benchmarks.attention import flash_linear_attention
from benchmarks.cells import REVERSE, TEXTGEN
from benchmarks.comparison import Figure, best_rates, print_figures
from benchmarks.updates import NETWORK, replaying_agent

ROOT = Path(__file__).parents[1]
SECONDS = 480.0
LONGEST_ON_CPU = 2_048
"""Tokens of attention: softmax over more takes a core longer than the section has."""
DECISIONS = 8
"""Of an episode of the Reverse task that updates and acting are measured on."""


@dataclass(frozen=True)
class Section:
    """One part of the measurement.

    Attributes:
        name: Its name, for ``--only`` and in the file.
        share: Of the seconds.
        measure: ``(device, quick, deadline)`` → figures, each handed over as soon as it is there.
        needs_gpu: Whether it is left out on the CPU.
    """

    name: str
    share: float
    measure: Callable[[str, bool, float], Iterable[Figure]]
    needs_gpu: bool = False


def tests(device: str, quick: bool, deadline: float) -> Iterator[Figure]:
    """Seconds of the tests that need a GPU, all of which must pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=deadline - began, check=False)
    *_, last = (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()
    if done.returncode:
        raise RuntimeError(f"pytest ended with {done.returncode}: {last}")
    yield Figure(f"tests that need a GPU: {last.strip('= ')}", "s", time.perf_counter() - began)


def main_job(device: str, quick: bool, deadline: float) -> Iterator[Figure]:
    """Tokens a second of learning ``TextGen-v0`` with the defaults, evaluations left out."""
    tokens, learning_starts = (256, 64) if quick else (10_000, None)

    def learner(where: str) -> Callable[[], int]:
        model = DoubleDQN("PerformerPolicy", TEXTGEN, seed=0, device=where, learning_starts=learning_starts)
        model.set_logger(Logger(None, []))

        def learn() -> int:
            before = model.num_timesteps
            model.learn(tokens, log_interval=None, reset_num_timesteps=before == 0)
            _wait(where)
            return model.num_timesteps - before

        return learn

    yield _figure("main job", "tokens/s", device, learner, _repeats(quick), deadline, bar=3.0)


def updates(device: str, quick: bool, deadline: float) -> Iterator[Figure]:
    """Temporal-difference updates a second at several widths: 64 full episodes of 14 tokens a batch, two layers."""
    batch_size = 8 if quick else 64
    for width in (64,) if quick else (64, 128, 256, 512):

        def learner(where: str, width: int = width) -> Callable[[], int]:
            model = replaying_agent(DECISIONS - 2, True, where, {**NETWORK, "features_dim": width})
            n_updates = 1 if where == "cpu" else 8

            def train() -> int:
                model.train(n_updates, batch_size)
                _wait(where)
                return n_updates * batch_size * DECISIONS

            return train

        bar = 20.0 if width == 256 else None
        yield _figure(f"updates, width {width}", "TD updates/s", device, learner, _repeats(quick), deadline, bar)


def acting(device: str, quick: bool, deadline: float) -> Iterator[Figure]:
    """Tokens a second of greedy writing, ``predict`` and environment with its resets, at several numbers of rows."""
    for rows in (64,) if quick else (64, 1_024, 8_192):

        def writer(where: str, rows: int = rows) -> Callable[[], int]:
            env = make_vec_env(REVERSE, n_envs=rows, seed=0)
            assert isinstance(env, TextGenVecEnv)
            model = DoubleDQN("PerformerPolicy", env, seed=0, device=where, policy_kwargs=dict(NETWORK))
            legal = np.tile(np.arange(env.envs.task.vocab_size) != env.envs.task.eos_id, (rows, 1))  # no early end
            observations: Any = env.reset()
            state, starts = None, np.ones(rows, np.bool_)

            def write() -> int:
                nonlocal observations, state, starts
                for _ in range(2 * DECISIONS):
                    actions, state = model.predict(observations, state, starts, deterministic=True, action_masks=legal)
                    observations, _, starts, _ = env.step(actions)
                return 2 * DECISIONS * rows

            return write

        bar = 1e6 if rows == 1_024 else None
        figure = _figure(f"acting, {rows:,} rows", "tokens/s", device, writer, _repeats(quick), deadline)
        yield Figure(**{**asdict(figure), "ratio": None, "bar": bar if device != "cpu" else None})


def attention(device: str, quick: bool, deadline: float) -> Iterator[Figure]:
    """Tokens a second, forwards and backwards, of causal linear attention beside PyTorch's softmax attention and fla's.

    16,384 tokens in 4 heads, with as many random features as a head is wide.
    """
    total, n_heads = (512, 2) if quick else (16_384, 4)
    widths, lengths = ((16,), (128,)) if quick else ((16, 32, 64), (128, 512, 2_048, 4_096, 8_192))
    for where in _devices(device):
        for head_dim, length in itertools.product(widths, lengths):
            if where == "cpu" and length > LONGEST_ON_CPU:
                continue
            name = f"attention on {where}, {length:,} tokens, heads of {head_dim}"
            _check_time(deadline, name)
            contestants = _attentions(where, (max(1, total // length), n_heads, length, head_dim))
            rates = best_rates(contestants, _repeats(quick), deadline)
            ours = rates.pop("linear")
            for against, other in rates.items():
                yield Figure(name, "tokens/s", ours, other, against, ours / other)


def _attentions(where: str, shape: tuple[int, int, int, int]) -> dict[str, Callable[[], int]]:
    """All kinds of attention with their gradients, over the same inputs of a shape (B, H, N, E)."""
    generator = torch.Generator().manual_seed(shape[2])
    q, k, v, weight = (torch.rand(shape, generator=generator).add(0.01).to(where) for _ in range(4))
    inputs = [tensor.requires_grad_() for tensor in (q, k, v)]

    def contestant(attend: Callable[..., torch.Tensor]) -> Callable[[], int]:
        def run() -> int:
            torch.autograd.grad(attend(*inputs), inputs, weight)
            _wait(where)
            return shape[0] * shape[2]

        return run

    softmax = functools.partial(torch.nn.functional.scaled_dot_product_attention, is_causal=True)
    kinds: dict[str, Callable[..., torch.Tensor]] = {"linear": causal_linear_attention, "softmax attention": softmax}
    if torch.device(where).type == "cuda" and importlib.util.find_spec("fla"):
        kinds["flash-linear-attention"] = flash_linear_attention
    return {name: contestant(attend) for name, attend in kinds.items()}


SECTIONS = (
    Section("tests", 0.2, tests, needs_gpu=True),
    Section("main job", 0.2, main_job),
    Section("updates", 0.25, updates),
    Section("acting", 0.15, acting),
    Section("attention", 0.2, attention),
)


def _figure(
    name: str,
    unit: str,
    device: str,
    contestant: Callable[[str], Callable[[], int]],
    repeats: int,
    deadline: float,
    bar: float | None = None,
) -> Figure:
    """One figure of the device, beside the CPU's unless it is the CPU; the bar is one of their ratio."""
    _check_time(deadline, name)
    rates = best_rates({where: contestant(where) for where in _devices(device)}, repeats, deadline)
    if device == "cpu":
        return Figure(name, unit, rates["cpu"])
    return Figure(name, unit, rates[device], rates["cpu"], "one core", rates[device] / rates["cpu"], bar)


def _check_time(deadline: float, name: str) -> None:
    if time.perf_counter() > deadline:
        raise TimeoutError(f"the section's time was over before {name!r}")


def _devices(device: str) -> list[str]:
    return list(dict.fromkeys([device, "cpu"]))


def _repeats(quick: bool) -> int:
    return 1 if quick else 5


def _wait(device: str) -> None:
    """Until the device has done what it was given: time is taken of work, not of orders."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def environment(device: str) -> dict[str, Any]:
    """What every line of the file says: device, versions, commit and time."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "device": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device,
        "cuda": torch.version.cuda,
        "versions": versions(),
        "commit": commit.stdout.strip() or None,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def measure(
    device: str, quick: bool, seconds: float = SECONDS, sections: Iterable[Section] = SECTIONS
) -> Iterator[dict[str, Any]]:
    """Measure section after section.

    Args:
        device: A torch device.
        quick: Everything small, for a test of the script.
        seconds: For all sections; what a section leaves over is no other's.
        sections: What to measure.

    Yields:
        Plain JSON values as soon as they are there: the fields of a :class:`Figure` and ``met``, or ``failed`` with
        what went wrong in one line; and with both ``section`` and what :func:`environment` gives.
    """
    about = environment(device)
    for section in sections:
        if section.needs_gpu and torch.device(device).type != "cuda":
            continue
        try:
            for figure in section.measure(device, quick, time.perf_counter() + section.share * seconds):
                yield {"section": section.name, **asdict(figure), "met": figure.met, **about}
        except Exception as error:  # whatever it is, the others go on: a GPU is lent for minutes
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            yield {"section": section.name, "failed": reason, **about}


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 if no section failed, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="torch device: cuda, cuda:1, cpu")
    parser.add_argument("--quick", action="store_true", help="everything small: a test of this script")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all sections")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu.jsonl", help="the figures are added here")
    given = parser.parse_args(arguments)
    if given.seconds <= 0:
        parser.error(f"--seconds must be more than 0, got {given.seconds}")
    try:
        torch.empty(0, device=given.device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        parser.error(f"--device must be one that torch can use here, such as cpu, got {given.device!r}: {reason}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what a GPU is compared with
    rows = []
    try:
        for row in measure(given.device, given.quick, given.seconds):
            append(given.out, row)
            rows.append(row)
            if "failed" in row:
                print(f"{row['section']} failed: {row['failed']}", file=sys.stderr)
    finally:
        torch.set_num_threads(threads)
    print_figures({"machine": {"threads": 1}, "figures": [row for row in rows if "failed" not in row]})
    return 1 if any("failed" in row for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
