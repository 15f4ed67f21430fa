"""Learning from text: the network of a DoubleDQN, its replay, its optimizer, and no environment."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.type_aliases import Schedule

from agents.double_dqn import DoubleDQN
from agents.double_dqn.targets import monte_carlo_returns
from agents.offline.episodes import RewardSource, TextEpisodes, text_to_episodes
from agents.offline.learner import OfflineProgress, TextCheckpoints
from agents.offline.learners import learner_of
from agents.offline.losses import (
    DEFAULT_CONSERVATISM,
    DEFAULT_EXPECTILE,
    DEFAULT_SHARPNESS,
    OBJECTIVES,
    OF_LOGITS,
    OfflineObjective,
)
from agents.offline.rehearsal import DEFAULT_SHARE, Rehearsal, empty_texts
from textgym.checks import check_at_least
from textgym.tasks.base import Task

_RECENT = 100
_ROUNDING = 1e-4
_EPOCHS = 10


@dataclass(frozen=True)
class OfflineResult:
    """What was learned from.

    Attributes:
        episodes: Number of texts, or pieces of texts.
        actions: Number of tokens learned from.
        updates: Updates made.
        first_loss: Mean loss of the first hundredth of the updates.
        loss: Mean loss of the last hundredth.
    """

    episodes: int
    actions: int
    updates: int
    first_loss: float
    loss: float


def learn_from_text(
    model: DoubleDQN,
    data: Any,
    *,
    objective: str | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    learning_rate: float | Schedule | None = None,
    reward: RewardSource = None,
    prompt_tokens: int = 1,
    window: int | None = None,
    conservatism: float | None = None,
    expectile: float | None = None,
    sharpness: float | None = None,
    other_reward: float | None = None,
    prioritized: bool = False,
    rehearsal: float | None = None,
    callback: Callable[[OfflineProgress], bool | None] | None = None,
    checkpoints: TextCheckpoints | None = None,
) -> OfflineResult:
    """Learn Q-values from texts, without a step in any environment.

    ``learn_from_text(model, rows)`` and ``model.learn(steps)`` is all that pretraining takes. The texts go into the
    model's own replay, from which newer episodes push them out; and with a ``rehearsal`` they stay a part of every
    online batch as well, with their cross-entropy, which is what keeps the agent from unlearning them (see there).
    Everything that replay holds is learned from, so an agent may look at texts in between, too. To make use from the
    first step on of what was learned, build the model with ``learning_starts=0`` and a small
    ``exploration_initial_eps``.

    On transitions (``"MlpPolicy"``, on token rows or on vectors of a :class:`agents.StateEmbedding`) each token of a
    text becomes a transition in replay, and the objectives are the same but for ``"mc"``. Target networks that are
    copied at long intervals online follow at a rate of 0.01 an update here. A ``LanguageModelPolicy`` reads the texts
    once, and learns from them what it learns online: ``"soft_q"`` or ``"ilql"``.

    The objectives, of which all but the last two learn what actions are worth:

    * ``"td"``: the temporal-difference loss of online learning. A target asks for the best action, in the data or not,
      so it takes data that show what bad actions earn.
    * ``"cql"``: beside it, the cross-entropy of the data's actions, which keeps the values of all others down
      (arXiv:2006.04779).
    * ``"ilql"``: implicit Q-learning of tokens (arXiv:2206.11871). A state's value is an expectile of the values of
      the data's actions, a target is reward plus the next state's value, so no other action is ever rated; and the
      cross-entropy as in ``"cql"``. The paper acts by the logits of a second, cloned network plus β(Q − V). Here the
      cross-entropy's actions are weighted by exp(β A/σ) instead (advantage-weighted regression, arXiv:1910.00177, as in
      arXiv:2110.06169), so that Q itself ranks the actions by behaviour *and* advantage, and acting needs one network
      and no new code.
    * ``"mc"``: Q is the return that the text went on to earn: of the data's policy, not the best one.
    * ``"crr"``: critic-regularised regression (arXiv:2006.15134): behaviour cloning in which an action counts for
      exp(β A/σ), at most 1. State values of the data's policy (``expectile`` ½) tell which actions turned out badly: a
      text's next state follows from its action, so that A is reward plus the next value less this one. Q is left to be
      the policy's logits, so that values and imitation don't pull at the same numbers.
    * ``"bc"``: behaviour cloning, the baseline, which takes no notice of rewards.

    What the last two leave are logits, not values: the order of the actions is right for ``predict``, but their scale
    is not that of returns. They warn, as ``learn`` would take them for values.

    Discount, n-step targets, Double-Q, lower bound, target network and the norm of gradients are the model's own.
    The model's seed decides everything random: the same model, data and arguments give the same weights.

    Args:
        model: With any policy but one for images or dictionaries.
        data: See :func:`agents.offline.rows.read_rows`; or episodes, from :func:`text_to_episodes`.
        objective: See above. None for ``"ilql"``, or a ``LanguageModelPolicy``'s own.
        steps: Updates (≥ 0); not together with ``epochs``.
        epochs: Texts learned from, in multiples of all texts. 10 where ``steps`` is not given either.
        batch_size: Texts in an update; None for the model's.
        learning_rate: Learning rate, or a function of the remaining progress (from 1 to 0); None for the model's, at
            its start.
        reward: Who pays, see :func:`text_to_episodes`.
        prompt_tokens: See :func:`text_to_episodes`.
        window: See :func:`text_to_episodes`.
        conservatism: Weight of the cross-entropy (≥ 0); None for 1 with ``"cql"``, ``"ilql"`` and ``"crr"``, and 0
            with ``"td"`` and ``"mc"``.
        expectile: Of ``"ilql"`` and ``"crr"``, in (0, 1): how near a state's value is to that of the best action in
            the data. None for 0.8 with ``"ilql"`` and ½, the mean, with ``"crr"``.
        sharpness: β of ``"ilql"`` and ``"crr"`` (≥ 0), in standard deviations of the advantage. None for 1 and 2.
        other_reward: What every other token than the text's earns, and ends the text with. 0 together with rewards of
            1 a token makes prediction of the next token a task of its own; None says nothing of other tokens.
        prioritized: Whether texts with large errors are learned from more often. Errors of noisy data are often noise.
        rehearsal: Part of every batch of a later ``model.learn`` that is drawn from these texts, in [0, 1). Temporal
            differences alone soon forget: nothing then keeps down the values of actions that the texts do not show.
            None for ½ with ``"cql"`` and ``"ilql"`` on sequences, and 0 elsewhere. ``model.rehearsal = None`` ends it.
        callback: Called after each update; False ends the learning.
        checkpoints: Where the state is kept, so that learning that was killed can be gone on with.

    Returns:
        What was learned from, and the losses.

    Raises:
        ValueError: If an argument is out of range or of no use to the model, or its replay is too small for the data.
        agents.double_dqn.health.NumericalError: If a loss is NaN or infinite.
        agents.saving.checkpoint_folder.CheckpointError: If the checkpoint is of other arguments.

    Example:
        >>> from agents import DoubleDQN, make_vec_env
        >>> from textgym import demonstrations
        >>> env = make_vec_env("TextGen/Reverse-v0", n_envs=8, seed=0, env_kwargs={"length": 2})
        >>> model = DoubleDQN("PerformerPolicy", env, seed=0, learning_starts=0)
        >>> result = learn_from_text(model, demonstrations("TextGen/Reverse-v0", n=64, length=2), steps=10)
        >>> (result.episodes, result.actions)
        (64, 192)
        >>> model = model.learn(100)
    """
    kind = learner_of(model)
    accepted = kind.objectives(model)
    if objective is None:
        objective = "ilql" if "ilql" in accepted else accepted[0]
    if objective not in accepted:
        whose = f" for {model.policy_name}" if objective in OBJECTIVES else ""
        raise ValueError(f"objective must be one of {', '.join(accepted)}{whose}, got {objective!r}")
    if not kind.rehearses and rehearsal:
        raise ValueError(f"rehearsal must be 0 or None for {model.policy_name}, got {rehearsal}")
    given = {"conservatism": conservatism, "expectile": expectile, "sharpness": sharpness, "other_reward": other_reward}
    for name in kind.unused:
        if given[name] is not None:
            raise ValueError(f"{name} must be None for {model.policy_name}, got {given[name]}")
    conservatism = DEFAULT_CONSERVATISM.get(objective, 0.0) if conservatism is None else conservatism
    expectile = DEFAULT_EXPECTILE.get(objective, 0.5) if expectile is None else expectile
    sharpness = DEFAULT_SHARPNESS.get(objective, 0.0) if sharpness is None else sharpness
    share = (DEFAULT_SHARE.get(objective, 0.0) if kind.rehearses else 0.0) if rehearsal is None else rehearsal
    _check_ranges(steps, epochs, conservatism, expectile, sharpness, share)
    if objective in OF_LOGITS and share:
        raise ValueError(f"rehearsal must be 0 for objective {objective!r}, which leaves no values, got {share}")
    if objective in OF_LOGITS and other_reward is not None:
        raise ValueError(
            f"other_reward must be None for objective {objective!r}, which leaves no values, got {other_reward}"
        )
    batch_size = check_at_least("batch_size", model.batch_size if batch_size is None else batch_size, 1)

    if isinstance(data, TextEpisodes):
        episodes = data
    else:
        episodes = text_to_episodes(data, task_of(model), reward=reward, prompt_tokens=prompt_tokens, window=window)
    n_actions = int(episodes.n_actions.sum())
    if n_actions > model.buffer_size:
        raise ValueError(
            f"data must fit into replay: buffer_size of the model must be at least {n_actions}, got {model.buffer_size}"
        )
    kind.store(model, episodes)
    _check_returns(kind.value_range(model), episodes, model.gamma)

    what = OfflineObjective(
        objective,
        model.gamma,
        model.n_steps,
        model.double_q,
        model.lower_bound,
        conservatism,
        expectile,
        sharpness,
        other_reward,
    )
    updates = (
        math.ceil((_EPOCHS if epochs is None else epochs) * len(episodes) / batch_size) if steps is None else steps
    )
    schedule = model.lr_schedule(1.0) if learning_rate is None else learning_rate
    learner = kind(model, what, updates, batch_size, schedule, prioritized)
    losses = learner.learn(callback, checkpoints)
    model.rehearsal = None
    if share:
        texts = empty_texts(n_actions, model.replay_buffer, model.seed)
        episodes.store(texts)
        # Implicit Q-learning has a head of its own for state values, which ends here.
        model.rehearsal = Rehearsal(texts, replace(what, name="cql" if objective == "ilql" else objective), share)
    if objective in OF_LOGITS and losses:
        warnings.warn(
            f"objective {objective!r} leaves logits in the place of Q-values: predict() is fine, but learn() would "
            "take them for returns (objectives td, cql, ilql and mc leave values)",
            stacklevel=2,
        )
    recent = max(1, len(losses) // _RECENT)
    first, last = losses[:recent], losses[-recent:]
    mean = [sum(part) / len(part) if part else math.nan for part in (first, last)]
    return OfflineResult(len(episodes), n_actions, len(losses), *mean)


def task_of(model: DoubleDQN) -> Task:
    """The task of a model's environment, whose tokens the model speaks.

    Raises:
        ValueError: If the model has no environment, or one without a task.
    """
    env = model.env
    if env is None or not env.has_attr("task"):
        raise ValueError(
            f"model must have an environment of TextGym, whose tokens the texts are to be encoded in, got {env}"
        )
    task = env.get_attr("task")[0]
    assert isinstance(task, Task)
    return task


def _check_returns(value_range: tuple[float, float] | None, episodes: TextEpisodes, gamma: float) -> None:
    """Warn where texts earn what bounded values can't be."""
    if value_range is None:
        return
    valid = np.arange(episodes.rewards.shape[1]) < episodes.n_actions[:, None]
    returns = monte_carlo_returns(torch.from_numpy(episodes.rewards), torch.from_numpy(valid), gamma)
    lowest, highest = min(0.0, float(returns.min())), max(0.0, float(returns.max()))
    low, high = value_range
    if highest > high + _ROUNDING or lowest < low - _ROUNDING:
        warnings.warn(
            f"returns of the texts range from {lowest:.4g} to {highest:.4g}, and the model's values from {low:.4g} to "
            f'{high:.4g}: those beyond count as the bound; give the model another value_range, or loss="huber"',
            stacklevel=3,
        )


def _check_ranges(
    steps: int | None, epochs: float | None, conservatism: float, expectile: float, sharpness: float, rehearsal: float
) -> None:
    if steps is not None and epochs is not None:
        raise ValueError(f"steps={steps} and epochs={epochs} exclude one another: leave one of them out")
    if steps is not None:
        check_at_least("steps", steps, 0)
    if epochs is not None and not 0 < epochs < math.inf:
        raise ValueError(f"epochs must be greater than 0, got {epochs}")
    if not 0 <= conservatism < math.inf:
        raise ValueError(f"conservatism must be at least 0, got {conservatism}")
    if not 0 < expectile < 1:
        raise ValueError(f"expectile must lie between 0 and 1, got {expectile}")
    if not 0 <= sharpness < math.inf:
        raise ValueError(f"sharpness must be at least 0, got {sharpness}")
    if not 0 <= rehearsal < 1:
        raise ValueError(f"rehearsal must be at least 0 and less than 1, got {rehearsal}")
