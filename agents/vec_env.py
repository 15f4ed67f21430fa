"""The native batched environment as a Stable-Baselines3 ``VecEnv``."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common import env_util
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from textgym import TextGenVectorEnv, env_ids
from textgym.wrappers import VectorTopKActions

_ENVIRONMENTS: weakref.WeakSet[TextGenVecEnv] = weakref.WeakSet()


class TextGenVecEnv(VecEnv):
    """Stable-Baselines3's view of a :class:`textgym.TextGenVectorEnv`.

    It reports episodes as a ``Monitor`` does (``info["episode"]``) and answers ``env_method("action_masks")``, so
    MaskablePPO and callbacks work as with SB3's own vector environments. SB3's ``evaluate_policy`` and ``EvalCallback``
    hand no masks to the model; :class:`agents.DoubleDQN` asks the environment for them, other agents choose among all
    actions there: use :func:`agents.validate.evaluate` for these.

    Args:
        envs: The batched environment, as it is or in :class:`textgym.wrappers.VectorTopKActions`; its attributes and
            methods are reached through ``get_attr`` and ``env_method``.
    """

    actions: NDArray[np.int64]

    def __init__(self, envs: TextGenVectorEnv | VectorTopKActions) -> None:
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self._started = time.perf_counter()
        self._shown: NDArray[np.int32] | None = None  # the last observations
        _ENVIRONMENTS.add(self)

    @property
    def all_legal(self) -> bool:
        """Whether every action is legal in every state, so that masks can be ignored."""
        return self.envs.all_legal

    def reset(self) -> NDArray[np.int32]:
        """Start an episode in every row; seeds given by :meth:`seed` are used up."""
        seeds = self._seeds if any(seed is not None for seed in self._seeds) else None
        observations, infos = self.envs.reset(seed=seeds)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [{"action_mask": mask} for mask in infos["action_mask"]]
        self._shown = observations
        return observations

    def step_async(self, actions: NDArray[np.integer]) -> None:
        """Remember the actions for :meth:`step_wait`."""
        self.actions = np.asarray(actions)

    def step_wait(
        self,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Take the step; ``infos[i]`` has the mask of s′ and, at an end, what SB3's algorithms look for."""
        observations, rewards, terminated, truncated, batch_infos = self.envs.step(self.actions)
        dones = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if not self.all_legal:
            for info, mask in zip(infos, batch_infos["action_mask"], strict=True):
                info["action_mask"] = mask
        for row in dones.nonzero()[0].tolist():
            final_info = batch_infos["final_info"]
            infos[row] |= {
                "TimeLimit.truncated": bool(truncated[row]),
                "terminal_observation": batch_infos["final_obs"][row],
                "episode": {
                    "r": round(float(final_info["episode_return"][row]), 6),
                    "l": int(final_info["episode_length"][row]),
                    "t": round(time.perf_counter() - self._started, 6),
                },
            }
            if not self.all_legal:
                infos[row]["action_mask"] = final_info["action_mask"][row]
                self.reset_infos[row] = {"action_mask": batch_infos["action_mask"][row]}
            if "illegal_action" in final_info and final_info["illegal_action"][row]:
                infos[row]["illegal_action"] = True
        self._shown = observations
        return observations, rewards.astype(np.float32), dones, infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Legal actions of every row, shape ``(n_envs, V)``, bool."""
        return self.envs.action_masks()

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what comes next, randomness included.

        Raises:
            ValueError: If a wrapper is around the batched environment: a wrapper's state is not kept.
        """
        return {"envs": self._batched().get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that :meth:`get_state` gave.

        Raises:
            ValueError: As :meth:`get_state`.
        """
        self._batched().set_state(state["envs"])

    def _batched(self) -> TextGenVectorEnv:
        if not isinstance(self.envs, TextGenVectorEnv):
            raise ValueError(f"envs must be a TextGenVectorEnv without a wrapper to keep its state, got {self.envs}")
        return self.envs

    def close(self) -> None:
        """Close the batched environment."""
        self.envs.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """One frame a row."""
        return list(self.envs.render() or [None] * self.num_envs)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of the batched environment, once for each row asked for."""
        return [getattr(self.envs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the batched environment: all rows share it.

        Raises:
            ValueError: If ``indices`` names some of the rows only.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"indices must be None: all rows share the attribute {attr_name!r}, got {indices!r}")
        setattr(self.envs, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the batched environment and give each row asked for its part of the answer."""
        rows: Iterable[int] = self._get_indices(indices)
        if method_name == "get_wrapper_attr":
            return self.get_attr(method_args[0], indices)
        result = getattr(self.envs, method_name)(*method_args, **method_kwargs)
        per_row = isinstance(result, (np.ndarray, tuple, list)) and len(result) == self.num_envs
        return [result[row] if per_row else result for row in rows]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """True for ``Monitor``, whose work the adapter does; no other wrapper can be inside."""
        return [issubclass(wrapper_class, Monitor) for _ in self._get_indices(indices)]


def make_vec_env(
    env_id: str | Callable[..., gym.Env],
    n_envs: int = 1,
    seed: int | None = None,
    start_index: int = 0,
    monitor_dir: str | None = None,
    wrapper_class: Callable[[gym.Env], gym.Env] | None = None,
    env_kwargs: dict[str, Any] | None = None,
    **sb3_kwargs: Any,
) -> VecEnv:
    """SB3's ``make_vec_env``, over the native batched environment where the id is one of TextGym's.

    Args:
        env_id: A registered id (``"textgym:"`` in front is allowed) or a function that makes an environment.
        n_envs: Number of parallel rows (≥ 1).
        seed: Row ``i`` is seeded ``seed + start_index + i`` at its first reset.
        start_index: See ``seed``.
        monitor_dir: As in SB3.
        wrapper_class: As in SB3.
        env_kwargs: Arguments of the environment.
        **sb3_kwargs: SB3's other arguments (``vec_env_cls``, ``monitor_kwargs`` …). They, ``monitor_dir`` and
            ``wrapper_class`` need one Gymnasium environment a row, so with any of them the work is SB3's.

    Returns:
        A seeded ``VecEnv``.

    Raises:
        ValueError: If ``n_envs`` is below 1.
        gymnasium.error.NameNotFound: If the id is unknown.

    Example:
        >>> env = make_vec_env("TextGen/Reverse-v0", n_envs=64, seed=0, env_kwargs={"length": 4})
        >>> env.reset().shape
        (64, 10)
    """
    name = env_id.removeprefix("textgym:") if isinstance(env_id, str) else None
    if name not in env_ids() or monitor_dir or wrapper_class or any(sb3_kwargs.values()):
        return env_util.make_vec_env(
            env_id, n_envs, seed, start_index, monitor_dir, wrapper_class, env_kwargs, **sb3_kwargs
        )
    assert name is not None
    envs = TextGenVectorEnv(n_envs, **{**gym.spec(name).kwargs, **(env_kwargs or {})})
    env = TextGenVecEnv(envs)
    env.seed(int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed + start_index)
    return env


def action_masks(env: VecEnv) -> NDArray[np.bool_] | None:
    """Legal actions of every row, shape ``(n_envs, V)``, bool; None where all is legal or there are no masks."""
    if getattr(env, "all_legal", False) or not env.has_attr("action_masks"):
        return None
    return np.stack(env.env_method("action_masks"))


def rewards_of(env: VecEnv, actions: NDArray[np.integer]) -> NDArray[np.float64]:
    """What actions ``(n_envs, k)`` would earn, of the same shape: see :meth:`textgym.TextGenVectorEnv.rewards_of`."""
    return np.stack(env.env_method("rewards_of", actions))


def is_shown(observations: Any) -> bool:
    """Whether these are the last observations, the very array, of a native environment."""
    return any(env._shown is observations for env in _ENVIRONMENTS)


def masks_shown_with(observations: Any) -> NDArray[np.bool_] | None:
    """Legal actions where a native environment gave these observations, the very array, last, shape ``(n_envs, V)``.

    None where all is legal, and for observations from elsewhere.
    """
    env = next((env for env in _ENVIRONMENTS if env._shown is observations), None)
    return None if env is None else action_masks(env)


def is_deterministic(env: VecEnv) -> bool:
    """Whether an episode's tokens determine its rewards, as far as anybody knows: not where a task hides a secret."""
    return not env.has_attr("task") or all(task.deterministic for task in env.get_attr("task"))
