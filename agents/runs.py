"""Run folders: what is in them, how they are written, and how they are found again.

A run folder holds ``config.yaml`` (all that is needed to repeat the run), ``progress.csv`` and TensorBoard events,
``samples.txt``, ``checkpoint/`` (the last two, to resume from), and at the end the model, as ``model/`` for everybody
and as ``model.zip`` for Stable-Baselines3, and ``result.json``. Only the two logs grow in place; every other file
appears complete or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

CONFIG, RESULT, SAMPLES, MODEL = "config.yaml", "result.json", "samples.txt", "model.zip"
CHECKPOINTS, MODEL_FOLDER = "checkpoint", "model"
VOCABULARY = "vocabulary.json"  # of a model that learned from a text file
EXPORTED = "config.json"
"""What makes a folder an exported model: see :mod:`agents.saving.export`."""

_NUMBER, _INTERVAL = {"type": "number"}, {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_SCORES = {
    **{"episodes": {"type": "integer"}, "mean": _NUMBER, "mean_interval": _INTERVAL, "mean_length": _NUMBER},
    **{"iqm": _NUMBER, "iqm_interval": _INTERVAL, "normalised": {"type": ["number", "null"]}},
    "normalised_interval": {"anyOf": [_INTERVAL, {"type": "null"}]},
    "references": {"type": ["object", "null"], "additionalProperties": _NUMBER},
}
_SPEED = dict.fromkeys(("steps", "updates", "train_seconds", "steps_per_second", "updates_per_second"), _NUMBER)
_RESULT_SCHEMA = {"type": "object", "properties": {**_SCORES, **_SPEED}, "required": [*_SCORES, *_SPEED]}
_TRAINED_IN_SCHEMA = {
    "type": "object",
    "properties": {
        "env": {"type": "string"},
        "env_args": {"type": ["object", "null"]},
        "seed": {"type": ["integer", "null"], "minimum": 0},
        "n_envs": {"type": ["integer", "null"], "minimum": 1},
        "agent": {"type": ["object", "null"]},
    },
}


class CommandError(Exception):
    """What a user got wrong, in one line: the argument, the value given and what is accepted."""


class _YamlLoader(yaml.SafeLoader):
    """Safe YAML that reads ``1e-3`` as a number: YAML 1.1, which PyYAML follows, wants ``1.0e-3``."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write a file so that it appears complete or not at all.

    The file is written under a temporary name in the same folder and renamed at the end; an exception removes it and
    leaves what was there before.

    Args:
        path: Where the file is to be; its folder must exist.

    Yields:
        The path to write to, with the same suffix.

    Example:
        >>> with atomic_write("result.json") as temporary:  # doctest: +SKIP
        ...     temporary.write_text("{}")
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(argument: str, path: str | Path, kind: str = "file") -> Iterator[None]:
    """What can't be written becomes one line that names the argument.

    Args:
        argument: The argument that names the place.
        path: The place.
        kind: ``"file"`` or ``"folder"``.

    Raises:
        CommandError: In place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise CommandError(f"{argument} must be a {kind} that can be written, got {path}: {_reason(error)}") from None


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_yaml(path: str | Path, value: Any) -> None:
    """Write a YAML file atomically, keys in the order given."""
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120))


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML.

    Args:
        text: The YAML text.
        source: What it is, for the error: an option or a file.

    Raises:
        CommandError: If it is not YAML.
    """
    try:
        return yaml.load(text, Loader=_YamlLoader)  # a SafeLoader: it builds plain values only
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise CommandError(f"{source} must be valid YAML, got {text[:60].strip()!r} ({reason})") from None


def read_yaml_mapping(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        CommandError: If the file can't be read, is not YAML, or holds something else.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"can't read {path}: {_reason(error)}") from None
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict):
        raise CommandError(f"{path} must hold a YAML mapping of names to values, got {type(value).__name__}")
    return value


def read_result(folder: Path) -> dict[str, Any] | None:
    """The content of ``result.json`` of a run that has ended; None where it is missing or damaged."""
    import jsonschema  # slow to load, and the command line loads this module for its --help

    try:
        result = json.loads((folder / RESULT).read_text("utf-8"))
        jsonschema.validate(result, _RESULT_SCHEMA)
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
        raise CommandError(f"can't make the run folder {folder}: {_reason(error)}") from None
    return folder


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run does."""
    from textgym import __version__

    names = ("torch", "numpy", "gymnasium", "stable-baselines3", "performer-pytorch")
    return {
        "textgym": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
    }


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
        environment = json.loads((folder / EXPORTED).read_text("utf-8")).get("environment")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CommandError(f"{folder / EXPORTED} can't be read: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(environment, dict):
        return None
    _checked_environment(environment, folder / EXPORTED)
    env_args = environment.get("env_args")
    if isinstance(env_args, dict) and "tokenizer" in env_args:  # its own copy, wherever the file says it is
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


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that JSON and YAML can hold: NumPy scalars become Python numbers, tuples lists."""
    return json.loads(json.dumps(values, default=lambda value: value.item() if hasattr(value, "item") else str(value)))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
