"""Texts as vectors: embeddings, autoencoder, wrappers, features extractors."""
