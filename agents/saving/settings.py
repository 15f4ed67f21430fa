"""Settings of a training run: what ``config.yaml`` holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.double_dqn.defaults import as_before
from agents.double_dqn.evaluation import FRESH_SEED
from agents.saving.arguments import (
    agent_defaults,
    check_agent_arguments,
    checked_env_id,
    merge,
)
from agents.saving.files import CommandError, read_yaml_mapping
from agents.saving.presets import POLICY_PRESETS, PRESETS, Preset

EVALUATION_EPISODES = 256
DEFAULT_THREADS = 1
"""Torch threads. The networks are small: two threads on two cores that other processes used as well took ten to fifty
times as long as one (they wait for each other), and one gives the same numbers on every machine."""
_LEARNING = ("max_staleness", "weights_every", "vector_steps", "cpus", "n_learners")
ACTOR_SETTINGS = ("engine", "n_actors", "address", *_LEARNING)
"""Arguments of :class:`agents.distributed.Actors` that a run may have; ``"engine"`` is always there."""
LOCAL = "local"
"""The engine without actors."""
POLICIES = ("PerformerPolicy", "TransformerPolicy", "GRUPolicy", "LanguageModelPolicy", "EncoderPolicy")
"""Policies of which a run can be resumed."""
_RECORDED = ("versions", "command", "offline")
"""Keys of ``config.yaml`` that tell about the run without deciding what it does."""


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides what a training run does; ``config.yaml`` is this.

    Attributes:
        env: Id of the environment.
        env_args: Its arguments.
        agent: All arguments of :class:`agents.DoubleDQN`.
        steps: Environment steps.
        minutes: Stop after so many minutes, if the steps are not used up by then; None for no limit.
        n_envs: Parallel environments.
        seed: Seed of everything; training rows are seeded ``seed`` to ``seed + n_envs - 1``.
        threads: Torch threads.
        device: Torch device.
        actors: Who acts in place of this process, see :data:`ACTOR_SETTINGS`; None for nobody.
        policy: The agent's policy, one of :data:`POLICIES`.
        eval_args: Arguments of the environment that are others in evaluation, such as held-out prompts.
    """

    env: str
    env_args: dict[str, Any]
    agent: dict[str, Any]
    steps: int
    minutes: float | None
    n_envs: int
    seed: int
    threads: int
    device: str
    actors: dict[str, Any] | None = None
    policy: str = "PerformerPolicy"
    eval_args: dict[str, Any] = field(default_factory=dict)

    @property
    def fresh_args(self) -> dict[str, Any]:
        """Arguments of the environment in evaluation."""
        return self.env_args | self.eval_args

    @property
    def fresh_seed(self) -> int:
        """Seed of evaluation rows, beyond all training seeds."""
        return fresh_seed(self.seed, self.n_envs)


def fresh_seed(seed: int | None, n_envs: int | None) -> int:
    """Seed of evaluation rows, beyond those of a training with so many rows; None where a file does not say."""
    return (seed or 0) + max(FRESH_SEED, n_envs or 1)


def resolve_settings(
    env: str | None = None, config: str | Path | None = None, env_args: dict[str, Any] | None = None, **options: Any
) -> TrainSettings:
    """Settings from, each over the one before: the id's preset, a configuration file, the options.

    Args:
        env: Id of the environment; None to take the configuration's.
        config: A YAML file with keys of :class:`TrainSettings`, such as an earlier run's ``config.yaml``.
        env_args: Arguments of the environment.
        **options: Other attributes of :class:`TrainSettings`; None where not given.

    Raises:
        CommandError: If a key is unknown or a value out of range.
    """
    fields = TrainSettings.__dataclass_fields__
    file = {} if config is None else read_yaml_mapping(config)
    for key in file:
        if key not in fields and key not in _RECORDED:
            raise CommandError(f"--config {config} has the unknown key {key!r}; accepted: {', '.join(fields)}")
    for key in ("env_args", "eval_args", "agent"):
        if not isinstance(file.get(key, {}), dict):
            raise CommandError(f"--config {config}: {key} must be a mapping of names to values, got {file[key]!r}")
    if "versions" in file and "agent" in file:  # a run's own file names every argument that there was
        file["agent"] = as_before(file["agent"])
    env = env if env is not None else file.get("env")
    if env is None:
        raise CommandError("ID must name an environment (or --config a file that has one); see 'textgym list'")
    env = checked_env_id(env)
    if "env" in file and checked_env_id(file["env"]) != env:
        raise CommandError(f"ID must be that of --config, {file['env']}, got {env}")
    given = {key: value for key, value in options.items() if value is not None and key != "agent"}
    policy = given.get("policy", file.get("policy", "PerformerPolicy"))
    if policy not in POLICIES:
        raise CommandError(f"policy must be one of {', '.join(POLICIES)}, got {policy!r}")
    preset = PRESETS.get(env, Preset()) if policy == "PerformerPolicy" else POLICY_PRESETS.get(policy, Preset())
    base = {"steps": preset.steps, "n_envs": preset.n_envs, "minutes": None, "seed": 0, "device": "auto"}
    values = {**base, "threads": DEFAULT_THREADS, **{key: file[key] for key in file if key in fields}, **given}
    values["env"] = env
    values["env_args"] = merge(file.get("env_args", {}), env_args or {})
    layers = [({} if "agent" in file else preset.kwargs, "the preset")]
    layers += [(file.get("agent", {}), f"--config {config}: agent"), (options.get("agent") or {}, "--set")]
    for layer, source in layers:  # each on its own, so that an error names where the argument comes from
        check_agent_arguments(layer, source, policy)
    values["agent"] = agent_defaults(policy) | merge(*(layer for layer, _ in layers))
    for name, least in (("steps", 1), ("n_envs", 1), ("threads", 1), ("seed", 0)):
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise CommandError(f"--{name.replace('_', '-')} must be an integer of at least {least}, got {value!r}")
    values["actors"] = _actors(file.get("actors"), options.get("actors"), config)
    minutes = values["minutes"]
    if minutes is not None and not (isinstance(minutes, (int, float)) and minutes > 0):
        raise CommandError(f"--minutes must be greater than 0, got {minutes!r}")
    return TrainSettings(**values)


def _actors(file: Any, options: dict[str, Any] | None, config: str | Path | None) -> dict[str, Any] | None:
    """Settings of the actors; None where this process acts itself."""
    if file is not None and not isinstance(file, dict):
        raise CommandError(f"--config {config}: actors must be a mapping of names to values or null, got {file!r}")
    values = {"engine": LOCAL, **(file or {}), **(options or {})}
    for name in values:
        if name not in ACTOR_SETTINGS:
            raise CommandError(
                f"--config {config}: actors has the unknown key {name!r}; accepted: {', '.join(ACTOR_SETTINGS)}"
            )
    if values["engine"] != LOCAL:
        return values
    if options is not None and options.keys() - {"engine"}:
        given = ", ".join(f"{name}={value}" for name, value in options.items() if name != "engine")
        raise CommandError(f"--engine must be threads or ray for options of actors, got {LOCAL} with {given}")
    return None
