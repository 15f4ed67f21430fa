"""Evaluation: greedy episodes on fresh seeds, their texts, and what the scores mean."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from agents.vec_env import action_masks
from textgym import TokenSequence, references, sequence_lengths

FRESH_SEED = 10_000
"""Evaluation rows are seeded from here on; training rows are seeded ``seed``, ``seed + 1`` …"""


_RESAMPLES = 2_000


@dataclass(frozen=True)
class EvaluationResult:
    """Finished episodes, row by row in the order in which they were played.

    Attributes:
        returns: Undiscounted return of each episode, shape ``(n,)``, float64.
        lengths: Actions in each episode, shape ``(n,)``, int64.
        prompts: Their prompts, as text.
        completions: What was written, as text (with the environment's replies, where a task has them).
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    prompts: list[str]
    completions: list[str]

    def examples(self, n: int) -> list[int]:
        """Indices of ``n`` telling episodes: from the best, around the median, and from the worst, in that order."""
        order = np.argsort(-self.returns, kind="stable").tolist()
        n = min(n, len(order))
        best = -(-n // 3)
        worst = min(best, n - best)
        middle = n - best - worst
        start = (len(order) - middle) // 2
        return order[:best] + order[start : start + middle] + order[len(order) - worst :]


@dataclass(frozen=True)
class Scores:
    """Statistics of an evaluation.

    Attributes:
        episodes: Number of episodes.
        mean: Mean return.
        mean_interval: 95 % bootstrap interval of the mean.
        iqm: Interquartile mean: the mean of the middle half of the returns.
        iqm_interval: 95 % bootstrap interval of the interquartile mean.
        mean_length: Mean number of actions.
        normalised: ``(mean - random) / (best - random)``; None without references.
        normalised_interval: 95 % bootstrap interval of it; None without references.
        references: Reference scores ``random``, ``blind`` and ``best``; None where none are known.
    """

    episodes: int
    mean: float
    mean_interval: tuple[float, float]
    iqm: float
    iqm_interval: tuple[float, float]
    mean_length: float
    normalised: float | None
    normalised_interval: tuple[float, float] | None
    references: dict[str, float] | None

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Scores:
        """The scores in a record of ``result.json``, where intervals are lists."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            value = record[field.name]
            values[field.name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)


def quotas(n_episodes: int, n_rows: int) -> list[int]:
    """How many episodes each row plays: settled before, or short episodes would be played more often than long ones."""
    return [(n_episodes + row) // n_rows for row in range(n_rows)]


def evaluate(
    model: Any, env: VecEnv, n_episodes: int, *, seed: int | None = None, deterministic: bool = True
) -> EvaluationResult:
    """Play episodes with a trained model, masks honoured.

    As in SB3's ``evaluate_policy``, each row plays its share of the episodes and no more: to take whichever episodes
    end first would favour short ones.

    Args:
        model: A :class:`agents.DoubleDQN` or any other SB3 model.
        env: A ``VecEnv`` with :class:`textgym.TokenSequence` observations; it is reset first.
        n_episodes: Number of episodes (≥ 1).
        seed: Row ``i`` is seeded ``seed + i``; None goes on with the environment's own random streams.
        deterministic: Whether to take the best action rather than to explore.

    Raises:
        ValueError: If ``n_episodes`` is below 1, or the observations are not token sequences.
    """
    space = env.observation_space
    if not isinstance(space, TokenSequence):
        raise ValueError(f"env must have TokenSequence observations, got {space}")
    if n_episodes < 1:
        raise ValueError(f"n_episodes must be at least 1, got {n_episodes}")
    if seed is not None:
        env.seed(seed)
    task = env.get_attr("task")[0]
    takes_masks = "action_masks" in inspect.signature(model.predict).parameters
    quota = quotas(n_episodes, env.num_envs)
    episodes: list[list[tuple[float, int, str, str]]] = [[] for _ in quota]

    observations: Any = env.reset()
    prompt_lengths = sequence_lengths(observations, space.pad_id)
    starts = np.ones(env.num_envs, np.bool_)
    returns, lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64)
    state = None
    while any(len(done) < share for done, share in zip(episodes, quota, strict=True)):
        masks = action_masks(env) if takes_masks else None
        options = {} if masks is None else {"action_masks": masks}
        actions, state = model.predict(
            observations, state=state, episode_start=starts, deterministic=deterministic, **options
        )
        observations, rewards, starts, infos = env.step(actions)
        returns += rewards
        lengths += 1
        ended = starts.nonzero()[0]
        for row in ended.tolist():
            if len(episodes[row]) < quota[row]:
                tokens, split = infos[row]["terminal_observation"], prompt_lengths[row]
                texts = task.decode(tokens[:split]), task.decode(tokens[split:])
                episodes[row].append((float(returns[row]), int(lengths[row]), *texts))
        prompt_lengths[ended] = sequence_lengths(observations[ended], space.pad_id)
        returns[ended], lengths[ended] = 0.0, 0
    flat = [episode for row in episodes for episode in row]
    return EvaluationResult(
        np.array([episode[0] for episode in flat]),
        np.array([episode[1] for episode in flat], np.int64),
        [episode[2] for episode in flat],
        [episode[3] for episode in flat],
    )


def score(result: EvaluationResult, env_id: str | None = None, seed: int = 0) -> Scores:
    """Mean and interquartile mean with 95 % percentile bootstrap intervals, and the normalised score.

    The interquartile mean is rliable's (arXiv:2108.13264). The bootstrap is done here, because rliable's draws from
    NumPy's global random state, so that its ``random_state`` does not make it repeatable.

    Args:
        result: The episodes.
        env_id: The id whose references apply; None for none.
        seed: Seed of the bootstrap.
    """
    from rliable.metrics import aggregate_iqm
    from scipy.stats import trim_mean

    returns = result.returns
    drawn = np.random.default_rng(seed).integers(len(returns), size=(_RESAMPLES, len(returns)))
    samples = returns[drawn]  # (resamples, n)
    mean_interval = _interval(samples.mean(axis=1))
    mean = float(returns.mean())
    known = None if env_id is None else references(env_id)
    return Scores(
        episodes=len(returns),
        mean=mean,
        mean_interval=mean_interval,
        iqm=float(aggregate_iqm(returns[:, None])),
        iqm_interval=_interval(trim_mean(samples, 0.25, axis=1)),
        mean_length=float(result.lengths.mean()),
        normalised=None if known is None else known.normalise(mean),
        normalised_interval=None
        if known is None
        else (known.normalise(mean_interval[0]), known.normalise(mean_interval[1])),
        references=None if known is None else {"random": known.random, "blind": known.blind, "best": known.best},
    )


def _interval(statistics: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(statistics, (0.025, 0.975))
    return float(low), float(high)


def sample_line(result: EvaluationResult, index: int) -> str:
    """One episode in one line: return, prompt, completion."""
    return f"  {result.returns[index]:6.3f}  {result.prompts[index]} → {result.completions[index]}"
