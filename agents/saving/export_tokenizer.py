"""The tokens of a task as a ``tokenizer.json`` of the ``tokenizers`` library, for an exported model."""

from __future__ import annotations

import hashlib
import json

from textgym import Task
from textgym.tokenizers import HuggingFaceTokenizer


def tokenizer_file(task: Task) -> bytes:
    """What any program that reads the ``tokenizers`` format can split the task's texts with.

    Of a task with a tokenizer of Hugging Face's libraries, it is that tokenizer. Of any other, it has one id for each
    word or character, the task's own separators included, and those of no text, such as EOS, are special.
    """
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as FastTokenizer

    wrapped = getattr(task, "tokenizer", None)
    if isinstance(wrapped, HuggingFaceTokenizer):
        inner = getattr(wrapped.tokenizer, "backend_tokenizer", wrapped.tokenizer)
        if not hasattr(inner, "to_str"):
            raise ValueError(f"tokenizer must be a fast one to be exported, got {type(inner).__name__}")
        return inner.to_str(pretty=True).encode()
    separator = task.join(["a", "b"])[1:-1]
    vocabulary: dict[str, int] = {}
    for token in range(task.pad_id + 1):
        text = "<pad>" if token == task.pad_id else task.token_text(token)
        vocabulary[text if text not in vocabulary else f"<{token}>"] = token
    made = FastTokenizer(models.WordLevel(vocabulary, unk_token=None))
    if separator:
        if all(text == text.lower() for text in vocabulary):
            made.normalizer = normalizers.Lowercase()
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
        made.decoder = decoders.Fuse()
    special = [text for text, token in vocabulary.items() if token in (task.eos_id, task.pad_id)]
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return made.to_str(pretty=True).encode()


def token_digest(task: Task) -> str:
    """A checksum of the text of every token, to tell whether an environment speaks a model's language."""
    texts = [task.token_text(token) for token in range(task.pad_id)]
    return hashlib.sha256(json.dumps([texts, task.vocab_size, task.eos_id, task.pad_id]).encode()).hexdigest()
