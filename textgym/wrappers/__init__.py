"""Wrappers: observations as strings, any text environment as tokens, texts or a model's likeliest tokens as actions."""

from textgym.wrappers.string_actions import StringActions
from textgym.wrappers.strings import StringObservation
from textgym.wrappers.tokenized import TokenizeObservation
from textgym.wrappers.top_k import TopKActions, VectorTopKActions

__all__ = ["StringActions", "StringObservation", "TokenizeObservation", "TopKActions", "VectorTopKActions"]
