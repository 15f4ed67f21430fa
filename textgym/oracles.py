"""Exact answers on small tasks, to measure approximate ones by: the optimum of KL-regularised text generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textgym.checks import check_at_least, check_positive
from textgym.language_models import LanguageModel
from textgym.prefix_tree import Layer, advance, follow, legal, solve
from textgym.registration import ENVIRONMENTS
from textgym.tasks import make_task
from textgym.tasks.base import Episodes, Task
from textgym.vector_env import TextGenVectorEnv

PriorFunction = Callable[[NDArray[np.int32]], ArrayLike]


class SoftValues(NamedTuple):
    """What the optimal policy attains; ``value = reward - eta * kl``.

    Attributes:
        value: Regularised value, in units of reward.
        reward: Expected return.
        kl: Kullback-Leibler divergence of its texts from the prior's, in nats (≥ 0).
    """

    value: float
    reward: float
    kl: float


class SoftOptimum:
    """The optimal policy of a task under a KL penalty; made by :func:`soft_optimal`, which explains the arguments.

    Attributes:
        task: The task.
        prior: What the policy is kept close to; None for the uniform distribution over legal tokens.
        eta: Weight of the penalty.
        max_states: Most prefixes that one question may lead to.
    """

    def __init__(self, task: Task, prior: LanguageModel | PriorFunction | None, eta: float, max_states: int) -> None:
        if not task.deterministic:
            raise ValueError(
                f"task must show what decides its rewards, and {type(task).__name__} hides it (deterministic is False)"
            )
        if not (prior is None or isinstance(prior, LanguageModel) or callable(prior)):
            raise ValueError(f"prior must be a language model, a function of token ids or None, got {prior!r}")
        self.task, self.prior, self.eta = task, prior, check_positive("eta", eta)
        self.max_states = check_at_least("max_states", max_states, 1)

    def prompt(self, seed: int = 0, episode: int = 0) -> SoftOptimalPrompt:
        """The optimum for one prompt; nothing is computed before it is asked for.

        Args:
            seed: Seed under which a single environment shows the prompt: row ``i`` of a batch that was reset with
                ``seed`` shows that of ``seed + i``.
            episode: Number of the episode after that reset (≥ 0).

        Raises:
            ValueError: If an argument is out of range.
        """
        envs = TextGenVectorEnv(1, self.task)
        envs.reset(seed=check_at_least("seed", seed, 0))
        for _ in range(check_at_least("episode", episode, 0)):
            envs.reset()
        return SoftOptimalPrompt(self, envs.episodes)

    def mean(self, n_prompts: int, seed: int = 0) -> SoftValues:
        """What the optimal policy attains on average over the prompts of ``seed`` to ``seed + n_prompts - 1``.

        Args:
            n_prompts: Number of prompts (≥ 1); equal ones are solved once.
            seed: Seed of the first one.

        Raises:
            ValueError: If an argument is out of range, or a prompt has more than ``max_states`` prefixes.
        """
        envs = TextGenVectorEnv(check_at_least("n_prompts", n_prompts, 1), self.task)
        envs.reset(seed=check_at_least("seed", seed, 0))
        solved: dict[bytes, SoftValues] = {}
        texts = [envs.episodes.prompt(row).tobytes() for row in range(n_prompts)]
        for row, text in enumerate(texts):
            if text not in solved:
                solved[text] = SoftOptimalPrompt(self, envs.episodes.take(np.array([row]))).values()
        return SoftValues(*np.mean([solved[text] for text in texts], axis=0).tolist())

    def solve(self, episodes: Episodes) -> list[Layer]:
        """The tree of one row's continuations; see :func:`textgym.prefix_tree.solve`."""
        return solve(self.task, episodes, self.log_prior, self.eta, self.max_states)

    def log_prior(self, episodes: Episodes, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The prior's log-probabilities over legal tokens, shape ``(n, V)``; -inf for all others."""
        if self.prior is None:
            given = np.zeros(masks.shape)
        elif isinstance(self.prior, LanguageModel):
            # As elsewhere, ids of a model are those of the task; what it does not know has no probability.
            known = self.prior.log_probs(episodes.tokens, episodes.lengths)[:, : masks.shape[1]]
            given = np.full(masks.shape, -np.inf)
            given[:, : known.shape[1]] = known
        else:
            given = np.empty(masks.shape)
            for row in range(len(given)):
                answer = np.asarray(self.prior(episodes.tokens[row, : episodes.lengths[row]].copy()), np.float64)
                if answer.shape != given[row].shape:
                    raise ValueError(
                        f"prior must return log-probabilities of shape {given[row].shape}, got shape {answer.shape}"
                    )
                given[row] = answer
        given = np.where(masks, given, -np.inf)
        highest = given.max(axis=1, keepdims=True)
        wrong = ~np.isfinite(highest[:, 0])  # a NaN is the maximum, too
        if wrong.any():
            row = int(wrong.argmax())
            text = self.task.decode(episodes.tokens[row, : episodes.lengths[row]])
            raise ValueError(
                f"prior must give a finite log-probability to some legal token, and neither NaN nor infinity to any, "
                f"got {highest[row, 0]} after {text!r}"
            )
        return given - highest - np.log(np.exp(given - highest).sum(axis=1, keepdims=True))


class SoftOptimalPrompt:
    """The optimal policy for the completions of one prompt.

    Every method takes a ``prefix``: the actions taken so far, token ids, shape ``(t,)``; none by default. It raises a
    ValueError if the prefix holds an illegal action or ends the episode, or if more than ``max_states`` prefixes go on
    from there: a longer one may still be solved.

    Attributes:
        tokens: Token ids of the prompt, int32, shape ``(P,)``.
    """

    def __init__(self, optimum: SoftOptimum, start: Episodes) -> None:
        self._optimum, self._start = optimum, start
        self._trees: dict[tuple[int, ...], list[Layer]] = {}
        self.tokens = start.prompt(0).copy()

    def values(self, prefix: ArrayLike = ()) -> SoftValues:
        """Value, expected return and KL of what is yet to come."""
        layer, row = self._find(prefix)
        return SoftValues(*layer.values[row].tolist())

    def value(self, prefix: ArrayLike = ()) -> float:
        """``V(s) = eta * log Σ_a π0(a|s) * exp(Q(s, a) / eta)``, in units of reward."""
        return self.values(prefix).value

    def expected_reward(self, prefix: ArrayLike = ()) -> float:
        """Expected sum of the rewards yet to come under the optimal policy."""
        return self.values(prefix).reward

    def kl(self, prefix: ArrayLike = ()) -> float:
        """KL of the rest of the text under the optimal policy from that under the prior, in nats, summed over steps."""
        return self.values(prefix).kl

    def q_values(self, prefix: ArrayLike = ()) -> NDArray[np.float64]:
        """``Q(s, a) = r(s, a) + V(s')``, shape ``(V,)``; -inf for what is illegal or has no prior probability."""
        return self._dense(prefix, "q_values")

    def log_probs(self, prefix: ArrayLike = ()) -> NDArray[np.float64]:
        """Log-probabilities of the optimal policy, shape ``(V,)``: ``log π0(a|s) + (Q(s, a) - V(s)) / eta``."""
        return self._dense(prefix, "log_probs")

    def prior_log_probs(self, prefix: ArrayLike = ()) -> NDArray[np.float64]:
        """Log-probabilities of the prior over legal tokens, shape ``(V,)``."""
        return self._dense(prefix, "prior")

    def _dense(self, prefix: ArrayLike, name: str) -> NDArray[np.float64]:
        layer, row = self._find(prefix)
        own = slice(layer.starts[row], layer.starts[row + 1])
        result = np.full(self._optimum.task.vocab_size, -np.inf)
        result[layer.actions[own]] = getattr(layer, name)[own]
        return result

    def _find(self, prefix: ArrayLike) -> tuple[Layer, int]:
        """Layer and row of a prefix; what has not been solved yet is solved now."""
        array = np.asarray(prefix if np.size(prefix) else np.zeros(0, np.int64))
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(f"prefix must be a row of token ids, got {prefix!r}")
        actions = tuple(array.tolist())
        for known in range(len(actions), -1, -1):
            tree = self._trees.get(actions[:known])
            if tree is not None and (row := follow(tree, actions[known:])) >= 0:
                return tree[len(actions) - known], row
        self._trees[actions] = self._optimum.solve(self._play(actions))
        return self._trees[actions][0], 0

    def _play(self, actions: Sequence[int]) -> Episodes:
        """The state after some actions."""
        task, episodes = self._optimum.task, self._start
        for place, action in enumerate(actions):
            if not 0 <= action < task.vocab_size or not legal(task, episodes)[0, action]:
                raise ValueError(f"prefix must hold legal tokens, got {action} at place {place} of {list(actions)}")
            _, ended, episodes = advance(task, episodes, np.array([action]))
            if ended[0]:
                raise ValueError(f"prefix must not end the episode, got {list(actions)}, which ends at place {place}")
        return episodes


def soft_optimal(
    task: str | type[Task] | Task,
    prior: LanguageModel | PriorFunction | None = None,
    eta: float = 0.1,
    *,
    max_states: int = 1_000_000,
    **task_kwargs: Any,
) -> SoftOptimum:
    """The exact optimum of expected return less ``eta`` times the KL divergence from a prior, by dynamic programming.

    On texts, whose transitions are deterministic, ``V(s) = eta * log Σ_a π0(a|s) * exp(Q(s, a) / eta)`` with
    ``Q(s, a) = r(s, a) + V(s')`` and 0 for ended texts, and the optimal policy is ``π0(a|s) * exp((Q(s, a) - V(s)) /
    eta)`` (Todorov 2006; for language models arXiv:2502.20548). So a whole text has a probability in proportion to
    ``π0(text) * exp(return / eta)``. Towards ``eta = 0`` the best return is what counts, towards infinity the prior.

    Args:
        task: A registered id, or a task's name, class or instance as :func:`textgym.make_task` takes them. It has to be
            deterministic and small: all its texts are enumerated.
        prior: A language model whose ids are the task's (:mod:`textgym.language_models`), or a function from prompt
            and completion so far, token ids of shape ``(t,)``, to log-probabilities, shape ``(V,)``, -inf allowed.
            Both are restricted to legal tokens and normalised. None for the uniform distribution over legal tokens.
        eta: Weight of the divergence, in units of reward per nat (above 0).
        max_states: Most prefixes, ended texts included, that are enumerated for one question; each takes up to 100
            bytes and some ten microseconds.
        **task_kwargs: Arguments of the task.

    Returns:
        An object whose ``prompt(seed)`` answers for one prompt, and whose ``mean(n_prompts)`` for many.

    Raises:
        ValueError: If an argument is out of range, or the task hides what decides its rewards.

    Example:
        >>> optimum = soft_optimal("TextGen/StarGraph-v0", eta=0.25, masked=True)
        >>> shown = optimum.prompt(seed=0)
        >>> shown.values()  # the prior finds the goal once in five times
        SoftValues(value=0.615..., reward=0.931..., kl=1.265...)
        >>> round(0.25 * float(np.log(0.8 + 0.2 * np.exp(1 / 0.25))), 3)
        0.615
    """
    row = next((row for row in ENVIRONMENTS if isinstance(task, str) and row.id == task.removeprefix("textgym:")), None)
    if row is not None:
        task, task_kwargs = row.task, {**row.kwargs, **task_kwargs}
    return SoftOptimum(make_task(task, **task_kwargs), prior, eta, max_states)
