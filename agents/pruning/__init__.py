"""Pruned Hugging Face transformers."""
