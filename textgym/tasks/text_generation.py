"""Text generation: continue a prompt; a reward function scores the text."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least, check_list
from textgym.random import RowStreams
from textgym.rewards import (
    TONES,
    Distinctness,
    Fluency,
    Product,
    RewardFunction,
    Sentiment,
    call_reward,
    check_tone,
)
from textgym.tasks.base import Episodes, Prompts, Task
from textgym.tokenizers import Tokenizer, WordTokenizer, as_tokenizer
from textgym.tone import TonePrompts, ToneScore


class TextGeneration(Task):
    """Continue a prompt; a reward function scores the text at its end.

    ## Description
    Without arguments the task is *tone on request*. A prompt names a tone and opens a phrase (``positive: the food``);
    the agent writes up to ten of the 1,500 most frequent English words so that the text speaks in that tone, reads as
    English and does not repeat itself. One of the best texts known is, for ``positive: his own``, ``heart of the best
    friend about it is a great``. Prompts, reward and tokenizer of your own make it any task of single-turn text
    generation; the reward has the signature that TRL's trainers use.

    ## Action Space
    ``Discrete(V)``: the tokenizer's tokens, EOS included; 1,501 of them by default. Every action is legal, unless the
    tokenizer has special tokens: these are masked in every state, EOS excepted.

    ## Observation Space
    ``TokenSequence(context_length)``: the prompt and the tokens written so far. Prompts of your own end with a
    separator, id ``V`` (above the tokenizer's prompt-only ids, where it has some), and the padding id is one higher.
    The default prompts have three tokens each, so no separator closes them: the control words ``positive:`` and
    ``negative:`` are ``V`` and ``V + 1``, padding is ``V + 2``.

    ## Rewards
    Default: ``R = sentiment * fluency * distinctness``, each in [0, 1], of the completion.

    * sentiment: VADER's compound score in the asked direction, 0 in the other (:class:`textgym.rewards.Sentiment`);
    * fluency: the mean over words of how likely each is after its predecessor, the prompt's last word included, on a
      logarithmic scale; a good ending counts as one more word, and words missing to eight count as 0, so a single happy
      word is worth little (:class:`textgym.rewards.Fluency`);
    * distinctness: the share of different words (:class:`textgym.rewards.Distinctness`).

    With ``dense`` (the default) the same return is paid as the text grows: each token earns the change of a cheap
    estimate of R (VADER without its rules on negations and intensifiers), and the last one what is left to R. The
    estimate of an empty text is 0, so the rewards of an episode add up to R exactly; as potential-based shaping
    (Ng, Harada and Russell 1999) it leaves the optimum where it was. Otherwise R is paid at the end.

    A reward of your own is called once a step, with all texts that ended in it, and paid at the end. With ``dense`` it
    is called in every step with all texts, finished or not, and each token earns the change: the return is the same,
    and what a token was worth shows at once. An empty text counts as 0.

    ## Starting State
    Default: either tone with equal probability, a first word drawn by its frequency, a second by how often it follows
    the first. Otherwise one of ``prompts``, drawn uniformly.

    ## Episode End
    EOS terminates, and so does the budget of ``max_new_tokens`` actions.

    ## Arguments
    * ``prompts``: strings; or mappings with a string ``"prompt"`` and further columns, which are passed to the reward
      as keyword arguments; or a ``datasets.Dataset`` of such rows. None for the default prompts.
    * ``reward``: ``reward(prompts, completions, **columns) -> list[float]``. None for the default reward; prompts of
      your own need a column ``tone`` for it, or have to begin with ``positive:`` or ``negative:``.
    * ``tokenizer``: see :func:`textgym.tokenizers.as_tokenizer`. None for the embedded English words; words that only
      prompts hold get prompt-only ids.
    * ``max_new_tokens``: budget; 10 for the default prompts, 32 for others.
    * ``vocab_size``: number of embedded English words, 1,500 by default; not together with ``tokenizer``.
    * ``dense``: see Rewards; None for True where prompts and reward are the default ones and False elsewhere, since a
      reward of your own may cost time or make no sense of unfinished texts.
    * ``context_length``: length of an observation; by default what the longest prompt needs.

    ## Version History
    * v0: first version.
    """

    def __init__(
        self,
        prompts: Iterable[str] | Iterable[Mapping[str, Any]] | None = None,
        reward: RewardFunction | None = None,
        tokenizer: Any = None,
        max_new_tokens: int | None = None,
        vocab_size: int | None = None,
        dense: bool | None = None,
        context_length: int | None = None,
    ) -> None:
        """Build the task; see the class for the arguments.

        Raises:
            ValueError: If an argument is out of range, arguments exclude one another, or a prompt cannot be used.
        """
        if reward is not None and not callable(reward):
            raise ValueError(f"reward must be a function reward(prompts, completions, **columns), got {reward!r}")
        if tokenizer is not None and (prompts is None or vocab_size is not None):
            other = "the default prompts" if prompts is None else f"vocab_size={vocab_size}"
            raise ValueError(f"tokenizer cannot be combined with {other}: pass prompts, and leave vocab_size out")
        default_budget = 10 if prompts is None else 32
        self.max_new_tokens = check_at_least(
            "max_new_tokens", default_budget if max_new_tokens is None else max_new_tokens, 1
        )
        n_words = check_at_least("vocab_size", 1500 if vocab_size is None else vocab_size, 2)

        self._source: TonePrompts | PromptTable
        self._tone: ToneScore | None = None
        if prompts is None:
            self._source = TonePrompts(n_words)
            if reward is None:
                self._tone = ToneScore(self._source, self.max_new_tokens)
        else:
            room = None
            if context_length is not None:
                room = check_at_least("context_length", context_length, 1) - self.max_new_tokens
            self._source = PromptTable(prompts, tokenizer, n_words, room)
        self.dense = self._tone is not None if dense is None else bool(dense)
        if reward is None and isinstance(self._source, PromptTable):
            self._source.need_tones()
            reward = tone_reward(n_words, self.max_new_tokens)
        self.reward = reward
        self.pays_at_end = self._tone is not None or not self.dense
        self.reward_range = (0.0, 1.0) if reward is None else getattr(reward, "range", (-np.inf, np.inf))

        self.tokenizer: Tokenizer = self._source.tokenizer
        self.vocab_size, self.eos_id = self.tokenizer.vocab_size, self.tokenizer.eos_id
        self.sep_id = None if prompts is None else self.tokenizer.n_ids
        self.pad_id = self.tokenizer.n_ids + (prompts is not None)
        needed = self._source.length + self.max_new_tokens
        self.context_length = check_at_least(
            "context_length", needed if context_length is None else context_length, needed
        )
        self.masked = self.tokenizer.allowed is not None
        # Of the default reward, a token repeated leaves a tenth (distinctness), a lone happy word 2 of 9 (fluency).
        self.cheat_bound = 0.1 if self._tone is not None else type(self).cheat_bound

    def prompts(self, random: RowStreams) -> Prompts:
        """See Starting State."""
        drawn = self._source.draw(random)
        if self.dense:
            drawn.columns["estimate"] = np.zeros(len(random))
        return drawn

    def allowed(self, episodes: Episodes) -> NDArray[np.bool_]:
        """The tokenizer's ordinary tokens and EOS, in every state."""
        assert self.tokenizer.allowed is not None  # asked only where masked is True
        return np.broadcast_to(self.tokenizer.allowed, (len(episodes), self.vocab_size))

    def step_reward(self, episodes: Episodes, actions: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """The change of the reward, or of the default one's estimate; None where only the end pays."""
        if not self.dense:
            return None
        estimate = self._rewards(episodes) if self._tone is None else self._tone.estimate(episodes)
        change = estimate - episodes.columns["estimate"]
        episodes.columns["estimate"] = estimate
        return change

    def final_reward(self, episodes: Episodes) -> NDArray[np.float64]:
        """The reward of the text, less what the steps have paid already."""
        score = self._rewards(episodes) if self._tone is None else self._tone.exact(episodes)
        return score - episodes.columns["estimate"] if self.dense else score

    def _rewards(self, episodes: Episodes) -> NDArray[np.float64]:
        """Rewards of the texts as they are, of the user's function, shape ``(n,)``."""
        assert self.reward is not None  # every task has the one or the other
        return call_reward(
            self.reward,
            self._source.texts(episodes),
            [self.decode(episodes.completion(row)) for row in range(len(episodes))],
            self._source.columns(episodes),
        )

    def token_text(self, token: int) -> str:
        """The tokenizer's text of the token."""
        if token >= self.tokenizer.n_ids:
            return "<pad>" if token == self.pad_id else "<sep>"
        return self.tokenizer.token_text(token)

    def join(self, texts: list[str]) -> str:
        """Join the texts of single tokens as the tokenizer separates them."""
        return self.tokenizer.separator.join(texts)

    def decode(self, tokens: NDArray[np.integer]) -> str:
        """The tokenizer's text of a row of token ids, up to EOS, without separator and padding."""
        ids = tokens.tolist()
        if self.eos_id in ids:
            ids = ids[: ids.index(self.eos_id)]
        return self.tokenizer.decode([token for token in ids if token < self.tokenizer.n_ids])


class PromptTable:
    """Prompts of the user's own, encoded once.

    Args:
        prompts: See :class:`TextGeneration`.
        tokenizer: See :class:`TextGeneration`.
        n_words: Number of embedded English words, where there is no tokenizer.
        room: Longest prompt in tokens, its separator included; None for no limit.

    Attributes:
        tokenizer: The tokenizer, extended by what only prompts hold.
        length: Tokens of the longest prompt, its separator included.

    Raises:
        ValueError: If there is no prompt, or one cannot be used; the message names its number.
    """

    def __init__(self, prompts: Any, tokenizer: Any, n_words: int, room: int | None) -> None:
        self._texts, self._columns = _read_prompts(prompts)
        if tokenizer is None:
            from textgym.english import load_english

            tokenizer = WordTokenizer(load_english(n_words).words)
        self.tokenizer = as_tokenizer(tokenizer).with_prompt_words(self._texts)
        encoded = [[*self.tokenizer.encode(text), self.tokenizer.n_ids] for text in self._texts]
        self._lengths = np.array([len(ids) for ids in encoded], np.int64)
        self.length = int(self._lengths.max())
        for number in np.flatnonzero(self._lengths == 1)[:1].tolist():
            raise ValueError(f"prompts[{number}] must hold at least one token, got {reprlib.repr(self._texts[number])}")
        if room is not None and self.length > room:
            number = int(self._lengths.argmax())
            raise ValueError(
                f"context_length leaves {room - 1} tokens for a prompt (its separator and max_new_tokens come on top), "
                f"prompts[{number}] has {self.length - 1}"
            )
        self._tokens = np.zeros((len(encoded), self.length), np.int32)
        for row, ids in enumerate(encoded):
            self._tokens[row, : len(ids)] = ids

    def draw(self, random: RowStreams) -> Prompts:
        """One prompt a row, with the column ``prompt_index``."""
        index = random.integers(len(self._texts))
        return Prompts(self._tokens[index], self._lengths[index], {"prompt_index": index})

    def texts(self, episodes: Episodes) -> list[str]:
        """The prompts as the user gave them."""
        return [self._texts[number] for number in episodes.columns["prompt_index"].tolist()]

    def columns(self, episodes: Episodes) -> dict[str, list[Any]]:
        """The user's columns."""
        numbers = episodes.columns["prompt_index"].tolist()
        return {name: [values[number] for number in numbers] for name, values in self._columns.items()}

    def need_tones(self) -> None:
        """See to the column ``tone``: the user's, or what the prompts begin with."""
        tones = self._columns.get("tone")
        if tones is None:
            tones = [
                next((tone for tone in TONES if text.lower().startswith(f"{tone}:")), None) for text in self._texts
            ]
            if None in tones:
                raise ValueError(
                    f"reward is needed: the default one asks for a tone, and prompts[{tones.index(None)}] neither has "
                    f"a column 'tone' nor begins with 'positive:' or 'negative:'"
                )
        self._columns["tone"] = [check_tone(tone) for tone in tones]


def tone_reward(vocab_size: int = 1500, max_new_tokens: int = 10) -> Product:
    """The default reward as a function of text, for prompts with a column ``tone``."""
    from textgym.language_models import bigram_model
    from textgym.tone import FULL_LENGTH

    fluency = Fluency(bigram_model(vocab_size), full_length=min(FULL_LENGTH, max_new_tokens))
    return Product([Sentiment(), fluency, Distinctness()])


def _read_prompts(prompts: Any) -> tuple[list[str], dict[str, list[Any]]]:
    """Texts and columns of strings, mappings or a dataset."""
    rows = check_list("prompts", prompts, "prompts")
    if not rows:
        raise ValueError("prompts must hold at least one prompt, got none")
    texts: list[str] = []
    columns: dict[str, list[Any]] = {}
    names = {name for name in rows[0] if name != "prompt"} if isinstance(rows[0], Mapping) else set()
    for number, row in enumerate(rows):
        if isinstance(row, Mapping):
            if "prompt" not in row:
                raise ValueError(f"prompts[{number}] must have a key 'prompt', got {sorted(row)}")
            if row.keys() - {"prompt"} != names:
                raise ValueError(
                    f"prompts[{number}] must have the columns of prompts[0], {sorted(names)}, got {sorted(row)}"
                )
            for name in names:
                columns.setdefault(name, []).append(row[name])
            row = row["prompt"]
        elif names:
            raise ValueError(f"prompts[{number}] must be a mapping as prompts[0] is, got {reprlib.repr(row)}")
        if not isinstance(row, str) or not row.strip():
            raise ValueError(f"prompts[{number}] must be a string that is not blank, got {reprlib.repr(row)}")
        texts.append(row)
    return texts, columns
