"""OpenEnv: any id behind its server, where each connection plays episodes of its own."""

from __future__ import annotations

import math
import socket
import threading
from dataclasses import dataclass, field
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import gymnasium as gym

import textgym
from textgym.adapters.server_limits import ServerLimits
from textgym.adapters.text_steps import TextSteps
from textgym.checks import check_at_least, check_positive, check_range
from textgym.rewards.base import require
from textgym.tasks.base import Task

_PACKAGE = "openenv-core==0.3.0"
_PING = 20.0  # seconds after which a peer that does not answer is taken to have gone, twice
_STOP = 5.0  # seconds that open requests get when the server stops
MAX_MESSAGE = 65_536
"""Bytes of a message, unless another limit is given."""


@dataclass
class _Served:
    """What all sessions of a server share. One lock: steps take microseconds, and a task may remember answers."""

    name: str
    steps: TextSteps
    lock: threading.Lock = field(default_factory=threading.Lock)
    resets: int = 0
    messages: int = 0
    ended: int = 0


def openenv_app(
    id_or_task: str | type[Task] | Task,
    max_sessions: int = 64,
    idle_timeout: float = 300.0,
    max_message: int = MAX_MESSAGE,
    **kwargs: Any,
) -> Any:
    """An OpenEnv server of an id, as an ASGI application; :func:`openenv_server` runs it.

    OpenEnv's clients connect to ``/ws``: each connection is a session with an episode of its own. ``reset`` takes
    ``seed`` and ``episode_id``; an action is ``{"text": message}`` or ``{"tokens": ids}``, see
    :meth:`textgym.adapters.TextSteps.step` and :meth:`~textgym.adapters.TextSteps.step_tokens`. An observation has

    * ``text``: the prompt at first, then what the environment replies, or why a message was refused;
    * ``instructions``: what to write, in words, in the first observation;
    * ``tokens``, ``is_action``: ids of the episode so far, and which of them were written;
    * ``legal``: what may be written next; None where that is every token;
    * ``refused``: whether the message could not be read or held an illegal token.

    A request that can't be served gets an error that says why, and its session goes on. ``/health`` says whether the
    server runs, ``/metrics`` counts in Prometheus' format, ``/schema`` and ``/docs`` describe the rest.

    Args:
        id_or_task: A registered id, or a task.
        max_sessions: Sessions at once (≥ 1); further ones are told so and closed.
        idle_timeout: Seconds (above 0) after which a silent session is closed.
        max_message: Bytes of a message (≥ 1).
        **kwargs: Arguments of the environment or task.

    Returns:
        The application, a :class:`textgym.adapters.server_limits.ServerLimits`.

    Raises:
        ModuleNotFoundError: If OpenEnv is not installed.
        ValueError: If the id is unknown, or an argument is out of range.
    """
    max_sessions = check_at_least("max_sessions", max_sessions, 1)
    idle_timeout = check_positive("idle_timeout", idle_timeout)
    max_message = check_at_least("max_message", max_message, 1)
    steps = TextSteps(id_or_task, **kwargs)
    served = _Served(id_or_task if isinstance(id_or_task, str) else type(steps.task).__name__, steps)
    classes = _classes()
    fastapi = require("fastapi", _PACKAGE, "openenv_app()")
    server = classes.Server(
        partial(classes.Environment, served), classes.Action, classes.Observation, max_concurrent_envs=max_sessions
    )
    app = fastapi.FastAPI(title=f"TextGym: {served.name}", version=textgym.__version__)

    # Before OpenEnv's own, which would make sessions without a connection that could end them.
    @app.post("/mcp", include_in_schema=False)
    async def no_tools() -> dict[str, Any]:
        error = {"code": -32601, "message": "there are no tools: play on /ws"}
        return {"jsonrpc": "2.0", "id": None, "error": error}

    server.register_routes(app)
    limits = ServerLimits(app, idle_timeout, max_message)

    @app.get("/metrics", response_class=fastapi.responses.PlainTextResponse)
    async def metrics() -> str:
        """Counts since the start, in Prometheus' text format."""
        counts = {
            "sessions": server.active_sessions,
            "episodes_total": served.resets,
            "episodes_ended_total": served.ended,
            "messages_total": served.messages,
            "refused_total": limits.refused,
            "idle_total": limits.idle,
        }
        kinds = {name: "counter" if name.endswith("_total") else "gauge" for name in counts}
        return "".join(f"# TYPE textgym_{name} {kinds[name]}\ntextgym_{name} {counts[name]}\n" for name in counts)

    @app.exception_handler(gym.error.ResetNeeded)
    @app.exception_handler(ValueError)
    async def explain(request: Any, error: Exception) -> Any:
        return fastapi.responses.JSONResponse({"detail": str(error)}, 422)

    return limits


def openenv_server(app: ServerLimits) -> Any:
    """A ``uvicorn.Server`` with the limits of an application from :func:`openenv_app`.

    ``run(sockets=[listen(host, port)])`` serves until SIGINT or SIGTERM; sessions that are open then are closed with
    code 1012. Clients that vanished are found by pings.
    """
    uvicorn = require("uvicorn", _PACKAGE, "openenv_server()")
    config = uvicorn.Config(
        app,
        log_level="warning",
        ws_max_size=app.max_message,
        ws_ping_interval=_PING,
        ws_ping_timeout=_PING,
        ws_per_message_deflate=False,  # messages are short, and each compressor takes memory
        timeout_graceful_shutdown=math.ceil(_STOP),
    )
    return uvicorn.Server(config)


def listen(host: str = "127.0.0.1", port: int = 8000) -> socket.socket:
    """A socket that listens, on the port of a server that was killed, too.

    Args:
        host: Name or address to listen at: a loopback address is reached from this machine alone.
        port: Port, 0 for any free one.

    Raises:
        ValueError: If ``port`` is out of range, or the address can't be had.
    """
    check_range("port", port, 0, 65_535, integer=True)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ValueError(
            f"host and port must be an address of this machine that is free, got {host}:{port} ({error.strerror})"
        ) from None


@cache
def _classes() -> SimpleNamespace:
    """Subclasses of OpenEnv's, which exist where it is installed."""
    server = require("openenv.core.env_server.http_server", _PACKAGE, "openenv_app()")
    types = require("openenv.core.env_server.types", _PACKAGE, "openenv_app()")
    pydantic = require("pydantic", _PACKAGE, "openenv_app()")
    interfaces = require("openenv.core.env_server.interfaces", _PACKAGE, "openenv_app()")
    action_base: Any = types.Action
    observation_base: Any = types.Observation
    environment_base: Any = interfaces.Environment

    class TextAction(action_base):
        """A message as text, or as token ids."""

        # A client that reads the schema sends a plain reply as the one field that it asks for, numbers unquoted.
        model_config = pydantic.ConfigDict(coerce_numbers_to_str=True, json_schema_extra={"required": ["text"]})
        text: str | None = None
        tokens: list[int] | None = None

    class TextObservation(observation_base):
        """What the environment shows; see :func:`openenv_app`."""

        text: str
        instructions: str = ""
        tokens: list[int]
        is_action: list[bool]
        legal: list[str] | None = None
        refused: bool = False

    class TextEnvironment(environment_base):
        """One session."""

        SUPPORTS_CONCURRENT_SESSIONS = True
        REQUIRES_SINGLE_THREAD_EXECUTOR = True  # a thread for all sessions in place of one for each

        def __init__(self, served: _Served) -> None:
            super().__init__()
            self._served = served
            self._steps = TextSteps(served.steps.task)
            self._episode: dict[str, Any] = {"id": served.name, "step_count": 0}

        def reset(self, seed: Any = None, episode_id: Any = None, **others: Any) -> TextObservation:
            if others:
                raise ValueError(f"reset must have no data but seed and episode_id, got {sorted(others)}")
            if seed is not None:
                check_range("seed", seed, 0, 2**63 - 1, integer=True)
            if not (episode_id is None or isinstance(episode_id, str)):
                raise ValueError(f"episode_id must be a string or null, got {episode_id!r:.80}")
            with self._served.lock:
                prompt = self._steps.reset(seed)
                self._served.resets += 1
            self._episode |= {"episode_id": episode_id, "seed": seed, "step_count": 0, "episode_return": 0.0}
            return self._observe(prompt, self._steps.info, instructions=self._steps.instructions)

        def step(self, action: TextAction, timeout_s: float | None = None, **others: Any) -> TextObservation:
            if (action.text is None) == (action.tokens is None):
                raise ValueError(f"an action must have either text or tokens, got {'both' if action.text else 'none'}")
            with self._served.lock:
                if action.text is not None:
                    text, reward, done, _, info = self._steps.step(action.text)
                else:
                    text, reward, done, _, info = self._steps.step_tokens(action.tokens or [])
                self._served.messages += 1
                self._served.ended += done
            self._episode["step_count"] += 1
            self._episode["episode_return"] += reward
            return self._observe(text, info, reward=reward, done=done, refused=info["refusal"] is not None)

        @property
        def state(self) -> Any:
            return types.State(**self._episode)

        def get_metadata(self) -> Any:
            return types.EnvironmentMetadata(
                name=self._served.name, description=self._steps.instructions, version=textgym.__version__
            )

        def _observe(self, text: str, info: dict[str, Any], **rest: Any) -> TextObservation:
            everything = len(info["legal"]) == self._steps.task.vocab_size
            return TextObservation(
                text=text,
                tokens=info["tokens"].tolist(),
                is_action=info["is_action"].tolist(),
                legal=None if everything else list(info["legal"]),
                **rest,
            )

    return SimpleNamespace(
        Action=TextAction,
        Observation=TextObservation,
        Environment=TextEnvironment,
        Server=server.HTTPEnvServer,
    )
