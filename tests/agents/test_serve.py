"""``textgym serve``: the process, its signals and its errors of one line."""

import asyncio
import importlib.util
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from agents.application.cli import main
from textgym.adapters import TextSteps

MISSING = importlib.util.find_spec("openenv") is None
COMMAND = [sys.executable, "-m", "agents.application.cli", "serve", "TextGen/Hangman-v0", "--set", "max_wrong=4"]


def start(port=0):
    """A server and its port, once it listens."""
    process = subprocess.Popen([*COMMAND, "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    line = process.stdout.readline().decode()
    found = re.fullmatch(r"serving TextGen/Hangman-v0 at http://127\.0\.0\.1:(\d+)\n", line)
    assert found, line + process.stderr.read().decode()
    return process, int(found[1])


@pytest.mark.skipif(MISSING, reason="OpenEnv is not installed")
def test_killed_started_again_and_stopped():
    from openenv.core.generic_client import GenericEnvClient

    async def first_message(port):
        async with GenericEnvClient(f"http://127.0.0.1:{port}") as client:
            await client.reset(seed=3)
            return (await client.step({"text": "e"})).observation["text"]

    steps = TextSteps("TextGen/Hangman-v0", max_wrong=4)
    steps.reset(seed=3)
    answer = steps.step("e")[0]
    process, port = start()
    assert asyncio.run(first_message(port)) == answer
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process, again = start(port)
    assert again == port and asyncio.run(first_message(port)) == answer

    async def stop():
        async with GenericEnvClient(f"http://127.0.0.1:{port}") as client:  # in the middle of an episode
            await client.reset(seed=3)
            process.send_signal(signal.SIGTERM)
            with pytest.raises(Exception, match=r"1012|no close frame"):
                await client._ws.recv()

    asyncio.run(stop())
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, b"")
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["TextGen/Wordl-v0"], "ID must be one of TextGym's environments, got 'TextGen/Wordl-v0'"),
        (["TextGen/Wordle-v0", "--set", "guesses"], "--set must be key=value, got 'guesses'"),
        (["TextGen/Wordle-v0", "--port", "70000"], "70000"),
        (["TextGen/Wordle-v0", "--set", "guesses=0"], "guesses must be"),
        (["TextGen/Wordle-v0", "--set", "gueses=3"], "gueses"),
        (["TextGen/Wordle-v0", "--idle-timeout", "0"], "idle_timeout must be a finite number above 0, got 0.0"),
        (
            ["TextGen/Wordle-v0", "--host", "192.0.2.1", "--port", "0"],
            "host and port must be an address of this machine",
        ),
    ],
)
def test_one_line_says_what_is_wrong(arguments, message, capsys):
    if MISSING and "--host" in arguments:
        message = "openenv_app() needs the package openenv-core==0.3.0: pip install openenv-core==0.3.0"
    with pytest.raises(SystemExit) as exit_code:
        main(["serve", *arguments])
    error = capsys.readouterr().err
    assert exit_code.value.code == 2 and message in error and error.count("\n") == 1
