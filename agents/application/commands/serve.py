"""``textgym serve``."""

from __future__ import annotations

import ipaddress
import signal
import sys
from typing import Annotated

import typer

from agents.saving.arguments import checked_env_id, one_line, parse_assignments
from agents.saving.files import CommandError


def serve(
    env: Annotated[str, typer.Argument(metavar="ID", help="Environment (see 'textgym list').")],
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 for any free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen at; the default is reached from this machine alone.")] = (
        "127.0.0.1"
    ),
    max_sessions: Annotated[int, typer.Option(min=1, help="Sessions at once.")] = 64,
    idle_timeout: Annotated[float, typer.Option(help="Seconds after which a silent session is closed.")] = 300.0,
    max_message: Annotated[int, typer.Option(min=1, help="Bytes of a message.")] = 65_536,
    env_arg: Annotated[
        list[str] | None,
        typer.Option("--set", "--env-arg", metavar="KEY=VALUE", help="Argument of the environment (YAML value)."),
    ] = None,
) -> None:
    """Serve an environment to clients of OpenEnv, an episode for each, until Ctrl-C or SIGTERM (extra: openenv)."""
    env = checked_env_id(env)
    from textgym.adapters.openenv import listen, openenv_app, openenv_server

    arguments = parse_assignments("--set", env_arg or [])
    try:
        app = openenv_app(env, max_sessions, idle_timeout, max_message, **arguments)
        listener = listen(host, port)
    except (ModuleNotFoundError, TypeError, ValueError) as error:
        raise CommandError(one_line(error)) from error
    if not _is_loopback(listener.getsockname()[0]):
        print(f"textgym: warning: whoever reaches {host} can play here: nobody is asked who they are", file=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: None)  # the server hands on what stopped it: this one is no failure
    shown = f"[{host}]" if ":" in host else host
    print(f"serving {env} at http://{shown}:{listener.getsockname()[1]}", flush=True)
    openenv_server(app).run(sockets=[listener])


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback
