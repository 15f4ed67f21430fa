import re
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import textgym
from textgym.tasks.arithmetic import Arithmetic, evaluate


@pytest.mark.parametrize(
    ("text", "value", "numbers"),
    [
        ("7", 7, (7,)),
        ("1+2*3", 7, (1, 2, 3)),
        ("(1+2)*3", 9, (1, 2, 3)),
        ("9-4-3", 2, (9, 4, 3)),
        ("8/4/2", 1, (8, 4, 2)),
        ("1/3+1/6", Fraction(1, 2), (1, 3, 1, 6)),
        ("2*(3-(4-12))", 22, (2, 3, 4, 12)),
        (" 007 + 1 ", 8, (7, 1)),
        ("((((5))))", 5, (5,)),
    ],
)
def test_evaluate(text, value, numbers):
    assert evaluate(text) == (value, numbers)


HOSTILE = {
    "powers": "9**9**9",
    "caret": "9^9^9",
    "empty": "",
    "spaces": "   ",
    "unary": "-3",
    "call": "__import__('os').system('true')",
    "deep": "(" * 100 + "1" + ")" * 99,
    "too deep": "(" * 21 + "1" + ")" * 21,
    "megabyte of digits": "9" * 1_000_000,
    "megabyte of parentheses": "(" * 1_000_000,
    "long number": "1234567",
    "division by zero": "1/(2-2)",
    "open": "(1+2",
    "closed": "1+2)",
    "empty parentheses": "()",
    "side by side": "1 2",
    "ends early": "1+",
    "float": "1.5",
    "exponent": "1e9",
    "control characters": "1\x00+\x1b2",
    "full-width digit": "１+2",
    "arabic digit": "٣+2",
    "surrogate": "\ud800",
    "underscore": "1_000",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_expressions_are_refused_at_once(text):
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"^expression must"):
        evaluate(text)
    assert Arithmetic().score(text, (1, 2), 3) == 0
    assert time.perf_counter() - start < 0.05


def test_the_costliest_expressions_are_cheap():
    for text in ("*".join(["999999"] * 28), "/".join(["999999"] * 28), "+".join(["1/999983"] * 22)):
        start = time.perf_counter()
        evaluate(text)
        assert time.perf_counter() - start < 0.05


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789+-*/() ", max_size=30))
def test_agrees_with_python(text):
    try:
        value, _ = evaluate(text)
    except ValueError:
        return
    exact = re.sub(r"\d+", lambda match: f"Fraction({int(match[0])})", text.replace(" ", ""))
    assert value == eval(exact, {"Fraction": Fraction, "__builtins__": {}})


def test_score_by_hand():
    task = Arithmetic()
    assert task.score("9+3*4", (3, 4, 9), 21) == 1
    assert task.score("(4*3)+9", (3, 4, 9), 21) == 1
    assert task.score("9+3+4", (3, 4, 9), 21) == pytest.approx(0.2 + 0.3 / 6)  # 16 misses by 5
    assert task.score("9/4*3", (3, 4, 9), 7) == pytest.approx(0.2 + 0.3 / 1.25)  # 6.75 misses by a quarter
    assert task.score("21", (3, 4, 9), 21) == pytest.approx(0.1)
    assert task.score("12+9", (3, 4, 9), 21) == pytest.approx(0.1)
    assert task.score("9+9+3", (3, 4, 9), 21) == pytest.approx(0.1)
    assert task.score("9+", (3, 4, 9), 21) == 0
    sparse = Arithmetic(dense=False)
    assert [sparse.score(text, (3, 4, 9), 21) for text in ("9+3*4", "9+3+4", "21", "+")] == [1, 0, 0, 0]


def test_every_prompt_has_its_solution_and_looks_as_documented():
    envs = textgym.TextGenVectorEnv(500, "arithmetic", numbers=5, max_number=25, max_target=300)
    envs.reset(seed=0)
    task, columns = envs.task, envs.episodes.columns
    for row in range(500):
        value, used = evaluate(task.decode(columns["solution"][row]))
        assert value == columns["target"][row] and 1 <= value <= 300
        assert sorted(used) == columns["numbers"][row].tolist()
        shown = ",".join(map(str, sorted(used)))
        assert task.decode(envs.episodes.prompt(row)) == f"{shown}={value}<sep>"


def test_reward_through_the_environment():
    env = textgym.TextGenEnv("arithmetic")
    observation, _ = env.reset(seed=0)
    prompt = env.task.decode(observation)
    rewards = []
    for character in "1+1":
        rewards.append(env.step("0123456789+-*/()".index(character))[1])
    assert rewards == [0, 0, 0] and prompt.endswith("<sep>")
    _, reward, terminated, _, _ = env.step(env.task.eos_id)
    assert terminated and reward == pytest.approx(0.1)


def test_mask_by_hand():
    task = Arithmetic(numbers=2, masked=True)
    env = textgym.TextGenEnv(task)
    env.reset(seed=0)
    digits, operators = list(range(10)), [10, 11, 12, 13]
    assert task.max_new_tokens == 6

    def legal():
        return np.flatnonzero(env.action_masks()).tolist()

    assert legal() == [*digits, 14]
    env.step(14)  # (
    assert legal() == [*digits, 14]
    env.step(3)
    assert legal() == [*operators, 15]
    env.step(10)  # "(3+" leaves three actions: a digit, ")" and EOS, and no other parenthesis
    assert legal() == digits
    env.step(4)
    assert legal() == [15]
    env.step(15)
    assert legal() == [16]
    assert env.step(16)[1] >= 0.1


@pytest.mark.parametrize("numbers", [2, 3, 5])
def test_masked_play_is_always_well_formed(numbers):
    envs = textgym.TextGenVectorEnv(64, "arithmetic", numbers=numbers, max_number=25, masked=True)
    envs.reset(seed=0)
    generator = np.random.default_rng(0)
    for _ in range(60):
        masks = envs.action_masks()
        actions = np.where(masks, generator.random(masks.shape), -1).argmax(axis=1)
        _, rewards, terminated, _, _ = envs.step(actions)
        assert (rewards[terminated] > 0).sum() >= terminated.sum() - 2  # a rare division by zero scores 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"numbers": 1}, "numbers must be an integer of at least 2, got 1"),
        ({"max_number": 0}, "max_number must be an integer of at least 1, got 0"),
        ({"max_target": 17}, "max_target must be an integer of at least 18, got 17"),
        ({"max_target": 10**7}, "max_target must have at most 6 digits"),
        ({"numbers": 60}, "numbers must be fewer"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Arithmetic(**kwargs)
