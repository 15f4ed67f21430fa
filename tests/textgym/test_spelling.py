"""Spelling: misspellings, the edit distance kept while writing, and the shaped reward."""

import numpy as np
import pytest

import textgym
from textgym.tasks.spelling import Spelling, append_letter, misspell


def distance(first, second):
    """Levenshtein's distance, cell by cell."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def ids(text):
    return [26 if letter == "$" else ord(letter) - ord("a") for letter in text]


def one_word(word, **kwargs):
    return textgym.TextGenVectorEnv(1, task="spelling", words=[word], **{"max_length": 9} | kwargs)


def test_misspell_makes_each_kind_of_mistake():
    assert misspell("word", 0.0, 0.99, 0.0) == "worda"
    assert misspell("word", 0.3, 0.0, 0.0) == "ord"
    assert misspell("word", 0.6, 0.26, 0.0) == "ward"
    assert misspell("word", 0.8, 0.99, 0.0) == "wodr"
    assert misspell("a", 0.3, 0.5, 0.04) == "b"  # nothing is left out of a single letter


def test_append_letter_against_the_plain_distance():
    generator = np.random.default_rng(0)
    texts = generator.integers(3, size=(200, 7))
    words = generator.integers(3, size=(200, 6)).astype(np.int16)
    distances = np.tile(np.arange(6, dtype=np.int16), (200, 1))
    for step in range(7):
        distances = append_letter(distances, words, texts[:, step])
        for row in range(0, 200, 20):
            expected = [distance(texts[row, : step + 1], words[row, :j]) for j in range(6)]
            assert distances[row].tolist() == expected


@pytest.mark.parametrize(
    ("text", "rewards"),
    [
        ("house$", [0.2, 0.2, 0.2, 0.2, 0.2, 0.0]),
        ("$", [0.0]),
        ("ho$", [0.2, 0.2, 0.0]),
        # A wrong letter for a right one earns nothing: distance 1 of 5.
        ("hause$", [0.2, 0.0, 0.2, 0.2, 0.2, 0.0]),
        # A letter too many: distance 1, of the longer of both, 6.
        ("housee$", [0.2, 0.2, 0.2, 0.2, 0.2, -0.2, 5 / 6 - 0.8]),
    ],
)
def test_shaped_rewards(text, rewards):
    envs = one_word("house", min_length=5)
    envs.reset(seed=0)
    paid = [envs.step(np.array([token]))[1][0] for token in ids(text)]
    written = text.removesuffix("$")
    assert sum(paid) == pytest.approx(1 - distance(written, "house") / max(len(written), 5))
    assert paid == pytest.approx(rewards)


def test_returns_are_the_score_of_the_text():
    """The shaped rewards of random texts add up to 1 - distance / longer length, ended by EOS or by the budget."""
    generator = np.random.default_rng(0)
    envs = textgym.TextGenVectorEnv(64, task="spelling")
    envs.reset(seed=0)
    prompts = envs.episodes.columns["letters"].copy()
    words = ["".join(chr(97 + t) for t in row if t < 26) for row in prompts.tolist()]
    texts, returns, running = [""] * 64, np.zeros(64), np.ones(64, bool)
    by_budget = 0
    while running.any():
        actions = np.where(generator.random(64) < 0.5, envs.task.oracle(envs.episodes), generator.integers(27, size=64))
        _, rewards, terminated, _, _ = envs.step(actions)
        for row in np.flatnonzero(running):
            returns[row] += rewards[row]
            if actions[row] < 26:
                texts[row] += chr(97 + actions[row])
                by_budget += int(terminated[row])
        running &= ~terminated
    expected = [1 - distance(a, b) / max(len(a), len(b)) for a, b in zip(texts, words, strict=True)]
    assert by_budget > 0 and np.allclose(returns, expected)


def test_sparse_pays_the_very_word():
    for text, rewards in {"house$": [0, 0, 0, 0, 0, 1], "hous$": [0] * 5, "houses$": [0] * 7}.items():
        envs = one_word("house", dense=False)
        envs.reset(seed=0)
        assert [envs.step(np.array([token]))[1][0] for token in ids(text)] == rewards


@pytest.mark.parametrize("edits", [1, 2])
def test_the_prompt_determines_the_word(edits):
    task = Spelling(edits=edits)
    table, known = task._table, set(task.words)
    texts = ["".join(chr(97 + t) for t in row if t < 26) for row in table.tokens.tolist()]
    assert len(set(texts)) == len(texts) > 20_000
    assert not known & set(texts)
    assert len(set(table.word.tolist())) == len(task.words)  # every word can be asked for
    for text, number in list(zip(texts, table.word.tolist(), strict=True))[::500]:
        assert 1 <= distance(text, task.words[number]) <= 2 * edits  # two letters swapped count twice


def test_cheat_bound_is_what_copying_earns():
    task = Spelling(words=["house"], edits=1)
    texts = ["".join(chr(97 + t) for t in row if t < 26) for row in task._table.tokens.tolist()]
    scores = [1 - distance(text, "house") / max(len(text), 5) for text in texts]
    assert task.cheat_bound == pytest.approx(np.mean(scores))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"edits": 0}, "edits must be an integer of at least 1, got 0"),
        ({"min_length": 1}, "min_length must be an integer of at least 2, got 1"),
        ({"min_length": 6, "max_length": 5}, "max_length must be an integer of at least 6, got 5"),
        ({"words": ["naïve"]}, "words must consist of the letters a to z, got 'naïve'"),
        ({"words": [7]}, "words must consist of the letters a to z, got 7"),
        ({"words": ["of"]}, "words must have at least one of 5 to 8 letters"),
        ({"words": []}, "words must have at least one of 5 to 8 letters"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Spelling(**kwargs)
