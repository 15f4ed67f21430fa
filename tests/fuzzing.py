"""Settings and strategies that the fuzz tests share. ``TEXTGYM_FUZZ=20 pytest …`` makes them 20 times as thorough."""

import copy
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FACTOR = int(os.environ.get("TEXTGYM_FUZZ", "1"))
NAN, INFINITY = float("nan"), float("inf")
ODD_VALUES = st.sampled_from(
    [*(None, True, -1, 0, 1, 2, 0.5, NAN, INFINITY), *("", "x", "auto", "é\u202e"), *([], [1], [None], {}, {"a": 1})]
)


def examples(n):
    """The same ``n`` examples in every run, however long they take."""
    return settings(
        max_examples=n * FACTOR,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def places(tree, path=()):
    """Paths to all values of a tree of mappings and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


@st.composite
def damaged(draw, tree, write):
    """Text of a configuration of which a value is replaced, removed or added, or in which some text is replaced."""
    tree = copy.deepcopy(tree)
    kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add", "text"]))
    *parents, last = draw(st.sampled_from(list(places(tree))))
    place = tree
    for key in parents:
        place = place[key]
    if kind == "replace":
        place[last] = draw(ODD_VALUES)
    elif kind == "remove":
        del place[last]
    elif kind == "add" and isinstance(place, dict):
        place[draw(st.text(max_size=5))] = draw(ODD_VALUES)
    text = write(tree)
    if kind == "text":
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        text = text[:start] + draw(st.text(st.characters(codec="utf-8"), max_size=5)) + text[end:]
    return text
