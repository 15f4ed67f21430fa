"""Language models: how likely a next token is, for many prefixes at once."""

from textgym.language_models.base import LanguageModel
from textgym.language_models.bigram import BigramLM, bigram_model
from textgym.language_models.huggingface import HuggingFaceLM
from textgym.language_models.ngram import NGramLM

__all__ = ["BigramLM", "HuggingFaceLM", "LanguageModel", "NGramLM", "bigram_model"]
