"""The built-in objective: train DoubleDQN on a TextGym id, and play greedily on fresh episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from agents.saving.arguments import check_agent_names, constructor_arguments, make_env, merge
from agents.saving.presets import PRESETS, Preset
from agents.tuning.parallel import Report
from agents.tuning.space import Params, Space

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from agents.saving.settings import TrainSettings

DEFAULT_SPACE: dict[str, Any] = {
    "learning_rate": {"low": 2e-4, "high": 1e-2, "log": True},
    "updates_per_step": {"low": 0.005, "high": 0.16, "log": True},
    "batch_size": {"low": 16, "high": 128, "log": True, "type": "int"},
    "tau": {"low": 2e-3, "high": 0.1, "log": True},
    "exploration": ["ucb", "epsilon", "boltzmann"],
    "policy_kwargs.features_dim": [32, 64, 128],
}
"""What ``textgym tune`` searches unless told otherwise: what has decided most so far. An update costs the same whatever
the learning rate, but ``updates_per_step`` and ``features_dim`` decide how long a trial takes."""
REPORT_SHARES = (1 / 8, 1 / 4, 1 / 2)
"""Shares of the budget after which a run is evaluated; they double, as successive halving wants it."""


@dataclass(frozen=True)
class TrainObjective:
    """Mean greedy return on fresh episodes, after training :class:`agents.DoubleDQN`.

    A run with a seed is the run of ``textgym train`` with that seed, and is evaluated on the same episodes, so
    ``textgym train --config`` with the best arguments repeats its score.

    Attributes:
        env: Id of the environment.
        env_args: Its arguments.
        agent: Arguments of the agent that are not searched, over those of the id's preset.
        steps: Environment steps of a run; None for the preset's.
        n_envs: Parallel environments; None for the preset's.
        device: Torch device.
    """

    env: str
    env_args: dict[str, Any] = field(default_factory=dict)
    agent: dict[str, Any] = field(default_factory=dict)
    steps: int | None = 20_000
    n_envs: int | None = None
    device: str = "cpu"

    def settings(self, arguments: Mapping[str, Any], seed: int) -> TrainSettings:
        """Settings of a run, as those of ``textgym train``.

        Raises:
            CommandError: If the agent has no such argument, or a value is out of range.
        """
        from agents.saving.settings import resolve_settings

        return resolve_settings(
            self.env,
            env_args=self.env_args,
            agent=merge(self.agent, dict(arguments)),
            steps=self.steps,
            n_envs=self.n_envs,
            seed=seed,
            device=self.device,
        )

    def check(self, space: Space) -> None:
        """Check that the agent has the arguments that a space names.

        Raises:
            CommandError: If it has not.
        """
        first = {name: dimension.as_data() for name, dimension in space.dimensions.items()}
        check_agent_names(space.arguments(first), "--space")

    def __call__(self, arguments: dict[str, Any], seed: int, report: Report) -> float:
        """Train and evaluate, see :class:`agents.hyperparam_opt.Study`."""
        import torch

        from agents.double_dqn import DoubleDQN
        from agents.double_dqn.evaluation import evaluate
        from agents.saving.settings import EVALUATION_EPISODES

        settings = self.settings(arguments, seed)
        torch.set_num_threads(settings.threads)
        env = make_env(settings.env, settings.n_envs, seed, settings.env_args)
        rows = make_env(settings.env, 64, settings.fresh_seed, settings.env_args)

        def score(model: BaseAlgorithm) -> float:
            return float(evaluate(model, rows, EVALUATION_EPISODES, seed=settings.fresh_seed).returns.mean())

        try:
            model = DoubleDQN(
                "PerformerPolicy", env, seed=seed, device=settings.device, **constructor_arguments(settings.agent)
            )
            model.learn(settings.steps, reporting(report, score, settings.steps), log_interval=None)
            return score(model)
        finally:
            env.close()
            rows.close()

    def train_config(self, params: Params, space: Space) -> dict[str, Any]:
        """The best arguments as a file for ``textgym train --config``."""
        settings = self.settings(space.arguments(params), 0)
        return {
            "env": settings.env,
            "env_args": settings.env_args,
            "steps": settings.steps,
            "n_envs": settings.n_envs,
            "agent": self._agent(params, space),
        }

    def zoo_config(self, params: Params, space: Space) -> dict[str, Any] | None:
        """The best arguments in the form of RL Zoo's YAML files, id → arguments; None if it can't express them.

        A schedule becomes the Zoo's ``lin_<start>``, which ends at 0; it knows no other.
        """
        settings = self.settings(space.arguments(params), 0)
        agent = self._agent(params, space)
        if isinstance(rate := agent.get("learning_rate"), dict):
            if rate.get("end", 0.0) != 0.0 or rate.get("fraction", 1.0) != 1.0:
                return None
            agent["learning_rate"] = f"lin_{rate['start']}"
        entry = {"n_timesteps": settings.steps, "n_envs": settings.n_envs, "policy": "PerformerPolicy", **agent}
        return {settings.env: entry | ({"env_kwargs": settings.env_args} if settings.env_args else {})}

    def _agent(self, params: Params, space: Space) -> dict[str, Any]:
        preset = PRESETS.get(self.env, Preset())
        return merge(preset.kwargs, self.agent, space.arguments(params))


def reporting(report: Report, score: Any, steps: int) -> Any:
    """An SB3 callback that reports ``score(model)`` at :data:`REPORT_SHARES` of the steps."""
    from stable_baselines3.common.callbacks import BaseCallback

    class Reporting(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.waiting = list(REPORT_SHARES)

        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:  # between two calls of train: the last updates are in the model
            while self.waiting and self.num_timesteps >= self.waiting[0] * steps:
                report(self.waiting.pop(0), score(self.model))

    return Reporting()


def as_yaml(config: Mapping[str, Any], *comments: str) -> str:
    """YAML with comments in front."""
    lines = [f"# {comment}\n" for comment in comments]
    return "".join(lines) + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=120)
