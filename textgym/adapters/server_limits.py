"""What a server puts up with: an ASGI layer that bounds the size of requests and the silence of clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_POLICY = 1008  # the WebSocket's code for a connection that breaks the server's rules
_SHOWN = 80  # characters of a message


class ServerLimits:
    """An ASGI application around another, which sees neither malformed messages nor silent clients.

    A WebSocket message that is no JSON object is answered with an error in OpenEnv's form, and the session goes on. A
    connection whose client sends nothing for ``idle_timeout`` seconds, or does not take what it is sent for as long,
    is closed. The body of an HTTP request may hold ``max_message`` bytes, and takes ``idle_timeout`` seconds to come.
    How long a WebSocket message may be is left to the server underneath, which has not read it then.

    Args:
        app: The application inside.
        idle_timeout: Seconds of silence (above 0).
        max_message: Bytes of a request (≥ 1).

    Attributes:
        refused: Messages and requests refused so far.
        idle: Connections closed for their silence so far.
    """

    def __init__(self, app: Application, idle_timeout: float, max_message: int) -> None:
        self.app, self.idle_timeout, self.max_message = app, idle_timeout, max_message
        self.refused = self.idle = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One connection or request."""
        if scope["type"] == "websocket":
            await _Connection(self, receive, send).run(scope)
        elif scope["type"] == "http":
            await _Request(self, receive, send).run(scope)
        else:
            await self.app(scope, receive, send)


class _Connection:
    """A WebSocket connection."""

    def __init__(self, limits: ServerLimits, receive: Receive, send: Send) -> None:
        self._limits, self._receive, self._send = limits, receive, send
        self._closed = False

    async def run(self, scope: MutableMapping[str, Any]) -> None:
        await self._limits.app(scope, self.receive, self.send)

    async def receive(self) -> Message:
        while not self._closed:
            try:
                async with asyncio.timeout(self._limits.idle_timeout):
                    message = await self._receive()
            except TimeoutError:
                self._limits.idle += 1
                reason = f"nothing was sent for {self._limits.idle_timeout:g} seconds"
                await self.send({"type": "websocket.close", "code": _POLICY, "reason": reason})
                break
            if message["type"] == "websocket.disconnect":
                self._closed = True
                return message
            if message["type"] != "websocket.receive" or (problem := _problem(message)) is None:
                return message
            self._limits.refused += 1
            error = {"type": "error", "data": {"message": problem, "code": "INVALID_JSON"}}
            await self.send({"type": "websocket.send", "text": json.dumps(error)})
        return {"type": "websocket.disconnect", "code": _POLICY}

    async def send(self, message: Message) -> None:
        if self._closed:
            return
        self._closed = message["type"] == "websocket.close"
        try:
            async with asyncio.timeout(self._limits.idle_timeout):
                await self._send(message)
        except TimeoutError:  # the client does not read
            self._limits.idle += 1
            self._closed = True
        except OSError:  # the client has gone
            self._closed = True


class _Request:
    """An HTTP request."""

    def __init__(self, limits: ServerLimits, receive: Receive, send: Send) -> None:
        self._limits, self._receive, self._send = limits, receive, send
        self._size = 0
        self._whole = self._refused = False

    async def run(self, scope: MutableMapping[str, Any]) -> None:
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if int(announced) > self._limits.max_message:  # the server underneath has checked that it is a number
            await self._refuse(413, f"a request must hold at most {self._limits.max_message} bytes")
        else:
            await self._limits.app(scope, self.receive, self.send)

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout(self._limits.idle_timeout):
                message = await self._receive()
        except TimeoutError:
            await self._refuse(408, f"a request must come within {self._limits.idle_timeout:g} seconds")
            return {"type": "http.disconnect"}
        self._size += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._size > self._limits.max_message:
            await self._refuse(413, f"a request must hold at most {self._limits.max_message} bytes")
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if not self._refused:
            await self._send(message)

    async def _refuse(self, status: int, why: str) -> None:
        self._limits.refused += 1
        self._refused = True
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": json.dumps({"detail": why}).encode()})


def _problem(message: Message) -> str | None:
    """Why a message can't be read, if it can't."""
    text = message.get("text")
    if text is None:
        return f"a message must be text, got {len(message.get('bytes') or b''):,} bytes"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return f"a message must be a JSON object, got {text[:_SHOWN]!r} ({reason})"
    return None if isinstance(value, dict) else f"a message must be a JSON object, got {text[:_SHOWN]!r}"
