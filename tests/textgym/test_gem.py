"""GEM's interface, by hand and, where GEM is installed, by ``gem.make``."""

import copy

import numpy as np
import pytest

import textgym
from tests.textgym.test_text_steps import BASE, native_turns
from textgym.adapters import GEMEnvironment, TextSteps, register_gem


def play(env, seed):
    """An episode of random actions: observations, rewards and ends."""
    trace, over = [env.reset(seed=seed)[0]], False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(env.sample_random_action())
        trace.append((observation, reward, terminated, truncated))
        over = terminated or truncated
    return trace


@pytest.mark.parametrize("env_id", BASE)
def test_random_play(env_id):
    first, again = (play(GEMEnvironment(env_id, seed=1), seed=4) for _ in range(2))
    assert first == again and first[-1][2]


@pytest.mark.parametrize("env_id", BASE)
def test_every_task_pays_what_the_environment_pays(env_id):
    env = GEMEnvironment(env_id)
    for seed in range(4):
        task, turns, tokens = native_turns(env_id, seed, oracle=False)
        env.reset(seed=seed)
        for actions, _, total in turns:
            text = task.decode(np.array(actions))
            _, reward, over, _, info = env.step(text)
            if env.steps.takes_turns and actions[-1] == task.eos_id and text:  # given up in the middle of a guess
                assert reward == 0.0
                _, reward, over, _, info = env.step("")
            assert reward == total
        assert over and info["tokens"].tolist() == tokens.tolist()


def test_observations_begin_with_the_instructions():
    env, steps = GEMEnvironment("TextGen/Wordle-v0"), TextSteps("TextGen/Wordle-v0")
    observation, info = env.reset(seed=3)
    assert observation == f"{steps.instructions}\n\n{steps.reset(seed=3)}" and "legal" in info
    assert env.step("s t o n e")[:4] == steps.step("s t o n e")[:4]
    assert env.unwrapped is env


def test_the_seed_of_the_constructor_is_that_of_the_first_reset():

    fresh, other = GEMEnvironment("TextGen-v0", seed=5), GEMEnvironment("TextGen-v0")
    assert fresh.reset()[0] == other.reset(seed=5)[0] and fresh.reset()[0] == other.reset()[0]


def test_spawn():
    env = GEMEnvironment("TextGen/Hangman-v0", max_wrong=5)
    env.reset(seed=2)
    env.step("e")
    twin = env.spawn(same_state=True)
    assert twin.step("a")[:4] == copy.deepcopy(env).step("a")[:4] == env.step("a")[:4]
    assert env.spawn(max_wrong=2).steps.task.max_wrong == 2
    with pytest.raises(ValueError, match=r"kwargs must be empty with same_state=True, got \['max_wrong'\]"):
        env.spawn(same_state=True, max_wrong=3)


def test_gem_makes_every_id():
    gem = pytest.importorskip("gem", reason="GEM is not installed")
    names = register_gem()
    assert register_gem() == names and len(names) == len(textgym.env_ids())
    for env_id in BASE:
        if env_id != "TextGen/Reasoning-v0":  # GEM asks for another version of Reasoning Gym
            made = gem.make(f"textgym:{env_id}", seed=1)
            assert play(made, seed=4) == play(GEMEnvironment(env_id, seed=1), seed=4)
    envs = gem.make_vec(["textgym:TextGen/Hangman-v0"] * 3, seed=7)
    observations, infos = envs.reset()
    single = [GEMEnvironment("TextGen/Hangman-v0", seed=7 + row).reset()[0] for row in range(3)]
    assert list(observations) == single and len(infos) == 3
    group, _ = envs.reset(seed=[9] * 3)
    assert len(set(group)) == 1
    observations, rewards, _, truncated, _ = envs.step(["e"] * 3)
    assert len(set(observations)) == 1 and rewards.shape == (3,) and not truncated.any()


def test_without_gem():
    try:
        import gem  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(
            ModuleNotFoundError, match=r"register_gem\(\) needs the package gem-llm: pip install gem-llm"
        ):
            register_gem()
