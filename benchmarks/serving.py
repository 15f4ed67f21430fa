"""The server under load: ``python -m benchmarks.serving [--sessions 64] [--steps 10000] [--json FILE]``.

Starts ``textgym serve``, plays many sessions at once, and compares every observation and reward with those of
:class:`textgym.adapters.TextSteps` for the same seed and messages. A quarter of the sessions are hostile: at every
eighth step they send something malformed or oversized, or vanish without a goodbye. A tenth of the steps come first, to
warm up; then memory and open files of the server are taken, and again after the last session.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agents.saving.files import versions
from agents.saving.json_lines import append
from textgym.adapters import TextSteps
from textgym.rewards.base import require

HOSTILE = 4
"""One session in so many is hostile."""
MISCHIEF = 8
"""Steps from one misdeed to the next."""
_MALFORMED = ("{", "[1, 2]", '{"type": "step", "data": {"text": [7]}}', '{"type": "jump"}', "[" * 30_000)
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@contextlib.contextmanager
def server(env_id: str, sessions: int, port: int = 0) -> Iterator[tuple[int, int]]:
    """A server in a process of its own: its process id and its port."""
    command = [sys.executable, "-m", "agents.application.cli", "serve", env_id, "--port", str(port)]
    process = subprocess.Popen([*command, "--max-sessions", str(sessions)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r":(\d+)$", line.strip())
        if found is None:
            raise RuntimeError(f"textgym serve {env_id} did not start")
        yield process.pid, int(found[1])
    finally:
        process.terminate()
        process.communicate()


@dataclass
class Play:
    """What the sessions did: episodes as (seed, messages, what came back), seconds of each step, and misdeeds."""

    episodes: list[tuple[int, list[str], list[Any]]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    misdeeds: int = 0
    unanswered: int = 0
    """Misdeeds that did not get the error that they should."""


class Session:
    """One client, reconnecting where it has to."""

    def __init__(self, port: int, number: int, steps: int, hostile: bool, play: Play, task: Any) -> None:
        self._websockets = require("websockets", "openenv-core==0.3.0", "benchmarks.serving")
        self._url = f"ws://127.0.0.1:{port}/ws"
        self._number, self._steps, self._hostile, self._play, self._task = number, steps, hostile, play, task
        self._random = np.random.default_rng(number)
        self._connection: Any = None
        self._misdeeds = 0

    async def run(self) -> None:
        """Play episodes until the steps are taken."""
        step = episode = 0
        while step < self._steps:
            seed = 1_000_000 * self._number + episode
            messages: list[str] = []
            seen = [await self._request("reset", {"seed": seed})]
            self._play.episodes.append((seed, messages, seen))
            while step < self._steps and not seen[-1]["done"]:
                if self._hostile and step // MISCHIEF > self._misdeeds and not await self._misbehave():
                    break  # the session is over, its episode with it
                messages.append(self._message())
                begun = time.perf_counter()
                seen.append(await self._request("step", {"text": messages[-1]}))
                self._play.seconds.append(time.perf_counter() - begun)
                step += 1
            episode += 1
        if self._connection is not None:
            await self._connection.close()

    def _message(self) -> str:
        tokens = self._random.integers(self._task.vocab_size, size=self._random.integers(1, 6))
        return self._task.decode(tokens) if self._random.random() < 0.95 else "\u00bf?"

    async def _request(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        if self._connection is None:
            self._connection = await self._websockets.connect(self._url, open_timeout=30, compression=None)
        await self._connection.send(json.dumps({"type": kind, "data": data}))
        answer = json.loads(await self._connection.recv())
        if answer["type"] != "observation":
            raise RuntimeError(f"the server answered a {kind} with {answer}")
        return answer["data"]

    async def _misbehave(self) -> bool:
        """One misdeed; whether the session lives on."""
        number = self._misdeeds
        self._misdeeds += 1
        self._play.misdeeds += 1
        connection = self._connection
        kind = number % 3
        if kind == 0:
            await connection.send(_MALFORMED[(number // 3) % len(_MALFORMED)])
            self._play.unanswered += json.loads(await connection.recv())["type"] != "error"
            return True
        self._connection = None
        if kind == 1:
            await connection.send("x" * 100_000)
            try:
                await connection.recv()
                self._play.unanswered += 1
            except self._websockets.ConnectionClosed as closed:
                self._play.unanswered += closed.rcvd is None or closed.rcvd.code != 1009
        else:
            connection.transport.abort()
        return False


def wrong_episodes(env_id: str, play: Play) -> int:
    """Episodes of which anything differs from the environment itself."""
    steps, wrong = TextSteps(env_id), 0
    for seed, messages, seen in play.episodes:
        native: list[tuple[str, float | None, bool, list[int]]] = [
            (steps.reset(seed), None, False, steps.info["tokens"].tolist())
        ]
        for message in messages:
            text, reward, done, _, info = steps.step(message)
            native.append((text, reward, done, info["tokens"].tolist()))
        served = [
            (each["observation"]["text"], each["reward"], each["done"], each["observation"]["tokens"]) for each in seen
        ]
        wrong += native != served
    return wrong


def process_figures(process: int) -> dict[str, Any]:
    """Resident memory, open files and processor time of a process; Linux alone tells them so cheaply."""
    folder = Path("/proc") / str(process)
    times = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]  # user and system, in ticks
    resident = int((folder / "statm").read_text().split()[1]) * _PAGE
    return {
        "resident_bytes": resident,
        "open_files": len(list((folder / "fd").iterdir())),
        "cpu_seconds": sum(map(int, times)) / os.sysconf("SC_CLK_TCK"),
    }


async def open_sessions(port: int) -> int:
    """Sessions that the server holds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
    found = re.search(rb"^textgym_sessions (\d+)$", await reader.read(), re.MULTILINE)
    writer.close()
    assert found is not None
    return int(found[1])


async def load(port: int, sessions: int, steps: int, task: Any, first: int = 0) -> tuple[Play, float, int]:
    """Play: what the sessions did, its seconds, and how many sessions the server still holds five seconds later."""
    play = Play()
    shares = [steps // sessions + (number < steps % sessions) for number in range(sessions)]
    clients = [
        Session(port, first + number, share, number % HOSTILE == HOSTILE - 1, play, task)
        for number, share in enumerate(shares)
    ]
    begun = time.perf_counter()
    await asyncio.gather(*(client.run() for client in clients))
    seconds = time.perf_counter() - begun
    for _ in range(50):
        if (left := await open_sessions(port)) == 0:
            break
        await asyncio.sleep(0.1)
    return play, seconds, left


def measure(env_id: str, sessions: int, steps: int) -> dict[str, Any]:
    """One measurement.

    Args:
        env_id: Id of the environment.
        sessions: Sessions at once (≥ 1).
        steps: Messages in all (≥ ``sessions``).

    Returns:
        What was played, ``steps_per_second``, latencies and the server's processor time a step in milliseconds, memory
        and open files before and after, and what went wrong: ``wrong_episodes``, ``unanswered``, ``sessions_left``.
    """
    task = TextSteps(env_id).task
    # A session that vanished may be there for a moment longer.
    with server(env_id, 2 * sessions) as (process, port):
        asyncio.run(load(port, sessions, max(sessions, steps // 10), task, first=sessions))
        before = process_figures(process)
        play, seconds, left = asyncio.run(load(port, sessions, steps, task))
        after = process_figures(process)
    p50, p99 = np.percentile(play.seconds, [50, 99])
    return {
        "name": f"serving {env_id}",
        "sessions": sessions,
        "hostile_sessions": sessions // HOSTILE,
        "steps": len(play.seconds),
        "episodes": len(play.episodes),
        "misdeeds": play.misdeeds,
        "seconds": round(seconds, 2),
        "steps_per_second": round(len(play.seconds) / seconds, 1),
        "p50_ms": round(1000 * float(p50), 2),
        "p99_ms": round(1000 * float(p99), 2),
        "server_cpu_ms": round(1000 * (after["cpu_seconds"] - before["cpu_seconds"]) / len(play.seconds), 3),
        "before": before,
        "after": after,
        "wrong_episodes": wrong_episodes(env_id, play),
        "unanswered": play.unanswered,
        "sessions_left": left,
        "versions": versions(),
    }


def sentence(result: dict[str, Any]) -> str:
    """A measurement in one line."""
    before, after = result["before"], result["after"]
    return (
        f"{result['name']}, {result['sessions']} sessions ({result['hostile_sessions']} hostile), {result['steps']:,} "
        f"steps: {result['steps_per_second']:,.0f} steps/s, p50 {result['p50_ms']:.1f} ms, p99 {result['p99_ms']:.1f} "
        f"ms, {result['server_cpu_ms']:.2f} ms of the server's processor time a step; {result['wrong_episodes']} of "
        f"{result['episodes']:,} episodes differ, {result['unanswered']} of {result['misdeeds']} misdeeds unanswered, "
        f"{result['sessions_left']} sessions left; resident {before['resident_bytes'] / 2**20:.1f} → "
        f"{after['resident_bytes'] / 2**20:.1f} MiB, open files {before['open_files']} → {after['open_files']}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 if nothing differs and no session is left, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="TextGen/Wordle-v0", help="id of the environment")
    parser.add_argument("--sessions", type=int, default=64, help="sessions at once")
    parser.add_argument("--steps", type=int, default=10_000, help="messages in all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the record to JSON lines")
    given = parser.parse_args(arguments)
    if not Path("/proc/self/statm").is_file():
        parser.error("this script reads memory and open files from /proc, which this system does not have")
    for name, least in (("sessions", 1), ("steps", given.sessions)):
        if getattr(given, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(given, name)}")
    result = measure(given.env, given.sessions, given.steps)
    if given.json is not None:
        append(given.json, result)
    print(sentence(result))
    return 1 if result["wrong_episodes"] or result["unanswered"] or result["sessions_left"] else 0


if __name__ == "__main__":
    sys.exit(main())
