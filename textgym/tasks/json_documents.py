"""JSON from untrusted text: parsed strictly and within limits, and scored against a schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

MAX_LENGTH = 10_000
"""Longest document, in characters."""
MAX_DEPTH = 32
"""Deepest nesting of objects and arrays."""


def parse_json(text: str) -> Any:
    """The value of a JSON text (RFC 8259), read more strictly than by :func:`json.loads`.

    It takes a few milliseconds at most, whatever the text.

    Raises:
        ValueError: If it is not JSON, repeats a key, holds NaN, an infinity or a number too large, or exceeds
            :data:`MAX_LENGTH` or :data:`MAX_DEPTH`.

    Example:
        >>> parse_json('{"tags": [1, 2]}')
        {'tags': [1, 2]}
        >>> parse_json("[" * 100_000)
        Traceback (most recent call last):
        ValueError: text must have at most 10000 characters, got 100000
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"text must have at most {MAX_LENGTH} characters, got {len(text)}")
    if _depth(text) > MAX_DEPTH:  # json.loads recurses
        raise ValueError(f"text must nest at most {MAX_DEPTH} deep")
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)


def _depth(text: str) -> int:
    """Deepest nesting of brackets outside strings."""
    depth = deepest = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("text must not repeat a key within an object")
    return document


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"text must hold JSON values only, got {constant}")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"text must hold finite numbers, got {text[:20]}")
    return value


class SchemaScore:
    """How well a text meets a JSON schema (draft 2020-12) of an object.

    1 for a document that validates; otherwise 0.1 for one that is a JSON object at all, plus 0.5 times the share of
    the schema's properties that are present with a valid value; 0 for anything else.

    Args:
        schema: A schema with at least one entry in ``"properties"``, trusted: its patterns are run as they stand.
        check: Check the schema itself first (about a millisecond).

    Raises:
        ModuleNotFoundError: If the package ``jsonschema`` is not installed.
        ValueError: If the schema is invalid or describes no property.

    Example:
        >>> score = SchemaScore({"properties": {"age": {"type": "integer"}}, "required": ["age"]})
        >>> score('{"age": 7}'), score('{"age": "old"}'), score("7")
        (1.0, 0.1, 0.0)
    """

    def __init__(self, schema: Mapping[str, Any], check: bool = True) -> None:
        try:
            from jsonschema import Draft202012Validator, SchemaError
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("JSON schemas need the package jsonschema: pip install jsonschema") from error
        try:
            if check:
                Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise ValueError(f"schema must be a JSON schema of draft 2020-12: {error.message}") from error
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        if not properties:
            raise ValueError(f"schema must describe at least one property, got {schema!r}")
        self._validator = Draft202012Validator(schema)
        self._properties = {name: Draft202012Validator(inner) for name, inner in properties.items()}

    def __call__(self, text: str) -> float:
        """Score of a text, between 0 and 1."""
        try:
            document = parse_json(text)
        except ValueError:
            return 0.0
        if not isinstance(document, dict):
            return 0.0
        if self._validator.is_valid(document):
            return 1.0
        valid = sum(
            name in document and validator.is_valid(document[name]) for name, validator in self._properties.items()
        )
        return 0.1 + 0.5 * valid / len(self._properties)
