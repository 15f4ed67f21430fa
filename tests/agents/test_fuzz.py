"""Whatever the agent's constructor is given, it works or says in one line which argument is wrong."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents import DoubleDQN, make_vec_env
from agents.options import parse_assignments
from agents.runs import CommandError

FUZZ = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
TINY = {
    "policy_kwargs": {"features_dim": 8, "n_heads": 2, "n_layers": 1},
    "learning_starts": 8,
    "batch_size": 2,
    "buffer_size": 100,
}
VALUES = [None, -1, 0, 1, 0.5, 2.5, 10**30, math.nan, math.inf, "x", "auto", [], {}, True, np.float32(0.5), np.int64(2)]
NAMES = sorted(
    set(inspect.signature(DoubleDQN.__init__).parameters)
    - {"self", "policy", "env", "_init_setup_model", "tensorboard_log", "replay_buffer_class"}
)


@pytest.fixture(scope="module")
def env():
    return make_vec_env("TextGen/Reverse-v0", n_envs=2, seed=0, env_kwargs={"length": 2, "vocab_size": 3})


@pytest.mark.parametrize("name", NAMES)
def test_arguments(name, env):
    for value in VALUES:
        too_large = value == 10**30 and not isinstance(value, bool)
        if too_large and name in ("buffer_size", "batch_size", "gradient_steps", "n_steps", "train_freq"):
            continue  # right in itself, and more than any machine holds or any test can wait for
        try:
            DoubleDQN("PerformerPolicy", env, **(TINY | {name: value})).learn(24)
        except (ValueError, AssertionError) as error:  # assertions are Stable-Baselines3's own
            assert len(str(error).splitlines()) == 1, (name, value)
            if isinstance(error, ValueError):
                assert name in str(error), (name, value, str(error))


WORDS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), max_size=6)


@FUZZ
@given(lines=WORDS)
def test_assignments_of_the_command_line(lines):
    try:
        assert isinstance(parse_assignments("--set", lines), dict)
    except CommandError as error:
        assert str(error).startswith("--set")
