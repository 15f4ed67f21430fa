"""Options of the commands, as plain values: ``key=value`` pairs, ids, constructor arguments; and errors that help."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from agents.saving.files import CommandError, parse_yaml
from agents.saving.named_rewards import with_reward
from textgym import env_ids

if TYPE_CHECKING:
    from agents.vec_env import TextGenVecEnv

_NOT_SETTABLE = frozenset(
    # Options of their own, classes, or without meaning for a run that is logged to its folder.
    "self policy env seed device verbose tensorboard_log replay_buffer_class _init_setup_model".split()
)


def checked_env_id(env_id: str) -> str:
    """The id without ``"textgym:"`` in front.

    Raises:
        CommandError: If there is no such environment; the message suggests ids that look alike.
    """
    name = str(env_id).removeprefix("textgym:")
    if name in env_ids():
        return name
    by_lower = {known.lower(): known for known in env_ids()}
    alike = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, cutoff=0.5)]
    hint = f"did you mean {' or '.join(alike)}?" if alike else f"accepted: {', '.join(env_ids())}"
    raise CommandError(f"ID must be one of TextGym's environments, got {name!r}; {hint}")


def parse_assignments(option: str, assignments: Iterable[str]) -> dict[str, Any]:
    """``key=value`` pairs as a dictionary; values are YAML, and a dotted key goes into a nested dictionary.

    Args:
        option: Name of the option, for errors.
        assignments: The pairs.

    Raises:
        CommandError: If a pair has no key or no ``=``, a value is not YAML, or a key is a value and a dictionary both.

    Example:
        >>> parse_assignments("--set", ["learning_rate=1e-3", "policy_kwargs.n_layers=1"])
        {'learning_rate': 0.001, 'policy_kwargs': {'n_layers': 1}}
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not separator or not all(parts):
            raise CommandError(f"{option} must be key=value, got {assignment!r}")
        place = values
        for part in parts[:-1]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise CommandError(f"{option} {key}: {part} has the value {place!r} already and can't hold keys")
        place[parts[-1]] = parse_yaml(text, f"{option} {key}")
    return values


def merge(*layers: dict[str, Any]) -> dict[str, Any]:
    """Dictionaries over one another, later ones on top, nested ones likewise."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def agent_defaults(policy: str = "PerformerPolicy") -> dict[str, Any]:
    """Arguments of :class:`agents.DoubleDQN` that ``--set`` takes, with their defaults with a policy."""
    from agents.double_dqn import DoubleDQN
    from agents.double_dqn.defaults import defaults_of

    parameters = inspect.signature(DoubleDQN.__init__).parameters
    declared = {name: parameter.default for name, parameter in parameters.items() if name not in _NOT_SETTABLE}
    paths = {"LanguageModelPolicy": "language_models", "EncoderPolicy": "transitions"}
    return declared | defaults_of(paths.get(policy, "sequences"))


def check_agent_arguments(arguments: dict[str, Any], source: str = "--set", policy: str = "PerformerPolicy") -> None:
    """Check names and values of arguments of the agent's constructor.

    Args:
        arguments: Those given.
        source: Where they come from, for errors.
        policy: The agent's.

    Raises:
        CommandError: If an argument is unknown, and the message lists the known ones, or a value is out of range.
    """
    from agents.double_dqn.arguments import check_arguments

    check_agent_names(arguments, source, policy)
    try:
        check_arguments(constructor_arguments(arguments))
    except ValueError as error:
        raise CommandError(f"{source}: {one_line(error)}") from None


def check_agent_names(arguments: Mapping[str, Any], source: str = "--set", policy: str = "PerformerPolicy") -> None:
    """The part of :func:`check_agent_arguments` that concerns names.

    Raises:
        CommandError: If an argument is unknown.
    """
    defaults = agent_defaults()
    for name in arguments:
        if name not in defaults:
            alike = difflib.get_close_matches(name, defaults, n=1)
            hint = f"did you mean {alike[0]}? " if alike else ""
            raise CommandError(f"{source} takes no argument {name!r}; {hint}accepted: {', '.join(sorted(defaults))}")
        if name.endswith("_kwargs") and not isinstance(arguments[name], dict | None):
            raise CommandError(f"{source} {name} must be a mapping, as in {name}.KEY=VALUE, got {arguments[name]!r}")
    policy_names = _policy_arguments(policy)
    for name in arguments.get("policy_kwargs") or {}:
        if name not in policy_names:
            raise CommandError(
                f"{source} policy_kwargs takes no argument {name!r}; accepted: {', '.join(sorted(policy_names))}"
            )


def _policy_arguments(policy: str) -> set[str]:
    from agents.encoders import Performer

    if policy in ("LanguageModelPolicy", "EncoderPolicy"):
        from agents.double_dqn import DoubleDQN

        parameters = set(inspect.signature(DoubleDQN.policy_aliases[policy].__init__).parameters)
        more = {"net_arch", "n_ensemble", "optimizer_kwargs"} if policy == "EncoderPolicy" else set()
        return parameters - {*"self observation_space action_space lr_schedule optimizer_class kwargs".split()} | more

    # Those of the encoder that the observation space does not decide, and the policy's own that YAML can write.
    encoder = set(inspect.signature(Performer).parameters) - {"vocab_size", "context_length", "pad_id"}
    return encoder | {"n_ensemble", "optimizer_kwargs"}


SCHEDULES = ("learning_rate", "q_lambda")
"""Arguments that may change in the course of the training."""


def constructor_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments as the constructor wants them: those of :data:`SCHEDULES` that are mappings become linear schedules.

    Args:
        arguments: As in a preset or in ``config.yaml``, where a schedule is ``{"start": 2e-3, "end": 0.0}``, with
            ``"fraction"`` if it is to end before the training does.

    Raises:
        CommandError: If the mapping has other keys, or values that are no numbers.
    """
    schedules = {name: arguments[name] for name in SCHEDULES if isinstance(arguments.get(name), dict)}
    return {**arguments, **{name: _linear_schedule(name, value) for name, value in schedules.items()}}


def _linear_schedule(name: str, given: dict[str, Any]) -> Callable[[float], float]:
    from stable_baselines3.common.utils import LinearSchedule

    values = {"end": 0.0, "fraction": 1.0, **given}
    if set(values) != {"start", "end", "fraction"} or not all(isinstance(v, (int, float)) for v in values.values()):
        raise CommandError(f"--set {name} must be a number or have start, end and fraction, got {given!r}")
    return LinearSchedule(values["start"], values["end"], values["fraction"])


def make_env(env_id: str, n_envs: int, seed: int, env_args: dict[str, Any]) -> TextGenVecEnv:
    """The native batched environment of an id.

    A reward that the arguments name is imported: where they come from a file, see
    :func:`agents.saving.named_rewards.check_trust`.

    Raises:
        CommandError: If the environment refuses its arguments.
    """
    from agents.vec_env import make_vec_env

    given = with_reward(env_args)
    try:
        return make_vec_env(checked_env_id(env_id), n_envs=n_envs, seed=seed, env_kwargs=given)  # type: ignore[return-value]
    except (TypeError, ValueError, OSError, ImportError) as error:
        raise CommandError(f"--env-arg, environment {env_id}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """An exception's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
