"""What candidates for the next token would earn, asked of the reward itself instead of what was learned of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from agents.double_dqn.language_models.policy import LanguageModelPolicy
from agents.double_dqn.language_models.reader import Known
from textgym.rewards import RewardFunction
from textgym.rewards.base import call_reward
from textgym.tokenizers import Tokenizer


def known_with(
    reward: RewardFunction,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
    tokens: Tensor,
) -> Known:
    """What a reward says of n texts, and of each of them with each of k tokens appended; an empty text counts as 0.

    Args:
        reward: Takes ``(prompts, completions)``, and makes sense of texts that are not finished.
        tokenizer: Whose tokens they are.
        prompts: Token ids of n prompts.
        texts: Token ids of what follows them so far.
        tokens: Candidates, int64, shape ``(n, k)``. The end of the text changes nothing.

    Raises:
        RewardError: See :func:`textgym.rewards.base.call_reward`.
    """

    def decoded(ids: Sequence[int]) -> str:
        return tokenizer.decode([token for token in ids if token != tokenizer.eos_id])

    rows = zip(texts, tokens.tolist(), strict=True)
    written = [text for so_far, row in rows for text in (decoded(so_far), *(decoded([*so_far, one]) for one in row))]
    read = [prompt for prompt in map(decoded, prompts) for _ in range(1 + tokens.shape[1])]
    rewards = torch.from_numpy(call_reward(reward, read, written, {})).float().view(len(tokens), -1)
    lengths = torch.tensor([len(text) for text in texts], dtype=torch.float32)
    earned = torch.where(lengths > 0, rewards[:, 0], 0.0)
    return Known(rewards[:, 1:] - earned.unsqueeze(1), earned, lengths)


def check_asks(policy: LanguageModelPolicy, name: str) -> None:
    """Raise a ValueError unless a policy has learned what follows a token apart from what the token itself earns."""
    if not policy.candidate_rewards:
        raise ValueError(f"{name} must be None for an agent without candidate_rewards, which learned the sum of both")
