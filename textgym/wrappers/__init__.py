"""Wrappers: observations as strings, any text environment as tokens, a language model's likeliest tokens as actions."""

from textgym.wrappers.strings import StringObservation
from textgym.wrappers.tokenized import TokenizeObservation
from textgym.wrappers.top_k import TopKActions, VectorTopKActions

__all__ = ["StringObservation", "TokenizeObservation", "TopKActions", "VectorTopKActions"]
