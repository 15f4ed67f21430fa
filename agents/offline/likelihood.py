"""How well a model's Q-values foretell a text: agreement, perplexity at a fitted temperature, the texts themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.double_dqn import DoubleDQN
from agents.double_dqn.losses import state_positions
from agents.double_dqn.policies import SequencePolicy
from agents.offline.episodes import TextEpisodes
from agents.replay.episodes import EpisodeBatch, EpisodeReplayBuffer
from textgym.tasks.base import Task

_BATCH = 64
_FIT_ACTIONS = 4_096


@dataclass(frozen=True)
class TextScores:
    """How well a text is foretold.

    Attributes:
        texts: Number of texts.
        actions: Tokens foretold.
        agreement: Share of the tokens that are the greedy action.
        temperature: τ of the policy softmax(Q / τ) that finds the first few thousand tokens most likely.
        perplexity: exp of the mean negative log-likelihood of a token under that policy.
        mean_return: Mean of the texts' returns.
        mean_value: Mean Q-value of the tokens.
        log_likelihoods: Mean log-likelihood of a token of each text, shape ``(m,)``.
        agreements: Share of greedy tokens of each text, shape ``(m,)``.
        returns: Undiscounted return of each text, shape ``(m,)``.
    """

    texts: int
    actions: int
    agreement: float
    temperature: float
    perplexity: float
    mean_return: float
    mean_value: float
    log_likelihoods: NDArray[np.float64]
    agreements: NDArray[np.float64]
    returns: NDArray[np.float64]

    def summary(self) -> dict[str, Any]:
        """The figures that are single numbers."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, np.ndarray)}


@torch.no_grad()
def score_texts(model: DoubleDQN, episodes: TextEpisodes, ignore: int | None = None) -> TextScores:
    """Compare a model's Q-values with texts.

    Args:
        model: With a policy for sequences.
        episodes: The texts; see :func:`agents.offline.text_to_episodes`.
        ignore: A token that does not count where the text has it, such as the one that stands for unknown words.

    Raises:
        ValueError: If nothing counts.
    """
    assert isinstance(model.policy, SequencePolicy)
    model.policy.set_training_mode(False)
    temperature = 0.0  # not known yet
    parts: list[tuple[NDArray, NDArray, NDArray, NDArray]] = []
    fit: list[tuple[Tensor, Tensor]] = []
    for _ in range(2):  # once for the temperature, from the first tokens, and once for all
        for batch in _batches(model, episodes):
            valid = batch.valid if ignore is None else batch.valid & (batch.actions != ignore)
            features = model.policy.q_net.features_at(batch.tokens, state_positions(batch)[:, :-1])
            head = model.policy.q_net.head
            values_t = head(features)  # (B, T, V)
            # Of bounded values, the logits: after a classifier's objective it is they that are meant.
            q_t = values_t if head.value_range is None else head.ensemble_logits(features).mean(dim=-2)
            if batch.action_masks is not None:
                legal = batch.action_masks[:, :-1].scatter(-1, batch.actions.unsqueeze(-1), True)
                q_t = q_t.masked_fill(~legal, -torch.inf)
            if not temperature:
                fit.append((q_t[valid], batch.actions[valid]))
                if sum(len(actions) for _, actions in fit) >= _FIT_ACTIONS:
                    break
                continue
            of_text = q_t.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
            log_likelihood = of_text / temperature - (q_t / temperature).logsumexp(dim=-1)
            hits = q_t.argmax(dim=-1) == batch.actions
            of_text = values_t.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
            parts.append(tuple(x.cpu().numpy() for x in (log_likelihood, hits, of_text, valid)))  # type: ignore[arg-type]
        if not temperature:
            q_values, actions = (torch.cat(column) for column in zip(*fit, strict=True))
            if not len(actions):
                raise ValueError("episodes must hold a token that counts, got none")
            temperature = fit_temperature(q_values[:_FIT_ACTIONS], actions[:_FIT_ACTIONS])
    sums = [
        np.concatenate([np.where(part[3], part[column], 0).sum(axis=1, dtype=np.float64) for part in parts])
        for column in range(4)
    ]
    likelihoods, hits_, values, counts = sums
    returns = episodes.rewards.sum(axis=1, dtype=np.float64)
    n = counts.sum()
    each = np.maximum(counts, 1)
    return TextScores(
        texts=len(episodes),
        actions=int(n),
        agreement=float(hits_.sum() / n),
        temperature=temperature,
        perplexity=float(np.exp(-likelihoods.sum() / n)),
        mean_return=float(returns.mean()),
        mean_value=float(values.sum() / n),
        log_likelihoods=likelihoods / each,
        agreements=hits_ / each,
        returns=returns,
    )


def fit_temperature(q_values: Tensor, actions: Tensor) -> float:
    """The τ in [1e-4, 1e4] for which softmax(Q / τ) finds the actions most likely.

    The likelihood is concave in 1/τ, so bisection of its slope finds the best.

    Args:
        q_values: Values of all actions, shape ``(n, V)``.
        actions: The actions, shape ``(n,)``.
    """
    chosen = q_values.gather(1, actions.unsqueeze(1)).mean()
    finite = q_values.masked_fill(q_values == -torch.inf, 0.0)
    low, high = np.log(1e-4), np.log(1e4)
    for _ in range(40):
        middle = (low + high) / 2
        expected = ((q_values * np.exp(middle)).softmax(dim=1) * finite).sum(dim=1).mean()
        low, high = (middle, high) if expected < chosen else (low, middle)
    return float(np.exp(-(low + high) / 2))


@torch.no_grad()
def continue_prompts(model: DoubleDQN, task: Task, episodes: TextEpisodes, chosen: NDArray[np.integer]) -> list[str]:
    """What the model writes, greedily, after the prompts of some texts; the environment's replies are not asked for."""
    tokens = np.full((len(chosen), task.context_length), task.pad_id, np.int32)
    starts = episodes.action_positions[chosen, 0]
    for row, number in enumerate(chosen.tolist()):
        tokens[row, : starts[row]] = episodes.tokens[number, : starts[row]]
    lengths, running, state = starts.copy(), np.ones(len(chosen), np.bool_), None
    for _ in range(task.max_new_tokens):
        running &= lengths < task.context_length
        if not running.any():
            break
        actions, state = model.predict(tokens, state=state, deterministic=True)
        rows = running.nonzero()[0]
        tokens[rows, lengths[rows]] = actions[rows]
        lengths[rows] += 1
        running &= actions != task.eos_id
    return [task.decode(row[start:]) for row, start in zip(tokens, starts, strict=True)]


def _batches(model: DoubleDQN, episodes: TextEpisodes) -> Iterator[EpisodeBatch]:
    """The episodes in their order, as batches."""
    for start in range(0, len(episodes), _BATCH):
        rows = slice(start, start + _BATCH)
        part = episodes.take(rows)
        size = int(part.n_actions.sum())
        replay = EpisodeReplayBuffer(size, model.observation_space, model.action_space, model.device)
        part.store(replay)
        yield replay._get_samples(np.arange(len(part)))
