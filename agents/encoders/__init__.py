"""Causal encoders: features of every prefix of a token sequence, in parallel or one token at a time."""

from agents.encoders.base import CausalEncoder, EncoderState
from agents.encoders.linear_attention import causal_linear_attention, linear_attention_prefill, linear_attention_step
from agents.encoders.performer import Performer

__all__ = [
    "CausalEncoder",
    "EncoderState",
    "Performer",
    "causal_linear_attention",
    "linear_attention_prefill",
    "linear_attention_step",
]
