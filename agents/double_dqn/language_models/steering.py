"""Steering ``generate`` of a ``transformers`` model by what a head has learned."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from agents.double_dqn.language_models.objectives import policy_log_probs
from agents.double_dqn.language_models.policy import LanguageModelPolicy
from agents.double_dqn.language_models.reader import States

if TYPE_CHECKING:
    from agents.double_dqn.base import LearningAgent


@contextlib.contextmanager
def steering(model: LearningAgent, lm: Any, strength: float = 1.0) -> Iterator[Any]:
    """Within the context, ``lm.generate`` writes by π ∝ π₀·exp(strength · Q/η).

    The trunk is not run a second time: the hidden state is taken where ``generate`` hands it to the last layer.

    Args:
        model: A :class:`agents.DoubleDQN` with a :class:`LanguageModelPolicy`.
        lm: A causal language model of ``transformers``, of the same weights as the one that was learned on.
        strength: How much the values count (≥ 0); 0 is the model itself.

    Yields:
        ``lm``.

    Raises:
        ValueError: If an argument is out of range, or ``lm`` is another model; in ``generate``, for more than one
            token at a time (assisted decoding).
    """
    policy = model.policy
    if not isinstance(policy, LanguageModelPolicy):
        raise ValueError(f"model must have a LanguageModelPolicy, got {type(policy).__name__}")
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 <= strength < float("inf"):
        raise ValueError(f"strength must be a finite number of at least 0, got {strength!r}")
    last = lm.get_output_embeddings()
    mine = policy.language_model.output_embedding
    if last is None or last.weight.shape != mine.shape or not torch.equal(last.weight.detach().to(mine), mine):
        raise ValueError("lm must be the language model that was learned on: its output embedding is another one")
    network = policy.q_net
    caught: list[Tensor] = []

    def catch(_: Any, inputs: tuple[Tensor, ...]) -> None:
        caught[:] = [inputs[0]]

    def steer(input_ids: Tensor, scores: Tensor) -> Tensor:
        hidden = caught[0]
        if len(hidden) != len(scores) or (hidden.shape[1] != 1 and input_ids.shape[1] != hidden.shape[1]):
            raise ValueError("steering needs one token at a time: no assisted decoding")
        log_probs = scores.float().log_softmax(dim=-1)
        best, tokens = log_probs.topk(min(policy.candidates, scores.shape[-1]), dim=-1)
        states = States(hidden[:, -1].float().to(network.device), tokens.to(network.device), best.to(network.device))
        with torch.no_grad():
            values = strength * network.q_values(states, policy.eta)
        steered = states.among_all(policy_log_probs(values, states.prior(), policy.eta))
        return log_probs.to(scores).scatter(1, tokens, steered.to(scores))  # the other tokens keep their probability

    generate = lm.generate

    def steered_generate(*args: Any, logits_processor: Any = None, **kwargs: Any) -> Any:
        return generate(*args, logits_processor=[*(logits_processor or ()), steer], **kwargs)

    handle = last.register_forward_pre_hook(catch)
    lm.generate = steered_generate
    try:
        yield lm
    finally:
        handle.remove()
        del lm.generate
