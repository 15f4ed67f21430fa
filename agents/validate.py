"""Evaluation: greedy episodes on fresh seeds, their texts, and what the scores mean.

``python -m agents.validate`` is ``textgym validate``.
"""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from agents.double_dqn import DoubleDQN
from agents.options import checked_env_id, make_env, one_line
from agents.runs import VOCABULARY, CommandError, find_model, plain, write_text, writing
from agents.saving.checkpoint import load_checkpointed
from agents.saving.export import ModelFileError, check_tokens, export_model, load
from agents.saving.state_file import StateFileError
from agents.vec_env import TextGenVecEnv, action_masks
from textgym import TokenSequence, references, sequence_lengths

if TYPE_CHECKING:
    from rich.console import Console

FRESH_SEED = 10_000
"""Evaluation rows are seeded from here on; training rows are seeded ``seed``, ``seed + 1`` …"""
_RESAMPLES = 2_000
_TRAINED_IN = ("env", "env_args", "seed", "n_envs")


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
    quota = [(n_episodes + row) // env.num_envs for row in range(env.num_envs)]
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


def report(result: EvaluationResult, scores: Scores, n_examples: int = 8) -> str:
    """Scores and a few texts, for people."""
    low, high = scores.mean_interval
    lines = [
        f"mean return  {scores.mean:.3f}  (95 % interval {low:.3f} to {high:.3f}; {scores.episodes} episodes, "
        f"{scores.mean_length:.1f} tokens on average)",
        f"IQM          {scores.iqm:.3f}  (95 % interval {scores.iqm_interval[0]:.3f} to {scores.iqm_interval[1]:.3f})",
    ]
    if scores.normalised is None or scores.normalised_interval is None or scores.references is None:
        lines.append("normalised   unknown: references are measured for registered ids with their default arguments")
    else:
        low, high = scores.normalised_interval
        known = scores.references
        lines.append(
            f"normalised   {scores.normalised:.3f}  (95 % interval {low:.3f} to {high:.3f}; 0 is random, "
            f"{known['random']:.3f}, and 1 the best known, {known['best']:.3f}; blind to the prompt: "
            f"{known['blind']:.3f})"
        )
    lines.append("")
    lines += [sample_line(result, index) for index in result.examples(n_examples)]
    return "\n".join(lines)


def sample_line(result: EvaluationResult, index: int) -> str:
    """One episode in one line: return, prompt, completion."""
    return f"  {result.returns[index]:6.3f}  {result.prompts[index]} → {result.completions[index]}"


def load_model(path: str | Path, device: str = "auto", trust: bool = False) -> DoubleDQN:
    """Load a model that ``textgym train``, ``textgym export`` or ``DoubleDQN.save`` wrote.

    Args:
        path: An exported folder or a checkpoint, which hold numbers only; or a zip.
        device: Torch device.
        trust: Whether to open a zip: it holds pickled objects, and to unpickle is to run whatever code it brings.

    Raises:
        CommandError: If the file is no such model, or damaged, or a zip that is not trusted.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return load(path, device)
        if path.suffix == ".safetensors":
            return load_checkpointed(path, device)
    except (ModelFileError, StateFileError) as error:
        raise CommandError(one_line(error)) from error
    if not trust:
        raise CommandError(
            f"model file {path} may hold pickled objects, which run code when they are opened; --trust opens it all "
            "the same ('textgym validate', 'textgym export'); what 'textgym export' writes is safe to open"
        )
    try:
        return DoubleDQN.load(path, device=device)
    except Exception as error:  # zip, JSON, pickle and torch each fail in their own ways on damaged bytes
        reason = (str(error).splitlines() or [""])[0]
        raise CommandError(
            f"model file {path} must be a DoubleDQN saved as .zip; it can't be read: {type(error).__name__}: {reason}"
        ) from error


def validate(
    path: str | Path,
    *,
    env_id: str | None = None,
    env_args: dict[str, Any] | None = None,
    episodes: int = 256,
    seed: int = FRESH_SEED,
    device: str = "auto",
    console: Console | None = None,
    trust: bool = False,
) -> tuple[EvaluationResult, Scores]:
    """Evaluate a trained model greedily on fresh seeds.

    Args:
        path: A run folder, an exported model or a model file.
        env_id: The environment; None for the run's own.
        env_args: Its arguments; None for the run's own where the environment is, else the defaults.
        episodes: Number of episodes (≥ 1).
        seed: Row ``i`` is seeded ``seed + i``. The run's own training seeds are refused.
        device: Torch device.
        console: Where to print; None for nowhere.
        trust: See :func:`load_model`.

    Returns:
        The episodes and their scores.

    Raises:
        CommandError: If an argument is wrong, or the model can't be read.
    """
    if episodes < 1:
        raise CommandError(f"--episodes must be at least 1, got {episodes}")
    if seed < 0:
        raise CommandError(f"--seed must be at least 0, got {seed}")
    model_path, config = find_model(path)
    if env_id is None and (config is None or "env" not in config):
        raise CommandError(f"--env must name the environment: no config.yaml lies beside {model_path}")
    own = config is not None and env_id in (None, config.get("env"))
    if own:
        assert config is not None
        env_id = config["env"]
        env_args = config.get("env_args") if env_args is None else env_args
    assert env_id is not None
    env_id = checked_env_id(env_id)
    n_rows = min(64, episodes)
    if own and config is not None and isinstance(first := config.get("seed"), int):
        trained = range(first, first + int(config.get("n_envs") or 1))
        if seed < trained.stop and seed + n_rows > trained.start:
            raise CommandError(
                f"--seed must leave out the training seeds {trained.start} to {trained.stop - 1}, got {seed} "
                f"(rows use {seed} to {seed + n_rows - 1})"
            )
    env = make_env(env_id, n_rows, seed, env_args or {})
    model = load_model(model_path, device, trust)
    _check_spaces(model, env, env_id)
    check_tokens(model_path, env)
    result = evaluate(model, env, episodes, seed=seed)
    env.close()
    scores = score(result, None if env_args else env_id)
    if console is not None:
        arguments = "".join(f" {name}={value}" for name, value in (env_args or {}).items())
        console.print(f"{model_path} on {env_id}{arguments}, greedy, seeds from {seed}", markup=False, highlight=False)
        console.print(report(result, scores), markup=False, highlight=False, soft_wrap=True)
    return result, scores


def export(
    path: str | Path,
    folder: str | Path,
    env_id: str | None = None,
    env_args: dict[str, Any] | None = None,
    trust: bool = False,
) -> Path:
    """Write a model as files that are safe to open: see :mod:`agents.saving.export`.

    Args:
        path: A run folder, a checkpoint, an exported model or a model file.
        folder: A new or an empty folder.
        env_id: The environment that it was trained in; None for the run's own.
        env_args: Its arguments, in place of the run's own if ``env_id`` or any of them is given.
        trust: See :func:`load_model`.

    Raises:
        CommandError: If the model can't be read, has parts of the user's own, or can't be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CommandError(f"DIR must be a new or an empty folder, got {folder}, which has content")
    model_path, config = find_model(path)
    environment: dict[str, Any] | None = (
        None if config is None or "env" not in config else {key: config.get(key) for key in _TRAINED_IN}
    )
    if env_id is not None:
        environment = {"env": env_id, "env_args": env_args or {}}
    elif env_args and environment is not None:
        environment["env_args"] = env_args
    model = load_model(model_path, "cpu", trust)
    if environment is not None:
        env = make_env(environment["env"], 1, 0, environment.get("env_args") or {})
        _check_spaces(model, env, environment["env"])
    vocabulary = (model_path if model_path.is_dir() else model_path.parent) / VOCABULARY
    try:
        with writing("DIR", folder, "folder"):
            export_model(model, folder, environment)
            if vocabulary.is_file():  # of a model that learned from a text file
                write_text(folder / VOCABULARY, vocabulary.read_text("utf-8"))
    except ValueError as error:
        raise CommandError(f"the model in {model_path} can't be exported: {one_line(error)}") from error
    return folder


def _check_spaces(model: DoubleDQN, env: TextGenVecEnv, env_id: str) -> None:
    if model.observation_space != env.observation_space or model.action_space != env.action_space:
        raise CommandError(
            f"the model was trained on {model.observation_space}, {model.action_space}; --env {env_id} has "
            f"{env.observation_space}, {env.action_space}"
        )


def as_json(scores: Scores, result: EvaluationResult | None = None) -> dict[str, Any]:
    """Scores as plain values, with every episode if ``result`` is given."""
    value = plain(asdict(scores))
    if result is not None:
        rows = zip(result.returns.tolist(), result.lengths.tolist(), result.prompts, result.completions, strict=True)
        value["results"] = [
            {"return": total, "length": length, "prompt": prompt, "completion": completion}
            for total, length, prompt, completion in rows
        ]
    return value


if __name__ == "__main__":
    import sys

    from agents.cli import main

    main(["validate", *sys.argv[1:]])
