"""Tokenizers: text to token ids and back. Action ``i`` of an environment is token ``i`` of its tokenizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray


class Tokenizer(ABC):
    """Text to ids and back.

    Attributes:
        vocab_size: Number of actions ``V``, EOS included: ids below it can be written.
        n_ids: ``V`` plus the ids that occur in prompts alone; a task puts its separator and padding above.
        eos_id: The id that ends a text.
        allowed: Which of the ``V`` ids may be written, shape ``(V,)``; None where all of them may.
        separator: What stands between the texts of two tokens when they are shown one by one.
    """

    vocab_size: int
    n_ids: int
    eos_id: int
    allowed: NDArray[np.bool_] | None = None
    separator: str = " "

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of a text, no special tokens added.

        Raises:
            ValueError: If the text holds something that has no id.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; EOS, and ids that the tokenizer does not know, are left out."""

    @abstractmethod
    def token_text(self, token: int) -> str:
        """Text of one id, special ones in angle brackets or as the tokenizer names them."""

    def split(self, text: str) -> list[str]:
        """The pieces of a text that have ids of their own, known or not; its words if nothing finer is known."""
        return text.split()

    def encode_known(self, text: str, unknown: int) -> list[int]:
        """Ids of any text: pieces that have no id become ``unknown`` instead of an error."""
        try:
            return self.encode(text)
        except ValueError:
            pieces = self.split(text)
            return [unknown] if pieces == [text] else [i for piece in pieces for i in self.encode_known(piece, unknown)]

    def with_prompt_words(self, prompts: Iterable[str]) -> Tokenizer:
        """A tokenizer that encodes all these prompts: what has no id yet gets one that occurs in prompts alone."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Tokenizer:
        return self  # never changes: gymnasium.make copies the arguments it is given


class _SymbolTokenizer(Tokenizer):
    """A closed list of symbols, EOS, and further symbols for prompts."""

    kind: str

    def __init__(self, symbols: Iterable[str], prompt_symbols: Iterable[str]) -> None:
        if isinstance(symbols, Set):
            raise ValueError(
                f"{self.kind}s must have an order, which decides their ids, got a {type(symbols).__name__}"
            )
        self.symbols, self.prompt_symbols = tuple(symbols), tuple(prompt_symbols)
        if not self.symbols:
            raise ValueError(f"{self.kind}s must hold at least one {self.kind}, got none")
        everything = self.symbols + self.prompt_symbols
        if len(set(everything)) < len(everything):
            repeated = next(symbol for symbol, number in Counter(everything).items() if number > 1)
            raise ValueError(f"{self.kind}s must differ from one another, got {repeated!r} twice")
        self.eos_id = len(self.symbols)
        self.vocab_size = len(self.symbols) + 1
        self.n_ids = self.vocab_size + len(self.prompt_symbols)
        self._texts = (*self.symbols, "<eos>", *self.prompt_symbols)
        self._ids = {text: token for token, text in enumerate(self._texts) if token != self.eos_id}

    def encode(self, text: str) -> list[int]:
        """See :meth:`Tokenizer.encode`."""
        pieces = self.split(text)
        for piece in pieces:
            if piece not in self._ids:
                raise ValueError(
                    f"text must consist of the {len(self.symbols)} {self.kind}s of the vocabulary, got {piece!r} "
                    f"(with_prompt_words() adds what only prompts hold)"
                )
        return [self._ids[piece] for piece in pieces]

    def decode(self, ids: Sequence[int]) -> str:
        """See :meth:`Tokenizer.decode`."""
        return self.separator.join(self._texts[token] for token in ids if token < self.n_ids and token != self.eos_id)

    def token_text(self, token: int) -> str:
        """See :meth:`Tokenizer.token_text`."""
        return self._texts[token]

    def _unknown(self, prompts: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(piece for text in prompts for piece in self.split(text) if piece not in self._ids))


class CharacterTokenizer(_SymbolTokenizer):
    """One id a character: ids ``0 … n-1`` are the characters, ``n`` is EOS.

    Args:
        characters: The ``n`` characters that can be written.
        prompt_characters: Characters that occur in prompts alone.

    Raises:
        ValueError: If there is no character, or one twice.

    Example:
        >>> CharacterTokenizer("abc").encode("cab")
        [2, 0, 1]
    """

    kind = "character"
    separator = ""

    def __init__(self, characters: Iterable[str], prompt_characters: Iterable[str] = ()) -> None:
        super().__init__(characters, prompt_characters)
        for character in self.symbols + self.prompt_symbols:
            if len(character) != 1:
                raise ValueError(f"characters must be single characters, got {character!r}")

    def split(self, text: str) -> list[str]:
        """The characters of a text."""
        return list(text)

    def with_prompt_words(self, prompts: Iterable[str]) -> CharacterTokenizer:
        """See :meth:`Tokenizer.with_prompt_words`."""
        unknown = self._unknown(prompts)
        return CharacterTokenizer(self.symbols, (*self.prompt_symbols, *unknown)) if unknown else self


class WordTokenizer(_SymbolTokenizer):
    """One id a word: ids ``0 … n-1`` are the words, ``n`` is EOS, control words follow.

    Text is lower-cased and split at blanks; what is not a word as it stands is split further, into words (with inner
    apostrophes and hyphens) and single punctuation marks. So ``positive:`` is one token where it is a control word,
    and two elsewhere. Letters keep their combining marks; composed and decomposed forms (é, e with an accent) are
    different words, as in any list of strings.

    Args:
        words: The ``n`` words that can be written, in lower case, without blanks.
        control_words: Words that occur in prompts alone.

    Raises:
        ValueError: If there is no word, one twice, or one that no text could be split into.

    Example:
        >>> tokenizer = WordTokenizer(["good", "food"], control_words=["positive:"])
        >>> tokenizer.encode("Positive: good food")
        [3, 0, 1]
    """

    kind = "word"
    # Combining marks and joiners belong to the letter before: vowels of Hindi and Arabic, accents that stand apart.
    _PIECES = regex.compile(r"[\w\p{M}\u200c\u200d]+(?:['’-][\w\p{M}\u200c\u200d]+)*|[^\w\s\p{M}]\p{M}*")

    def __init__(self, words: Iterable[str], control_words: Iterable[str] = ()) -> None:
        for name, value in (("words", words), ("control_words", control_words)):
            if isinstance(value, (str, bytes)):
                raise ValueError(f"{name} must be a list of words, got a single {type(value).__name__}: {value!r:.60}")
        super().__init__(words, control_words)
        for word in self.symbols + self.prompt_symbols:
            if word != word.lower() or word.split() != [word]:
                raise ValueError(f"words must be in lower case and without blanks, got {word!r}")

    def split(self, text: str) -> list[str]:
        """The words and punctuation marks of a text."""
        pieces: list[str] = []
        for chunk in text.lower().split():
            pieces.extend([chunk] if chunk in self._ids else self._PIECES.findall(chunk))
        return pieces

    def with_prompt_words(self, prompts: Iterable[str]) -> WordTokenizer:
        """See :meth:`Tokenizer.with_prompt_words`."""
        unknown = self._unknown(prompts)
        return WordTokenizer(self.symbols, (*self.prompt_symbols, *unknown)) if unknown else self


_EOS_TOKENS = ("</s>", "<|endoftext|>", "<eos>", "[EOS]", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "[SEP]")


class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer of the ``tokenizers`` or ``transformers`` library; it keeps its own ids.

    Truncation and padding that are stored with a ``tokenizers.Tokenizer`` are switched off: they belong to batches of a
    model, and would cut prompts. Special tokens, and ids without a token, are not allowed to be written; EOS is.
    Nothing is looked up in any hub.

    Args:
        tokenizer: A ``tokenizers.Tokenizer``, a tokenizer of ``transformers`` (slow or fast), or the local path of
            either: a ``tokenizer.json``, or a directory that ``save_pretrained`` wrote.
        eos_token: The token that ends a text; by default the tokenizer's own ``eos_token``, else the first of
            ``</s>``, ``<|endoftext|>``, ``<eos>``, ``[EOS]``, ``[SEP]`` … that it has.

    Attributes:
        tokenizer: The wrapped tokenizer.

    Raises:
        ValueError: If the path does not exist, or no EOS is found.
    """

    def __init__(self, tokenizer: Any, eos_token: str | None = None) -> None:
        if isinstance(tokenizer, (str, Path)):
            tokenizer = _load(Path(tokenizer))
        self._is_transformers = hasattr(tokenizer, "convert_ids_to_tokens")
        if getattr(tokenizer, "truncation", None) or getattr(tokenizer, "padding", None):
            tokenizer = type(tokenizer).from_str(tokenizer.to_str())  # the user's own stays as it is
            tokenizer.no_truncation()
            tokenizer.no_padding()
        self.tokenizer = tokenizer
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        added = tokenizer.added_tokens_decoder if self._is_transformers else tokenizer.get_added_tokens_decoder()
        special = {token for token, content in added.items() if content.special}
        if self._is_transformers:
            special |= set(tokenizer.all_special_ids)
            eos_token = eos_token or tokenizer.eos_token
        if eos_token is None:
            eos_token = next((token for token in _EOS_TOKENS if token in vocabulary), None)
        if eos_token is None or eos_token not in vocabulary:
            raise ValueError(
                f"eos_token must be a token of the tokenizer, got {eos_token!r}: "
                f"pass HuggingFaceTokenizer(tokenizer, eos_token=...), or set the tokenizer's eos_token"
            )
        self.eos_id = vocabulary[eos_token]
        self.vocab_size = self.n_ids = max(vocabulary.values()) + 1
        allowed = np.zeros(self.vocab_size, np.bool_)
        allowed[list(vocabulary.values())] = True
        allowed[[token for token in special if token < self.vocab_size]] = False
        allowed[self.eos_id] = True
        allowed.flags.writeable = False
        self.allowed = None if allowed.all() else allowed
        self._texts = {token: text for text, token in vocabulary.items()}
        # Byte-level and SentencePiece vocabularies mark a leading blank; without marks, tokens are shown apart.
        if any(text[0] in "Ġ▁" for text in vocabulary if text):
            self.separator = ""

    def encode(self, text: str) -> list[int]:
        """See :meth:`Tokenizer.encode`."""
        encoded = self.tokenizer.encode(text, add_special_tokens=False)
        return list(encoded) if self._is_transformers else list(encoded.ids)

    def decode(self, ids: Sequence[int]) -> str:
        """See :meth:`Tokenizer.decode`."""
        return self.tokenizer.decode([token for token in ids if token in self._texts], skip_special_tokens=True)

    def token_text(self, token: int) -> str:
        """See :meth:`Tokenizer.token_text`; a marked leading blank is shown as one."""
        text = self._texts.get(token, f"<{token}>")
        return regex.sub("^[Ġ▁]", " ", text) if self.separator == "" else text


def as_tokenizer(tokenizer: Any) -> Tokenizer:
    """A :class:`Tokenizer` as it is; anything of ``tokenizers`` or ``transformers``, or a local path, wrapped.

    Raises:
        ValueError: If it is none of these; see also :class:`HuggingFaceTokenizer`.
    """
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    if isinstance(tokenizer, (str, Path)) or all(
        hasattr(tokenizer, name) for name in ("encode", "decode", "get_vocab")
    ):
        return HuggingFaceTokenizer(tokenizer)
    raise ValueError(
        f"tokenizer must be a textgym Tokenizer, one of the tokenizers or transformers library, or a local path, "
        f"got {tokenizer!r}"
    )


def _load(path: Path) -> Any:
    if not path.exists():
        raise ValueError(f"tokenizer must be a local path (nothing is downloaded), and {str(path)!r} does not exist")
    if path.is_dir() and (path / "tokenizer_config.json").exists():
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(path), local_files_only=True)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.exists():
        raise ValueError(f"tokenizer must be a tokenizer.json or a directory that holds one, got {str(path)!r}")
    from tokenizers import Tokenizer as FastTokenizer

    return FastTokenizer.from_file(str(file))
