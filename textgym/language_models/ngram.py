"""A word or token n-gram model, trained from the user's own text."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least, check_texts
from textgym.tokenizers import Tokenizer, WordTokenizer, as_tokenizer

_START, _UNKNOWN = -1, -2


class _Followers(NamedTuple):
    """What was seen after one context: ids in ascending order, how often each, and how often in all."""

    ids: NDArray[np.int64]
    counts: NDArray[np.float64]
    total: float


class NGramLM:
    """An interpolated n-gram model with Witten-Bell smoothing, trained from lines of text.

    ``p(w | h) = (count(h, w) + types(h) * p(w | h')) / (count(h) + types(h))``, where ``h`` are the last ``order - 1``
    tokens, ``h'`` is ``h`` without its first, and ``types(h)`` is the number of different tokens seen after ``h``
    (Witten and Bell 1991; interpolated as by Chen and Goodman 1998). The recursion ends at the uniform
    distribution over the ``V`` tokens, so every token has a probability above 0. There is nothing to tune.

    A line is one text: its beginning is a context of its own, and its end is EOS, so EOS has a probability too. Words
    of a line that have no id begin a new context. Prefixes given as ids skip ids that the model does not know
    (separators, control words).

    Args:
        texts: Lines to learn from; blank ones are left out.
        tokenizer: See :func:`textgym.tokenizers.as_tokenizer`; None for the words of the texts, the most frequent ones
            first, as a :class:`~textgym.tokenizers.WordTokenizer`.
        order: Longest n-gram (≥ 1): 3 looks at two tokens.
        max_words: Words of that tokenizer at most (≥ 1); not together with ``tokenizer``.

    Attributes:
        tokenizer: The tokenizer.
        vocab_size: ``V``, EOS included.
        order: Longest n-gram.

    Raises:
        ValueError: If an argument is out of range, or there is no text.

    Example:
        >>> model = NGramLM(["the cat sat", "the cat ran", "a dog sat"], order=2)
        >>> the, cat, dog = model.tokenizer.encode("the cat dog")
        >>> log_probs = model.log_probs(np.array([[the]]), np.array([1]))[0]
        >>> bool(log_probs[cat] > log_probs[dog])
        True
    """

    def __init__(
        self, texts: Iterable[str], tokenizer: Any = None, order: int = 3, max_words: int | None = None
    ) -> None:
        if isinstance(texts, str):
            raise ValueError(f"texts must be a list of lines (NGramLM.from_file reads a file), got {texts[:40]!r}")
        lines = [line for line in check_texts("texts", texts, "lines") if line.strip()]
        if not lines:
            raise ValueError("texts must hold at least one line that is not blank, got none")
        if tokenizer is not None and max_words is not None:
            raise ValueError(f"max_words={max_words} cannot be combined with tokenizer: leave one of them out")
        self.order = check_at_least("order", order, 1)
        if tokenizer is None:
            tokenizer = _frequent_words(lines, max_words)
        self.tokenizer: Tokenizer = as_tokenizer(tokenizer)
        self.vocab_size = self.tokenizer.vocab_size
        self._followers = self._count(lines)

    @classmethod
    def from_file(
        cls, path: str | Path, tokenizer: Any = None, order: int = 3, max_words: int | None = None
    ) -> NGramLM:
        """Train from a UTF-8 text file, one text a line; see the class.

        Raises:
            ValueError: If the file does not exist or an argument is out of range.
        """
        if not Path(path).is_file():
            raise ValueError(f"path must be a text file, got {str(path)!r}")
        with open(path, encoding="utf-8-sig") as file:
            return cls(list(file), tokenizer, order, max_words)

    def __deepcopy__(self, memo: dict[int, Any]) -> NGramLM:
        return self  # never changes: gymnasium.make copies the arguments it is given

    def log_probs(self, tokens: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[np.float32]:
        """See :meth:`~textgym.language_models.LanguageModel.log_probs`."""
        rows, cached = [], dict[tuple[int, ...], NDArray[np.float32]]()
        for row, length in zip(np.asarray(tokens), np.asarray(lengths), strict=True):
            known = [token for token in row[:length].tolist() if 0 <= token < self.vocab_size]
            context = self._context([_START, *known])
            if context not in cached:
                cached[context] = np.log(self._distribution(context)).astype(np.float32)
            rows.append(cached[context])
        return np.stack(rows) if rows else np.zeros((0, self.vocab_size), np.float32)

    def text_log_probs(self, prompts: Sequence[str], completions: Sequence[str]) -> list[NDArray[np.float64]]:
        """See :meth:`~textgym.language_models.LanguageModel.text_log_probs`; a word without an id has probability 0."""
        result = []
        for prompt, completion in zip(prompts, completions, strict=True):
            before, written = self._encode(prompt), self._encode(completion)
            history = [_START, *before, *written]
            start = 1 + len(before)
            probabilities = [
                self._probability(self._context(history[: start + number]), token)
                for number, token in enumerate(written)
            ]
            with np.errstate(divide="ignore"):
                result.append(np.log(np.array(probabilities, np.float64)))
        return result

    def _encode(self, text: str) -> list[int]:
        ids = self.tokenizer.encode_known(text, _UNKNOWN)
        return [token if token < self.vocab_size else _UNKNOWN for token in ids]

    def _count(self, lines: list[str]) -> dict[tuple[int, ...], _Followers]:
        counters: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for line in lines:
            history = [_START]
            for token in [*self._encode(line), self.tokenizer.eos_id]:
                if token != _UNKNOWN:
                    context = self._context(history)
                    for start in range(len(context) + 1):
                        counters[context[start:]][token] += 1
                history.append(token)
                del history[: -self.order]
        followers = {}
        for context, counter in counters.items():
            ids = np.array(sorted(counter), np.int64)
            counts = np.array([counter[token] for token in ids.tolist()], np.float64)
            followers[context] = _Followers(ids, counts, float(counts.sum()))
        return followers

    def _context(self, history: list[int]) -> tuple[int, ...]:
        """The last ``order - 1`` tokens, from the last unknown one on."""
        context = history[max(len(history) - self.order + 1, 0) :] if self.order > 1 else []
        while _UNKNOWN in context:
            context = context[context.index(_UNKNOWN) + 1 :]
        return tuple(context)

    def _distribution(self, context: tuple[int, ...]) -> NDArray[np.float64]:
        """Probabilities of all tokens, shape ``(V,)``."""
        probabilities = np.full(self.vocab_size, 1.0 / self.vocab_size)
        for start in range(len(context), -1, -1):
            followers = self._followers.get(context[start:])
            if followers is None:
                break  # a longer context was not seen either
            types = len(followers.ids)
            probabilities *= types / (followers.total + types)
            probabilities[followers.ids] += followers.counts / (followers.total + types)
        return probabilities

    def _probability(self, context: tuple[int, ...], token: int) -> float:
        """Probability of one token, 0 for one that the model does not know."""
        if token == _UNKNOWN:
            return 0.0
        probability = 1.0 / self.vocab_size
        for start in range(len(context), -1, -1):
            followers = self._followers.get(context[start:])
            if followers is None:
                break
            types = len(followers.ids)
            place = int(followers.ids.searchsorted(token))
            count = followers.counts[place] if place < types and followers.ids[place] == token else 0.0
            probability = (count + types * probability) / (followers.total + types)
        return float(probability)


def _frequent_words(lines: list[str], max_words: int | None) -> WordTokenizer:
    if max_words is not None:
        check_at_least("max_words", max_words, 1)
    splitter = WordTokenizer(["a"])
    counter = Counter(word for line in lines for word in splitter.split(line))
    # Equally frequent words in alphabetical order, so that the ids do not depend on the order of the lines.
    words = sorted(counter, key=lambda word: (-counter[word], word))[:max_words]
    if not words:
        raise ValueError("texts must hold at least one word, got none")
    return WordTokenizer(words)
