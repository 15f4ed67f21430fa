"""The server for OpenEnv, played by OpenEnv's own client and by others that behave badly."""

import asyncio
import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

pytest.importorskip("openenv", reason="OpenEnv is not installed")
websockets = pytest.importorskip("websockets")

from openenv.core.generic_client import GenericEnvClient  # noqa: E402

from tests.textgym.test_text_steps import BASE, native_turns  # noqa: E402
from textgym.adapters import TextSteps  # noqa: E402
from textgym.adapters.openenv import listen, openenv_app, openenv_server  # noqa: E402


@contextlib.contextmanager
def serving(id_or_task, **arguments):
    """The port of a server that runs in a thread of this process."""
    listener = listen(port=0)
    server = openenv_server(openenv_app(id_or_task, **arguments))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def wordle():
    with serving("TextGen/Wordle-v0", max_sessions=4, guesses=3) as port:
        yield port


def client(port):
    return GenericEnvClient(f"http://127.0.0.1:{port}")


def raw(port):
    return websockets.connect(f"ws://127.0.0.1:{port}/ws")


def get(port, path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body)
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def counts(port):
    lines = get(port, "/metrics")[1].splitlines()
    return {line.split()[0].removeprefix("textgym_"): int(line.split()[1]) for line in lines if line[0] != "#"}


async def episode(connection, seed):
    """Random messages, and everything that came back."""
    generator = np.random.default_rng(seed)
    steps = TextSteps("TextGen/Wordle-v0", guesses=3)
    prompt = steps.reset(seed=seed)
    result = await connection.reset(seed=seed)
    assert result.observation["text"] == prompt and result.observation["instructions"] == steps.instructions
    while not result.done:
        message = " ".join("abcdefghijklmnopqrstuvwxyz"[k] for k in generator.integers(26, size=generator.integers(7)))
        answer, reward, done, _, info = steps.step(message)
        result = await connection.step({"text": message})
        seen = result.observation
        assert (seen["text"], result.reward, result.done) == (answer, reward, done)
        assert seen["tokens"] == info["tokens"].tolist() and seen["is_action"] == info["is_action"].tolist()


def test_sessions_at_once_are_the_environment_itself(wordle):
    async def session(seed):
        async with client(wordle) as connection:
            for number in range(3):
                await episode(connection, 10 * seed + number)

    async def all_of_them():
        await asyncio.gather(*map(session, range(4)))

    asyncio.run(all_of_them())


@pytest.mark.slow
@pytest.mark.parametrize("env_id", BASE)
def test_every_task_pays_what_the_environment_pays(env_id):
    async def play(port):
        async with client(port) as connection:
            for seed in range(4):
                _, turns, tokens = native_turns(env_id, seed, oracle=False)
                await connection.reset(seed=seed)
                for number, (actions, _, total) in enumerate(turns):
                    result = await connection.step({"tokens": actions})
                    assert (result.reward, result.done) == (total, number == len(turns) - 1)
                assert result.observation["tokens"] == tokens.tolist()

    with serving(env_id) as port:
        asyncio.run(play(port))


def test_tokens_as_messages(wordle):
    steps, total = TextSteps("TextGen/Wordle-v0", guesses=3), 0.0

    async def go():
        nonlocal total
        async with client(wordle) as connection:
            steps.reset(seed=5)
            await connection.reset(seed=5, episode_id="five")
            for ids in ([1, 2, 3], [4, 5, 6]):
                result, (answer, reward, *_, info) = await connection.step({"tokens": ids}), steps.step_tokens(ids)
                assert (result.observation["text"], result.reward) == (answer, reward)
                assert result.observation["tokens"] == info["tokens"].tolist()
                total += reward
            return await connection.state()

    assert asyncio.run(go()) == {
        "id": "TextGen/Wordle-v0",
        "episode_id": "five",
        "seed": 5,
        "step_count": 2,
        "episode_return": total,
    }


def test_wrong_requests_leave_the_session_as_it_was(wordle):
    wrong = {
        ("reset", '{"seed": -1}'): "seed must be an integer in [0, 9223372036854775807], got -1",
        ("reset", '{"sed": 1}'): "reset must have no data but seed and episode_id, got ['sed']",
        ("reset", '{"episode_id": 4}'): "episode_id must be a string or null, got 4",
        ("reset", "7"): "Invalid message",
        ("step", "{}"): "an action must have either text or tokens, got none",
        ("step", '{"text": "a", "tokens": [1]}'): "an action must have either text or tokens, got both",
        ("step", '{"text": [5]}'): "Invalid message",
        ("step", '{"tokens": [99]}'): "tokens must be a list of at least one integer in [0, 27), got [99]",
        ("jump", "{}"): "Unknown message type: jump",
    }

    async def go():
        steps = TextSteps("TextGen/Wordle-v0", guesses=3)
        steps.reset(seed=2)
        async with raw(wordle) as connection:
            await connection.send('{"type": "step", "data": {"text": "a"}}')
            assert "call reset() before step()" in await connection.recv()
            await connection.send('{"type": "reset", "data": {"seed": 2}}')
            await connection.recv()
            for (kind, data), message in wrong.items():
                await connection.send(f'{{"type": "{kind}", "data": {data}}}')
                assert json.loads(await connection.recv())["data"]["message"] == message
            for data in ("{", "[]", b"\xff"):
                await connection.send(data)
                assert json.loads(await connection.recv())["data"]["code"] == "INVALID_JSON"
            await connection.send('{"type": "step", "data": {"text": "s t o n e"}}')
            assert json.loads(await connection.recv())["data"]["observation"]["text"] == steps.step("s t o n e")[0]

    asyncio.run(go())


def test_an_oversized_message_ends_its_session_and_no_other(wordle):
    async def go():
        async with client(wordle) as other, raw(wordle) as connection:
            await other.reset(seed=1)
            await connection.send("x" * 70_000)
            with pytest.raises(websockets.ConnectionClosedError, match=r"1009.*exceeds limit of 65536 bytes"):
                await connection.recv()
            assert (await other.step({"text": "s t o n e"})).observation["text"]

    asyncio.run(go())


def test_sessions_are_limited_and_come_back(wordle):
    async def go():
        connections = [await raw(wordle).__aenter__() for _ in range(4)]
        for connection in connections:  # a session is made after the handshake
            await connection.send('{"type": "state"}')
            await connection.recv()
        assert counts(wordle)["sessions"] == 4
        async with raw(wordle) as fifth:
            error = json.loads(await fifth.recv())["data"]
            assert (error["code"], error["max_sessions"]) == ("CAPACITY_REACHED", 4)
        for connection in connections:
            connection.transport.abort()  # no goodbye
        for _ in range(100):
            if counts(wordle)["sessions"] == 0:
                break
            await asyncio.sleep(0.02)
        async with client(wordle) as after:
            await after.reset(seed=0)

    asyncio.run(go())
    assert counts(wordle)["sessions"] <= 1


def test_http(wordle):
    assert get(wordle, "/health") == (200, '{"status":"healthy"}')
    assert json.loads(get(wordle, "/metadata")[1])["name"] == "TextGen/Wordle-v0"
    assert set(json.loads(get(wordle, "/schema")[1])["action"]["properties"]) == {"metadata", "text", "tokens"}
    status, body = get(wordle, "/step", b'{"action": {"text": "a"}}')
    assert status == 422 and "call reset() before step()" in body
    assert get(wordle, "/reset", b'{"seed": 1, "sed": 2}')[0] == 422
    assert get(wordle, "/reset", b" " * 70_000) == (413, '{"detail": "a request must hold at most 65536 bytes"}')
    assert get(wordle, "/nowhere")[0] == 404
    before = counts(wordle)["sessions"]
    status, body = get(wordle, "/mcp", b'{"jsonrpc": "2.0", "id": 1, "method": "openenv/session/create", "params": {}}')
    assert status == 200 and json.loads(body)["error"]["message"] == "there are no tools: play on /ws"
    assert counts(wordle)["sessions"] == before
    found = counts(wordle)
    assert found["refused_total"] > 0 and found["messages_total"] > 0
    assert found["episodes_total"] >= found["episodes_ended_total"] > 0


@pytest.mark.parametrize(("reply", "text"), [("s t o n e", "s t o n e"), ("7", "7")])
def test_a_plain_reply_is_the_text(wordle, reply, text):
    """What verifiers' own taskset for OpenEnv servers makes of it, in short."""
    schema = json.loads(get(wordle, "/schema")[1])["action"]
    assert schema["required"] == ["text"]
    try:
        reply = json.loads(reply)
    except ValueError:
        pass

    async def go():
        steps = TextSteps("TextGen/Wordle-v0", guesses=3)
        steps.reset(seed=2)
        async with client(wordle) as connection:
            await connection.reset(seed=2)
            result = await connection.step({schema["required"][0]: reply})
            assert result.observation["text"] == steps.step(text)[0]

    asyncio.run(go())


def test_openenv_finds_nothing_wrong(wordle):
    from openenv.cli._validation import validate_running_environment

    report = validate_running_environment(f"http://127.0.0.1:{wordle}")
    assert report["passed"], report["criteria"]


def test_a_silent_session_is_closed():
    with serving("TextGen/Json-Easy-v0", idle_timeout=0.3) as port:

        async def go():
            async with raw(port) as connection:
                await connection.send('{"type": "reset", "data": {"seed": 0}}')
                legal = json.loads(await connection.recv())["data"]["observation"]["legal"]
                started = time.perf_counter()
                with pytest.raises(websockets.ConnectionClosedError, match=r"1008.*nothing was sent for 0\.3 seconds"):
                    await connection.recv()
                assert 0.2 < time.perf_counter() - started < 3
                return legal

        steps = TextSteps("TextGen/Json-Easy-v0")
        steps.reset(seed=0)
        assert asyncio.run(go()) == list(steps.info["legal"])
        assert counts(port)["idle_total"] == 1 and counts(port)["sessions"] == 0


def test_a_client_that_answers_no_ping_has_gone(monkeypatch):
    monkeypatch.setattr("textgym.adapters.openenv._PING", 0.2)
    with serving("TextGen/Hangman-v0") as port, socket.create_connection(("127.0.0.1", port)) as connection:
        request = ["GET /ws HTTP/1.1", "Host: localhost", "Connection: Upgrade", "Upgrade: websocket"]
        request += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]
        connection.sendall("\r\n".join(request).encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 101")
        begun = time.perf_counter()
        while counts(port)["sessions"] == 0 and time.perf_counter() - begun < 5:
            time.sleep(0.01)
        assert counts(port)["sessions"] == 1
        while counts(port)["sessions"] == 1 and time.perf_counter() - begun < 5:
            time.sleep(0.05)
        assert counts(port)["sessions"] == 0 and counts(port)["idle_total"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_sessions": 0}, "max_sessions must be an integer of at least 1, got 0"),
        ({"idle_timeout": 0}, "idle_timeout must be a finite number above 0, got 0"),
        ({"max_message": "1"}, "max_message must be an integer of at least 1, got '1'"),
        ({"guesses": 0}, "guesses"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        openenv_app("TextGen/Wordle-v0", **arguments)


def test_an_address_that_is_taken():
    with listen(port=0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ValueError, match=f"that is free, got 127.0.0.1:{port}"):
            listen(port=port)
    with pytest.raises(ValueError, match=r"port must be an integer in \[0, 65535\], got 70000"):
        listen(port=70_000)
    with pytest.raises(ValueError, match=r"got 192\.0\.2\.1:0"):
        listen("192.0.2.1", 0)
