"""What a trained model thinks of every token: values, alternatives and rewards of fresh episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.application.visible import shown
from agents.double_dqn import DoubleDQN
from agents.vec_env import TextGenVecEnv, action_masks
from textgym import Task, TokenSequence, sequence_lengths
from textgym.tokenizers import Tokenizer

N_ALTERNATIVES = 5
SLIP_PROBABILITY = 0.2
"""In every other episode a token is, with this probability, a random legal one: the best tokens all have advantage 0,
and how a value falls after a slip, and what the model makes of it, is what a reader wants to see."""


@dataclass(frozen=True)
class Step:
    """One token of a completion.

    Attributes:
        token: The action.
        text: Its text.
        q: Value of the token, Q(s, a).
        v: Value of the state, the highest Q of a legal token (of a candidate of a language model).
        mean: The mean Q of these tokens.
        runner_up: The highest Q of the *other* legal tokens; None where there is none.
        reward: What the environment paid for it.
        td_error: reward + γ · (value of the next state, 0 at the end) − Q(s, a).
        slip: Whether the token was drawn at random.
        alternatives: Token, text and Q of the best legal tokens, best first.
        reply: What the environment wrote after it, as text; empty for nothing.
    """

    token: int
    text: str
    q: float
    v: float
    mean: float
    runner_up: float | None
    reward: float
    td_error: float
    slip: bool
    alternatives: tuple[tuple[int, str, float], ...]
    reply: str = ""

    @property
    def advantage(self) -> float:
        """Q(s, a) − max Q(s, ·): 0 for the best token, else what the choice is thought to cost."""
        return self.q - self.v

    @property
    def advantage_over_mean(self) -> float:
        """Q(s, a) − mean Q(s, ·): what the choice is thought to gain over a random legal token."""
        return self.q - self.mean


@dataclass(frozen=True)
class Episode:
    """A prompt, its completion token by token, and the return; ``slips`` says whether some tokens were random."""

    prompt: str
    steps: tuple[Step, ...]
    total: float
    slips: bool
    observation: NDArray[np.int32]


def play(model: DoubleDQN, env: TextGenVecEnv, seed: int, slips: Sequence[bool] | None = None) -> list[Episode]:
    """One episode in each row, greedy or with slips.

    Args:
        model: The trained model.
        env: Its environment.
        seed: Row ``i`` is seeded ``seed + i``; the slips follow from it too.
        slips: Which rows have slips, shape ``(n,)``; None for the odd ones.

    Returns:
        As many episodes as there are rows.

    Raises:
        ValueError: If the observations are not token sequences.
    """
    space = env.observation_space
    if not isinstance(space, TokenSequence):
        raise ValueError(f"env must have TokenSequence observations, got {space}")
    random = np.random.default_rng(seed)
    task, n = env.get_attr("task")[0], env.num_envs
    may_slip = np.arange(n) % 2 == 1 if slips is None else np.asarray(slips, bool)
    env.seed(seed)
    observations: Any = env.reset()
    prompt_lengths = sequence_lengths(observations, space.pad_id)
    prompts = [shown(task.decode(row[:end])) for row, end in zip(observations, prompt_lengths, strict=True)]
    recorded: list[list[dict[str, Any]]] = [[] for _ in range(n)]
    finals: list[NDArray[np.int32] | None] = [None] * n
    state, starts = None, np.ones(n, np.bool_)
    while any(final is None for final in finals):
        masks = action_masks(env)
        q_values = model.action_values(observations, masks)
        greedy, state = model.predict(observations, state, starts, deterministic=True, action_masks=masks)
        legal = np.isfinite(q_values)
        slipped = may_slip & (random.random(n) < SLIP_PROBABILITY)
        drawn = np.where(legal, random.random(q_values.shape), -1.0).argmax(axis=1)
        actions = np.where(slipped, drawn, greedy)
        before = sequence_lengths(observations, space.pad_id)
        step: Any = env.step(actions)
        following, rewards, ended, infos = step
        starts = ended
        for row in (row for row in range(n) if finals[row] is None):
            text = infos[row]["terminal_observation"] if ended[row] else following[row]
            reply = text[before[row] + 1 :]
            recorded[row].append(
                step_values(task, q_values[row], int(actions[row]))
                | {
                    "reward": float(rewards[row]),
                    "slip": bool(slipped[row]),
                    "reply": shown(task.decode(reply[reply != space.pad_id])),
                }
            )
            if ended[row]:
                finals[row] = text.copy()
        observations = following
    return [
        Episode(
            prompts[row],
            _with_errors(recorded[row], model.gamma),
            sum(step["reward"] for step in recorded[row]),
            any(step["slip"] for step in recorded[row]),
            final,
        )
        for row, final in enumerate(finals)
        if final is not None
    ]


def step_values(texts: Task | Tokenizer, q_values: NDArray[np.float64], action: int) -> dict[str, Any]:
    """What :class:`Step` says of a token and its alternatives.

    Args:
        texts: Knows the text of each token.
        q_values: Of every action, shape ``(V,)``, −inf where it is illegal.
        action: The token.
    """
    n_legal = int(np.isfinite(q_values).sum())
    best = np.argsort(-q_values, kind="stable")[: min(N_ALTERNATIVES, n_legal)].tolist()
    others = np.delete(q_values, action)
    runner_up = float(others.max()) if others.size and np.isfinite(others.max()) else None
    return {
        "token": action,
        "text": shown(texts.token_text(action)),
        "q": float(q_values[action]),
        "v": float(q_values.max()),
        "mean": float(q_values[np.isfinite(q_values)].mean()),
        "runner_up": runner_up,
        "alternatives": tuple((token, shown(texts.token_text(token)), float(q_values[token])) for token in best),
    }


def _with_errors(steps: list[dict[str, Any]], gamma: float) -> tuple[Step, ...]:
    following = [step["v"] for step in steps[1:]] + [0.0]
    return tuple(
        Step(**step, td_error=step["reward"] + gamma * value - step["q"])
        for step, value in zip(steps, following, strict=True)
    )


def as_plain(episodes: list[Episode]) -> list[dict[str, Any]]:
    """Episodes as JSON values for the page's script, numbers to four digits."""

    def rounded(value: float | None) -> float | None:
        return None if value is None else float(f"{value:.4g}")

    return [
        {
            "prompt": episode.prompt,
            "total": rounded(episode.total),
            "slips": episode.slips,
            "steps": [
                {
                    "text": step.text,
                    "q": rounded(step.q),
                    "v": rounded(step.v),
                    "advantage": rounded(step.advantage),
                    "margin": None if step.runner_up is None else rounded(step.q - step.runner_up),
                    "reward": rounded(step.reward),
                    "td": rounded(step.td_error),
                    "slip": step.slip,
                    "best": [[text, rounded(q), token == step.token] for token, text, q in step.alternatives],
                    "reply": step.reply,
                }
                for step in episode.steps
            ],
        }
        for episode in episodes
    ]
