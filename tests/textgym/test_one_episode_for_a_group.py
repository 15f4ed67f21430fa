"""A seed is one episode through every adapter: for a group of eight, in other processes, after a restart."""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.textgym.test_text_steps import BASE
from textgym.adapters import GEMEnvironment, TextSteps, TokenRollouts, environment_factory, verifiers_environment

GROUP, SEED = 8, 11
CODE = "from tests.textgym.test_one_episode_for_a_group import *; print(json.dumps({i: group(i) for i in BASE}))"


def group(env_id, n=1):
    """What ``n`` rollouts see first: face → their first observations as text, and the token ids of their episodes."""
    environment, rollouts = environment_factory(env_id), TokenRollouts(env_id)

    def text_steps():
        steps = TextSteps(env_id)
        return steps.reset(seed=SEED), steps

    def trl():
        one = environment()
        return one.reset(seed=SEED), one.steps

    def trl_rollouts():
        messages = rollouts.prompt(SEED)
        (one,) = rollouts.begin([messages], Letters())
        return messages[0]["content"], one.steps

    def gem():
        env = GEMEnvironment(env_id)
        return env.reset(seed=SEED)[0], env.steps

    faces = [text_steps, trl, trl_rollouts, gem]
    if importlib.util.find_spec("verifiers"):
        served = verifiers_environment(env_id, n=1, n_eval=1, seed=SEED)

        def verifiers():
            (row,) = served.get_dataset()
            state = asyncio.run(served.setup_state({"info": row["info"]}))
            return row["prompt"][1]["content"], state["textgym_episode"]

        faces.append(verifiers)
    seen = {face.__name__: [face() for _ in range(n)] for face in faces}
    return {name: [[text, steps.info["tokens"].tolist()] for text, steps in begun] for name, begun in seen.items()}


class Letters:
    """A model's ids are the letters' own."""

    def prompt(self, messages):
        return [ord(letter) for message in messages for letter in message["content"]]


@pytest.fixture(scope="module")
def elsewhere():
    """The same from two other processes, one after the other, whose hashes differ."""
    root = str(Path(__file__).parents[2])
    return [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", CODE],
                check=True,
                capture_output=True,
                text=True,
                cwd=root,
                env={**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": hashes},
            ).stdout.splitlines()[-1]
        )
        for hashes in ("1", "2")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("env_id", BASE)
def test_a_group_of_eight_in_every_process(env_id, elsewhere):
    here = group(env_id, GROUP)
    assert len(here) >= 4
    for face, (first, *others) in here.items():
        assert others == [first] * (GROUP - 1), face
        assert [there[env_id][face] for there in elsewhere] == [[first], [first]], face
        assert first[1] == here["text_steps"][0][1] and first[0].endswith(here["text_steps"][0][0]), face
    other = TextSteps(env_id)
    assert any(other.reset(seed=seed) != here["text_steps"][0][0] for seed in range(20)) or other.takes_turns
