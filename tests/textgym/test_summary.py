"""Summary: generated documents and the user's own, and ROUGE kept while writing against the package rouge-score."""

import datasets
import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

import textgym
from textgym.tasks.documents import OBJECTS, PEOPLE
from textgym.tasks.running_rouge import VARIANTS, RunningRouge
from textgym.tasks.summary import Summary

DATA = [
    {"document": "The cat, which was old, sat on the mat. It didn't move.", "summary": "The cat sat on the mat."},
    {"document": "Rain again!", "summary": "rain"},
]


def write(envs, text):
    """Rewards of one row's text, word by word."""
    tokens = [*envs.task.tokenizer.encode(text), envs.task.eos_id]
    return [float(envs.step(np.array([token]))[1][0]) for token in tokens]


@pytest.mark.parametrize("variant", VARIANTS)
def test_running_rouge_is_what_rouge_score_computes(variant):
    """At every length of random texts over few words, so that repetitions and long subsequences abound."""
    generator, n, scorer = np.random.default_rng(0), 60, RougeScorer([variant])
    lengths = generator.integers(1, 8, size=n)
    references = np.where(np.arange(7) < lengths[:, None], generator.integers(4, size=(n, 7)), -1)
    texts = generator.integers(5, size=(n, 10))
    rouge = RunningRouge(variant)
    remembered, previous = rouge.start(references), np.full(n, -1)
    assert (rouge.score(remembered, references, np.zeros(n, int)) == 0).all()
    for step in range(10):
        remembered = rouge.append(remembered, references, texts[:, step], previous)
        previous = texts[:, step]
        scores = rouge.score(remembered, references, np.full(n, step + 1))
        for row in range(n):
            reference, text = (
                " ".join(f"w{token}" for token in tokens if token >= 0)
                for tokens in (references[row], texts[row, : step + 1])
            )
            assert scores[row] == pytest.approx(scorer.score(reference, text)[variant].fmeasure), (reference, text)


@pytest.mark.parametrize(("sentences", "facts"), [(6, 3), (2, 2), (12, 5)])
def test_the_summary_follows_from_the_document(sentences, facts):
    """What a reader of the generated documents would work out is what the oracle writes."""
    envs = textgym.TextGenVectorEnv(64, task="summary", sentences=sentences, facts=facts)
    envs.reset(seed=0)
    task = envs.task
    for row in range(64):
        reports = []
        for sentence in task.decode(envs.episodes.prompt(row)).removesuffix(" . <sep>").split(" . "):
            words = sentence.split()
            person = next(number for number, word in enumerate(words) if word in PEOPLE)
            assert words[person - 1] == words[person + 2] == "the" and words[person + 3] in OBJECTS
            reports.append((words[person], " ".join(words[person + 1 : person + 4])))
        assert len(reports) == sentences
        people = [person for person, _ in reports]
        topic = max(people, key=people.count)
        assert sorted(people.count(person) for person in set(people)) == [1] * (sentences - facts) + [facts]
        deeds = [deed for person, deed in reports if person == topic]
        expected = f"the {topic} {' '.join(deeds[:-1])} and {deeds[-1]}"
        reference = envs.episodes.columns["reference"][row]
        assert task.decode(reference) == expected


def test_dense_rewards_add_up_to_rouge():
    """A hand-made case: five of the six words in order, and one that does not belong."""
    envs = textgym.TextGenVectorEnv(1, task="summary", data=DATA[:1])
    envs.reset(seed=0)
    paid = write(envs, "the cat which sat on mat")
    f = [2 * hits / (6 + written) for hits, written in [(1, 1), (2, 2), (2, 3), (3, 4), (4, 5), (5, 6)]]
    assert paid == pytest.approx([*np.diff([0, *f]), 0])
    assert sum(paid) == pytest.approx(
        RougeScorer(["rougeL"]).score(DATA[0]["summary"], "the cat which sat on mat")["rougeL"].fmeasure
    )


@pytest.mark.parametrize(("variant", "expected"), [("rouge1", 10 / 12), ("rouge2", 4 / 10), ("rougeL", 10 / 12)])
def test_sparse_rewards_pay_rouge_at_the_end(variant, expected):
    envs = textgym.TextGenVectorEnv(1, task="summary", data=DATA[:1], variant=variant, dense=False)
    envs.reset(seed=0)
    assert write(envs, "the cat which sat on mat") == pytest.approx([0] * 6 + [expected])


def test_own_documents():
    task = Summary(data=datasets.Dataset.from_list(DATA))
    assert task.tokenizer.symbols[0] == "the"  # the most frequent word
    envs = textgym.TextGenVectorEnv(32, task=task)
    envs.reset(seed=0)
    prompts = {task.decode(envs.episodes.prompt(row)) for row in range(32)}
    assert prompts == {
        "the cat , which was old , sat on the mat . it didn ' t move . <sep>",
        "rain again ! <sep>",
    }
    assert task.max_new_tokens == 6 + 4 and task.context_length == 18 + 1 + 10
    marks = task.tokenizer.encode(", . ' !")
    assert min(marks) >= task.vocab_size  # only documents hold them


def test_long_documents_are_cut():
    task = Summary(data=DATA, context_length=16)
    envs = textgym.TextGenVectorEnv(32, task=task)
    envs.reset(seed=0)
    assert {task.decode(envs.episodes.prompt(row)) for row in range(32)} == {
        "the cat , which was <sep>",
        "rain again ! <sep>",
    }


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"facts": 1}, "facts must be an integer of at least 2, got 1"),
        ({"sentences": 2}, r"sentences must lie in \[3, 32\] for facts=3, got 2"),
        ({"sentences": 60}, r"sentences must lie in \[3, 32\] for facts=3, got 60"),
        ({"variant": "rouge3"}, "variant must be one of .*, got 'rouge3'"),
        ({"max_new_tokens": 0}, "max_new_tokens must be an integer of at least 1, got 0"),
        ({"context_length": 17}, "context_length must be an integer of at least 18, got 17"),
        ({"data": DATA, "facts": 3}, "leave them out where data is given"),
        ({"data": []}, "data must hold at least one row, got none"),
        ({"data": DATA[0]}, "data must be a list of rows, got a single dict"),
        ({"data": ["text"]}, r"data\[0\] must be a mapping with the strings \['document', 'summary'\], got 'text'"),
        ({"data": [{"document": "a"}]}, r"data\[0\] must have a string under 'summary' that is not empty, got None"),
        ({"data": [*DATA, {"document": "a", "summary": "!"}]}, r"data\[2\]\['summary'\] must hold a word, got '!'"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Summary(**kwargs)
