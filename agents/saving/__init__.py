"""Checkpoints and models in files that hold arrays and JSON, and execute nothing."""
