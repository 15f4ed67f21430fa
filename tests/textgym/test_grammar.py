import numpy as np
import pytest

from textgym.tasks.grammar import Automaton, left_align


def balanced(deepest=3):
    """Balanced parentheses: 0 opens, 1 closes, 2 is EOS."""

    def step(depth, token):
        depth += 1 if token == 0 else -1
        return depth if 0 <= depth <= deepest else None

    return Automaton(0, step, lambda depth: depth == 0, vocab_size=3, eos_id=2)


def test_need_is_the_shortest_way_to_close():
    automaton = balanced()
    assert automaton.need[:4].clip(max=99).tolist() == [[3, 99, 1], [4, 2, 99], [5, 3, 99], [99, 4, 99]]


def test_allowed_leaves_room_to_close():
    automaton = balanced()
    texts = np.array([[0, 0, 9, 9], [0, 1, 9, 9], [0, 0, 0, 9], [1, 0, 9, 9], [0, 1, 2, 9]])
    lengths = np.array([2, 2, 3, 2, 3])
    assert automaton.allowed(texts, lengths, 7).tolist() == [
        [True, True, False],  # five left: a third one fits
        [True, False, True],
        [False, True, False],
        [False, False, True],  # illegal already: only the end is left
        [False, False, True],  # over
    ]
    assert automaton.allowed(texts[:1], lengths[:1], 5).tolist() == [[False, True, False]]
    assert automaton.allowed(texts[:1], lengths[:1], 2).tolist() == [[False, False, True]]  # no budget left


def test_a_grammar_without_texts_is_an_error():
    with pytest.raises(ValueError, match="accepts no text"):
        Automaton(0, lambda state, token: state, lambda state: False, vocab_size=2, eos_id=1)


def test_left_align():
    tokens, lengths = left_align(np.array([[-1, 3, -1, 5], [1, 2, 3, 4], [-1, -1, -1, -1]]))
    assert tokens.tolist() == [[3, 5, -1, -1], [1, 2, 3, 4], [-1, -1, -1, -1]]
    assert lengths.tolist() == [2, 4, 0]
