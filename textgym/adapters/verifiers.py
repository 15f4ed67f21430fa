"""verifiers: any id as one of its multi-turn environments, to evaluate and to train language models on."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from textgym.adapters.text_steps import TextSteps
from textgym.checks import check_at_least
from textgym.rewards.base import require
from textgym.tasks.base import Task

_PACKAGE = "verifiers==0.3.1"
_EPISODE = "textgym_episode"
_RETURN = "textgym_return"


def verifiers_environment(
    id_or_task: str | type[Task] | Task, n: int = 1000, n_eval: int = 100, seed: int = 0, **kwargs: Any
) -> Any:
    """An environment for verifiers whose rollouts play episodes, and earn their returns.

    The system message holds the instructions, the first user message the prompt; an assistant message is a message of
    :class:`textgym.adapters.TextSteps`, and what the environment replies is the next user message. A row's
    ``info["seed"]`` fixes the episode, so the rollouts of a group see the same one. A rollout that is cut short (by
    ``max_turns``, an error of the model) earns the return so far, or the task's floor where nothing was written.

    Args:
        id_or_task: A registered id, or a task.
        n: Rows to train on (≥ 1).
        n_eval: Rows to evaluate on (≥ 1); their seeds follow those of the others.
        seed: Seed of the first row (≥ 0); the others count up from there.
        **kwargs: Arguments of the environment or task.

    Returns:
        A ``verifiers.MultiTurnEnv``, with the metric ``refused``: whether a message could not be read or held an
        illegal token.

    Raises:
        ModuleNotFoundError: If verifiers is not installed.
        ValueError: If the id is unknown, or an argument is out of range.
    """
    n, n_eval, seed = check_at_least("n", n, 1), check_at_least("n_eval", n_eval, 1), check_at_least("seed", seed, 0)
    steps = TextSteps(id_or_task, **kwargs)
    datasets = require("datasets", _PACKAGE, "verifiers_environment()")

    def rows(first: int, count: int) -> Any:
        made = [_row(steps, one) for one in range(first, first + count)]
        return datasets.Dataset.from_list(made)

    environment = _environment_class()
    name = id_or_task if isinstance(id_or_task, str) else type(steps.task).__name__
    # Functions: rows are made where they are asked for.
    return environment(steps.task, lambda: rows(seed, n), lambda: rows(seed + n, n_eval), name)


load_environment = verifiers_environment
"""The name by which ``verifiers.load_environment("textgym.adapters.verifiers", id_or_task=...)`` finds it."""


def _row(steps: TextSteps, seed: int) -> dict[str, Any]:
    prompt = [
        {"role": "system", "content": steps.instructions},
        {"role": "user", "content": steps.reset(seed=seed)},
    ]
    return {"prompt": prompt, "answer": "", "info": {"seed": seed}}


async def episode_return(state: Any) -> float:
    """The return of a rollout's episode."""
    return float(state[_RETURN])


async def refused(state: Any) -> float:
    """1.0 where a message was refused, else 0.0."""
    return float(state[_EPISODE].info["refusal"] is not None)


@cache
def _environment_class() -> Any:
    """A subclass of verifiers', which exists where that is installed."""
    vf = require("verifiers", _PACKAGE, "verifiers_environment()")

    base: Any = vf.MultiTurnEnv

    class TextGymEnv(base):
        """Rollouts that are episodes."""

        def __init__(self, task: Task, dataset: Any, eval_dataset: Any, env_id: str) -> None:
            rubric = vf.Rubric(funcs=[episode_return, refused], weights=[1.0, 0.0])
            super().__init__(dataset=dataset, eval_dataset=eval_dataset, rubric=rubric, env_id=env_id)
            self._task = task

        async def setup_state(self, state: Any) -> Any:
            state[_EPISODE] = TextSteps(self._task)
            state[_EPISODE].reset(seed=int(state["info"]["seed"]))
            floor = self._task.reward_range[0]
            state[_RETURN] = float(floor) if np.isfinite(floor) else 0.0
            return state

        async def env_response(self, messages: Any, state: Any, **_: Any) -> Any:
            if len(state["trajectory"]) == 1:
                state[_RETURN] = 0.0
            answer, reward, over, _, info = state[_EPISODE].step(_content(messages[-1]))
            state[_RETURN] += reward
            reply = [{"role": "user", "content": answer or f"Go on: {' '.join(info['legal'][:64])}"}]
            if over:
                reply[0]["content"] = answer or "The episode is over."
                state["final_env_response"] = reply
            return reply

    return TextGymEnv


def _content(message: Any) -> str:
    """The text of a message; what a model called or thought is none of it."""
    content = message["content"] if isinstance(message, dict) else message.content
    if isinstance(content, list):
        parts = (part if isinstance(part, dict) else part.model_dump() for part in content)
        content = "".join(part.get("text") or "" for part in parts)
    return content or ""
