"""What the limits of a server let through: an ASGI application inside, and clients of every kind."""

import asyncio
import json

import pytest

from textgym.adapters.server_limits import ServerLimits


async def echo(scope, receive, send):
    """Sends back what it gets, until the connection ends."""
    if scope["type"] == "websocket":
        while (message := await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": message["text"]})
    else:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


def play(limits, scope, messages, reads=True):
    """What a client gets that sends these messages and is silent then."""
    got = []

    async def go():
        waiting = asyncio.Queue()
        for message in messages:
            waiting.put_nowait(message)

        async def send(message):
            if not reads:
                await asyncio.Event().wait()
            got.append(message)

        await asyncio.wait_for(limits({"headers": [], **scope}, waiting.get, send), 5)

    asyncio.run(go())
    return got


def text(value):
    return {"type": "websocket.receive", "text": value}


def test_messages_of_a_connection():
    limits = ServerLimits(echo, 5, 100)
    bad = ["{", "[1]", "7", "[" * 50_000, '{"a": ' + "9" * 5000 + "}"]
    messages = [*map(text, bad), {"type": "websocket.receive", "bytes": b"abc"}, text('{"a": 1}')]
    got = play(limits, {"type": "websocket"}, [*messages, {"type": "websocket.disconnect"}])
    errors = [json.loads(message["text"])["data"] for message in got[:-1]]
    assert got[-1]["text"] == '{"a": 1}' and limits.refused == len(errors) == 6 and limits.idle == 0
    assert {error["code"] for error in errors} == {"INVALID_JSON"}
    assert errors[1]["message"] == "a message must be a JSON object, got '[1]'"
    assert "nested too deeply" in errors[3]["message"] and "must be text, got 3 bytes" in errors[5]["message"]
    assert all(len(error["message"]) < 400 for error in errors)


def test_a_silent_connection_is_closed():
    limits = ServerLimits(echo, 0.05, 100)
    got = play(limits, {"type": "websocket"}, [text("{}")])
    assert got == [
        {"type": "websocket.send", "text": "{}"},
        {"type": "websocket.close", "code": 1008, "reason": "nothing was sent for 0.05 seconds"},
    ]
    assert limits.idle == 1


def test_a_client_that_does_not_read_is_left():
    limits = ServerLimits(echo, 0.05, 100)
    assert play(limits, {"type": "websocket"}, [text("{}"), text("{}")], reads=False) == [] and limits.idle == 1


def test_nothing_is_sent_to_a_client_that_has_gone():
    async def late(scope, receive, send):
        await receive()
        await send({"type": "websocket.close"})

    assert play(ServerLimits(late, 5, 100), {"type": "websocket"}, [{"type": "websocket.disconnect"}]) == []


@pytest.mark.parametrize(
    ("headers", "parts", "status"),
    [
        ([], [b"a" * 50, b"b" * 50], 200),
        ([], [b"a" * 50, b"b" * 51], 413),
        ([(b"content-length", b"101")], [], 413),
        ([], [b"a"], 408),
    ],
)
def test_bodies(headers, parts, status):
    limits = ServerLimits(echo, 0.05, 100)
    messages = [
        {"type": "http.request", "body": part, "more_body": status == 408 or place < len(parts) - 1}
        for place, part in enumerate(parts)
    ]
    got = play(limits, {"type": "http", "headers": headers}, messages)
    assert [message.get("status") for message in got] == [status, None] and limits.refused == (status != 200)
    if status == 413:
        assert json.loads(got[1]["body"]) == {"detail": "a request must hold at most 100 bytes"}


def test_other_scopes_pass():
    async def lifespan(scope, receive, send):
        await send(await receive())

    assert play(ServerLimits(lifespan, 5, 100), {"type": "lifespan"}, [{"type": "lifespan.startup"}]) == [
        {"type": "lifespan.startup"}
    ]
