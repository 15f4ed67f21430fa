"""Reasoning: every offered data set tried anew, and what keeps the others out."""

import random
import subprocess
import sys

import numpy as np
import pytest
from reasoning_gym.factory import DATASETS as EXISTING

import textgym
from textgym.documentation import markdown_table
from textgym.tasks import reasoning
from textgym.tasks.reasoning import Reasoning
from textgym.tasks.reasoning_datasets import DATASETS, REFUSED

SLOW = {"arc_agi", "futoshiki", "sokoban", "zebra_puzzles"}
JUNK = [
    "q",
    " ",
    "-",
    "[]",
    "{}",
    "null",
    "[[1]]",
    '{"a": 1}',
    "nan",
    "1/0",
    "1e-99999999",
    "(" * 50,
    "[" * 50,
    "é²",
    "\n",
]


def write(envs, text):
    """Rewards of one row's text, character by character."""
    tokens = [*envs.task.tokenizer.encode(text), envs.task.eos_id]
    return [float(envs.step(np.array([token]))[1][0]) for token in tokens]


def test_every_data_set_is_either_offered_or_refused():
    assert set(EXISTING) == DATASETS | set(REFUSED) and not DATASETS & set(REFUSED)
    executing = {name for name, reason in REFUSED.items() if "executes" in reason}
    assert {"n_queens", "countdown", "puzzle24", "simple_integration"} < executing and len(executing) == 9


@pytest.mark.parametrize("name", sorted(DATASETS - SLOW))
def test_offered_data_set(name, capsys):
    """Equal seeds give equal questions; right answers earn 1 and junk less; no global generator is drawn from."""
    before = random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    n = 3
    task = Reasoning(name, size=n, data_seed=7)
    items = task._table.items
    reasoning._generate.cache_clear()
    again = Reasoning(name, size=n, data_seed=7)._table.items
    assert [(item["question"], item["answer"]) for item in items] == [
        (item["question"], item["answer"]) for item in again
    ]
    for number, item in enumerate(items):
        assert task._table.score(item["answer"], number) == 1
        assert task.decode(task._table.answers[number][task._table.answers[number] >= 0]) == item["answer"]
    for text in JUNK:
        scores = [task._table.score(text, number) for number in range(n)]
        assert 0 <= min(scores) and np.mean(scores) <= 0.75  # a truth value or a digit may be right by chance
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before  # noqa: NPY002
    assert capsys.readouterr() == ("", "")


def test_the_verifier_pays_at_the_end():
    envs = textgym.TextGenVectorEnv(1, task="reasoning", dataset="gcd", size=1)
    _, answer = envs.reset(seed=0), envs.task._table.items[0]["answer"]
    assert envs.task.decode(envs.episodes.prompt(0)) == envs.task._table.items[0]["question"] + "<sep>"
    assert write(envs, answer) == [0] * len(answer) + [1]
    assert write(envs, answer[:-1]) == [0] * len(answer)


def test_prompts_are_drawn_from_the_table_by_the_row_alone():
    envs = textgym.TextGenVectorEnv(200, task="reasoning", config={"max_terms": 2}, size=5)
    envs.reset(seed=0)
    numbers = envs.episodes.columns["number"]
    assert set(numbers.tolist()) == set(range(5))
    alone = textgym.TextGenVectorEnv(1, task="reasoning", config={"max_terms": 2}, size=5)
    alone.reset(seed=17)
    assert alone.episodes.columns["number"][0] == numbers[17]
    assert all("+" in item["question"] or "-" in item["question"] for item in envs.task._table.items)


def test_questions_do_not_depend_on_the_hash_seed():
    """Sets of strings are ordered differently from one process to the next."""
    code = "from textgym.tasks.reasoning import Reasoning as R; print(R('syllogism', size=9)._table.questions.tolist())"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    reasoning._generate.cache_clear()
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install reasoning-gym==0\.1\.25"):
        Reasoning()


def test_the_list_of_ids_does_not_need_the_package(monkeypatch):
    reasoning._generate.cache_clear()
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    table = markdown_table(["TextGen/Reasoning-v0", "TextGen/Copy-v0"])
    assert "| `TextGen/Reasoning-v0` | – | – | – | 0." in table and "| `TextGen/Copy-v0` | 16 | 8 | 14 |" in table


def test_another_version_is_not_trusted(monkeypatch):
    reasoning._generate.cache_clear()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.2.0")
    with pytest.raises(ModuleNotFoundError, match=r"0\.2\.0 is installed: pip install reasoning-gym==0\.1\.25"):
        Reasoning()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"dataset": "countdown"}, "'countdown' of Reasoning Gym is not offered: its verifier executes the text"),
        ({"dataset": "sums"}, "dataset must be one of .*, got 'sums'"),
        ({"size": 0}, "size must be an integer of at least 1, got 0"),
        ({"data_seed": -1}, "data_seed must be an integer of at least 0, got -1"),
        ({"max_new_tokens": 0}, "max_new_tokens must be an integer of at least 1, got 0"),
        ({"config": {"seed": 3}}, "config must not hold 'size' or 'seed'"),
        ({"config": {"max_terms": 0}}, "config must suit the data set 'chain_sum', got .*: max_terms must be"),
        ({"config": {"terms": 2}}, "config must suit the data set 'chain_sum', got .*'terms'"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Reasoning(**kwargs)
