"""One row of the batched environment, as an ordinary ``gymnasium.Env``."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from textgym.tasks.base import Task
from textgym.vector_env import TextGenVectorEnv


class TextGenEnv(gym.Env[NDArray[np.int32], np.int64]):
    """Token-level text generation: the action is the next token, the reward a function of the text.

    Args:
        task: A task's name, class or instance; see :func:`textgym.tasks.make_task`.
        render_mode: ``"ansi"`` (text), ``"rgb_array"`` (an image), ``"human"`` (printed after every step) or None.
        **task_kwargs: Arguments of the task.

    Attributes:
        task: The task.

    Example:
        >>> import gymnasium as gym, textgym
        >>> env = gym.make("TextGen/Reverse-v0", length=3, vocab_size=4)
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(env.action_space.sample(info["action_mask"]))
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "human", "rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self, task: str | type[Task] | Task = "text_generation", *, render_mode: str | None = None, **task_kwargs: Any
    ) -> None:
        self._batch = TextGenVectorEnv(1, task, render_mode=render_mode, **task_kwargs)
        self.render_mode = self._batch.render_mode
        self.task = self._batch.task
        self.observation_space = self._batch.single_observation_space
        self.action_space = self._batch.single_action_space
        self._episode_over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int32], dict[str, Any]]:
        """Start a new episode; see :meth:`textgym.TextGenVectorEnv.reset`."""
        super().reset(seed=seed)
        self._batch.reset(seed=seed)
        self._episode_over = False
        if self.render_mode == "human":
            self.render()
        return self._observation(), self._info()

    def step(self, action: int | np.integer) -> tuple[NDArray[np.int32], float, bool, bool, dict[str, Any]]:
        """Append one token.

        Raises:
            ValueError: If the action is not an integer in [0, V).
            gymnasium.error.ResetNeeded: If the episode has ended.
        """
        if self._episode_over:
            raise gym.error.ResetNeeded("the episode is over: call reset() before step()")
        array = np.asarray(action)
        if array.size != 1:
            raise ValueError(f"action must be one integer in [0, {self.task.vocab_size}), got {action!r}")
        rewards, terminated, _, illegal = self._batch.advance(array.reshape(1))
        self._episode_over = bool(terminated[0])
        info = self._info()
        if illegal is not None:
            info["illegal_action"] = True
        if self.render_mode == "human":
            self.render()
        return self._observation(), float(rewards[0]), self._episode_over, False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Legal actions, shape ``(V,)``, bool: the form that sb3-contrib's MaskablePPO asks for."""
        return self._batch.action_masks()[0]

    def render(self) -> Any:
        """The frame of the current state; printed, not returned, in ``"human"`` mode."""
        if self.render_mode is None:
            gym.logger.warn('render() needs a render_mode, such as gym.make(id, render_mode="ansi")')
            return None
        return self._batch.render_row(0)

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what comes next, randomness included."""
        return self._batch.get_state() | {"_episode_over": self._episode_over}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that :meth:`get_state` gave."""
        state = dict(state)
        self._episode_over = state.pop("_episode_over")
        self._batch.set_state(state)

    def _observation(self) -> NDArray[np.int32]:
        return self._batch.episodes.tokens[0].copy()

    def _info(self) -> dict[str, Any]:
        if self._batch.all_legal:
            # One element, repeated by a stride of zero: as cheap for 50,000 tokens as for 16, yet new in every info.
            mask = np.ndarray((self.task.vocab_size,), np.int8, bytearray(b"\x01"), strides=(0,))
            mask.flags.writeable = False
        else:
            mask = self._batch.action_masks()[0].astype(np.int8)
        return {"action_mask": mask}
