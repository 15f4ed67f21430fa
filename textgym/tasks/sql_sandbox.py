"""Running untrusted SQL: one SELECT on an in-memory SQLite database, with no way to write, load, loop or swell."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

MAX_QUERY = 500
"""Longest query, in characters."""
MAX_SELECTS = 2
"""Most SELECTs in a query: SQLite copies the expressions of a subquery into the query around it before anything runs,
so that nested ones grow exponentially where no limit of SQLite's own looks."""
MAX_ROWS = 200
"""Most rows that a query may return."""
MAX_INSTRUCTIONS = 100_000
"""Instructions of SQLite's virtual machine that a query may run: a few milliseconds. It counts work, not time, so the
same query is refused or answered on every machine."""

Cell: TypeAlias = int | float | str | bytes | None
Rows: TypeAlias = tuple[tuple[Cell, ...], ...]

_CHECK_EVERY = 1_000
_SELECT = re.compile("select", re.IGNORECASE)
_FUNCTIONS = frozenset({"abs", "avg", "count", "length", "lower", "max", "min", "round", "sum", "total", "upper"})
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 10_000,  # bytes of one value or row, in results and on the way to them
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 4 * MAX_QUERY,  # in bytes
    sqlite3.SQLITE_LIMIT_COLUMN: 32,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 50,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 5,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 5_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 4,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 50,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}


class ReadOnlyDatabase:
    """A small in-memory database that answers single SELECT statements from anyone.

    An authorizer admits nothing but SELECT, reading the given tables and a dozen harmless functions: writing,
    ATTACH, PRAGMA, transactions, recursive queries and SQLite's own tables are refused before anything runs. A
    progress handler stops a query after :data:`MAX_INSTRUCTIONS`, and limits on values, queries and rows bound memory.
    Answers are cached by the text of the query.

    Args:
        tables: For each table, its columns as ``(name, type)`` pairs and its rows. Names are trusted.

    Example:
        >>> database = ReadOnlyDatabase({"pets": ([("name", "TEXT"), ("age", "INTEGER")], [("rex", 3), ("kit", 5)])})
        >>> database.execute("SELECT name FROM pets WHERE age > 3")
        (('kit',),)
        >>> database.execute("DROP TABLE pets")
        Traceback (most recent call last):
        ValueError: query is refused: not authorized
    """

    def __init__(self, tables: Mapping[str, tuple[Sequence[tuple[str, str]], Iterable[tuple[Cell, ...]]]]) -> None:
        self._tables = frozenset(tables)
        # Any thread may ask, one at a time; no cached statement outlives the authorizer's decision about it.
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False, cached_statements=0
        )
        for table, (columns, rows) in tables.items():
            self._connection.execute(f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns)})")
            marks = ", ".join("?" * len(columns))
            self._connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        self._connection.execute("PRAGMA query_only = ON")
        for limit, value in _LIMITS.items():
            self._connection.setlimit(limit, value)
        self._connection.set_authorizer(self._authorize)
        self._connection.set_progress_handler(self._tick, _CHECK_EVERY)
        self._ticks = 0
        self._answer = lru_cache(maxsize=256)(self._run)  # what an agent writes recurs at once or never

    def execute(self, query: str) -> Rows:
        """The rows that a query returns.

        Raises:
            ValueError: If it is not one valid SELECT, touches anything but the tables, or exceeds a limit.
        """
        if len(query) > MAX_QUERY:
            raise ValueError(f"query must have at most {MAX_QUERY} characters, got {len(query)}")
        if len(_SELECT.findall(query)) > MAX_SELECTS:
            raise ValueError(f"query must have at most {MAX_SELECTS} SELECTs, got {len(_SELECT.findall(query))}")
        with self._lock:
            answer = self._answer(query)
        if isinstance(answer, str):
            raise ValueError(f"query is refused: {answer}")
        return answer

    def _run(self, query: str) -> Rows | str:
        """Rows, or why there are none (returned, not raised, so that refusals are cached as well)."""
        self._ticks = 0
        try:
            cursor = self._connection.execute(query)
            try:
                rows = cursor.fetchmany(MAX_ROWS + 1)
            finally:
                cursor.close()
        except MemoryError:  # what SQLite calls a program that is longer than its limit
            return "too complex"
        # ValueError: null characters and lone surrogates. Warning: two statements (an Error from Python 3.12 on).
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
            return " ".join(str(error).split())[:200]
        if cursor.description is None:
            return "not a SELECT"
        if len(rows) > MAX_ROWS:
            return f"more than {MAX_ROWS} rows"
        return tuple(rows)

    def _tick(self) -> int:
        self._ticks += 1
        return int(self._ticks * _CHECK_EVERY >= MAX_INSTRUCTIONS)

    def _authorize(self, action: int, first: str | None, second: str | None, *_: Any) -> int:
        if action == sqlite3.SQLITE_SELECT:
            return sqlite3.SQLITE_OK
        # first is "" for the rows of a subquery, second "" where a table is counted without reading a column.
        if action == sqlite3.SQLITE_READ and (first in self._tables or not first):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and second is not None and second.lower() in _FUNCTIONS:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY
