"""Summary: say in a sentence what a document reports of its main person, or summarise texts of your own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.random import RowStreams
from textgym.tasks.base import Episodes, Prompts, Task
from textgym.tasks.documents import GeneratedDocuments, OwnDocuments
from textgym.tasks.running_rouge import RunningRouge


class Summary(Task):
    """Write the summary of a document.

    ## Description
    Without ``data`` the documents are generated: short reports on several people, such as ``later the baker sold the
    drum . the poet found the map by the sea . that night the baker closed the door again .`` The summary joins what is
    said of the person who is mentioned most: ``the baker sold the drum and closed the door``. Nothing but rewards
    tells who matters, what to leave out, and how a summary is worded. Documents and summaries of your own make it any
    task of single-document summarisation.

    ## Action Space
    ``Discrete(V)``: all words of documents and summaries, then EOS; 139 words where they are generated. Every action
    is legal in every state.

    ## Observation Space
    ``TokenSequence(context_length)``: the document, one token a word, a separator, and the words written so far. The
    ids from ``V`` are characters that only documents hold, such as the full stop; the separator comes next, and the
    padding id is one higher.

    ## Rewards
    ROUGE (Lin 2004) of the text against the summary, as F-measure in [0, 1], exactly as the package ``rouge-score``
    computes it without stemming. Dense: each token earns the change of the ROUGE of the text as it stands, so the
    rewards of an episode add up to it, and the best text stays the same (Ng, Harada and Russell 1999). Sparse: ROUGE
    at the end.

    ## Starting State
    Generated: the people, things and deeds are drawn uniformly, as are the openings and closings of sentences, and the
    sentences on the main person among the others. Otherwise one of the documents of ``data``, drawn uniformly.

    ## Episode End
    EOS terminates, and so does the budget of ``max_new_tokens`` actions.

    ## Arguments
    ``data=None``, ``sentences=6``, ``facts=3``, ``variant="rougeL"``, ``max_new_tokens=None``, ``context_length=None``,
    ``dense=True``; see below. Subword tokenizers fit large vocabularies better than words do: hand yours, and
    :class:`textgym.rewards.Rouge`, to :class:`textgym.tasks.text_generation.TextGeneration`.

    ## Version History
    * v0: first version.

    Args:
        data: Mappings with the strings ``"document"`` and ``"summary"``, or a ``datasets.Dataset`` of such rows; None
            to generate documents. Text is put in lower case; words consist of the letters a to z and digits.
        sentences: Sentences of a generated document (at least ``facts``); not together with ``data``.
        facts: Sentences on the main person (≥ 2); not together with ``data``.
        variant: ``"rouge1"``, ``"rouge2"`` or ``"rougeL"``.
        max_new_tokens: Budget; None for four more than the longest summary has words.
        context_length: Length of an observation. Longer documents are cut at their end, as is usual in
            summarisation; None for room for all of them.
        dense: Which rewards are paid, see above.

    Raises:
        ValueError: If an argument is out of range, or a row of ``data`` cannot be used.
    """

    def __init__(
        self,
        data: Iterable[Mapping[str, Any]] | None = None,
        sentences: int | None = None,
        facts: int | None = None,
        variant: str = "rougeL",
        max_new_tokens: int | None = None,
        context_length: int | None = None,
        dense: bool = True,
    ) -> None:
        self._rouge = RunningRouge(variant)
        self.dense = bool(dense)
        self.pays_at_end = not self.dense
        self._source: GeneratedDocuments | OwnDocuments
        if data is None:
            facts = check_at_least("facts", 3 if facts is None else facts, 2)
            self._source = GeneratedDocuments(6 if sentences is None else sentences, facts)
        elif sentences is None and facts is None:
            self._source = OwnDocuments(data)
        else:
            raise ValueError("sentences and facts describe generated documents: leave them out where data is given")
        self.max_new_tokens = check_at_least(
            "max_new_tokens", self._source.longest_summary + 4 if max_new_tokens is None else max_new_tokens, 1
        )
        needed = self._source.longest_prompt + 1 + self.max_new_tokens
        if context_length is None:
            context_length = needed
        self.context_length = check_at_least("context_length", context_length, self.max_new_tokens + 2)
        self._room = min(self.context_length, needed) - self.max_new_tokens - 1

        self.tokenizer = self._source.tokenizer
        self.vocab_size, self.eos_id = self.tokenizer.vocab_size, self.tokenizer.eos_id
        self.sep_id, self.pad_id = self.tokenizer.n_ids, self.tokenizer.n_ids + 1
        # The order of words is all that tells a shuffled summary from the right one; single words have none.
        self.cheat_bound = 0.85 if variant == "rougeL" else 1.0

    def prompts(self, random: RowStreams) -> Prompts:
        """A document and a separator."""
        drawn, references = self._source.draw(random)
        n, lengths = len(random), np.minimum(drawn.lengths, self._room)
        tokens = np.full((n, self._room + 1), self.sep_id, np.int32)
        tokens[:, :-1] = drawn.tokens[:, : self._room]
        tokens[np.arange(n), lengths] = self.sep_id
        columns: dict[str, NDArray] = {
            "reference": references,
            "remembered": self._rouge.start(references),
            "score": np.zeros(n),
        }
        return Prompts(tokens, lengths + 1, columns)

    def step_reward(self, episodes: Episodes, actions: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """The change of ROUGE (dense variant); keeps it up to date in both."""
        columns, rows = episodes.columns, np.arange(len(actions))
        previous = np.where(episodes.steps > 1, episodes.tokens[rows, episodes.lengths - 2], -1)
        is_word = actions != self.eos_id
        appended = self._rouge.append(columns["remembered"], columns["reference"], actions, previous)
        columns["remembered"] = np.where(is_word[:, None], appended, columns["remembered"])
        written = episodes.steps - ~is_word
        score = self._rouge.score(columns["remembered"], columns["reference"], written)
        change = score - columns["score"]
        columns["score"] = score
        return change if self.dense else None

    def final_reward(self, episodes: Episodes) -> NDArray[np.float64]:
        """ROUGE of the text (sparse variant)."""
        return episodes.columns["score"]

    def oracle(self, episodes: Episodes) -> NDArray[np.int64]:
        """The summary word by word, then EOS."""
        references = episodes.columns["reference"]
        at = np.minimum(episodes.steps, references.shape[1] - 1)
        expected = references[np.arange(len(episodes)), at]
        done = (expected < 0) | (episodes.steps >= references.shape[1])
        return np.where(done, self.eos_id, expected).astype(np.int64)

    def token_text(self, token: int) -> str:
        """A word, or a character that only documents hold."""
        if token < self.tokenizer.n_ids:
            return self.tokenizer.token_text(token)
        return "<sep>" if token == self.sep_id else "<pad>"
