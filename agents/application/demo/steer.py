"""What a language model writes by an agent's values, and what it writes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from agents.application.report.tokens import step_values
from agents.application.visible import shown
from agents.double_dqn.language_models import LanguageModelPolicy
from agents.double_dqn.language_models.objectives import divergence, policy_log_probs

if TYPE_CHECKING:
    from agents.double_dqn import DoubleDQN


@dataclass(frozen=True)
class Choice:
    """One token of a text.

    Attributes:
        text: Its text.
        q: Its value; None for a token that was no candidate.
        v: The highest value of a candidate.
        mean: The candidates' mean value.
        alone: Its probability where the model writes alone.
        steered: Its probability as it was steered.
        alternatives: Token, text and value of the best candidates, best first.
        token: Its id.
    """

    text: str
    q: float | None
    v: float
    mean: float
    alone: float
    steered: float
    alternatives: tuple[tuple[int, str, float], ...]
    token: int


@dataclass(frozen=True)
class Steered:
    """A text: its tokens, the whole of it, and its divergence from the model alone, in nats."""

    choices: tuple[Choice, ...]
    text: str
    divergence: float


@torch.no_grad()
def write(model: DoubleDQN, prompt: str, strength: float = 1.0, n_tokens: int = 24, seed: int | None = None) -> Steered:
    """Go on with a prompt by π ∝ π₀·exp(strength · Q/η).

    Args:
        model: A :class:`agents.DoubleDQN` with a ``LanguageModelPolicy``.
        prompt: Any text; none leaves the beginning to the model.
        strength: How much the values count (≥ 0); 0 is the model itself.
        n_tokens: Tokens at most (≥ 1); the text may end before.
        seed: Seed of the drawing; None takes the likeliest token each time.

    Raises:
        ValueError: If an argument is out of range, or the prompt holds what the model has no token for.
    """
    policy = model.policy
    if not isinstance(policy, LanguageModelPolicy):
        raise ValueError(f"model must have a LanguageModelPolicy, got {type(policy).__name__}")
    if not 0 <= strength < math.inf:
        raise ValueError(f"strength must be a finite number of at least 0, got {strength!r}")
    if n_tokens < 1:
        raise ValueError(f"n_tokens must be at least 1, got {n_tokens!r}")
    policy.set_training_mode(False)
    random = None if seed is None else np.random.default_rng(seed)
    language, reader = policy.language_model, policy.reader()
    tokenizer: Any = language.tokenizer
    legal = None if tokenizer.allowed is None else tokenizer.allowed[None]
    tokens, total = list(tokenizer.encode(prompt)), 0.0
    choices: list[Choice] = []
    start = len(tokens)
    while len(choices) < n_tokens:
        row = np.full((1, len(tokens) + 1), reader.pad_id)
        row[0, : len(tokens)] = tokens
        states = reader.read(row, legal)
        q, prior, mass = policy.q_net.q_values(states, policy.eta)[0], states.prior()[0], states.mass[0]
        guided = policy_log_probs(strength * q, prior, policy.eta)
        total += float(divergence(guided, prior, mass))
        if random is None:
            place = int(guided.argmax())
            token = int(states.tokens[0, place])
        else:
            drawn, places, extended = reader.draw(states, guided[None].numpy(), random)
            token, place = int(drawn[0]), int(places[0])
        if place >= 0:
            alone, steered = (float(mass * log_probs[place].exp()) for log_probs in (prior, guided))
        else:  # another token, as the model would
            alone = steered = float(extended.log_probs[0, -1].exp())
        values = np.full(language.vocab_size, -np.inf)
        values[states.tokens[0].numpy()] = np.where(prior.numpy() > -np.inf, q.numpy(), -np.inf)
        said = step_values(tokenizer, values, token)
        known = said["q"] if math.isfinite(said["q"]) else None
        said = {key: said[key] for key in ("text", "v", "mean", "alternatives", "token")}
        choices.append(Choice(**said, q=known, alone=alone, steered=steered))
        tokens.append(token)
        if token == tokenizer.eos_id:
            break
    return Steered(tuple(choices), shown(tokenizer.decode(tokens[start:])), total)
