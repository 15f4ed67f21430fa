"""Files that appear complete or not at all, YAML, and the error that tells a user what is wrong with them."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml


class CommandError(Exception):
    """What a user got wrong, in one line: the argument, the value given and what is accepted."""


class _YamlLoader(yaml.SafeLoader):
    """Safe YAML that reads ``1e-3`` as a number: YAML 1.1, which PyYAML follows, wants ``1.0e-3``."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write a file so that it appears complete or not at all.

    The file is written under a temporary name in the same folder and renamed at the end; an exception removes it and
    leaves what was there before.

    Args:
        path: Where the file is to be; its folder must exist.

    Yields:
        The path to write to, with the same suffix.

    Example:
        >>> with atomic_write("result.json") as temporary:  # doctest: +SKIP
        ...     temporary.write_text("{}")
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(argument: str, path: str | Path, kind: str = "file") -> Iterator[None]:
    """What can't be written becomes one line that names the argument.

    Args:
        argument: The argument that names the place.
        path: The place.
        kind: ``"file"`` or ``"folder"``.

    Raises:
        CommandError: In place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise CommandError(f"{argument} must be a {kind} that can be written, got {path}: {reason_of(error)}") from None


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_yaml(path: str | Path, value: Any) -> None:
    """Write a YAML file atomically, keys in the order given."""
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120))


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML.

    Args:
        text: The YAML text.
        source: What it is, for the error: an option or a file.

    Raises:
        CommandError: If it is not YAML.
    """
    try:
        return yaml.load(text, Loader=_YamlLoader)  # a SafeLoader: it builds plain values only
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise CommandError(f"{source} must be valid YAML, got {text[:60].strip()!r} ({reason})") from None


def read_yaml_mapping(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        CommandError: If the file can't be read, is not YAML, or holds something else.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"can't read {path}: {reason_of(error)}") from None
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict):
        raise CommandError(f"{path} must hold a YAML mapping of names to values, got {type(value).__name__}")
    return value


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run does."""
    from textgym import __version__

    names = ("torch", "numpy", "gymnasium", "stable-baselines3", "performer-pytorch")
    return {
        "textgym": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
    }


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that JSON and YAML can hold: NumPy scalars become Python numbers, tuples lists."""
    return json.loads(json.dumps(values, default=lambda value: value.item() if hasattr(value, "item") else str(value)))


def reason_of(error: Exception) -> str:
    """What an operating system says of an error, or its message."""
    return getattr(error, "strerror", None) or str(error)
