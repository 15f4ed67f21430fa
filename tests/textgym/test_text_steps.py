"""The core of the adapters: messages in the place of tokens, and nothing else changed."""

import pickle
import re
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

from textgym.adapters import TextSteps
from textgym.registration import ENVIRONMENTS
from textgym.tasks.reverse import Reverse

BASE = [row.id for row in ENVIRONMENTS if not re.search(r"-(Easy|Hard|Sparse)-", row.id)]
GAMES = {"TextGen/GuessNumber-v0", "TextGen/Hangman-v0", "TextGen/Wordle-v0"}
MASKED = ["TextGen/Json-Easy-v0", "TextGen/Wordle-Easy-v0", "TextGen/Hangman-Sparse-v0", "TextGen/Sql-Easy-v0"]


def native_turns(env_id, seed, oracle):
    """An episode of the environment itself, as turns: (actions, replies, sum of the rewards), and its last row."""
    env = gym.make(env_id).unwrapped
    generator = np.random.default_rng(seed)
    env.reset(seed=seed)
    episodes, over = env._batch.episodes, False
    turns, actions, total = [], [], 0.0
    while not over:
        masks = env.action_masks()
        action = env.task.oracle(episodes)[0] if oracle else generator.choice(np.flatnonzero(masks))
        length = episodes.lengths[0]
        _, reward, over, _, _ = env.step(int(action))
        actions.append(int(action))
        total += reward
        reply = episodes.tokens[0, length + 1 : episodes.lengths[0]].tolist()
        if reply or over:
            turns.append((actions, reply, total))
            actions, total = [], 0.0
    return env.task, turns, episodes.tokens[0, : episodes.lengths[0]].copy()


@pytest.mark.parametrize("env_id", BASE + MASKED)
@pytest.mark.parametrize("oracle", [True, False], ids=["oracle", "random"])
def test_rewards_are_those_of_the_environment(env_id, oracle):
    steps = TextSteps(env_id)
    assert steps.takes_turns == (env_id in GAMES or "Wordle" in env_id or "Hangman" in env_id)
    steps.reset(seed=0)
    if oracle and steps.task.oracle(steps._env._batch.episodes) is None:
        pytest.skip("no oracle")
    for seed in range(8):
        task, turns, tokens = native_turns(env_id, seed, oracle)
        steps.reset(seed=seed)
        for number, (actions, reply, total) in enumerate(turns):
            text = task.decode(np.array(actions))
            eos = actions[-1] == task.eos_id
            answer, reward, over, truncated, info = steps.step(text)
            if steps.takes_turns and eos and text:  # given up in the middle of a guess
                assert not over and reward == 0.0
                _, reward, over, truncated, info = steps.step("")
            else:
                assert info["action_tokens"].tolist() == actions
            assert reward == total and over == (number == len(turns) - 1) and not truncated
            assert info["reply_tokens"].tolist() == reply and answer == task.decode(np.array(reply, np.int64))
        assert info["tokens"].tolist() == tokens.tolist()


@pytest.mark.parametrize("env_id", BASE)
def test_token_ids_need_no_reading(env_id):
    for seed in range(4):
        _, turns, tokens = native_turns(env_id, seed, oracle=False)
        steps = TextSteps(env_id)
        steps.reset(seed=seed)
        rewards = []
        for actions, _, _ in turns:
            _, reward, over, _, info = steps.step_tokens(actions)
            rewards.append(reward)
        assert over and rewards == [total for _, _, total in turns]
        assert info["tokens"].tolist() == tokens.tolist()
        assert tokens[info["is_action"]].tolist() == [token for actions, _, _ in turns for token in actions]


@pytest.mark.parametrize("env_id", BASE)
def test_what_cannot_be_read_earns_the_floor(env_id):
    steps = TextSteps(env_id)
    hostile = ["Ω≈ç√", "\ud800", "\x00", "</tool_call>{]", "<pad>", "日本 語", "x" * 100_000 + "ß", "<eos><eos>ß"]
    for seed, text in enumerate(hostile):
        steps.reset(seed=seed)
        answer, reward, terminated, truncated, info = steps.step(text)
        assert (reward, terminated, truncated) == (steps.task.reward_range[0], True, False)
        assert answer == info["refusal"] and "can't be read" in answer and len(answer) < 3000
        assert info["legal"] == () and not len(info["action_tokens"])
        with pytest.raises(gym.error.ResetNeeded):
            steps.step("a")


def test_a_game_takes_back_what_it_paid_for_what_cannot_be_read():
    steps = TextSteps("TextGen/Hangman-v0")
    for seed in range(9):
        steps.reset(seed=seed)
        paid = steps.step("e")[1]
        assert paid + steps.step("I guess: Ω")[1] == 0.0


def test_a_floor_below_zero_and_none():
    def fined(prompts, completions, **columns):
        return [-1.0] * len(prompts)

    def reward_of(message):
        steps = TextSteps("TextGen-v0", prompts=["the food"], reward=fined, max_new_tokens=4)
        steps.reset(seed=0)
        return steps.step(message)[1]

    assert reward_of("Ω") == 0.0  # no range is known, so it earns what an illegal token does
    assert reward_of("the food") == -1.0
    fined.range = (-2.0, 1.0)
    assert reward_of("Ω") == -2.0


def test_messages_of_a_game():
    steps = TextSteps("TextGen/GuessNumber-v0")
    assert steps.reset(seed=0) == "<sep>" and steps.info["legal"][:3] == ("0", "1", "2")
    answer, reward, over, _, info = steps.step("5")  # half a guess
    assert (answer, reward, over) == ("", 0.0, False) and info["legal"][-1] == "<eos>"
    assert steps.step("0")[0] in ("<higher>", "<lower>")
    answer, *_, info = steps.step("1 2 3 4")  # two guesses
    assert len(answer.split("\n")) == 2 and len(info["reply_tokens"]) == 2
    assert steps.step("5 <higher>")[2] and steps.info["refusal"] is not None  # replies are not ours to write


def test_the_end_of_a_message_and_of_an_episode():
    steps = TextSteps("TextGen/Copy-v0", length=3, vocab_size=4)
    prompt = steps.reset(seed=1)
    *_, info = steps.step(f"{prompt} {prompt} {prompt}")
    budget = steps.task.max_new_tokens
    assert len(info["action_tokens"]) == budget and len(info["unused_tokens"]) == 9 - budget
    steps.reset(seed=1)
    assert steps.step("")[4]["action_tokens"].tolist() == [steps.task.eos_id]
    steps.reset(seed=1)
    assert steps.step(f"{prompt} <eos>")[1] == 1.0


def test_illegal_tokens_are_named():
    steps = TextSteps("TextGen/Json-Easy-v0")
    steps.reset(seed=0)
    answer, reward, over, _, info = steps.step("}")
    assert over and reward == 0.0 and answer == info["refusal"] == "'}' is not legal here. Legal: {."


def test_a_group_sees_one_episode_in_any_process():
    here = [TextSteps("TextGen-v0").reset(seed=seed) for seed in (3, 3, 3, 4)]
    assert len(set(here)) == 2
    code = "from textgym.adapters import TextSteps; print(TextSteps('TextGen-v0').reset(seed=3))"
    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert there.strip() == here[0]


@pytest.mark.parametrize("env_id", sorted(GAMES))
def test_state_and_pickle_in_mid_episode(env_id):
    steps = TextSteps(env_id)
    steps.reset(seed=5)
    steps.step("1 2" if "Guess" in env_id else "a")
    state, copy, other = steps.get_state(), pickle.loads(pickle.dumps(steps)), TextSteps(env_id)
    other.set_state(pickle.loads(pickle.dumps(state)))

    def rest(one):
        texts = [str(one.info)]
        for text in ("7 3", "4 1") if "Guess" in env_id else ("e", "s t o n e"):
            if not one._over:
                answer, reward, over, _, info = one.step(text)
                texts.append((answer, reward, over, str(info)))
        return [*texts, one.reset()]  # the random stream goes on, too

    first = rest(steps)
    assert first == rest(copy) == rest(other)
    steps.set_state(state)
    assert first == rest(steps)


def test_importing_the_adapters_imports_no_framework():
    code = "import sys, textgym.adapters; print(sorted({'torch', 'trl', 'minari', 'gem'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_instructions():
    assert TextSteps("TextGen/Reverse-v0", length=2, vocab_size=3).instructions == (
        "Write the prompt backwards, then close with EOS.\n"
        "Write only these with blanks between them: a b c.\n"
        "The message is the whole answer, of at most 4 tokens; its end says EOS."
    )
    assert "A message is one turn" in TextSteps("TextGen/Wordle-v0").instructions
    assert "… and 1,436 more" in TextSteps("TextGen-v0").instructions


def test_tasks_in_the_place_of_ids():
    for one in ("reverse", Reverse, Reverse(), "textgym:TextGen/Reverse-v0"):
        assert TextSteps(one).reset(seed=0) == TextSteps("TextGen/Reverse-v0").reset(seed=0)


def test_misuse():
    with pytest.raises(ValueError, match=r"id_or_task must be one of textgym.env_ids\(\) or a task, got 'Nope-v0'"):
        TextSteps("Nope-v0")
    with pytest.raises(ValueError, match="id_or_task must be an id of TextGym or a task, got 'CartPole-v1'"):
        TextSteps("CartPole-v1")
    with pytest.raises(TypeError, match="Reverse does not take"):
        TextSteps("TextGen/Reverse-v0", nope=1)
    steps = TextSteps("TextGen/Reverse-v0")
    for act in (lambda: steps.step("a"), lambda: steps.step_tokens([0])):
        with pytest.raises(gym.error.ResetNeeded, match="call reset"):
            act()
    steps.reset(seed=0)
    with pytest.raises(ValueError, match="text must be a string, got 5"):
        steps.step(5)
    for tokens in ([], [-1], [16], [0.5], 3, [[1]]):
        with pytest.raises(ValueError, match="tokens must be a list of at least one integer in"):
            steps.step_tokens(tokens)
