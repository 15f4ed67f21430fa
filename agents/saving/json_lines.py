"""JSON lines: a file that grows by one record a line, whoever writes and whatever is killed.

A record is appended in one write, under a lock, and flushed to the disk. A kill leaves at most a last line without its
end, which is no record: readers leave it out, and the next writer removes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

if sys.platform == "win32":
    import msvcrt

    _BEYOND = 2**40  # a byte that no file has: locks are mandatory there

    @contextlib.contextmanager
    def _locked(file: BinaryIO, shared: bool = False) -> Iterator[None]:
        file.seek(_BEYOND)
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        file.seek(0)
        try:
            yield
        finally:
            file.seek(_BEYOND)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    @contextlib.contextmanager
    def _locked(file: BinaryIO, shared: bool = False) -> Iterator[None]:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)


def append(path: str | Path, record: Any) -> None:
    """Add a record; the file is made if need be, its folder as well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
    with path.open("a+b") as file, _locked(file):
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":  # what a kill cut short
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read(path: str | Path, warn: bool = False) -> list[Any]:
    """Every whole record, in the order in which they were added; none where there is no file.

    Args:
        path: The file.
        warn: Whether to warn of a last line that is cut short.

    Raises:
        ValueError: If a line before the last one is damaged, or the file can't be read.
    """
    try:
        with Path(path).open("rb") as file, _locked(file, shared=True):
            content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror}") from None
    *lines, rest = content.decode("utf-8", "replace").split("\n")
    if rest and warn:
        warnings.warn(f"{path}: the last line is cut short, probably by a kill; its run is repeated", stacklevel=2)
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError):
            raise ValueError(
                f"{path} must hold a JSON value in every line, got {line[:60]!r} in line {number}"
            ) from None
    return records


def by_name(path: str | Path) -> dict[str, dict[str, Any]]:
    """Records that have a ``name``, by it, in the order of the names; of several with the same name, the last."""
    named = {row["name"]: row for row in read(path) if isinstance(row, dict) and isinstance(row.get("name"), str)}
    return dict(sorted(named.items()))
