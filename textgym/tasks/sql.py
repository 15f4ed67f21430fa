"""Sql: answer a question with a query that is executed."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from textgym.random import RowStreams
from textgym.tasks.base import Episodes, Prompts
from textgym.tasks.grammar import Automaton, GrammarTask
from textgym.tasks.sql_questions import QUERY_TOKENS, QUESTION_TOKENS, Question, answers, questions
from textgym.tasks.sql_sandbox import Rows

_EOS = len(QUERY_TOKENS)
_TEXTS = (*QUERY_TOKENS, "<eos>", *QUESTION_TOKENS, "<sep>", "<pad>")
_IDS = {text: token for token, text in enumerate(_TEXTS)}
_SLACK = 2


class Sql(GrammarTask):
    """Write an SQL query that answers the question in the prompt, then close with EOS.

    ## Description
    The prompt is a question about one of two tables, ``people(name, city, age, pay)`` and
    ``pets(name, kind, age, weight)``. For ``average pay of people where city is 'rome' <sep>`` one answer is
    ``SELECT AVG ( pay ) FROM people WHERE city = 'rome' <eos>``. The query is *executed* on three small databases that
    the prompt does not show, and what counts is what it returns, so any query that means the same is as good. It runs
    in a sandbox (:class:`textgym.tasks.sql_sandbox.ReadOnlyDatabase`): in memory, read-only, with limits on work, rows
    and sizes that stop any query within a few milliseconds.

    ## Action Space
    ``Discrete(43)``: 23 keywords and signs, the 2 tables, the 6 columns, 6 words and 5 numbers as literals, and EOS.
    With ``masked=True`` a mask admits the tokens from which a query of the usual form can still be completed within
    the budget; it knows the order of clauses, not which column belongs to which table.

    ## Observation Space
    ``TokenSequence``: the question, ``<sep>`` and the tokens written so far. Tables, columns and literals have the
    same ids in questions and in queries; the other words of questions occur in prompts only.

    ## Rewards
    At the end, 1 for a query whose rows are those of the right answer on every database, in any order. Otherwise, if
    ``dense``: 0.1 for a query that executes, plus 0.4 times the mean over the databases of the F1 score of its rows
    (counted with repetitions) against the right ones; 0 for a query that is refused. Returns lie in [0, 1].

    ## Starting State
    A level, a template and a question drawn uniformly, in that order, from those that exist: level 1 asks for columns
    and aggregates of whole tables, level 2 adds a condition, level 3 two conditions, groups, and the row with the
    highest value.

    ## Episode End
    EOS terminates, and so does the budget: the longest reference query, its EOS and two tokens more.

    ## Arguments
    * ``levels=(1, 2)``: levels that are asked, a non-empty list of 1, 2 and 3.
    * ``dense=True``: pay partial credit.
    * ``masked=False``: offer the grammar mask.

    ## Version History
    * v0: first version.
    """

    def __init__(self, levels: tuple[int, ...] | list[int] = (1, 2), dense: bool = True, masked: bool = False) -> None:
        if not isinstance(levels, (list, tuple)) or not levels or any(level not in (1, 2, 3) for level in levels):
            raise ValueError(f"levels must be a non-empty list of 1, 2 and 3, got {levels!r}")
        self.levels = tuple(sorted(set(levels)))
        super().__init__(dense, masked)
        self.vocab_size, self.eos_id, self.pad_id = _EOS + 1, _EOS, len(_TEXTS) - 1

        asked: list[Question] = []
        weights: list[float] = []
        for level in self.levels:
            templates = questions(level)
            for template in templates:
                asked += template
                weights += [1.0 / (len(self.levels) * len(templates) * len(template))] * len(template)
        self._cumulative = np.cumsum(weights) / np.sum(weights)
        prompts = [[_IDS[word] for word in words] + [_IDS["<sep>"]] for words, _ in asked]
        solutions = [[_IDS[token] for token in tokens] + [_EOS] for _, tokens in asked]
        self._queries = [" ".join(tokens) for _, tokens in asked]
        self._prompts, self._prompt_lengths = _rectangle(prompts, self.pad_id)
        self.max_new_tokens = max(map(len, solutions)) + _SLACK
        self._solutions, _ = _rectangle(solutions, _EOS, self.max_new_tokens)
        self.context_length = self._prompts.shape[1] + self.max_new_tokens

    def prompts(self, random: RowStreams) -> Prompts:
        """Questions, drawn from the table of all."""
        question = random.choice(self._cumulative)
        return Prompts(self._prompts[question], self._prompt_lengths[question], {"question": question})

    def scores(self, episodes: Episodes) -> list[float]:
        """The score of each query."""
        questions_asked = episodes.columns["question"].tolist()
        return [
            score_query(self.decode(episodes.completion(row)), self._queries[question])
            for row, question in enumerate(questions_asked)
        ]

    def build_grammar(self) -> Automaton:
        """Queries of the usual form."""
        return _grammar()

    def oracle(self, episodes: Episodes) -> NDArray[np.int64]:
        """The reference query, token by token."""
        return self._solutions[episodes.columns["question"], episodes.steps]

    def token_text(self, token: int) -> str:
        """The word, keyword or sign of a token."""
        return _TEXTS[token]


def score_query(query: str, reference: str) -> float:
    """Score of any text as an answer to the question that the reference query answers, between 0 and 1.

    A query that the sandbox refuses scores 0; see the section on rewards of :class:`Sql`.

    Raises:
        ValueError: If the reference itself is refused.
    """
    expected = _expected(reference)
    if expected is None:
        raise ValueError(f"reference must be a query that executes, got {reference!r}")
    returned = answers(query)
    if returned is None:
        return 0.0
    overlap = [_row_f1(got, wanted) for got, wanted in zip(returned, expected, strict=True)]
    return 1.0 if min(overlap) == 1.0 else 0.1 + 0.4 * sum(overlap) / len(overlap)


@lru_cache(maxsize=4096)
def _expected(reference: str) -> tuple[Rows, ...] | None:
    return answers(reference)


def _row_f1(returned: Rows, expected: Rows) -> float:
    if not returned and not expected:
        return 1.0
    # Averages are floats: compared to six digits, as another order of summation may change the last one.
    got, wanted = (
        Counter(tuple(round(cell, 6) if isinstance(cell, float) else cell for cell in row) for row in rows)
        for rows in (returned, expected)
    )
    return 2.0 * (got & wanted).total() / (len(returned) + len(expected))


def _rectangle(
    rows: list[list[int]], fill: int, width: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lengths = np.array([len(row) for row in rows])
    table = np.full((len(rows), width or lengths.max()), fill)
    for row, tokens in enumerate(rows):
        table[row, : len(tokens)] = tokens
    return table, lengths


def _grammar() -> Automaton:
    """``SELECT items FROM table [WHERE …] [GROUP BY column] [ORDER BY column [DESC]] [LIMIT 1]``, as a table.

    Each state lists what may follow; a group of tokens in angle brackets stands for each of them.
    """
    groups = {
        "<column>": ("name", "city", "kind", "age", "pay", "weight"),
        "<table>": ("people", "pets"),
        "<function>": ("COUNT", "AVG", "SUM", "MIN", "MAX"),
        "<literal>": QUERY_TOKENS[QUERY_TOKENS.index("'oslo'") :],
        "<compare>": ("=", ">", "<"),
        "<connect>": ("AND", "OR"),
    }
    # The clauses that may still come, by how far a query has got.
    order = {"ORDER BY": "order", "LIMIT": "limit"}
    rest = {"GROUP BY": "group", **order}
    table: dict[str, dict[str, str]] = {
        "start": {"SELECT": "items"},
        "items": {"DISTINCT": "item", "<column>": "item done", "<function>": "function", "*": "item done"},
        "item": {"<column>": "item done", "<function>": "function", "*": "item done"},
        "function": {"(": "argument"},
        "argument": {"*": "argument done", "<column>": "argument done"},
        "argument done": {")": "item done"},
        "item done": {",": "item", "FROM": "from"},
        "from": {"<table>": "table"},
        "table": {"WHERE": "condition", **rest},
        "condition": {"<column>": "compare"},
        "compare": {"<compare>": "value"},
        "value": {"<literal>": "value done"},
        "value done": {"<connect>": "condition", **rest},
        "group": {"<column>": "group done"},
        "group done": order,
        "order": {"<column>": "order done"},
        "order done": {"DESC": "descending", "LIMIT": "limit"},
        "descending": {"LIMIT": "limit"},
        "limit": {"1": "limit done"},
        "limit done": {},
    }
    closable = {"table", "value done", "group done", "order done", "descending", "limit done"}
    edges = {
        state: {_IDS[token]: target for name, target in row.items() for token in groups.get(name, (name,))}
        for state, row in table.items()
    }
    return Automaton("start", lambda state, token: edges[state].get(token), closable.__contains__, _EOS + 1, _EOS)
