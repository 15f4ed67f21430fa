"""The ``textgym`` command: its subcommands, its exit codes and its errors of one line."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from agents.application.commands.demo import demo
from agents.application.commands.demonstrations import demonstrations
from agents.application.commands.doctor import doctor
from agents.application.commands.export import export
from agents.application.commands.list_ids import list_ids
from agents.application.commands.play import play
from agents.application.commands.report import report
from agents.application.commands.serve import serve
from agents.application.commands.steer import steer
from agents.application.commands.train import train
from agents.application.commands.tune import tune
from agents.application.commands.validate import validate
from agents.application.options import command_line
from agents.saving.arguments import one_line
from agents.saving.files import CommandError

app = typer.Typer(
    help="Reinforcement learning of text generation at token level.",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("list")(list_ids)
for command in (play, train, steer, tune, validate, export, demonstrations, serve, demo, report, doctor):
    app.command()(command)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks (anywhere on the command line).")] = False,
) -> None:
    """Reinforcement learning of text generation at token level."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 if all went well, 2 if the user has to change something, 130 after Ctrl-C, else 1.

    Args:
        arguments: The command line without the program's name; None for the process's own.

    Raises:
        SystemExit: Always.
    """
    command_line[:] = sys.argv[1:] if arguments is None else arguments
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # before transformers is loaded, which draws some
    debug = "--debug" in command_line
    given = [argument for argument in command_line if argument != "--debug"]
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.showwarning = _show_warning
            # Not standalone: typer would frame its errors in boxes of several lines. Returns the code of typer.Exit.
            code = app(args=given, prog_name="textgym", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        if debug:
            raise
        code = _explain(error)
    raise SystemExit(code or 0)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Those that are meant for users, in one line."""
    if issubclass(category, UserWarning):
        print(f"textgym: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _explain(error: Exception) -> int:
    """Print an error in one line and return the exit code."""
    if isinstance(error, CommandError):
        message, code = one_line(error), 2
    elif hasattr(error, "format_message"):  # typer's own errors, whichever click it brings along
        message, code = " ".join(error.format_message().split()) + _value_given(error), 2
    else:
        message, code = f"{type(error).__name__}: {one_line(error)} (--debug shows where)", 1
    print(f"textgym: error: {message}", file=sys.stderr)
    return code


def _value_given(error: Exception) -> str:
    """What stood after the option that typer complains about, where its message does not say it."""
    names = getattr(getattr(error, "param", None), "opts", ())
    for argument, following in zip(command_line, [*command_line[1:], ""], strict=True):
        name, assigned, value = argument.partition("=")
        if name in names and (assigned or following) and "requires an argument" not in str(error):
            given = value if assigned else following
            return "" if repr(given) in str(error) else f", got {given!r}"
    return ""


if __name__ == "__main__":
    main()
