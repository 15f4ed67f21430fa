"""The environment class for TRL: played by hand everywhere, and by TRL's own trainer where that is installed."""

import inspect
import subprocess
import sys

import numpy as np
import pytest

import textgym
from tests.textgym.test_text_steps import BASE, native_turns
from textgym.adapters import TextSteps, environment_factory, seed_dataset

GAMES = ["TextGen/GuessNumber-v0", "TextGen/Hangman-v0", "TextGen/Wordle-v0"]


def public_functions(environment):
    """What TRL looks for, and how."""
    return {name for name, _ in inspect.getmembers(environment, inspect.isfunction) if not name.startswith("_")}


@pytest.mark.parametrize("env_id", [env_id for env_id in textgym.env_ids() if env_id.count("-") == 1])
def test_every_id_has_an_environment_with_one_documented_tool(env_id):
    from transformers.utils import get_json_schema

    environment = environment_factory(env_id)
    assert public_functions(environment) == {"reset", "get_reward", "write"}
    schema = get_json_schema(environment().write)["function"]
    assert schema["name"] == "write" and schema["parameters"]["required"] == ["text"]
    assert schema["parameters"]["properties"]["text"]["type"] == "string"
    assert schema["description"] == environment.instructions


@pytest.mark.parametrize("env_id", ["TextGen-v0", "TextGen/Json-v0", *GAMES])
def test_a_group_of_eight_sees_one_episode_in_every_process(env_id):
    environment = environment_factory(env_id)
    group = [environment() for _ in range(8)]
    first = {one.reset(seed=11, prompt="ignored") for one in group}
    assert len(first) == 1
    message = {"TextGen/GuessNumber-v0": "5 0", "TextGen/Wordle-v0": "s t o n e"}.get(env_id, "e")
    assert len({(one.write(message), one.get_reward()) for one in group}) == 1
    code = (
        "from textgym.adapters import environment_factory\n"
        f"one = environment_factory({env_id!r})()\nprint(repr((one.reset(seed=11), one.write({message!r}))))"
    )
    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    again = environment()
    assert eval(there) == (again.reset(seed=11), again.write(message)) and again.steps.reset(seed=11) in first


def test_rollouts_do_not_disturb_one_another():
    environment = environment_factory("TextGen/Hangman-v0")
    one, other = environment(), environment()
    one.reset(seed=1), other.reset(seed=2)
    alone = environment()
    alone.reset(seed=1)
    expected = [alone.write(letter) for letter in "etaoin"]
    found = []
    for letter in "etaoin":
        found.append(one.write(letter))
        other.write(letter)
    assert found == expected and one.get_reward() == alone.get_reward()


def test_whatever_a_model_writes():
    environment = environment_factory("TextGen/Hangman-v0")()
    assert "over" in environment.write("a")  # before any reset
    environment.reset(seed=0)
    assert environment.get_reward() == 0.0
    for text in (None, 3, {"a": 1}, ["e"]):
        environment.reset(seed=0)
        assert "can't be read" in environment.write(text) and environment.get_reward() == 0.0
        assert environment.write("e") == "The episode is over: nothing more can be written."
    number = environment_factory("guess_number")()
    number.reset(seed=0)
    assert number.write("5").startswith("Go on: 0 1 2")
    assert number.write(0) in ("<higher>", "<lower>")


def test_what_is_never_written_earns_the_floor():
    def fined(prompts, completions, **columns):
        return [-1.0] * len(prompts)

    fined.range = (-2.0, 0.0)
    one = environment_factory("TextGen-v0", prompts=["the food"], reward=fined, max_new_tokens=4)()
    one.reset(seed=0)
    assert one.get_reward() == -2.0
    one.write("the")
    assert one.get_reward() == -1.0


def test_a_data_set_of_seeds():
    pytest.importorskip("datasets")
    environment = environment_factory("TextGen/Wordle-v0")
    rows = seed_dataset(environment, 3, seed=5)
    assert rows["seed"] == [5, 6, 7] and rows[0]["prompt"][0]["content"] == environment.instructions + "\n\n"
    assert environment().reset(**rows[0]) == TextSteps("TextGen/Wordle-v0").reset(seed=5)


def test_misuse():
    environment = environment_factory("TextGen/Reverse-v0")
    for seed in (None, -1, 1.5, True, "3"):
        with pytest.raises(ValueError, match="seed must be an integer of at least 0 in each row"):
            environment().reset(seed=seed, prompt=[])
    with pytest.raises(ValueError, match="id_or_task must be one of"):
        environment_factory("Nope-v0")
    with pytest.raises(ValueError, match="n must be an integer of at least 1, got 0"):
        seed_dataset(environment, 0)
    with pytest.raises(ValueError, match=r"environment must be a class that environment_factory\(\) made"):
        seed_dataset("TextGen/Reverse-v0", 3)


@pytest.mark.parametrize("env_id", BASE)
def test_rewards_are_those_of_the_environment(env_id):
    environment = environment_factory(env_id)()
    for seed in range(4):
        task, turns, _ = native_turns(env_id, seed, oracle=False)
        environment.reset(seed=seed, prompt=[])
        for actions, _, _ in turns:
            environment.write(task.decode(np.array(actions)))
        assert "The episode is over" in environment.write("")  # it may have given up in the middle of a guess
        expected = 0.0
        for _, _, total in turns:
            expected += total
        assert environment.get_reward() == expected
