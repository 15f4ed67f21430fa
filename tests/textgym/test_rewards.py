from copy import deepcopy

import numpy as np
import pytest

from textgym.language_models import bigram_model
from textgym.rewards import (
    Distinctness,
    Fluency,
    Product,
    Sentiment,
    WeightedSum,
    call_reward,
    likelihood_score,
    reward_name,
    sentiment,
    vader,
)


def length(prompts, completions, **columns):
    return [float(len(text)) for text in completions]


def test_sentiment_in_the_asked_direction():
    texts = ["a great food", "a great food", "a bad food", "the food", "not a great food"]
    tones = ["positive", "negative", "negative", "positive", "negative"]
    scores = Sentiment()(["p"] * 5, texts, tone=tones)
    # VADER's lexicon has great 3.1, bad -2.5; compound is s / sqrt(s² + 15), negation multiplies s by -0.74.
    assert scores[:4] == [round(3.1 / (3.1**2 + 15) ** 0.5, 4), 0.0, round(2.5 / (2.5**2 + 15) ** 0.5, 4), 0.0]
    assert scores[4] == round(0.74 * 3.1 / ((0.74 * 3.1) ** 2 + 15) ** 0.5, 4)
    assert Sentiment("positive")(["p"], ["great"]) == Sentiment()(["p"], ["great"], tone=["positive"])


@pytest.mark.parametrize("text", ["the table", "table :)", "oh 😀", "GREAT!!!", "good, bad", "", "not"])
def test_short_cut_changes_no_score(text):
    assert sentiment(text) == vader().polarity_scores(text)["compound"]


def test_likelihood_score():
    assert likelihood_score(np.log([1e-9, 1e-5, 0.3, 1.0])) == pytest.approx([0, 0, 1, 1])
    assert likelihood_score(np.array([np.log(1e-5) / 2 + np.log(0.3) / 2])) == pytest.approx([0.5])
    assert likelihood_score(np.array([-np.inf])) == 0


def test_fluency_by_hand():
    model = bigram_model(1500)
    fluency = Fluency(model, full_length=4)
    the, best, friend = (model.words.index(word) for word in ("the", "best", "friend"))
    earned = likelihood_score(model.pair_log_probs([the, best], [best, friend])).sum()
    scores = fluency(["of the"] * 4, ["best friend", "best friend the", "best friend zzz zzz zzz", ""])
    assert scores[0] == pytest.approx((earned + 1) / 5)  # two words and the ending, of four and the ending
    the_after = likelihood_score(model.pair_log_probs([friend], [the])).sum()
    assert scores[1] == pytest.approx((earned + the_after) / 5)  # nothing ends with "the"
    assert scores[2] == pytest.approx((earned + 1) / 6)
    assert scores[3] == 0


def test_distinctness():
    assert Distinctness()(["p"] * 3, ["a b A c", "", "a"]) == [0.75, 0.0, 1.0]


def test_combinations():
    texts = ["a b a b", "a"]
    product = Product([Distinctness(), lambda prompts, completions, **columns: [0.5, 0.25]])
    assert product(["p"] * 2, texts) == [0.25, 0.25]
    weighted = WeightedSum({Distinctness(): 2.0, length: -0.1})
    assert weighted(["p"] * 2, texts) == pytest.approx([0.3, 1.9])
    assert WeightedSum({Distinctness(): 2.0, Sentiment("positive"): -1.0}).range == (-1.0, 2.0)
    assert weighted.range == (-np.inf, np.inf)


def test_objects_are_not_copied_and_have_names():
    for reward in (Sentiment(), Fluency(bigram_model()), Distinctness(), Product([length]), WeightedSum({length: 1})):
        assert deepcopy(reward) is reward
        assert reward.__name__ == type(reward).__qualname__.lower()
    assert reward_name(length) == "length" and reward_name(Sentiment()) == "sentiment"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Sentiment("happy"), r"tone must be one of \['positive', 'negative'\], got 'happy'"),
        (lambda: Sentiment()(["p"], ["c"]), "Sentiment needs a column 'tone'"),
        (lambda: Sentiment()(["p"], ["c"], tone=["sad"]), "tone must be one of .*got 'sad'"),
        (lambda: Fluency(bigram_model(), 0), "full_length must be at least 1, got 0"),
        (lambda: Product([]), "rewards must hold at least one reward function"),
        (lambda: Product([WeightedSum({Distinctness(): 2.0})]), r"must lie in \[0, 1\], weightedsum has \(0.0, 2.0\)"),
        (lambda: WeightedSum({}), "weights must hold at least one reward function"),
        (lambda: WeightedSum({length: np.nan}), "weights must be finite, got nan for length"),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0], r"reward 'broken' must return a list of 2 numbers, got shape \(1,\)"),
        (None, r"reward 'broken' must return a list of 2 numbers, got shape \(\)"),
        (["a", "b"], r"reward 'broken' must return a list of 2 numbers, got \['a', 'b'\]"),
        ([1.0, np.nan], "reward 'broken' must return finite numbers, got nan for prompt 'q', completion 'd'"),
        ([1.0, None], "reward 'broken' must return finite numbers, got nan for prompt 'q'"),
        ([np.inf, 1.0], "reward 'broken' must return finite numbers, got inf for prompt 'p'"),
    ],
)
def test_what_a_reward_returns_is_checked(returned, message):
    def broken(prompts, completions, **columns):
        return returned

    with pytest.raises(ValueError, match=message):
        call_reward(broken, ["p", "q"], ["c", "d"], {})


def test_what_a_reward_raises_is_named():
    def broken(prompts, completions, answer):
        raise KeyError("oops")

    with pytest.raises(RuntimeError, match=r"reward 'broken' raised KeyError: 'oops' .*prompts 'p', completion 'c'"):
        call_reward(broken, ["p"], ["c"], {"answer": [1]})
    with pytest.raises(RuntimeError, match="reward 'broken' raised TypeError"):
        call_reward(broken, ["p"], ["c"], {})
