"""Run folders: what is in them, how they are written, and how they are found again.

A run folder holds ``config.yaml`` (all that is needed to repeat the run), ``progress.csv`` and TensorBoard events,
``samples.txt``, ``checkpoint/`` (the last two, to resume from), and at the end the model, as ``model/`` for everybody
and as ``model.zip`` for Stable-Baselines3, and ``result.json``. Only the two logs grow in place; every other file
appears complete or not at all.
"""

from __future__ import annotations

import json
import reprlib
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from agents.saving.files import CommandError, read_yaml_mapping, reason_of, versions, write_yaml

CONFIG, RESULT, SAMPLES, MODEL = "config.yaml", "result.json", "samples.txt", "model.zip"
CHECKPOINTS, MODEL_FOLDER = "checkpoint", "model"
EXPORTED = "config.json"
"""What makes a folder an exported model: see :mod:`agents.saving.export`."""
_NUMBER, _NULL = {"type": "number"}, {"type": "null"}
_INTERVAL = {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2}
_KINDS = {
    "int": {"type": "integer"},
    "float": _NUMBER,
    "float | None": {"anyOf": [_NUMBER, _NULL]},
    "tuple[float, float]": _INTERVAL,
    "tuple[float, float] | None": {"anyOf": [_INTERVAL, _NULL]},
    "dict[str, float] | None": {"type": ["object", "null"], "additionalProperties": _NUMBER},
}
"""Type of a field of :class:`agents.double_dqn.evaluation.Scores` → what JSON makes of it."""
_SPEED = ("steps", "updates", "train_seconds", "steps_per_second", "updates_per_second")
_TRAINED_IN_SCHEMA = {
    "type": "object",
    "properties": {
        "env": {"type": "string"},
        "env_args": {"type": ["object", "null"]},
        "eval_args": {"type": ["object", "null"]},
        "seed": {"type": ["integer", "null"], "minimum": 0},
        "n_envs": {"type": ["integer", "null"], "minimum": 1},
        "agent": {"type": ["object", "null"]},
    },
}


def read_result(folder: Path) -> dict[str, Any] | None:
    """The content of ``result.json`` of a run that has ended; None where it is missing or damaged."""
    import jsonschema  # slow to load, as is torch, and the command line loads this module for its --help

    from agents.double_dqn.evaluation import Scores

    properties = {field.name: _KINDS[str(field.type)] for field in fields(Scores)} | dict.fromkeys(_SPEED, _NUMBER)
    try:
        result = json.loads((folder / RESULT).read_text("utf-8"))
        jsonschema.validate(result, {"type": "object", "properties": properties, "required": list(properties)})
    except (OSError, ValueError, RecursionError, jsonschema.ValidationError):
        return None
    return result


def create_run_folder(path: str | Path | None, env_id: str, config: Mapping[str, Any]) -> Path:
    """Make the folder of a new run, with its configuration in it.

    Args:
        path: The folder; None for ``runs/<id>-<time>``.
        env_id: Id of the environment.
        config: Content of ``config.yaml``, but for the versions, which are added.

    Raises:
        CommandError: If the folder exists and is not empty, or can't be made or written to.
    """
    if path is None:
        name = f"{env_id.removeprefix('textgym:').replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
        path = Path("runs") / name
        for number in range(2, 1000):  # two runs started within a second
            if not path.exists():
                break
            path = Path("runs") / f"{name}-{number}"
    folder = Path(path)
    try:
        # Hidden files are what a kill leaves of a file that was being written.
        if folder.exists() and not (folder.is_dir() and all(path.name[0] == "." for path in folder.iterdir())):
            hint = f" ('textgym train --resume {folder}' goes on with a run)" if (folder / CONFIG).is_file() else ""
            raise CommandError(f"--run-dir must be a new or an empty folder, got {folder}, which has content{hint}")
        folder.mkdir(parents=True, exist_ok=True)
        write_yaml(folder / CONFIG, {**config, "versions": versions()})
    except OSError as error:
        raise CommandError(f"can't make the run folder {folder}: {reason_of(error)}") from None
    return folder


def find_model(path: str | Path) -> tuple[Path, dict[str, Any] | None]:
    """The model of a run folder or a path to one, and the configuration of its run where that is known.

    Of a run that has ended it is ``model/``, which a path to its ``model.zip`` stands for, too: the same model, without
    pickled objects. Of one that has not, it is the newest checkpoint.

    Args:
        path: A run folder, a folder that ``textgym export`` wrote, or a model file.

    Returns:
        The exported folder, the checkpoint or the model file; and what it was trained in: ``env``, ``env_args``,
        ``seed`` and ``n_envs``, as in ``config.yaml``, or None.

    Raises:
        CommandError: If there is no model, or the configuration is unreadable.
    """
    path = Path(path)
    if path.is_dir():
        model = _model_in(path)
        if model is None:
            raise CommandError(
                f"RUN_OR_MODEL must be a run folder with a {MODEL_FOLDER} or a checkpoint, a folder of "
                f"'textgym export' or a model file, got {path}"
            )
    elif not path.is_file():
        raise CommandError(f"RUN_OR_MODEL must be a run folder or a model file, got {path}, which does not exist")
    elif path.name == MODEL and (path.parent / MODEL_FOLDER / EXPORTED).is_file():
        model = path.parent / MODEL_FOLDER
    else:
        model = path.parent if (path.parent / EXPORTED).is_file() and path.suffix in (".json", ".safetensors") else path
    for folder in (model.parent, model.parent.parent):
        if (folder / CONFIG).is_file():
            return model, _checked_environment(read_yaml_mapping(folder / CONFIG), folder / CONFIG)
    return model, _exported_environment(model) if model.is_dir() else None


def trained_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's configuration tells of its model's environment."""
    told = {key: config.get(key) for key in ("env", "env_args", "seed", "n_envs")}
    return told | ({"eval_args": config["eval_args"]} if config.get("eval_args") else {})


def evaluated_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the environment in which a run's model is evaluated."""
    return {**(config.get("env_args") or {}), **(config.get("eval_args") or {})}


def brief(env_args: Mapping[str, Any]) -> list[str]:
    """Arguments of an environment as ``name=value``, long values shortened."""
    return [f"{name}={value if len(str(value)) < 40 else reprlib.repr(value)}" for name, value in env_args.items()]


def _model_in(folder: Path) -> Path | None:
    for exported in (folder, folder / MODEL_FOLDER):
        if (exported / EXPORTED).is_file():
            return exported
    checkpoints = sorted((folder / CHECKPOINTS).glob("step-*.safetensors"))
    files = [*checkpoints[-1:], folder / MODEL]
    return next((file for file in files if file.is_file()), None)


def _exported_environment(folder: Path) -> dict[str, Any] | None:
    """What an exported model was trained in; None where its files do not tell."""
    try:
        config = json.loads((folder / EXPORTED).read_text("utf-8-sig"))
        environment, policy = config.get("environment"), config.get("policy")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CommandError(f"{folder / EXPORTED} can't be read: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(environment, dict):
        return None
    _checked_environment(environment, folder / EXPORTED)
    env_args = environment.get("env_args")
    if isinstance(env_args, dict) and "tokenizer" in env_args and policy != "LanguageModelPolicy":
        # Its own copy, wherever the file says it is; a language model brings its own.
        environment["env_args"] = {**env_args, "tokenizer": str(folder / "tokenizer.json")}
    return environment


def _checked_environment(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """What a model was trained in, of the right types; other keys are left alone."""
    import jsonschema

    try:
        jsonschema.validate(values, _TRAINED_IN_SCHEMA)
    except jsonschema.ValidationError as error:
        raise CommandError(f"{path}: {error.json_path.removeprefix('$.')}: {error.message[:200]}") from None
    return values
