"""Minari: demonstrations as a data set that any offline library reads, and its data sets as rows to learn from."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

import textgym
from textgym.demonstrations import Demonstrations
from textgym.env import TextGenEnv
from textgym.rewards.base import require
from textgym.spaces import sequence_lengths

if TYPE_CHECKING:
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer

_PACKAGE = "minari[hdf5]==0.5.4"


def write_minari(dataset_id: str, shown: Demonstrations) -> MinariDataset:
    """Write demonstrations as a Minari data set, where Minari keeps its own (``MINARI_DATASETS_PATH``).

    Each step holds the observation (a row of token ids), the action, the reward and the end; each episode its seed:
    the one under which the environment shows the prompt. The environment, its reference scores and this version of
    TextGym are part of the data set.

    Args:
        dataset_id: Minari's name for it, ``(namespace/)name-v0``; one that does not exist yet.
        shown: See :func:`textgym.demonstrations`.

    Returns:
        The data set, a ``minari.MinariDataset``.

    Raises:
        ModuleNotFoundError: If Minari is not installed.
        ValueError: If ``dataset_id`` is malformed or taken, ``shown`` is something else, or ``MINARI_DATASETS_PATH`` is
            a relative path.
    """
    minari = require("minari", _PACKAGE, "write_minari()")
    require("h5py", _PACKAGE, "write_minari()")
    if not isinstance(shown, Demonstrations):
        raise ValueError(f"shown must be textgym.demonstrations(...), got {shown!r:.80}")
    if not isinstance(dataset_id, str) or not _is_id(dataset_id):
        raise ValueError(f"dataset_id must be a name such as 'textgym/reverse-v0', got {dataset_id!r}")
    place = os.environ.get("MINARI_DATASETS_PATH", "")
    if place and not os.path.isabs(place):  # Minari 0.5.4 would look for its own files in the wrong folder
        raise ValueError(f"MINARI_DATASETS_PATH must be an absolute path, got {place!r}")
    env = gym.make(shown.env_id, **shown.env_kwargs)
    known = None if shown.env_kwargs else textgym.references(shown.env_id)
    noise = f", each token replaced with probability {shown.error_rate:g}" if shown.error_rate else ""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # of metadata that only a publisher knows
        return minari.create_dataset_from_buffers(
            dataset_id,
            _episodes(shown, env.unwrapped),
            env=env if _is_plain(env) else None,
            observation_space=env.observation_space,
            action_space=env.action_space,
            algorithm_name="the oracle of the task",
            description=f"{shown.n} episodes of {shown.env_id} from seed {shown.seed} on{noise}",
            ref_min_score=None if known is None else known.random,
            ref_max_score=None if known is None else known.best,
            requirements=[f"textgym=={textgym.__version__}"],
        )


def open_minari(data: Any) -> MinariDataset | None:
    """The Minari data set that is meant, if one is.

    Args:
        data: A ``minari.MinariDataset``; the path of one (its folder, or ``data`` in there); or the id of one that
            Minari finds on this machine. Nothing is downloaded.

    Returns:
        The data set, or None where ``data`` is none of these.

    Raises:
        ModuleNotFoundError: If ``data`` is the path of a data set and Minari is not installed.
    """
    if type(data).__module__.startswith("minari."):
        return data if type(data).__name__ == "MinariDataset" else None
    if not isinstance(data, (str, os.PathLike)):
        return None
    for folder in (os.path.join(data, "data"), os.fspath(data)):
        if os.path.isfile(os.path.join(folder, "metadata.json")):
            return require("minari", _PACKAGE, f"the data set {folder}").MinariDataset(folder)
    if os.path.exists(data) or not isinstance(data, str) or not _is_id(data):
        return None
    try:
        import minari

        return minari.load_dataset(data)
    except (ModuleNotFoundError, FileNotFoundError):
        return None


def minari_rows(dataset: MinariDataset) -> Iterator[dict[str, Any]]:
    """The episodes of a data set of one of TextGym's environments, in the form that ``learn_from_text`` reads.

    Yields:
        One mapping an episode: ``prompt_tokens`` ``(P,)``, ``completion_tokens`` ``(C,)`` (replies included) and
        ``is_action`` ``(C,)``; ``reward``, one for each action; ``terminated``; and ``seed``, None where none was
        recorded. The texts, ``prompt`` and ``completion``, are empty: the tokens say it all.

    Raises:
        ValueError: If the data set is of another kind of environment, or an episode is not a growing row of tokens.
    """
    space, actions = dataset.observation_space, dataset.action_space
    if not (
        isinstance(space, gym.spaces.Box)
        and len(space.shape) == 1
        and space.dtype.kind == "i"
        and isinstance(actions, gym.spaces.Discrete)
    ):
        raise ValueError(f"data must be a Minari data set of rows of token ids, got {space} with actions {actions}")
    pad_id = int(space.high.max())
    seeds = [one.get("seed") for one in dataset.storage.get_episode_metadata(dataset.episode_indices)]
    for episode, seed in zip(dataset.iterate_episodes(), seeds, strict=True):
        rows = np.asarray(episode.observations, np.int32)  # (T + 1, L)
        written = np.asarray(episode.actions, np.int64).ravel()  # (T,)
        lengths = sequence_lengths(rows, pad_id)
        places = lengths[:-1]
        whole = rows[-1, : lengths[-1]]
        grown = len(written) and (lengths[1:] > places).all() and np.array_equal(whole[places], written)
        if not grown or places[0] == 0 or not np.array_equal(rows[0, : places[0]], whole[: places[0]]):
            raise ValueError(f"data must hold rows of tokens that grow by their actions, got episode {episode.id}")
        yield {
            "prompt": "",
            "completion": "",
            "prompt_tokens": whole[: places[0]],
            "completion_tokens": whole[places[0] :],
            "is_action": np.isin(np.arange(places[0], len(whole)), places),
            "reward": np.asarray(episode.rewards, np.float64).tolist(),
            "terminated": bool(episode.terminations[-1]),
            "seed": None if seed is None else int(seed),
        }


def _is_id(name: str) -> bool:
    return re.fullmatch(r"(?:[-\w][-\w/]*[-\w]/)?[-\w]+-v\d+", name) is not None


def _is_plain(env: gym.Env[Any, Any]) -> bool:
    """Whether Minari can write the environment down: not with a reward function of one's own."""
    try:
        assert env.spec is not None
        env.spec.to_json()
    except (TypeError, ValueError):
        return False
    return True


def _episodes(shown: Demonstrations, env: Any) -> Iterator[EpisodeBuffer]:
    """The demonstrations once more, step by step."""
    from minari.data_collector import EpisodeBuffer

    assert isinstance(env, TextGenEnv)
    for number, one in enumerate(shown):
        observation, _ = env.reset(seed=shown.seed + number)
        observations, rewards, terminations, truncations = [observation], [], [], []
        actions = one.completion_tokens[one.is_action].astype(np.int64)
        for action in actions:
            observation, reward, terminated, truncated, _ = env.step(action)
            observations.append(observation)
            rewards.append(reward)
            terminations.append(terminated)
            truncations.append(truncated)
        yield EpisodeBuffer(
            id=number,
            seed=shown.seed + number,
            observations=list(observations),
            actions=list(actions),
            rewards=rewards,
            terminations=terminations,
            truncations=truncations,
        )
