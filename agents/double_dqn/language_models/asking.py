"""Steering by what candidates for the next token would earn, asked of the reward itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from textgym.checks import check_at_least
from textgym.rewards import RewardFunction
from textgym.rewards.base import call_reward
from textgym.tokenizers import Tokenizer, as_tokenizer


@contextlib.contextmanager
def reward_steering(
    lm: Any, tokenizer: Any, reward: RewardFunction, strength: float = 10.0, candidates: int = 20
) -> Iterator[Any]:
    """Within the context, ``lm.generate`` writes by π ∝ π₀·exp(strength · R), R of the text so far and the token.

    Nothing is learned: it knows what a token earns at once, and not what follows. Where the reward is cheap and makes
    sense of unfinished texts, this is what learned values have to beat.

    Args:
        lm: A causal language model of ``transformers``.
        tokenizer: Its tokenizer: see :func:`textgym.tokenizers.as_tokenizer`.
        reward: ``reward(prompts, completions)``, called for every candidate.
        strength: Nats that a unit of reward adds to a candidate's log-probability (≥ 0).
        candidates: The model's likeliest tokens, which are asked about (≥ 2); the others keep their probability.

    Yields:
        ``lm``.

    Raises:
        ValueError: If an argument is out of range.
        RewardError: In ``generate``, if ``reward`` fails.
    """
    check_strength(strength)
    k, known_tokens = check_at_least("candidates", candidates, 2), as_tokenizer(tokenizer)

    def begin() -> Processor:
        asked = AskedReward(reward, known_tokens)

        def steer(input_ids: Tensor, scores: Tensor) -> Tensor:
            return add_bonus(scores, k, lambda tokens, _: strength * asked(input_ids, tokens).to(scores.device))

        return steer

    with processing(lm, begin):
        yield lm


def check_strength(strength: float) -> None:
    """Raise a ValueError unless it says how much a bonus counts."""
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 <= strength < float("inf"):
        raise ValueError(f"strength must be a finite number of at least 0, got {strength!r}")


class AskedReward:
    """A reward, asked about the rows of one call of ``generate``, which begin as the prompts, padding included.

    Args:
        reward: Takes ``(prompts, completions)``.
        tokenizer: Whose tokens the rows hold.
    """

    def __init__(self, reward: RewardFunction, tokenizer: Tokenizer) -> None:
        self.reward, self.tokenizer = reward, tokenizer
        self._width: int | None = None  # of the prompts

    def __call__(self, input_ids: Tensor, tokens: Tensor) -> Tensor:
        """:func:`rewards_with` of rows ``(n, L)`` and candidates ``(n, k)``."""
        if self._width is None:
            self._width = input_ids.shape[1]
        prompts, texts = input_ids[:, : self._width].tolist(), input_ids[:, self._width :].tolist()
        return rewards_with(self.reward, self.tokenizer, prompts, texts, tokens)


def rewards_with(
    reward: RewardFunction,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
    tokens: Tensor,
) -> Tensor:
    """Rewards of n texts with each of k tokens appended.

    Within a state that is what a token changes in the reward, up to a number that all candidates have in common.

    Args:
        reward: Takes ``(prompts, completions)``, and makes sense of texts that are not finished.
        tokenizer: Whose tokens they are.
        prompts: Token ids of n prompts.
        texts: Token ids of what follows them so far.
        tokens: Candidates, int64, shape ``(n, k)``. The end of the text changes nothing.

    Returns:
        Rewards, float32, shape ``(n, k)``.

    Raises:
        RewardError: See :func:`textgym.rewards.base.call_reward`.
    """

    def decoded(ids: Sequence[int]) -> str:
        return tokenizer.decode([token for token in ids if token != tokenizer.eos_id])

    written = [decoded([*text, token]) for text, row in zip(texts, tokens.tolist(), strict=True) for token in row]
    read = [prompt for prompt in map(decoded, prompts) for _ in range(tokens.shape[1])]
    return torch.from_numpy(call_reward(reward, read, written, {})).float().view(tokens.shape)


# ---------------------------------------------------------------------------------------------- generate

Processor = Callable[[Tensor, Tensor], Tensor]
"""Token ids ``(n, L)`` and scores of the next token ``(n, V)`` → scores, as ``generate`` calls them."""


@contextlib.contextmanager
def processing(lm: Any, begin: Callable[[], Processor]) -> Iterator[None]:
    """Within the context, each call of ``lm.generate`` has one processor of its scores more, which ``begin`` gives."""
    generate = lm.generate

    def steered_generate(*args: Any, logits_processor: Any = None, **kwargs: Any) -> Any:
        return generate(*args, logits_processor=[*(logits_processor or ()), begin()], **kwargs)

    lm.generate = steered_generate
    try:
        yield
    finally:
        del lm.generate


def add_bonus(scores: Tensor, k: int, bonus: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Log-probabilities of all tokens, of which the k likeliest share their probability by a bonus.

    Args:
        scores: Logits, shape ``(n, V)``.
        k: Number of candidates.
        bonus: The candidates ``(n, k)`` and their log-probabilities → what is added to these, ``(n, k)``.
    """
    log_probs = scores.float().log_softmax(dim=-1)
    best, tokens = log_probs.topk(min(k, scores.shape[-1]), dim=-1)
    return with_bonus(log_probs, tokens, bonus(tokens, best)).to(scores)


def with_bonus(log_probs: Tensor, tokens: Tensor, bonus: Tensor) -> Tensor:
    """Log-probabilities ``(n, V)`` after a bonus to the tokens ``(n, k)``; the others keep their probability."""
    best = log_probs.gather(1, tokens)
    steered = (best + bonus).log_softmax(dim=-1) + best.logsumexp(dim=-1, keepdim=True)
    return log_probs.scatter(1, tokens, steered)
