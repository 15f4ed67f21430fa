"""Whatever arguments and configuration files hold, they work or one line says what is wrong with them."""

import inspect
import json
import math
import shutil

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agents import DoubleDQN, make_vec_env
from agents.application.train import train
from agents.saving.arguments import parse_assignments
from agents.saving.files import CommandError
from agents.saving.settings import resolve_settings
from tests.fuzzing import damaged, examples

ENV, ENV_ARGS = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 3}
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
    return make_vec_env(ENV, n_envs=2, seed=0, env_kwargs=ENV_ARGS)


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


@examples(100)
@given(lines=WORDS)
def test_assignments_of_the_command_line(lines):
    try:
        assert isinstance(parse_assignments("--set", lines), dict)
    except CommandError as error:
        assert str(error).startswith("--set")


def as_yaml(tree):
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = resolve_settings(ENV, env_args=ENV_ARGS, agent=TINY, steps=64, n_envs=4)
    return train(made, tmp_path_factory.mktemp("runs") / "run").folder


SPACE = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "batch_size": {"low": 2, "high": 8},
    "double_q": [True, False],
}
FILES = {  # command → the file that is damaged, and how it is written
    "validate a model": ("model/config.json", json.dumps),
    "validate": ("config.yaml", as_yaml),
    "resume": ("config.yaml", as_yaml),
    "train": ("config.yaml", as_yaml),
    "tune": ("space.yaml", as_yaml),
    "report": ("config.yaml", as_yaml),
    "report a result": ("result.json", json.dumps),
}


@pytest.mark.parametrize("command", FILES)
def test_configuration_files(command, run, textgym, tmp_path):
    """The exit code is 0, or 2 with one line."""
    name, write = FILES[command]
    tree = SPACE if command == "tune" else yaml.safe_load((run / name).read_text("utf-8"))
    folder, other = tmp_path / "run", tmp_path / "other"
    small = ["--env-arg", "length=2", "--env-arg", "vocab_size=3", "--n-envs", 4, "--set", "learning_starts=8"]
    small += ["--set", "policy_kwargs.features_dim=8", "--set", "policy_kwargs.n_layers=1"]
    words = {
        "validate a model": ["validate", other, "--episodes", 2],
        "validate": ["validate", folder, "--episodes", 2],
        "resume": ["train", "--resume", folder],
        "train": ["train", "--config", folder / name, "--steps", 24, "--run-dir", other],
        "tune": ["tune", ENV, *small, "--space", folder / name, "--trials", 1, "--steps", 8, "--out", other],
    }.get(command, ["report", folder, "--out", other / "page.html", "--episodes", 2])

    @examples(12)
    @given(text=damaged(tree, write))
    def check(text):
        for path in (folder, other):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(run, folder)
        (folder / name).write_text(text, "utf-8")
        if command == "validate a model":  # away from its run, whose configuration would be read in place of its own
            (folder / "model").rename(other)
        if command == "resume":
            (folder / "result.json").unlink()
        code, _, error = textgym(*words)
        lines = [line for line in error.splitlines() if line.startswith("textgym: error: ")]
        assert (code, len(lines)) in ((0, 0), (2, 1)), (text, error)
        assert "Traceback" not in error

    check()
