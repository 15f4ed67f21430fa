"""Model files that are safe to open: ``config.json``, ``model.safetensors``, ``tokenizer.json``, and no pickle.

Stable-Baselines3's zips hold pickled objects, and to unpickle is to run whatever code the file brings along. Here the
weights are plain arrays, and everything else is JSON: names are looked up in fixed tables, never imported.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from stable_baselines3.common.utils import LinearSchedule
from torch import nn

from agents.exploration import EXPLORATIONS
from agents.representations.extractors import GRUExtractor, PerformerExtractor, TransformerExtractor
from agents.saving.arguments import SCHEDULES, constructor_arguments
from agents.saving.files import CommandError, plain, versions
from agents.saving.model_card import CARD_FILE
from agents.saving.model_spaces import space_as_json, space_from_json
from agents.saving.named_rewards import without_reward
from agents.saving.state_file import write_synced

if TYPE_CHECKING:
    from agents.double_dqn.double_dqn import DoubleDQN
    from agents.vec_env import TextGenVecEnv

CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE = "config.json", "model.safetensors", "tokenizer.json"
_FORMAT = "textgym-model-1"
_WITHOUT = frozenset(
    "self policy env seed device verbose tensorboard_log replay_buffer_class _init_setup_model".split()
)
_CLASSES: dict[str, type] = {
    f"{kind.__module__.split('.')[0]}.{kind.__name__}": kind
    for kind in (
        *(nn.ReLU, nn.Tanh, nn.ELU, nn.GELU, nn.SiLU, nn.LeakyReLU),
        *(torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop),
        *(PerformerExtractor, TransformerExtractor, GRUExtractor),
    )
}
"""Classes that arguments of a policy may name."""


class ModelFileError(ValueError):
    """A folder or a file that is no exported model, or a damaged one."""


def describe(model: DoubleDQN) -> dict[str, Any]:
    """What rebuilds a model but for its weights, as JSON values.

    Raises:
        ValueError: If its policy is not one of :class:`agents.DoubleDQN`'s own, or an argument is no plain value.
    """
    if model.policy_name not in model.policy_aliases:
        raise ValueError(
            f"policy must be one of {', '.join(model.policy_aliases)} to be exported, got {model.policy_name}"
        )
    return {
        "format": _FORMAT,
        "policy": model.policy_name,
        "agent": _arguments(model),
        "observation_space": space_as_json(model.observation_space),
        "action_space": space_as_json(model.action_space),
        "n_envs": model.n_envs,
        "num_timesteps": model.num_timesteps,
        "progress_remaining": model._current_progress_remaining,
        "exploration_rate": float(model.exploration_rate),
        "versions": versions(),
    }


def export_model(
    model: DoubleDQN,
    folder: str | Path,
    environment: Mapping[str, Any] | None = None,
    card: Callable[[Mapping[str, Any]], str] | None = None,
) -> Path:
    """Write a model's policy, so that :func:`load` gives back the same Q-values.

    Replay, the optimizer and counts of visits stay behind: they are the business of checkpoints.

    Args:
        model: The model.
        folder: The folder; it is made where it does not exist. An earlier model in it is replaced.
        environment: What it was trained in: ``env``, an id, with ``env_args``, ``seed`` and ``n_envs`` where known.
            None where there is no id; then there is no tokenizer either.
        card: Content of ``config.json`` → content of ``README.md``: see :mod:`agents.saving.model_card`. None for no
            such file.

    Returns:
        The folder.

    Raises:
        ValueError: If the model can't be described by plain values: see :func:`describe`.
        OSError: If it can't be written.
    """
    folder = Path(folder)
    config = describe(model)
    files: dict[str, bytes] = {}
    if environment is not None:
        from agents.saving.arguments import make_env
        from agents.saving.export_tokenizer import token_digest, tokenizer_file

        env_args = dict(environment.get("env_args") or {})
        env = make_env(environment["env"], 1, 0, without_reward(env_args))
        task = env.envs.task
        files[TOKENIZER_FILE] = tokenizer_file(task)
        if isinstance(env_args.get("tokenizer"), str) and config["policy"] != "LanguageModelPolicy":
            env_args["tokenizer"] = TOKENIZER_FILE  # the copy: a path of this machine would mean nothing elsewhere
        config["environment"] = plain({**environment, "env_args": env_args})
        config["tokens_sha256"] = token_digest(task)
        env.close()
    weights = save_tensors({name: value.detach().cpu().clone() for name, value in model.q_net.state_dict().items()})
    config["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    files[WEIGHTS_FILE] = weights
    if card is not None:
        files[CARD_FILE] = card(config).encode()
    # Last, as it is what makes the folder a model.
    files[CONFIG_FILE] = (json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_synced(folder / name, content)
    return folder


def load(folder: str | Path, device: torch.device | str = "auto", language_model: Any = None) -> DoubleDQN:
    """Read a model that ``textgym export`` or :func:`export_model` wrote; nothing in the folder is executed.

    Args:
        folder: The folder.
        device: Torch device.
        language_model: Of a model with a ``LanguageModelPolicy``, whose head alone is in the folder: the language
            model, or where it is now. None for where it was.

    Returns:
        The model, without an environment: ``set_env`` gives it one to go on learning in.

    Raises:
        ModelFileError: If the folder is no exported model, or its files are damaged or do not fit each other.

    Example:
        >>> import agents
        >>> model = agents.load("reverse")  # doctest: +SKIP
    """
    folder = Path(folder)
    config = read_config(folder)
    try:
        content = (folder / WEIGHTS_FILE).read_bytes()
    except OSError as error:
        raise ModelFileError(f"can't read {folder / WEIGHTS_FILE}: {error.strerror}") from None
    if config.get("weights_sha256") != hashlib.sha256(content).hexdigest():
        raise ModelFileError(f"{folder / WEIGHTS_FILE} is damaged, or not the one of {CONFIG_FILE}: another checksum")
    try:
        weights = load_tensors(content)
    except Exception as error:  # safetensors' own kinds
        raise ModelFileError(f"{folder / WEIGHTS_FILE} is damaged: {' '.join(str(error).split())}") from None
    return rebuild(config, weights, str(folder), device, language_model)


def read_config(folder: str | Path) -> dict[str, Any]:
    """The content of ``config.json``.

    Raises:
        ModelFileError: If it is missing, damaged or of another format.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        config = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ModelFileError(f"{folder} must be a folder that 'textgym export' wrote: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(config, dict) or config.get("format") != _FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise ModelFileError(f"{path} must have the format {_FORMAT!r}, got {found!r}")
    return config


def check_tokens(path: Path, env: TextGenVecEnv) -> None:
    """Check that an environment speaks an exported model's language; models elsewhere do not tell.

    Raises:
        CommandError: If the tokens' texts are others: the environment has changed since, or has other arguments.
    """
    from agents.saving.export_tokenizer import token_digest

    known = read_config(path).get("tokens_sha256") if path.is_dir() else None
    if known is not None and known != token_digest(env.envs.task):
        raise CommandError(f"the environment must have the tokens that the model in {path} was trained on; its differ")


def rebuild(
    config: Mapping[str, Any],
    weights: Mapping[str, torch.Tensor],
    name: str,
    device: torch.device | str = "auto",
    language_model: Any = None,
) -> DoubleDQN:
    """The model of a description, see :func:`describe`, with the given weights of its Q-network.

    Args:
        config: The description.
        weights: The weights.
        name: Which model it is, for errors.
        device: Torch device.
        language_model: See :func:`load`.

    Raises:
        ModelFileError: If they do not fit each other.
    """
    from agents.double_dqn.double_dqn import DoubleDQN

    try:
        if config["policy"] not in DoubleDQN.policy_aliases:
            raise ValueError(f"policy must be one of {', '.join(DoubleDQN.policy_aliases)}, got {config['policy']!r}")
        arguments = dict(config["agent"])
        if unknown := sorted(arguments.keys() - (inspect.signature(DoubleDQN.__init__).parameters.keys() - _WITHOUT)):
            raise ValueError(f"agent has unknown arguments: {', '.join(unknown)}")
        arguments["policy_kwargs"] = {
            key: _class(value) if key.endswith("_class") or key == "activation_fn" else value
            for key, value in (arguments.get("policy_kwargs") or {}).items()
        }
        if language_model is not None:
            arguments["policy_kwargs"]["model"] = language_model
        if isinstance(arguments.get("train_freq"), list):
            arguments["train_freq"] = tuple(arguments["train_freq"])
        if arguments.get("max_grad_norm") == "inf":
            arguments["max_grad_norm"] = math.inf
        arguments = constructor_arguments(arguments)
        model = DoubleDQN(config["policy"], None, device=device, _init_setup_model=False, **arguments)
        model.observation_space = space_from_json(config["observation_space"])
        model.action_space = space_from_json(config["action_space"])
        model.n_envs = int(config["n_envs"])
        model._setup_model()
        model.num_timesteps = int(config["num_timesteps"])
        model._current_progress_remaining = float(config["progress_remaining"])
        model.exploration_rate = float(config.get("exploration_rate", 0.0))
        for network in (model.q_net, model.q_net_target):
            network.load_state_dict(weights)
    # What a constructor says to values of a wrong kind is as manifold as the values.
    except Exception as error:
        reason = f"{type(error).__name__}: " if isinstance(error, KeyError) else ""
        raise ModelFileError(f"{name} is no model that fits: {reason}{' '.join(str(error).split())[:300]}") from None
    return model


def _arguments(model: DoubleDQN) -> dict[str, Any]:
    """All arguments of the constructor, as plain values; those of the explorer are spelled out."""
    from agents.double_dqn.double_dqn import DoubleDQN

    names = inspect.signature(DoubleDQN.__init__).parameters.keys() - _WITHOUT
    values = {name: getattr(model, name if hasattr(model, name) else f"_{name}") for name in sorted(names)}
    values["gradient_steps"] = model.gradient_steps if model.fixed_gradient_steps else None
    frequency: Any = model.train_freq
    values["train_freq"] = [frequency.frequency, frequency.unit.value]
    if model.max_grad_norm == math.inf:
        values["max_grad_norm"] = "inf"  # JSON has no infinity
    for schedule in SCHEDULES:
        rate = values[schedule]
        if isinstance(rate, LinearSchedule):
            values[schedule] = {"start": rate.start, "end": rate.end, "fraction": rate.end_fraction}
        elif callable(rate):  # another schedule: its value now
            values[schedule] = float(rate(model._current_progress_remaining))
    name = next((name for name, kind in EXPLORATIONS.items() if type(model.explorer) is kind), None)
    if (
        name is None or not model._path.explores
    ):  # one of the user's own, which no file can hold; it has no part in greedy choices
        values["exploration"], values["exploration_kwargs"] = None, {}
    else:
        values["exploration"] = name
        known = inspect.signature(EXPLORATIONS[name].__init__).parameters.keys() - {"self"}
        values["exploration_kwargs"] = {key: getattr(model.explorer, key) for key in sorted(known)}
    head = {key: getattr(model.policy, key) for key in ("n_ensemble",) if hasattr(model.policy, key)}
    values["policy_kwargs"] = {**head, **(model.policy_kwargs or {})}
    return {key: _plain(value, key) for key, value in values.items()}


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, type) and value in _CLASSES.values():
        return next(known for known, kind in _CLASSES.items() if kind is value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, name) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"{name} must be a plain value to be exported, got {value!r}")


def _class(name: Any) -> type | None:
    if name is None or name in _CLASSES:
        return None if name is None else _CLASSES[name]
    raise ValueError(f"a class must be one of {', '.join(_CLASSES)}, got {name!r}")
