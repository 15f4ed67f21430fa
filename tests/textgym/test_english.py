import numpy as np
import pytest

from textgym import english
from textgym.english import load_english


def test_most_frequent_words_come_first():
    words = load_english(1500).words
    assert words[:8] == ("the", "of", "and", "to", "a", "in", "for", "is")
    assert len(words) == len(set(words)) == 1500
    assert (np.diff(load_english(1500).counts) <= 0).all()


def test_words_are_fit_to_print():
    words = set(load_english(1500).words)
    assert all(word.isalpha() and word == word.lower() for word in words)
    assert words.isdisjoint("http www com pm cd pc inc jan usa sex porn ass drug casino gay black jesus google".split())
    assert {word for word in words if len(word) <= 2} <= english._SHORT_WORDS
    assert words >= set("good bad best worst happy death war love friend music food".split()) - {"worst"}


def test_every_exclusion_excludes_something():
    """A word below the reviewed ranks in the exclusion list would be dead weight."""
    lines = english._read("frequency_dictionary_en_82_765.txt").split("\n", english._N_REVIEWED)
    assert {line.split()[0] for line in lines[: english._N_REVIEWED]} >= english._EXCLUDED


def test_pairs_are_sorted_and_counted():
    data = load_english(300)
    key = data.first * 300 + data.second
    assert (np.diff(key) > 0).all()
    assert data.first.max() < 300 and data.second.max() < 300 and data.second.min() >= 0
    assert (data.pair_counts > 0).all()
    pair = np.flatnonzero((data.first == data.words.index("of")) & (data.second == data.words.index("the")))
    assert data.pair_counts[pair] == data.pair_counts.max()


def test_smaller_vocabularies_are_prefixes_and_results_are_kept():
    assert load_english(300).words == load_english(1500).words[:300]
    assert load_english(300) is load_english(300)


@pytest.mark.parametrize("vocab_size", [1, 100_000])
def test_vocab_size_out_of_range(vocab_size):
    with pytest.raises(ValueError, match=rf"vocab_size must lie in \[2, \d+\].*got {vocab_size}"):
        load_english(vocab_size)
