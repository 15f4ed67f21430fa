"""Rewards beyond tone and fluency: values by hand, ranges, cheats, hostile input, TRL's calling convention."""

import inspect
import json
import time

import numpy as np
import pytest
import torch

import textgym.rewards
from textgym import TextGenVectorEnv
from textgym.language_models import NGramLM, bigram_model
from textgym.rewards import (
    Bleu,
    Chrf,
    Classifier,
    Distinctness,
    EditSimilarity,
    EmbeddingSimilarity,
    Fluency,
    FromTRL,
    JsonSchema,
    KeywordCoverage,
    Length,
    LogLikelihood,
    Matches,
    NegativeKL,
    Product,
    Readability,
    Reward,
    Rouge,
    Sentiment,
    WeightedSum,
    count_syllables,
    edit_distance,
)
from textgym.tokenizers import WordTokenizer

SCHEMA = {"properties": {"age": {"type": "integer"}}, "required": ["age"]}
COLUMNS = {
    "reference": ["the cat sat on the mat"] * 7,
    "keywords": [["cat", "mat"]] * 7,
    "tone": ["positive"] * 7,
    "schema": [json.dumps(SCHEMA)] * 7,
}


def every_reward():
    model = NGramLM(["the cat sat on the mat"])
    return [
        Sentiment(),
        Fluency(bigram_model()),
        Distinctness(),
        Distinctness(2),
        Length(3, 8),
        Length(3, 80, "characters"),
        Readability(),
        Matches("[a-z ]+"),
        JsonSchema(SCHEMA),
        JsonSchema(),
        Rouge(),
        Rouge("rouge2", "recall"),
        Bleu(),
        Chrf(2),
        EditSimilarity(),
        EditSimilarity("words"),
        KeywordCoverage(["cat"]),
        KeywordCoverage(),
        LogLikelihood(model),
        NegativeKL(model, NGramLM(["the cat sat"], model.tokenizer)),
        Product([Distinctness(), Length(3, 8)]),
        WeightedSum({Distinctness(): 2.0, Length(3, 8): -1.0}),
    ]


def test_every_reward_called_as_trl_calls_it():
    """All by keyword, with TRL's own extras; texts or conversations; a list of floats in the stated range."""
    texts = [
        "the cat sat on the mat",
        "",
        "cat cat cat",
        "sat the on mat cat the",
        "\x00\ud7ff ]{\n",
        '{"age": 7}',
        "!",
    ]
    prompts = ["tell me"] * len(texts)
    extras = {"completion_ids": [[1]] * 7, "trainer_state": object(), "log_extra": print, "log_metric": print}
    conversations = {
        "prompts": [[{"role": "user", "content": text}] for text in prompts],
        "completions": [[{"role": "assistant", "content": text}] for text in texts],
    }
    for reward in every_reward():
        scores = reward(prompts=prompts, completions=texts, **COLUMNS, **extras)
        low, high = reward.range
        assert isinstance(scores, list) and len(scores) == len(texts), reward.__name__
        assert all(type(score) is float and low <= score <= high for score in scores), (reward.__name__, scores)
        assert reward(**conversations, **COLUMNS, **extras) == scores, reward.__name__
        assert reward.__name__ == type(reward).__name__.lower()


def test_every_public_reward_is_tested_above():
    classes = {
        value
        for value in vars(textgym.rewards).values()
        if inspect.isclass(value) and issubclass(value, Reward) and value is not Reward
    }
    untested = classes - {type(reward) for reward in every_reward()}
    assert untested == {FromTRL, Classifier, EmbeddingSimilarity}  # below


def test_cheats():
    """Empty, one word repeated, the reference shuffled, junk: none of them earns what the reference does."""
    reference = COLUMNS["reference"][0]
    cheats = ["", "cat cat cat cat cat cat", "mat the on sat cat the", "]{%"]
    columns = {name: values[:5] for name, values in COLUMNS.items()}
    for reward in (
        Rouge(),
        Bleu(),
        Chrf(),
        EditSimilarity(),
        EditSimilarity("words"),
        LogLikelihood(NGramLM([reference])),
    ):
        best, *scores = reward([""] * 5, [reference, *cheats], **columns)
        assert best > max(scores) + 0.1, (reward.__name__, best, scores)
        if reward.range == (0.0, 1.0):
            assert best == 1.0 and scores[0] == scores[3] == 0.0


def test_length():
    texts = ["", "a", "a b", "a b c d", "a b c d e f", "a " * 8, "a " * 9]
    assert Length(2, 4)([""] * 7, texts) == [0, 0.5, 1, 1, 0.5, 0, 0]
    assert Length(0, 1)([""] * 2, ["", "a"]) == [1, 1]
    assert Length(2, 2, "characters")([""] * 2, ["ab", "abc"]) == [1, 0.5]


def test_distinct_bigrams():
    assert Distinctness(2)([""] * 4, ["a b a b", "a b c", "a", ""]) == [2 / 3, 1, 0, 0]


def test_syllables_and_readability():
    counts = {
        "cat": 1,
        "table": 2,
        "made": 1,
        "wanted": 2,
        "jumped": 1,
        "noises": 2,
        "readability": 5,
        "the": 1,
        "x": 1,
    }
    assert {word: count_syllables(word) for word in counts} == counts
    # 10 words, 2 sentences, 12 syllables.
    text = "The cat sat on the mat. A table was made."
    ease = 206.835 - 1.015 * 10 / 2 - 84.6 * 11 / 10
    assert Readability()([""], [text]) == [pytest.approx(min(ease / 100, 1))]
    hard = "Organisational responsibilities necessitate considerable administrative communication capabilities."
    scores = Readability()([""] * 4, [hard, "Hi.", "", "123 !!!"])
    assert scores == [0.0, 1 / 8, 0.0, 0.0]


def test_keywords():
    texts = ["The CAT, on a mat.", "cats mats", "a red\nhat", "hat red", "cat"]
    assert KeywordCoverage(["cat", "red hat"])([""] * 5, texts) == [0.5, 0, 0.5, 0, 0.5]
    assert KeywordCoverage()([""] * 2, ["a b", "a b"], keywords=[["a"], ["a", "c"]]) == [1, 0.5]


def test_edit_distance_against_the_textbook_recursion():
    def slow(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    generator = np.random.default_rng(0)
    for _ in range(60):
        a, b = ("".join(generator.choice(list("abc"), generator.integers(0, 6))) for _ in range(2))
        assert edit_distance(a, b) == slow(a, b)
    assert EditSimilarity("words")([""] * 2, ["a b c", ""], reference=["a c", ""]) == [pytest.approx(2 / 3), 1]
    assert EditSimilarity()([""], ["abc"], reference=[["xyz", "abd"]]) == [pytest.approx(2 / 3)]


def test_rouge_bleu_and_chrf_by_hand():
    # Longest common subsequence "the cat on the mat", 5 words of 6 and of 5.
    text, reference = "the cat on the mat", "the cat sat on the mat"
    recall, precision = 5 / 6, 1.0
    f1 = 2 * recall * precision / (recall + precision)
    assert Rouge()([""], [text], reference=[reference]) == [pytest.approx(f1)]
    assert Rouge("rougeL", "recall")([""], [text], reference=[["dog", reference]]) == [pytest.approx(recall)]
    assert Rouge("rouge2", "precision")([""], [text], reference=[reference]) == [pytest.approx(3 / 4)]
    # 1- to 4-gram precisions 5/5, 3/4, 1/3, and 1/2 for the smoothed none of 2; brevity exp(1 - 6/5).
    bleu = (1 * 3 / 4 * 1 / 3 * (1 / 2) / 2) ** 0.25 * np.exp(1 - 6 / 5)
    assert Bleu()([""], [text], reference=[reference]) == [pytest.approx(bleu)]
    assert Chrf()([""] * 2, ["cat", "abc"], reference=["cat", "xyz"]) == [1, 0]


def test_hostile_input_costs_a_bounded_time():
    start = time.perf_counter()
    assert Matches(r"(a|aa)+$", timeout=0.05)([""], ["a" * 60 + "b"]) == [0.0]
    assert JsonSchema(SCHEMA)([""] * 2, ["[" * 1_000_000, '{"age": 9e999}']) == [0, 0]
    assert EditSimilarity()([""], ["x" * 1_000_000], reference=["y"]) == [0]
    assert Readability()([""], ["." * 1_000_000 + "x"]) == [pytest.approx(1 / 8)]
    assert KeywordCoverage(["a"])([""], ["'-" * 500_000]) == [0]
    assert Rouge()([""], ["a " * 500_000], reference=["a"]) == [0]
    assert time.perf_counter() - start < 5


def test_matches():
    assert Matches("a+", full=False)([""] * 2, ["xaax", "x"]) == [1, 0]
    assert Matches("a+")([""] * 2, ["aa", "aab"]) == [1, 0]


def test_json_schema_by_text_and_by_column():
    texts = ['{"age": 7}', '{"age": "old"}', "7", "{"]
    assert JsonSchema(SCHEMA)([""] * 4, texts) == [1, 0.1, 0, 0]
    assert JsonSchema()([""] * 4, texts, schema=[json.dumps(SCHEMA)] * 3 + [SCHEMA]) == [1, 0.1, 0, 0]


def test_log_likelihood_and_kl():
    model = NGramLM(["the cat sat"] * 3 + ["the dog sat"], order=2)
    (log_probs,) = model.text_log_probs(["the"], ["cat sat"])
    assert LogLikelihood(model)(["the"], ["cat sat"]) == [pytest.approx(log_probs.mean())]
    assert LogLikelihood(model, floor=-5)(["the"] * 2, ["", "zebra"]) == [-5, -5]
    assert NegativeKL(model, model)(["the"] * 2, ["cat sat", ""]) == [0, 0]
    assert NegativeKL(model)(["the"], ["cat sat"], log_probs=[[-1.0, -2.0]]) == [pytest.approx(log_probs.mean() + 1.5)]
    # Averaged over completions of one word drawn from the policy, it is minus the exact divergence.
    policy = NGramLM(["the cat sat", "the dog sat"], model.tokenizer, order=2)
    words = [word for word in model.tokenizer.symbols]
    prefix = np.array([model.tokenizer.encode("the")])
    p, q = (np.exp(lm.log_probs(prefix, np.array([1]))[0].astype(float)) for lm in (policy, model))
    scores = np.array(NegativeKL(model, policy)(["the"] * len(words), words))
    assert p[: len(words)] @ scores == pytest.approx(-(p * np.log(p / q))[: len(words)].sum(), abs=1e-6)
    assert scores.min() < 0 < scores.max()


# ---------------------------------------------------------------------- functions written for TRL


def think_format(completions, **kwargs):
    """Conversational, no prompts parameter: the shape of TRL's own format reward."""
    return [1.0 if completion[0]["content"].startswith("<think>") else 0.0 for completion in completions]


def accuracy(completions, solution, log_extra=None):
    """Takes a column, answers None where it cannot judge, and takes no other keyword."""
    contents = [completion[0]["content"] for completion in completions]
    return [None if not s else float(text == s) for text, s in zip(contents, solution, strict=True)]


def long_ids(completion_ids, **kwargs):
    return [float(len(ids)) for ids in completion_ids]


def plain(prompts, completions, **kwargs):
    return [float(len(text)) for text in completions]


def test_functions_written_for_trl():
    assert FromTRL(think_format)(["p"] * 2, ["<think>a", "b"]) == [1, 0]
    assert FromTRL(accuracy)(["p"] * 3, ["x", "y", "z"], solution=["x", "x", ""], other=[1, 2, 3]) == [1, 0, 0]
    assert FromTRL(long_ids, tokenizer=WordTokenizer(["a", "b"]))(["p"] * 2, ["a b a", ""]) == [3, 0]
    assert FromTRL(plain, conversational=False, range=(0, 9))(["p"], ["abc"]) == [3]
    assert FromTRL(accuracy).__name__ == "accuracy"
    assert Product([Distinctness(), FromTRL(think_format, range=(0.0, 1.0))])(["p"], ["<think>a b"]) == [1]
    with pytest.raises(ValueError, match="tokenizer is needed: long_ids takes completion_ids"):
        FromTRL(long_ids)
    with pytest.raises(ValueError, match="function must be a reward function, got 3"):
        FromTRL(3)


def test_as_a_tasks_reward():
    """A TRL function and ours, summed, as the reward of an environment with a column."""
    reward = WeightedSum({FromTRL(accuracy, range=(0.0, 1.0)): 1.0, KeywordCoverage(["good"]): 0.5})
    prompts = [{"prompt": "say", "solution": "good food"}]
    tokenizer = WordTokenizer(["good", "food", "say"])
    envs = TextGenVectorEnv(2, prompts=prompts, reward=reward, tokenizer=tokenizer, max_new_tokens=2)
    envs.reset(seed=0)
    envs.step(np.array([0, 0]))
    _, rewards, terminated, *_ = envs.step(np.array([1, 0]))
    assert terminated.all() and rewards.tolist() == [1.5, 0.5]
    assert envs.task.reward_range == (0.0, 1.5)


# ---------------------------------------------------------------------- local models


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A random BERT of one layer with a classifier's head, and its tokenizer; the encoder without a head beside it."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    root = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    (root / "vocab.txt").write_text("\n".join(words))
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        id2label={0: "dull", 1: "fine", 2: "great"},
        label2id={"dull": 0, "fine": 1, "great": 2},
    )
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        model = BertForSequenceClassification(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(5)
    model.save_pretrained(root)
    BertTokenizerFast(vocab=str(root / "vocab.txt")).save_pretrained(root)
    return root


def test_classifier(bert):
    texts = ["a b", "c d e f", "", "a " * 100]
    by_label = [Classifier(bert, label, batch_size=3)([""] * 4, texts) for label in ("dull", "fine", 2)]
    assert np.sum(by_label, axis=0) == pytest.approx(np.ones(4))
    assert np.ptp(by_label[0][:2]) > 1e-3
    assert by_label[0] == pytest.approx(
        [Classifier(bert, "dull")([""], [text])[0] for text in texts], abs=1e-5
    )  # padding changes nothing
    with pytest.raises(ValueError, match=r"label must be one of \['dull', 'fine', 'great'\], or its number, got 'bad'"):
        Classifier(bert, "bad")
    with pytest.raises(ValueError, match="path must be a local directory"):
        Classifier("no/such/model", 0)


def test_embedding_similarity(bert):
    texts, references = ["a b c", "a b c", "", "c"], ["a b c", "f g h", "a", "a b c d e f g h"]
    scores = EmbeddingSimilarity(bert, batch_size=3)([""] * 4, texts, reference=references)
    assert scores[0] == pytest.approx(1) and scores[1] < 1 - 1e-3 and scores[2] == 0
    assert EmbeddingSimilarity(bert)([""], ["c"], reference=["a b c d e f g h"])[0] == pytest.approx(
        scores[3], abs=1e-5
    )


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Length(5, 4), "maximum must be an integer of at least 5, got 4"),
        (lambda: Length(1, 4, "lines"), "unit must be 'words' or 'characters', got 'lines'"),
        (lambda: Distinctness(0), "n must be an integer of at least 1, got 0"),
        (lambda: Readability(0), "full_length must be an integer of at least 1, got 0"),
        (lambda: Matches("("), r"pattern must be a regular expression, got '\('"),
        (lambda: Matches("a", timeout=0), "timeout must be above 0 seconds, got 0"),
        (lambda: JsonSchema("{"), "schema must be JSON, got '{'"),
        (lambda: JsonSchema({"type": "object"}), "schema must describe at least one property"),
        (lambda: JsonSchema()([""], [""]), "JsonSchema needs a column 'schema', got columns"),
        (lambda: Rouge("rouge"), "variant must be 'rouge1' …"),
        (lambda: Rouge(measure="f2"), r"measure must be one of \['f1', 'recall', 'precision'\], got 'f2'"),
        (lambda: Rouge()([""], ["a"]), "Rouge needs a column 'reference', got columns"),
        (lambda: Bleu()([""], ["a"], reference=[[]]), "column 'reference' must hold at least one text a row"),
        (lambda: Chrf(-1), "word_order must be an integer of at least 0, got -1"),
        (lambda: KeywordCoverage([]), "keywords must be a list of at least one word"),
        (lambda: KeywordCoverage("cat"), "keywords must be a list of at least one word, got a single str: 'cat'"),
        (lambda: KeywordCoverage(["a", "!"]), "keywords must hold a letter or digit each, got '!'"),
        (lambda: LogLikelihood(bigram_model(), 0.0), "floor must be a finite number below 0, got 0.0"),
        (lambda: NegativeKL(bigram_model(), ceiling=-1), "ceiling must be a finite number above 0, got -1"),
        (
            lambda: NegativeKL(bigram_model())([""], ["the"], log_probs=[[]]),
            r"got 0 for the 1 tokens of completions\[0\]",
        ),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("build", "module", "package"),
    [
        (Rouge, "rouge_score", "rouge-score"),
        (Bleu, "sacrebleu", "sacrebleu"),
        (Chrf, "sacrebleu", "sacrebleu"),
        (lambda: Matches("a"), "regex", "regex"),
    ],
)
def test_missing_packages_are_named(monkeypatch, build, module, package):
    import importlib

    def missing(name, *args, **kwargs):
        if name.partition(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return original(name, *args, **kwargs)

    original = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=f"needs the package {package}: pip install {package}"):
        build()
