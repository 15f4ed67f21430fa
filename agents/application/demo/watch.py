"""Trained agents, and what they write on a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.application.run_folder import CONFIG, find_model
from agents.saving.arguments import checked_env_id, make_env
from agents.saving.files import CommandError
from agents.saving.named_rewards import check_trust

if TYPE_CHECKING:
    from agents.application.report.tokens import Episode
    from agents.double_dqn import DoubleDQN
    from agents.vec_env import TextGenVecEnv

MOST_AGENTS = 2


@dataclass(frozen=True)
class Agent:
    """A trained agent.

    Attributes:
        name: What the page calls it.
        model: The model.
        env_id: The id that it was trained in; None where nothing tells it, as for a steered language model.
        env_args: Its arguments.
        seed: Seed of the first prompt that it is shown, beyond those of its training.
    """

    name: str
    model: DoubleDQN
    env_id: str | None = None
    env_args: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def steers(self) -> bool:
        """Whether it steers a language model."""
        return self.model.policy_name == "LanguageModelPolicy"


def load_agents(paths: Sequence[Path], trust: bool = False) -> list[Agent]:
    """Load one agent or two, which have learned the same task.

    Args:
        paths: Run folders, exported models or model files, at most two.
        trust: See :func:`agents.application.loading.load_model`.

    Raises:
        CommandError: If there are more, a model can't be read, its environment is not known, or two differ in theirs.
    """
    if len(paths) > MOST_AGENTS:
        raise CommandError(f"RUN_OR_MODEL must be given at most twice, got {len(paths)}: {', '.join(map(str, paths))}")
    if not paths:
        return []
    from agents.application.loading import load_model  # loads torch, which playing does without
    from agents.application.report import tokens  # noqa: F401  # now, not when the page is asked for
    from agents.saving.settings import fresh_seed

    agents: list[Agent] = []
    for path in paths:
        model_path, config = find_model(path)
        config = config or {}
        model, name = load_model(model_path, "cpu", trust), _name(model_path)
        if any(agent.name == name for agent in agents):
            name = str(path)
        env_id = checked_env_id(config["env"]) if "env" in config else None
        seed = fresh_seed(config.get("seed"), config.get("n_envs"))
        agents.append(Agent(name, model, env_id, config.get("env_args") or {}, seed))
        if not trust and not agents[-1].steers:
            check_trust(agents[-1].env_args, path)
    return checked(agents)


def checked(agents: Sequence[Agent]) -> list[Agent]:
    """Agents that can stand side by side: those that steer no language model have one environment.

    Raises:
        CommandError: If an environment is not known or not the model's, or there are two.
    """
    writers = [agent for agent in agents if not agent.steers]
    for agent in writers:
        if agent.env_id is None:
            raise CommandError(
                f"RUN_OR_MODEL must be a model whose environment is known, got {agent.name}, which does not tell it"
            )
        env = make_env(agent.env_id, 1, 0, agent.env_args)
        env.close()
        if (agent.model.observation_space, agent.model.action_space) != (env.observation_space, env.action_space):
            raise CommandError(f"the model {agent.name} must fit {agent.env_id}, got {agent.model.observation_space}")
    if len(writers) == MOST_AGENTS and len({(one.env_id, repr(sorted(one.env_args.items()))) for one in writers}) > 1:
        first, second = (f"{agent.env_id} {agent.env_args or ''}".strip() for agent in writers)
        raise CommandError(f"the second RUN_OR_MODEL must be of the first one's environment, {first}, got {second}")
    return list(agents)


def write(agent: Agent, seed: int, slips: bool = False) -> Episode:
    """What an agent writes on a prompt: see :func:`agents.application.report.tokens.play`.

    Args:
        agent: An agent that steers no language model.
        seed: Seed of the prompt (≥ 0): agents of one environment get the same.
        slips: Whether some tokens are random.

    Raises:
        ValueError: If ``seed`` is negative.
    """
    from agents.application.report.tokens import play

    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    assert agent.env_id is not None
    env: TextGenVecEnv = make_env(agent.env_id, 1, seed, agent.env_args)
    try:
        return play(agent.model, env, seed, [slips])[0]
    finally:
        env.close()


def _name(model_path: Path) -> str:
    """The run's name, or the model's own."""
    runs = (model_path.parent, model_path.parent.parent)  # of an exported model and of a checkpoint
    return next((folder for folder in runs if (folder / CONFIG).is_file()), model_path).resolve().name
