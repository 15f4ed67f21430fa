"""Reasoning: the questions of Reasoning Gym, each scored by its own verifier."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.random import RowStreams
from textgym.rewards.base import require
from textgym.tasks.base import Episodes, Prompts, Task
from textgym.tasks.documents import pad
from textgym.tasks.reasoning_datasets import DATASETS, REFUSED, VERSION
from textgym.tokenizers import CharacterTokenizer


class Reasoning(Task):
    """Answer the questions of a Reasoning Gym data set.

    ## Description
    Reasoning Gym (arXiv:2505.24760) generates questions of arithmetic, logic, algorithms, games and more, each with a
    verifier of answers. For ``State the final answer to the following arithmetic problem: 4 + 3 =`` it is ``7<eos>``.
    Questions are read, and answers written, character by character.

    The package is the optional extra ``reasoning``. Data sets are let in one by one
    (:data:`textgym.tasks.reasoning_datasets.DATASETS`): those of which every question has an answer that earns 1, equal
    seeds give equal questions, and the verifier neither executes the answer's text nor was found to raise, hang or
    accept nonsense.

    ## Action Space
    ``Discrete(V)``: the characters that occur in answers, in the order of their code points, then EOS. Every action is
    legal in every state.

    ## Observation Space
    ``TokenSequence(context_length)``: the question, a separator, and the characters written so far. The ids from ``V``
    are characters that only questions hold; the separator comes next, and the padding id is one higher.

    ## Rewards
    At the end, what the data set's own verifier gives the text: 1 for a right answer, 0 for most wrong ones. Many
    verifiers give a share of it to answers that are nearly right or hold more than the answer.

    ## Starting State
    One of the first ``size`` questions of the data set with seed ``data_seed``, drawn uniformly.

    ## Episode End
    EOS terminates, and so does the budget of ``max_new_tokens`` actions.

    ## Arguments
    ``dataset="chain_sum"``, ``config=None``, ``size=1000``, ``data_seed=0``, ``max_new_tokens=None``; see below.

    ## Version History
    * v0: first version, with the questions and verifiers of reasoning-gym 0.1.25.

    Args:
        dataset: Name of the data set, one of :data:`textgym.tasks.reasoning_datasets.DATASETS`.
        config: Arguments of the data set that differ from its defaults, plain JSON values.
        size: Number of questions (≥ 1). They are generated once, when they are first needed: most data sets make
            thousands a second, the slowest four.
        data_seed: Seed of the questions (≥ 0).
        max_new_tokens: Budget; None for one more than the longest answer has characters.

    Raises:
        ModuleNotFoundError: If ``reasoning-gym`` is not installed, or in another version than the one whose verifiers
            have been checked.
        ValueError: If an argument is out of range, or ``config`` makes questions that cannot be used.
    """

    def __init__(
        self,
        dataset: str = "chain_sum",
        config: Mapping[str, Any] | None = None,
        size: int = 1000,
        data_seed: int = 0,
        max_new_tokens: int | None = None,
    ) -> None:
        if not isinstance(dataset, str):
            raise ValueError(f"dataset must be the name of a data set, got {dataset!r}")
        if dataset in REFUSED:
            raise ValueError(f"dataset {dataset!r} of Reasoning Gym is not offered: {REFUSED[dataset]}")
        if dataset not in DATASETS:
            raise ValueError(f"dataset must be one of {sorted(DATASETS)}, got {dataset!r}")
        size, data_seed = check_at_least("size", size, 1), check_at_least("data_seed", data_seed, 0)
        if config is not None and not isinstance(config, Mapping):
            raise ValueError(f"config must be a mapping of names to values, got {config!r}")
        config = {} if config is None else dict(config)
        if not config.keys().isdisjoint(("size", "seed")):
            raise ValueError(f"config must not hold 'size' or 'seed': pass size and data_seed, got {config}")
        self.dataset = dataset
        self._table = _generate(dataset, json.dumps(config, sort_keys=True), size, data_seed)
        tokenizer = self._table.tokenizer
        self.vocab_size, self.eos_id = tokenizer.vocab_size, tokenizer.eos_id
        self.sep_id, self.pad_id = tokenizer.n_ids, tokenizer.n_ids + 1
        self.tokenizer = tokenizer
        longest = self._table.answers.shape[1] + 1
        self.max_new_tokens = check_at_least("max_new_tokens", longest if max_new_tokens is None else max_new_tokens, 1)
        self.context_length = self._table.questions.shape[1] + self.max_new_tokens

    def prompts(self, random: RowStreams) -> Prompts:
        """A question and a separator."""
        number = random.integers(len(self._table.lengths))
        return Prompts(self._table.questions[number], self._table.lengths[number], {"number": number})

    def final_reward(self, episodes: Episodes) -> NDArray[np.float64]:
        """The verifier's score of each text, shape ``(n,)``, in [0, 1]."""
        numbers = episodes.columns["number"].tolist()
        texts = [self.decode(episodes.completion(row)) for row in range(len(episodes))]
        return np.array([self._table.score(text, number) for text, number in zip(texts, numbers, strict=True)])

    def oracle(self, episodes: Episodes) -> NDArray[np.int64]:
        """The answer character by character, then EOS."""
        answers = self._table.answers
        at = np.minimum(episodes.steps, answers.shape[1] - 1)
        expected = answers[episodes.columns["number"], at]
        done = (expected < 0) | (episodes.steps >= answers.shape[1])
        return np.where(done, self.eos_id, expected).astype(np.int64)

    def token_text(self, token: int) -> str:
        """A character."""
        if token < self.tokenizer.n_ids:
            return self.tokenizer.token_text(token)
        return "<sep>" if token == self.sep_id else "<pad>"

    def join(self, texts: list[str]) -> str:
        """Characters without spaces."""
        return "".join(texts)


class _Table(NamedTuple):
    """The questions of a data set.

    Attributes:
        tokenizer: Characters of answers as actions, EOS, then those of questions alone.
        questions: Token ids, separator included, shape ``(size, Q)``, int32.
        lengths: Tokens of each question, separator included, shape ``(size,)``.
        answers: Token ids, -1 after each answer's end, shape ``(size, A)``, int32.
        dataset: The data set, which scores.
        items: Its items, as it wants them back.
    """

    tokenizer: CharacterTokenizer
    questions: NDArray[np.int32]
    lengths: NDArray[np.int64]
    answers: NDArray[np.int32]
    dataset: Any
    items: list[dict[str, Any]]

    def score(self, text: str, number: int) -> float:
        """The verifier's score of an answer, in [0, 1]."""
        score = float(self.dataset.score_answer(text, self.items[number]))
        return min(max(score, 0.0), 1.0)  # a mean of matches may round to 1.0000000000000002


@cache
def _generate(name: str, config: str, size: int, seed: int) -> _Table:
    """The first ``size`` questions; ``config`` is JSON, so that equal arguments share one table."""
    require("reasoning_gym", f"reasoning-gym=={VERSION}", "Reasoning")
    installed = importlib.metadata.version("reasoning-gym")
    if installed != VERSION:
        raise ModuleNotFoundError(
            f"Reasoning needs the package reasoning-gym=={VERSION}, whose verifiers have been checked, and "
            f"{installed} is installed: pip install reasoning-gym=={VERSION}"
        )
    from reasoning_gym.factory import create_dataset

    try:
        dataset = create_dataset(name, **json.loads(config), seed=seed, size=size)
        items = [dataset[number] for number in range(size)]
    except (AssertionError, TypeError, ValueError) as error:  # what the configurations raise
        raise ValueError(f"config must suit the data set {name!r}, got {config}: {error}") from error
    for item in items:
        if not isinstance(item["answer"], str) or dataset.score_answer(item["answer"], item) < 1:
            raise ValueError(
                f"config must give every question of {name!r} an answer that its verifier accepts, got {config}: "
                f"{item['answer']!r} to {item['question']!r}"
            )
    characters = sorted({character for item in items for character in item["answer"]})
    tokenizer = CharacterTokenizer(characters).with_prompt_words([item["question"] for item in items])
    questions = pad([[*tokenizer.encode(item["question"]), tokenizer.n_ids] for item in items])
    lengths = np.count_nonzero(questions >= 0, axis=1)
    answers = pad([tokenizer.encode(item["answer"]) for item in items])
    return _Table(tokenizer, questions, lengths, answers, dataset, items)
