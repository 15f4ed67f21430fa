"""The databases of the ``Sql`` task, and every question that it can ask about them, with a query that answers it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np

from textgym.random import RowStreams
from textgym.tasks.sql_sandbox import Cell, ReadOnlyDatabase, Rows

N_DATABASES = 3
"""A query counts as right if it is right on each of them: one alone often agrees with a wrong query by accident."""

_N_ROWS = 12
_NAMES = ("ada", "ben", "cleo", "dan", "eva", "finn", "gus", "hana", "ivo", "jude", "kim", "lena")
_CATEGORIES = {"people": ("city", ("oslo", "paris", "rome")), "pets": ("kind", ("bird", "cat", "dog"))}
_NUMBERS: dict[str, dict[str, tuple[range, tuple[int, ...]]]] = {
    "people": {"age": (range(18, 80), (30, 40, 60)), "pay": (range(20, 100), (30, 40, 60))},
    "pets": {"age": (range(1, 20), (5, 10)), "weight": (range(1, 50), (5, 10, 30))},
}
"""For each table its numeric columns: the values that occur, and the thresholds that questions name."""
_AGGREGATES = {"average": "AVG", "total": "SUM", "highest": "MAX", "lowest": "MIN"}

QUERY_TOKENS = (
    *("SELECT", "DISTINCT", "COUNT", *_AGGREGATES.values(), "(", ")", "*", ",", "FROM", "WHERE", "AND", "OR"),
    *("=", ">", "<", "GROUP BY", "ORDER BY", "DESC", "LIMIT", "1"),
    *_NUMBERS,
    *("name", "city", "kind", "age", "pay", "weight"),
    *(f"'{value}'" for _, values in _CATEGORIES.values() for value in values),
    *("5", "10", "30", "40", "60"),
)
"""Tokens that a query is written with."""
QUESTION_TOKENS = ("list", "count", *_AGGREGATES, "of", "per", "with", "where", "is", "above", "below", "and")
"""Words that occur in questions only."""

Question = tuple[tuple[str, ...], tuple[str, ...]]
"""The tokens of a question, and those of a query that answers it."""


@cache
def databases() -> tuple[ReadOnlyDatabase, ...]:
    """The databases: the same tables and columns, with other rows in each.

    Within a column of numbers no value occurs twice, so that "the highest" is one row.
    """
    random = RowStreams(np.arange(N_DATABASES, dtype=np.uint64), np.zeros(N_DATABASES, np.int64))
    contents: list[dict[str, tuple[list[tuple[str, str]], list[tuple[Cell, ...]]]]] = [{} for _ in range(N_DATABASES)]
    for table, (category, categories) in _CATEGORIES.items():
        names = random.permutation(len(_NAMES))  # (N_DATABASES, 12)
        kinds = random.integers(len(categories), (_N_ROWS,))
        numbers = {column: random.permutation(len(values)) for column, (values, _) in _NUMBERS[table].items()}
        schema = [("name", "TEXT"), (category, "TEXT"), *((column, "INTEGER") for column in numbers)]
        for database, content in enumerate(contents):
            rows: list[tuple[Cell, ...]] = []
            for row in range(_N_ROWS):
                cells = (_NUMBERS[table][column][0][order[database, row]] for column, order in numbers.items())
                rows.append((_NAMES[names[database, row]], categories[kinds[database, row]], *cells))
            content[table] = (schema, rows)
    return tuple(ReadOnlyDatabase(content) for content in contents)


def answers(query: str) -> tuple[Rows, ...] | None:
    """Rows that any query, trusted or not, returns on each database; None if one of them refuses it."""
    try:
        return tuple(database.execute(query) for database in databases())
    except ValueError:
        return None


@cache
def questions(level: int) -> tuple[tuple[Question, ...], ...]:
    """All questions of a level, one tuple a template.

    A condition is asked about only where it leaves something in every database and changes the answer in at least
    one, so that it can be neither ignored nor answered by an empty result.

    Args:
        level: 1: whole tables. 2: the same with one condition. 3: two conditions, groups, or the row with the
            highest value.
    """
    if level == 3:
        grouped: list[Question] = []
        top: list[Question] = []
        for table in _NUMBERS:
            category = _CATEGORIES[table][0]
            for asked, select in _aggregates(table):
                query: tuple[str, ...] = ("SELECT", category, ",", *select, "FROM", table, "GROUP BY", category)
                grouped.append(((*asked, "per", category), query))
            for column, number in product(("name", category), _NUMBERS[table]):
                query = ("SELECT", column, "FROM", table, "ORDER BY", number, "DESC", "LIMIT", "1")
                top.append((("list", column, "of", table, "with", "highest", number), query))
        return tuple(_filtered(2)), tuple(grouped), tuple(top)
    lists: list[Question] = []
    aggregated: list[Question] = []
    for question, query in _filtered(level - 1):
        (lists if question[0] == "list" else aggregated).append((question, query))
    return tuple(lists), tuple(aggregated)


def _aggregates(table: str) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    yield ("count", table), ("COUNT", "(", "*", ")")
    for (word, function), column in product(_AGGREGATES.items(), _NUMBERS[table]):
        yield (word, column, "of", table), (function, "(", column, ")")


def _filtered(n_conditions: int) -> Iterator[Question]:
    """Lists and aggregates with so many conditions, each on a column of its own."""
    for table in _NUMBERS:
        heads = [(("list", column, "of", table), (column,)) for column in ("name", *_columns(table))]
        conditions = list(_conditions(table))
        for (question, select), chosen in product(
            [*heads, *_aggregates(table)], product(conditions, repeat=n_conditions)
        ):
            columns = [condition[0][0] for condition in chosen]
            if columns != sorted(set(columns)):  # one order of the same conditions, and no column twice
                continue
            words, clauses = [*question], ["SELECT", *select, "FROM", table]
            unfiltered = " ".join(clauses)
            for index, (asked, clause) in enumerate(chosen):
                words += ["and" if index else "where", *asked]
                clauses += ["AND" if index else "WHERE", *clause]
            if not chosen or _matters(unfiltered, " ".join(clauses)):
                yield tuple(words), tuple(clauses)


def _columns(table: str) -> tuple[str, ...]:
    return (_CATEGORIES[table][0], *_NUMBERS[table])


def _conditions(table: str) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    category, values = _CATEGORIES[table]
    for value in values:
        yield (category, "is", f"'{value}'"), (category, "=", f"'{value}'")
    for column, (_, thresholds) in _NUMBERS[table].items():
        for (word, sign), threshold in product((("above", ">"), ("below", "<")), thresholds):
            yield (column, word, str(threshold)), (column, sign, str(threshold))


def _matters(unfiltered: str, filtered: str) -> bool:
    with_condition, without = answers(filtered), answers(unfiltered)
    assert with_condition is not None and without is not None
    holds_something = all(rows and rows[0] not in ((None,), (0,)) for rows in with_condition)
    return holds_something and with_condition != without
