from copy import deepcopy

import numpy as np
import pytest

from textgym.english import load_english
from textgym.language_models import BigramLM, LanguageModel, bigram_model


@pytest.fixture(scope="module")
def model():
    return bigram_model(1500)


def test_is_a_language_model(model):
    assert isinstance(model, LanguageModel)
    assert deepcopy(model) is model


def test_log_probs_by_hand(model):
    """0.9 of the pair's share of all pairs that begin so, 0.1 of the word's share of all words."""
    data = load_english(1500)
    good, idea = model.words.index("good"), model.words.index("idea")
    follows = data.first == good
    share = data.pair_counts[follows & (data.second == idea)][0] / data.pair_counts[follows].sum()
    expected = np.log(0.9 * share + 0.1 * data.counts[idea] / data.counts.sum())
    assert model.log_probs(np.array([[3, good, 0]]), np.array([2]))[0, idea] == pytest.approx(expected, rel=1e-5)
    assert model.pair_log_probs([good], [idea])[0] == pytest.approx(expected, rel=1e-5)


def test_rows_sum_to_one(model):
    everything = np.arange(1502)[:, None]
    log_probs = model.log_probs(everything, np.ones(1502, np.int64))
    assert log_probs.shape == (1502, 1500)
    assert np.exp(log_probs, dtype=np.float64).sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_start_and_unknown_words_back_off_to_single_words(model):
    data = load_english(1500)
    unigram = np.log(data.counts / data.counts.sum())
    empty = model.log_probs(np.zeros((1, 0), np.int64), np.array([0]))
    start = model.log_probs(np.array([[7]]), np.array([0]))
    after_eos = model.log_probs(np.array([[7, 1500]]), np.array([2]))
    for log_probs in (empty, start, after_eos):
        assert log_probs[0] == pytest.approx(unigram, rel=1e-5)
    assert model.pair_log_probs([7], [1500])[0] == -np.inf


def test_text_log_probs(model):
    index = model.words.index
    texts = model.text_log_probs(["positive: the", "", "zzz"], ["best friend", "Food zzz is", ""])
    the, best, friend, food, is_ = (index(word) for word in ("the", "best", "friend", "food", "is"))
    assert texts[0] == pytest.approx(model.pair_log_probs([the, best], [best, friend]))
    assert texts[1] == pytest.approx(model.pair_log_probs([1500, food, 1500], [food, 1500, is_]))
    assert texts[1][1] == -np.inf
    assert len(texts[2]) == 0


def test_draws_follow_the_counted_pairs(model):
    data = load_english(1500)
    good = model.words.index("good")
    follows = data.first == good
    expected = np.zeros(1500)
    expected[data.second[follows]] = data.pair_counts[follows] / data.pair_counts[follows].sum()
    n = 100_000
    uniforms = (np.arange(n) + 0.5) / n  # a grid: frequencies have no sampling noise
    drawn = np.bincount(model.draw_successors(np.full(n, good), uniforms), minlength=1500) / n
    assert np.abs(drawn - expected).max() < 2 / n


def test_draws_at_the_ends_of_the_unit_interval(model):
    data = load_english(1500)
    counted = set(zip(data.first.tolist(), data.second.tolist(), strict=True))
    first = np.unique(data.first)
    for uniform in (0.0, np.nextafter(1.0, 0.0)):
        drawn = model.draw_successors(first, np.full(len(first), uniform))
        assert set(zip(first.tolist(), drawn.tolist(), strict=True)) <= counted


def test_a_word_that_nothing_follows_draws_by_frequency(model):
    lonely = np.setdiff1d(np.arange(1500), load_english(1500).first)
    assert len(lonely) > 0
    drawn = model.draw_successors(np.full(2, lonely[0]), np.array([0.0, 0.5]))
    assert drawn.tolist() == [0, int(np.searchsorted(model.unigram_cumulative, 0.5, side="right"))]


@pytest.mark.parametrize("interpolation", [0.0, 1.0, -1])
def test_interpolation_out_of_range(interpolation):
    with pytest.raises(ValueError, match=f"interpolation must lie between 0 and 1, got {interpolation}"):
        BigramLM(100, interpolation)
