"""Whatever comes in, an environment works or raises a documented error, and its invariants hold."""

import importlib
import inspect
import time
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textgym
from tests.fuzzing import examples
from textgym import TextGenVectorEnv
from textgym.registration import ENVIRONMENTS
from textgym.tasks import TASKS, make_task
from textgym.tokenizers import CharacterTokenizer, WordTokenizer

ROWS = 4
KINDS = ("legal", "legal", "legal", "any", "illegal", "low", "high", "float", "bool", "shape", "nothing")
MALFORMED = frozenset({"low", "high", "float", "bool", "shape", "nothing"})


@cache
def task_of(row_number):
    row = ENVIRONMENTS[row_number]
    return make_task(row.task, **row.kwargs)


def actions_of(kind, masks, generator):
    n, size = masks.shape
    legal = np.where(masks, generator.random(masks.shape), -1.0).argmax(axis=1)
    match kind:
        case "legal":
            return legal
        case "any":
            return generator.integers(size, size=n)
        case "illegal":  # in every row that has such a token
            return np.where(masks, -1.0, generator.random(masks.shape)).argmax(axis=1)
        case "low":
            legal[generator.integers(n)] = -1 - generator.integers(2**40)
        case "high":
            legal[generator.integers(n)] = size + generator.integers(2**40)
        case "float":
            return legal + 0.5
        case "bool":
            return legal > 0
        case "shape":
            return legal[1:]
        case "nothing":
            return None
    return legal


def snapshot(envs):
    episodes = envs.episodes
    columns = [column.copy() for column in episodes.columns.values()]
    return [episodes.tokens.copy(), episodes.lengths.copy(), episodes.steps.copy(), envs.returns.copy(), *columns]


def run(envs, kinds, generator):
    """Step through ``kinds`` of actions and check what has to hold after each."""
    task = envs.task
    low, high = task.reward_range
    observations, infos = envs.reset(seed=int(generator.integers(2**31)))
    returns = np.zeros(envs.num_envs)
    for kind in kinds:
        masks = envs.action_masks()
        assert masks.shape == (envs.num_envs, task.vocab_size) and masks.any(axis=1).all()
        assert np.array_equal(infos["action_mask"].astype(bool), masks)
        lengths = envs.episodes.lengths.copy()
        assert np.array_equal(textgym.sequence_lengths(observations, task.pad_id), lengths)
        assert (lengths < task.context_length).all() and (envs.episodes.prompt_lengths <= lengths).all()
        actions = actions_of(kind, masks, generator)
        if kind in MALFORMED:
            before = snapshot(envs)
            with pytest.raises(ValueError, match=r"^actions must [^\n]*$"):
                envs.step(actions)
            # A refused action changes nothing.
            assert all(np.array_equal(old, new) for old, new in zip(before, snapshot(envs), strict=True))
            continue
        new, rewards, terminated, truncated, infos = envs.step(actions)
        illegal = ~masks[np.arange(envs.num_envs), actions]
        assert terminated[illegal].all() and not truncated.any()
        reported = infos.get("final_info", {}).get("illegal_action", np.zeros(envs.num_envs, bool))
        assert np.array_equal(reported, illegal)
        last = np.where(terminated[:, None], infos.get("final_obs", new), new)
        for row, length in enumerate(lengths):
            assert np.array_equal(last[row, :length], observations[row, :length])
            assert last[row, length] == actions[row]
        assert envs.observation_space.contains(new)
        assert np.isfinite(rewards).all()
        returns += rewards
        ended = returns[terminated]
        assert (ended >= low - 1e-9).all() and (ended <= high + 1e-9).all()
        returns[terminated] = 0
        observations = new


@pytest.mark.parametrize("row_number", range(len(ENVIRONMENTS)), ids=textgym.env_ids())
@examples(3)
@given(kinds=st.lists(st.sampled_from(KINDS), min_size=8, max_size=24), seed=st.integers(0, 2**31))
def test_actions(row_number, kinds, seed):
    run(TextGenVectorEnv(ROWS, task_of(row_number)), [*kinds, "illegal"], np.random.default_rng(seed))


ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 12),
    st.sampled_from(
        [0.5, float("nan"), float("inf"), "", "3", "rouge1", "\x00", "é", b"x", [], [1], [None], ["word"], {}, {"a": 1}]
    ),
)


@cache
def parameters_of(name):
    module, _, cls = TASKS[name].partition(":")
    return tuple(inspect.signature(getattr(importlib.import_module(module), cls)).parameters)


@pytest.mark.parametrize("name", TASKS)
@examples(20)
@given(data=st.data())
def test_arguments(name, data):
    """Random arguments build an environment that works, or an error of one line that names an argument."""
    parameters = parameters_of(name)
    kwargs = data.draw(st.dictionaries(st.sampled_from(parameters), ODD_VALUES, min_size=1, max_size=3))
    try:
        envs = TextGenVectorEnv(ROWS, name, **kwargs)
    except (ValueError, TypeError) as error:
        assert "\n" not in str(error) and any(parameter in str(error) for parameter in parameters), (kwargs, error)
        return
    run(envs, ["legal", "any", "legal", "high", "illegal", "any", "legal"], np.random.default_rng(0))


def count_letters(prompts, completions, **columns):
    return [min(len(completion), 10) / 10 for completion in completions]


def run_prompt(text, **kwargs):
    try:
        envs = TextGenVectorEnv(ROWS, "text_generation", prompts=[text], reward=count_letters, **kwargs)
    except ValueError as error:
        message = str(error)
        assert "\n" not in message and "prompts[0]" in message and len(message) < 500
        return False
    run(envs, ["legal", "any", "low", "legal"], np.random.default_rng(0))
    assert isinstance(envs.task.decode(envs.episodes.tokens[0]), str)
    return True


@examples(15)
@given(text=st.text(st.characters(), max_size=40))
def test_any_unicode_as_a_prompt(text):
    run_prompt(text, vocab_size=20, max_new_tokens=3)


@pytest.mark.parametrize("text", ["\x00\x1b[2J\x07 good", "\u202egood\u202c", "\ud800 good", "a\nb\tc\r\n"])
def test_control_characters(text):
    run_prompt(text, vocab_size=20, max_new_tokens=3)


@pytest.mark.parametrize("text", ["a" * 10**6, "good " * 200_000, "\x00" * 10**6, " " * 10**6])
def test_a_megabyte_as_a_prompt_is_refused_or_works_in_seconds(text):
    start = time.perf_counter()
    run_prompt(text, vocab_size=20, max_new_tokens=3)
    assert time.perf_counter() - start < 5
    # With a limit, a text that is too long is refused, and the error does not repeat it.
    if text.strip().count(" "):
        assert not run_prompt(text, vocab_size=20, max_new_tokens=3, context_length=64)


SCRIPTS = (
    "e\u0301a\u0308",
    "\U0001f600\U0001f1e9\U0001f1ea\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "שלום",
    "مرحبا",
    "漢字",
    "ﬁß",
)
SYMBOLS = st.one_of(st.text(st.characters(codec="utf-8"), max_size=6), st.sampled_from(SCRIPTS), st.just("good"))


@examples(60)
@given(symbols=st.lists(SYMBOLS, max_size=8), kind=st.sampled_from([CharacterTokenizer, WordTokenizer]), data=st.data())
def test_odd_vocabularies(symbols, kind, data):
    """Emoji, combining characters, right-to-left, one token, duplicates: refused in a line, or text round-trips."""
    try:
        tokenizer = kind("".join(symbols) if kind is CharacterTokenizer else symbols)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
        return
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 2), max_size=6))
    texts = [tokenizer.token_text(token) for token in ids]
    assert tokenizer.encode(tokenizer.separator.join(texts)) == ids
    words = [text for text in map(tokenizer.token_text, range(tokenizer.vocab_size - 1)) if text.strip()]
    kwargs = {"reward": count_letters, "tokenizer": tokenizer, "max_new_tokens": 3}
    if not words:  # of white space alone
        with pytest.raises(ValueError, match="must be a string that is not blank"):
            TextGenVectorEnv(ROWS, "text_generation", prompts=[tokenizer.token_text(0)], **kwargs)
        return
    envs = TextGenVectorEnv(ROWS, "text_generation", prompts=words[:1], **kwargs)
    run(envs, ["legal", "any", "high", "legal"], np.random.default_rng(0))


def test_two_hundred_thousand_words():
    words = [f"word{number}" for number in range(200_000)]
    envs = TextGenVectorEnv(
        ROWS, "text_generation", prompts=["word7"], reward=count_letters, tokenizer=WordTokenizer(words)
    )
    run(envs, ["legal", "legal", "any"], np.random.default_rng(0))
