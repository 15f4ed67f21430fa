"""Json: write an object that validates against the schema in the prompt."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.random import RowStreams
from textgym.tasks.base import Episodes, Prompts
from textgym.tasks.grammar import Automaton, GrammarTask
from textgym.tasks.json_documents import SchemaScore, parse_json

__all__ = ["Json", "SchemaScore", "parse_json"]

_KEYS = tuple(f'"{key}"' for key in ("id", "name", "age", "tags", "size", "live", "kind", "note"))
_STRINGS = ('"red"', '"blue"', '"cat"', '"dog"')
_DIGITS = tuple("0123456789")
_WORDS = ("true", "false", "null")
_TYPES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "<string>": ({"type": "string"}, ('"cat"',)),
    "<colour>": ({"enum": ["red", "blue"]}, ('"red"',)),
    "<integer>": ({"type": "integer"}, ("0",)),
    "<at-least-5>": ({"type": "integer", "minimum": 5}, ("7",)),
    "<boolean>": ({"type": "boolean"}, ("true",)),
    "<null>": ({"type": "null"}, ("null",)),
    "<two-integers>": (
        {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        ("[", "1", ",", "2", "]"),
    ),
}
"""For each type of a property, as the prompt names it: its schema, and a value that the oracle writes."""

_ACTIONS = ("{", "}", "[", "]", ":", ",", *_WORDS, *_DIGITS, *_STRINGS, *_KEYS, "<eos>")
_TEXTS = (*_ACTIONS, *_TYPES, "<object>", "<sep>", "<pad>")
_IDS = {text: token for token, text in enumerate(_TEXTS)}
_EOS = _IDS["<eos>"]
_SLACK = 2
_MAX_DEPTH = 3
"""Nesting that the grammar mask admits."""


class Json(GrammarTask):
    """Write a JSON object that validates against the schema in the prompt, then close with EOS.

    ## Description
    The prompt lists the properties of an object, a key and a type each; all are required and no others are allowed.
    For ``"age" <integer> "tags" <two-integers> <sep>`` one answer is ``{"age":7,"tags":[1,2]} <eos>``. The text is
    parsed strictly (no repeated keys, NaN or deep nesting) and validated by ``jsonschema`` (draft 2020-12).

    ## Action Space
    ``Discrete(30)``: ``{ } [ ] : ,``, ``true``, ``false``, ``null``, ten digits, four strings, eight keys (quotes
    included), then EOS. With ``masked=True`` a mask admits the tokens from which a JSON object can still be completed
    within the budget, up to three deep; it says nothing of the schema.

    ## Observation Space
    ``TokenSequence``: the schema, ``<sep>`` and the tokens written so far. If the last property is ``<object>``, the
    pairs that follow it are the object's own. Types occur in prompts only.

    ## Rewards
    At the end, 1 for a document that validates. Otherwise, if ``dense``: 0.1 for a text that is a JSON object, plus
    0.5 times the share of the outer properties that are present with a valid value; 0 for anything else. Returns lie
    in [0, 1].

    ## Starting State
    Different keys drawn uniformly, and for each property a type drawn uniformly from ``<string>``, ``<colour>``
    (``"red"`` or ``"blue"``), ``<integer>``, ``<at-least-5>``, ``<boolean>``, ``<null>`` and ``<two-integers>`` (an
    array of exactly two).

    ## Episode End
    EOS terminates, and so does the budget: two more actions than the longest answer of the oracle needs.

    ## Arguments
    * ``properties=2``: properties of the object (≥ 1).
    * ``nested=0``: if positive, one more property is an object with so many properties of its own;
      ``properties + nested`` is at most 7 then, else 8.
    * ``dense=True``: pay partial credit.
    * ``masked=False``: offer the grammar mask.

    ## Version History
    * v0: first version.
    """

    def __init__(self, properties: int = 2, nested: int = 0, dense: bool = True, masked: bool = False) -> None:
        self.properties = check_at_least("properties", properties, 1)
        self.nested = check_at_least("nested", nested, 0)
        n_keys = self.properties + self.nested + (self.nested > 0)
        if n_keys > len(_KEYS):
            raise ValueError(f"properties and nested must take at most {len(_KEYS)} keys, got {n_keys}")
        super().__init__(dense, masked)
        self.vocab_size, self.eos_id, self.pad_id = _EOS + 1, _EOS, len(_TEXTS) - 1
        longest_value = max(len(value) for _, value in _TYPES.values())
        longest = 2 + (self.properties + self.nested) * (longest_value + 3) - 1 + 4 * (self.nested > 0)
        self.max_new_tokens = longest + 1 + _SLACK
        self.context_length = 2 * n_keys + 1 + self.max_new_tokens

    def prompts(self, random: RowStreams) -> Prompts:
        """Keys without repetition, and a type for each."""
        n, count = len(random), self.properties + self.nested
        n_keys = count + (self.nested > 0)
        keys = random.permutation(len(_KEYS))[:, :n_keys]
        types = random.integers(len(_TYPES), (count,))
        if self.nested:
            types = np.insert(types, self.properties, len(_TYPES), axis=1)
        tokens = np.full((n, 2 * n_keys + 1), _IDS["<sep>"])
        tokens[:, 0:-1:2] = keys + _IDS[_KEYS[0]]
        tokens[:, 1:-1:2] = types + _EOS + 1
        return Prompts(tokens, np.full(n, tokens.shape[1]), {"solution": self._solution(keys, types)})

    def _solution(self, keys: NDArray[np.int64], types: NDArray[np.int64]) -> NDArray[np.int64]:
        n, n_keys = keys.shape
        solution = np.full((n, self.max_new_tokens), _EOS)
        solution[:, 0] = _IDS["{"]
        end = np.ones(n, np.int64)
        for index in range(n_keys):
            if index and not (self.nested and index == self.properties + 1):
                end = _write(solution, end, _IDS[","])
            end = _write(solution, end, keys[:, index] + _IDS[_KEYS[0]])
            end = _write(solution, end, _IDS[":"])
            if self.nested and index == self.properties:
                end = _write(solution, end, _IDS["{"])
                continue
            for token in _VALUES[types[:, index]].T:
                end = _write(solution, end, token)
        for _ in range(1 + (self.nested > 0)):
            end = _write(solution, end, _IDS["}"])
        return solution

    def scores(self, episodes: Episodes) -> list[float]:
        """The score of each text."""
        schemas = (_schema_score(tuple(episodes.prompt(row)[:-1].tolist())) for row in range(len(episodes)))
        return [score(self.decode(episodes.completion(row))) for row, score in enumerate(schemas)]

    def build_grammar(self) -> Automaton:
        """JSON objects, up to three deep."""
        return _grammar()

    def oracle(self, episodes: Episodes) -> NDArray[np.int64]:
        """A valid document, properties in the order of the prompt, token by token."""
        return episodes.columns["solution"][np.arange(len(episodes)), episodes.steps]

    def schema(self, prompt: NDArray[np.integer]) -> dict[str, Any]:
        """The JSON schema that a prompt (with or without ``<sep>``) stands for."""
        return _schema(tuple(token for token in prompt.tolist() if token != _IDS["<sep>"]))

    def token_text(self, token: int) -> str:
        """The JSON text of a token, or the name of a type."""
        return _TEXTS[token]

    def join(self, texts: list[str]) -> str:
        """JSON needs no spaces; a prompt is easier to read with them."""
        return "".join(texts)


_VALUES = np.full((len(_TYPES), max(len(value) for _, value in _TYPES.values())), -1)
for _row, (_, _value) in enumerate(_TYPES.values()):
    _VALUES[_row, : len(_value)] = [_IDS[text] for text in _value]


def _write(rows: NDArray[np.int64], end: NDArray[np.int64], token: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Write one token at the end of each row (none where it is -1), and return the new ends."""
    token = np.broadcast_to(token, end.shape)
    present = np.flatnonzero(token >= 0)
    rows[present, end[present]] = token[present]
    return end + (token >= 0)


def _schema(pairs: tuple[int, ...]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for index in range(0, len(pairs), 2):
        key, kind = _TEXTS[pairs[index]].strip('"'), _TEXTS[pairs[index + 1]]
        if kind == "<object>":
            properties[key] = _schema(pairs[index + 2 :])
            break
        properties[key] = _TYPES[kind][0]
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@lru_cache(maxsize=1024)
def _schema_score(pairs: tuple[int, ...]) -> SchemaScore:
    return SchemaScore(_schema(pairs), check=False)


def _grammar() -> Automaton:
    """States are (open brackets, what comes next); ``""`` closes the text."""

    def step(state: tuple[str, str], token: int) -> tuple[str, str] | None:
        stack, expected = state
        text = _TEXTS[token]
        if expected == "start":
            return ("{", "key or }") if text == "{" else None
        if expected.startswith("key"):
            if text == "}" and expected == "key or }":
                return stack[:-1], "after"
            return (stack, ":") if text.startswith('"') else None
        if expected == ":":
            return (stack, "value") if text == ":" else None
        if expected.startswith("value"):
            if text == "]":
                return (stack[:-1], "after") if expected == "value or ]" else None
            if text in "{[":
                if len(stack) == _MAX_DEPTH:
                    return None
                return stack + text, "key or }" if text == "{" else "value or ]"
            return (stack, "after") if text not in ("}", ":", ",") else None
        if not stack:
            return None
        if text == ",":
            return stack, "key" if stack[-1] == "{" else "value"
        return (stack[:-1], "after") if text == {"{": "}", "[": "]"}[stack[-1]] else None

    return Automaton(("", "start"), step, lambda state: state == ("", "after"), _EOS + 1, _EOS)
