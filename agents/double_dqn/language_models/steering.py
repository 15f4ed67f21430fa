"""Steering ``generate`` of a ``transformers`` model by what a head has learned."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from agents.double_dqn.language_models.asking import AskedReward, Processor, add_bonus, check_strength, processing
from agents.double_dqn.language_models.policy import LanguageModelPolicy
from agents.double_dqn.language_models.reader import States
from textgym.rewards import RewardFunction

if TYPE_CHECKING:
    from agents.double_dqn.base import LearningAgent


@contextlib.contextmanager
def steering(
    model: LearningAgent, lm: Any, strength: float = 1.0, reward: RewardFunction | None = None
) -> Iterator[Any]:
    """Within the context, ``lm.generate`` writes by π ∝ π₀·exp(strength · Q/η).

    The trunk is not run a second time: the hidden state is taken where ``generate`` hands it to the last layer. Only
    a trunk with adapters (``lora``) is: it reads each token beside ``lm``, whose probabilities stay the plain ones.

    Args:
        model: A :class:`agents.DoubleDQN` with a :class:`LanguageModelPolicy`.
        lm: A causal language model of ``transformers``, of the same weights as the one that was learned on.
        strength: How much the values count (≥ 0); 0 is the model itself.
        reward: The reward that was learned, ``reward(prompts, completions)``, if it is cheap enough to be asked at use
            as well: what each candidate itself would earn is then known, and only what follows it is learned. It costs
            k calls a token, and needs ``candidate_rewards``. None for what was learned of both.

    Yields:
        ``lm``.

    Raises:
        ValueError: If an argument is out of range, or ``lm`` is another model; in ``generate``, for more than one
            token at a time (assisted decoding).
        RewardError: In ``generate``, if ``reward`` fails.
    """
    policy = model.policy
    if not isinstance(policy, LanguageModelPolicy):
        raise ValueError(f"model must have a LanguageModelPolicy, got {type(policy).__name__}")
    check_strength(strength)
    if reward is not None:
        policy.check_asks("reward")
    last = lm.get_output_embeddings()
    mine = policy.language_model.output_embedding
    if last is None or last.weight.shape != mine.shape or not torch.equal(last.weight.detach().to(mine), mine):
        raise ValueError("lm must be the language model that was learned on: its output embedding is another one")
    network = policy.q_net
    caught: list[Tensor] = []
    adapted = None if network.trunk is None else network.trunk.reading()
    shown: list[Tensor | None] = []  # which tokens of each row are none of the padding on the left

    def catch(_: Any, inputs: tuple[Tensor, ...]) -> None:
        caught[:] = [inputs[0]]

    def catch_mask(_: Any, __: Any, named: dict[str, Any]) -> None:
        shown[:] = [named.get("attention_mask")]

    def begin() -> Processor:
        return partial(steer, None if reward is None else AskedReward(reward, policy.language_model.tokenizer))

    def steer(asked: AskedReward | None, input_ids: Tensor, scores: Tensor) -> Tensor:
        hidden = caught[0]
        if len(hidden) != len(scores) or (hidden.shape[1] != 1 and input_ids.shape[1] != hidden.shape[1]):
            raise ValueError("steering needs one token at a time: no assisted decoding")
        seen = hidden[:, -1].float() if adapted is None else adapted.hidden_of(_without_padding(input_ids, shown[0]))

        def bonus(tokens: Tensor, best: Tensor) -> Tensor:
            states = States(*(part.to(network.device) for part in (seen, tokens, best)))
            own_rewards = None if asked is None else asked(input_ids, tokens)
            with torch.no_grad():
                return (strength / policy.eta * network.q_values(states, policy.eta, own_rewards)).to(best)

        return add_bonus(scores, policy.candidates, bonus)

    handles = [last.register_forward_pre_hook(catch)]
    if adapted is not None:
        handles.append(lm.register_forward_pre_hook(catch_mask, with_kwargs=True))
    try:
        with processing(lm, begin):
            yield lm
    finally:
        for handle in handles:
            handle.remove()


def _without_padding(ids: Tensor, mask: Tensor | None) -> list[list[int]]:
    """The ids of each row that an attention mask shows: shape ``(n, L)`` both."""
    if mask is not None and mask.shape != ids.shape:
        raise ValueError(f"attention_mask must have the shape {tuple(ids.shape)} with lora, got {tuple(mask.shape)}")
    shown = torch.ones_like(ids) if mask is None else mask
    return [row[known].tolist() for row, known in zip(ids, shown.bool(), strict=True)]
