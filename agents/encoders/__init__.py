"""Causal encoders: features of every prefix of a token sequence, in parallel or one token at a time."""

from agents.encoders.base import CausalEncoder, EncoderState
from agents.encoders.cache import CacheState
from agents.encoders.choice import fastest_attention
from agents.encoders.gru import GRU
from agents.encoders.linear_attention import causal_linear_attention, linear_attention_prefill, linear_attention_step
from agents.encoders.performer import Performer
from agents.encoders.transformer import Transformer

__all__ = [
    "GRU",
    "CacheState",
    "CausalEncoder",
    "EncoderState",
    "Performer",
    "Transformer",
    "causal_linear_attention",
    "fastest_attention",
    "linear_attention_prefill",
    "linear_attention_step",
]
