"""Classify: generated phrases and their labels, and the user's own."""

import datasets
import numpy as np
import pytest

import textgym
from textgym.rewards import sentiment
from textgym.tasks.classify import Classify

DATA = [
    {"text": "Where is my parcel?", "label": "shipping"},
    {"text": "The card was charged twice", "label": "billing"},
    {"text": "parcel lost", "label": "shipping"},
]


def texts_and_labels(task):
    """Every text of the task, with its label."""
    texts = [task.decode(tokens[: length - 1]) for tokens, length in zip(task._tokens, task._lengths, strict=True)]
    return list(zip(texts, [task.labels[label] for label in task._label.tolist()], strict=True))


@pytest.mark.parametrize(("length", "neutral"), [(8, True), (4, False)])
def test_phrases_have_the_sentiment_of_their_label(length, neutral):
    task = Classify(length=length, neutral=neutral)
    pairs = texts_and_labels(task)
    assert len({text for text, _ in pairs}) == len(pairs) == 2048 * (3 if neutral else 2)
    for text, label in pairs[::37]:
        assert len(text.split()) == length
        score = sentiment(text)
        assert label == ("neutral" if score == 0 else "positive" if score > 0 else "negative")
        assert score == 0 or abs(score) >= 0.05


def test_one_action_ends_the_episode_and_the_right_label_pays():
    envs = textgym.TextGenVectorEnv(64, task="classify", data=DATA)
    envs.reset(seed=0)
    task = envs.task
    assert task.labels == ("billing", "shipping") and task.vocab_size == 3 and task.cheat_bound == 2 / 3
    prompts = [task.decode(envs.episodes.prompt(row)) for row in range(64)]
    assert set(prompts) == {"where is my parcel ? <sep>", "the card was charged twice <sep>", "parcel lost <sep>"}
    actions = np.arange(64) % 3  # billing, shipping, EOS
    _, rewards, terminated, _, _ = envs.step(actions)
    assert terminated.all()
    for prompt, action, reward in zip(prompts, actions, rewards, strict=True):
        assert reward == (action == int("parcel" in prompt))


def test_own_texts_from_a_dataset_are_cut_to_the_context():
    task = Classify(data=datasets.Dataset.from_list(DATA), context_length=4)
    assert texts_and_labels(task) == [("where is", "shipping"), ("the card", "billing"), ("parcel lost", "shipping")]
    texts = [task.token_text(token) for token in range(task.pad_id + 1)]
    assert texts[:4] == ["billing", "shipping", "<eos>", "the"] and texts[-2:] == ["<sep>", "<pad>"]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"length": 2}, "length must be an integer of at least 3, got 2"),
        ({"length": 33}, "length must be at most 32, got 33"),
        ({"context_length": 2}, "context_length must be an integer of at least 3, got 2"),
        ({"data": DATA, "neutral": True}, "leave them out where data is given"),
        ({"data": DATA[:1]}, r"data must have at least two different labels, got \['shipping'\]"),
        ({"data": [{"text": "a", "label": 1}]}, r"data\[0\] must have a string under 'label' that is not empty, got 1"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Classify(**kwargs)
