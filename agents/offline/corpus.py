"""A text file as a task: its characters or words are the tokens, and the next token is the action.

Plain text as a decision process: in every state one token is right, the one that the text goes on with. It earns 1, and
any other earns 0 and ends the text. Without a discount of what follows (``gamma=0``), Q(s, a) then *is* the probability
that the text goes on with ``a``; with one, it is the expected number of right tokens, discounted, from here on.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents.saving.files import CommandError, write_json
from textgym.tasks.text_generation import TextGeneration
from textgym.tokenizers import CharacterTokenizer, Tokenizer, WordTokenizer

VOCABULARY = "vocabulary.json"  # beside a model that learned from a text file

LEVELS = ("char", "word")
_UNKNOWN = {"char": "\N{REPLACEMENT CHARACTER}", "word": "<unk>"}


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a corpus.

    Attributes:
        level: ``"char"`` or ``"word"`` (lower-cased words and punctuation marks).
        symbols: Characters or words, the most frequent first; the last one stands for all others.
        window: Tokens that an episode continues its first token by.
    """

    level: str
    symbols: tuple[str, ...]
    window: int

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        return CharacterTokenizer(self.symbols) if self.level == "char" else WordTokenizer(self.symbols)

    @property
    def unknown_id(self) -> int:
        """Id of the symbol that stands for all that have none."""
        return len(self.symbols) - 1

    def normalise(self, text: str) -> str:
        """The text with every unknown symbol replaced."""
        known, unknown = frozenset(self.symbols), self.symbols[-1]
        pieces = list(text) if self.level == "char" else WordTokenizer(self.symbols).split(text)
        return ("" if self.level == "char" else " ").join(piece if piece in known else unknown for piece in pieces)

    def task(self) -> TextGeneration:
        """A task with these tokens; it has no rewards of its own."""
        return TextGeneration(
            prompts=[symbol for symbol in self.symbols if symbol.strip()],
            reward=_no_reward,
            tokenizer=self.tokenizer,
            max_new_tokens=self.window,
            context_length=self.window + 2,
        )

    def save(self, folder: Path) -> None:
        """Write it to a run folder."""
        write_json(folder / VOCABULARY, asdict(self))


def build_vocabulary(text: str, level: str = "char", size: int | None = None, window: int = 64) -> Vocabulary:
    """The most frequent symbols of a text.

    Args:
        text: The text.
        level: ``"char"`` or ``"word"``.
        size: Symbols at most, that for unknown ones included (≥ 2); None for 256 characters or 2,000 words.
        window: Tokens of an episode after its first (≥ 1).

    Raises:
        CommandError: If an argument is out of range, or the text is blank.
    """
    if level not in LEVELS:
        raise CommandError(f"--level must be char or word, got {level!r}")
    size = (256 if level == "char" else 2_000) if size is None else size
    for name, value, least in (("vocabulary", size, 2), ("window", window, 1)):
        if value < least:
            raise CommandError(f"--{name} must be at least {least}, got {value}")
    pieces = list(text) if level == "char" else WordTokenizer(["a"]).split(text)
    if not text.strip():
        raise CommandError("--from-text must name a file that holds text, got a blank one")
    unknown = _UNKNOWN[level]
    counts = Counter(piece for piece in pieces if piece != unknown)
    # Equally frequent ones in alphabetical order, so that ids do not depend on the order of the text.
    symbols = sorted(counts, key=lambda piece: (-counts[piece], piece))[: size - 1]
    return Vocabulary(level, (*symbols, unknown), window)


def load_vocabulary(folder: Path) -> Vocabulary | None:
    """The vocabulary in a run folder; None where there is none.

    Raises:
        CommandError: If it is damaged.
    """
    path = folder / VOCABULARY
    if not path.is_file():
        return None
    try:
        value: dict[str, Any] = json.loads(path.read_text("utf-8-sig"))
        return Vocabulary(value["level"], tuple(value["symbols"]), int(value["window"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(f"{path} must hold level, symbols and window, and can't be read: {error}") from None


def split_corpus(text: str, held_out: float = 0.05) -> tuple[str, str]:
    """The text but its end, and its end: at least one line of each where there are two.

    Args:
        text: The text.
        held_out: Share of the characters in the end, in (0, 1).
    """
    cut = text.rfind("\n", 0, int(len(text) * (1 - held_out)))
    cut = int(len(text) * (1 - held_out)) if cut <= 0 else cut + 1
    return text[:cut], text[cut:]


def _no_reward(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    return [0.0] * len(prompts)
