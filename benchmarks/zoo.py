"""DoubleDQN in RL Zoo: ``python -m benchmarks.zoo --algo double_dqn --env TextGen-v0``.

RL Zoo (the package ``rl_zoo3``) trains, evaluates and replays Stable-Baselines3's algorithms from the command line,
with tuned arguments from a YAML file for each algorithm. This module adds ``double_dqn`` to its algorithms and
TextGym's ids to its environments, and then hands over to it, so that all of the Zoo's options work::

    python -m benchmarks.zoo --algo double_dqn --env TextGen/Reverse-v0 -n 20000 --log-folder logs
    python -m benchmarks.zoo --algo dqn --env CartPole-v1          # the Zoo's own algorithms are still there
    python -m benchmarks.zoo enjoy --algo double_dqn --env TextGen/Reverse-v0 --folder logs --no-render
    python -m benchmarks.zoo hyperparams                           # write hyperparams/double_dqn.yml anew

The arguments for TextGym's ids are those of ``textgym train``: the file is written from :mod:`agents.saving.presets`,
which is where to change them. The Zoo steps single environments one by one, so it is slower than ``textgym train``,
and it evaluates without action masks, so where a task masks tokens use ``textgym validate``. It has no search space
for ``double_dqn``: search with ``textgym tune``, which leaves a file for the Zoo's ``--conf-file``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from agents.saving.files import write_text
from agents.saving.presets import PRESETS, Preset
from benchmarks.anchors import ANCHORS
from textgym import env_ids

ALGORITHM = "double_dqn"
HYPERPARAMS = Path(__file__).parent / "hyperparams" / f"{ALGORITHM}.yml"

TRANSITION_HYPERPARAMS: dict[str, dict[str, Any]] = {
    # What RL Zoo uses for DQN there.
    "CartPole-v1": {
        "n_timesteps": ANCHORS["CartPole-v1"].steps,
        "policy": "MlpPolicy",
        **ANCHORS["CartPole-v1"].arguments,
    },
    # Any other environment, unless its observations are images (CnnPolicy) or dictionaries (MultiInputPolicy).
    "default": {"n_timesteps": 100_000, "policy": "MlpPolicy"},
}
"""Arguments by id, in the Zoo's form, of environments that are not TextGym's."""


def hyperparams() -> dict[str, dict[str, Any]]:
    """Arguments by id in the Zoo's form: presets of TextGym's ids, and :data:`TRANSITION_HYPERPARAMS`."""
    text = {env_id: _zoo_form(PRESETS.get(env_id, Preset())) for env_id in env_ids()}
    return {**text, **TRANSITION_HYPERPARAMS}


def write_hyperparams(path: Path = HYPERPARAMS) -> None:
    """Write :func:`hyperparams` as YAML."""
    head = "# Written by `python -m benchmarks.zoo hyperparams` from agents/saving/presets.py: change that.\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    # One block a time: of the whole, PyYAML would write equal parts once and refer to them.
    blocks = [yaml.safe_dump({env_id: values}, sort_keys=False) for env_id, values in hyperparams().items()]
    write_text(path, head + "\n" + "\n".join(blocks))


def _zoo_form(preset: Preset) -> dict[str, Any]:
    arguments = dict(preset.kwargs)
    rate = arguments.get("learning_rate")
    if isinstance(rate, dict):
        if rate.get("end", 0.0) != 0.0 or rate.get("fraction", 1.0) != 1.0:
            raise ValueError(f"learning_rate must fall to 0 over the whole training, as RL Zoo's do, got {rate}")
        arguments["learning_rate"] = f"lin_{rate['start']}"
    return {"n_timesteps": preset.steps, "n_envs": preset.n_envs, "policy": "PerformerPolicy", **arguments}


def register() -> None:
    """Add DoubleDQN to RL Zoo's algorithms. TextGym's ids are registered with Gymnasium already.

    Raises:
        ImportError: If ``rl_zoo3`` is not installed.
    """
    try:
        from rl_zoo3 import ALGOS
    except ImportError as error:
        raise ImportError("benchmarks.zoo needs RL Zoo: pip install 'textgym[benchmarks]' or rl_zoo3") from error
    from agents import DoubleDQN

    ALGOS[ALGORITHM] = DoubleDQN


def main(arguments: Sequence[str]) -> None:
    """Run RL Zoo's ``train`` (also without a command) or ``enjoy``, or write the file of hyperparameters.

    Args:
        arguments: The command line after the module's name.

    Raises:
        ImportError: If ``rl_zoo3`` is not installed.
        ValueError: If RL Zoo is asked to optimize the arguments of ``double_dqn``.
    """
    command, options = "train", list(arguments)
    if options and options[0] in ("train", "enjoy", "hyperparams"):
        command = options.pop(0)
    if command == "hyperparams":
        write_hyperparams()
        return
    if command == "train" and _uses_our_algorithm(options):
        if _has_option(options, "-opt", "--optimize"):
            raise ValueError(f"--optimize-hyperparameters needs another --algo than {ALGORITHM}: use `textgym tune`")
        if not _has_option(options, "-conf", "--conf"):
            options += ["--conf-file", str(HYPERPARAMS)]
    register()
    from rl_zoo3.enjoy import enjoy
    from rl_zoo3.train import train

    functions: dict[str, Callable[[], None]] = {"train": train, "enjoy": enjoy}
    # RL Zoo reads the process's command line.
    program, sys.argv = sys.argv, [f"{sys.argv[0]} {command}", *options]
    try:
        functions[command]()
    finally:
        sys.argv = program


def _uses_our_algorithm(options: Sequence[str]) -> bool:
    return f"--algo={ALGORITHM}" in options or ("--algo", ALGORITHM) in pairwise(options)


def _has_option(options: Sequence[str], *prefixes: str) -> bool:
    return any(option.startswith(prefixes) for option in options)


if __name__ == "__main__":
    main(sys.argv[1:])
