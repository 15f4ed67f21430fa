"""Logged actions taken once more in their own environment, for the rewards and masks that a text does not show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym.tasks.base import Task
from textgym.vector_env import TextGenVectorEnv

_BATCH = 256


class Replayed(NamedTuple):
    """Episodes as they went: the fields of :class:`agents.offline.episodes.TextEpisodes`, in their order."""

    tokens: NDArray[np.int32]
    action_positions: NDArray[np.int64]
    n_actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    action_masks: NDArray[np.bool_] | None


def replay_actions(
    task: Task,
    prompts: Sequence[NDArray[np.integer]],
    actions: Sequence[NDArray[np.integer]],
    seeds: Sequence[int],
) -> Replayed:
    """Take m episodes' actions in a task.

    Args:
        task: The task.
        prompts: Token ids of each episode's prompt, to make sure that it is the one that the task shows.
        actions: Actions of each episode (≥ 1); those after the episode's end are left out.
        seeds: Seed under which a single environment shows the prompt.

    Raises:
        ValueError: If a prompt is another one, or an action is none of the task's.
    """
    m, longest = len(prompts), max(len(row) for row in actions)
    tokens = np.full((m, task.context_length), task.pad_id, np.int32)
    positions = np.ones((m, longest), np.int64)
    rewards = np.zeros((m, longest), np.float32)
    n_actions = np.zeros(m, np.int64)
    terminated = np.zeros(m, np.bool_)
    masks = np.ones((m, longest + 1, task.vocab_size), np.bool_) if task.masked else None
    for start in range(0, m, _BATCH):
        chosen = np.arange(start, min(start + _BATCH, m))
        envs = TextGenVectorEnv(len(chosen), task)
        envs.reset(seed=[int(seeds[number]) for number in chosen.tolist()])
        for row, number in enumerate(chosen.tolist()):
            if not np.array_equal(envs.episodes.prompt(row), prompts[number]):
                raise ValueError(
                    f"data[{number}] must have the prompt that its seed {seeds[number]} shows, "
                    f"{task.decode(envs.episodes.prompt(row))!r}, got {task.decode(prompts[number])!r}"
                )
        lengths = np.array([len(actions[number]) for number in chosen.tolist()])
        running = np.ones(len(chosen), np.bool_)
        if masks is not None:
            masks[chosen, 0] = envs.action_masks()
        for step in range(int(lengths.max())):
            running &= step < lengths
            if not running.any():
                break
            rows = chosen[running]
            positions[rows, step] = envs.episodes.lengths[running]
            taken = np.array(
                [
                    actions[number][step] if runs else task.eos_id
                    for number, runs in zip(chosen.tolist(), running, strict=True)
                ]
            )
            observations, earned, ends, _, infos = envs.step(taken)
            ended = running & ends
            tokens[rows] = infos.get("final_obs", observations)[running]
            rewards[rows, step] = earned[running]
            n_actions[rows] = step + 1
            terminated[chosen[ended]] = True
            running &= ~ends
            if masks is not None:
                masks[chosen[running], step + 1] = envs.action_masks()[running]
    return Replayed(tokens, positions, n_actions, rewards, terminated, masks)
