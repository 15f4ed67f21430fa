"""Brackets: well-formed prompts, the one way to close them, and what is paid."""

import numpy as np
import pytest

import textgym
from textgym.tasks.brackets import Brackets


def close(text):
    """What a stack says: the brackets that close ``text``; fails where it is no beginning of a well-formed text."""
    pairs, stack = dict(zip("([{<", ")]}>", strict=True)), []
    for character in text:
        if character in pairs:
            stack.append(pairs[character])
        else:
            assert stack.pop() == character
    return "".join(reversed(stack))


@pytest.mark.parametrize(("length", "kinds", "max_depth"), [(1, 1, 2), (12, 3, 6), (9, 4, 2), (40, 2, 5)])
def test_prompts_and_answers(length, kinds, max_depth):
    envs = textgym.TextGenVectorEnv(400, task="brackets", length=length, kinds=kinds, max_depth=max_depth)
    envs.reset(seed=0)
    task, lengths, depths = envs.task, set(), set()
    for row in range(400):
        prompt = task.decode(envs.episodes.prompt(row)).removesuffix("<sep>")
        lengths.add(len(prompt))
        answer = close(prompt)
        depths.add(len(answer))
        target = envs.episodes.columns["target"][row]
        assert [task.token_text(token) for token in target[target >= 0].tolist()] == [*answer, "<eos>"]
        assert (target[len(answer) + 1 :] == -1).all()
    assert lengths == set(range(1, length + 1))
    assert depths == set(range(1, min(length, max_depth) + 1))


def test_rewards_of_a_hand_made_answer():
    for dense, rewards in ((True, [0.25, 0.0, 0.25, 0.25]), (False, [0.0, 0.0, 0.0, 0.0])):
        envs = textgym.TextGenVectorEnv(3000, task="brackets", length=4, kinds=2, max_depth=3, dense=dense)
        envs.reset(seed=0)
        prompts = [envs.task.decode(envs.episodes.prompt(row)) for row in range(3000)]
        row = prompts.index("[((<sep>")
        # ids: ( 0, [ 1, ) 2, ] 3, eos 4; the answer is ))]
        paid = [envs.step(np.full(3000, action))[1][row] for action in (2, 3, 3, 4)]
        assert np.allclose(paid, rewards)


def test_sparse_pays_the_exact_answer():
    envs = textgym.TextGenVectorEnv(3000, task="brackets", length=4, kinds=2, max_depth=3, dense=False)
    for actions, final in (((2, 2, 3, 4), 1.0), ((2, 2, 4), 0.0), ((4,), 0.0)):
        envs.reset(seed=0)
        prompts = [envs.task.decode(envs.episodes.prompt(row)) for row in range(3000)]
        row = prompts.index("[((<sep>")
        paid = [envs.step(np.full(3000, action))[1][row] for action in actions]
        assert paid == [0.0] * (len(actions) - 1) + [final]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"length": 0}, "length must be an integer of at least 1, got 0"),
        ({"kinds": 0}, "kinds must be an integer of at least 1, got 0"),
        ({"kinds": 5}, "kinds must be at most 4, got 5"),
        ({"max_depth": 1}, "max_depth must be an integer of at least 2, got 1"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Brackets(**kwargs)
