"""What candidates for the next token would earn, asked of the reward itself instead of what was learned of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from agents.double_dqn.language_models.policy import LanguageModelPolicy
from textgym.rewards import RewardFunction
from textgym.rewards.base import call_reward
from textgym.tokenizers import Tokenizer


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


def check_asks(policy: LanguageModelPolicy, name: str) -> None:
    """Raise a ValueError unless a policy has learned what follows a token apart from what the token itself earns."""
    if not policy.candidate_rewards:
        raise ValueError(f"{name} must be None for an agent without candidate_rewards, which learned the sum of both")
