import json
import time

import numpy as np
import pytest

import textgym
from textgym.tasks.json_schema import Json, SchemaScore, parse_json

SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 5}, "name": {"type": "string"}},
    "required": ["age", "name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"age":7,"name":"cat"}', 1.0),
        (' { "name" : "cat",\n "age" : 70 } ', 1.0),
        ('{"age":7}', 0.35),
        ('{"age":4,"name":"cat"}', 0.35),
        ('{"age":7,"name":"cat","size":1}', 0.6),  # all properties are right, but there is one too many
        ('{"age":true,"name":null}', 0.1),
        ("{}", 0.1),
        ('{"age":7,"age":8,"name":"cat"}', 0.0),  # a repeated key
        ('{"age":07,"name":"cat"}', 0.0),
        ('[{"age":7}]', 0.0),
        ("7", 0.0),
        ('{"age":7', 0.0),
    ],
)
def test_score_by_hand(text, score):
    assert SchemaScore(SCHEMA)(text) == pytest.approx(score)


HOSTILE = {
    "deep arrays": "[" * 9_000,
    "deep objects": '{"a":' * 2_000,
    "deep and closed": "[" * 4_000 + "]" * 4_000,
    "depth hidden by strings": '["]]",' * 1_500 + "1" + "]" * 500,
    "depth hidden by an escaped quote": '["\\"]]",' * 1_000 + "1",
    "megabyte": "[" * 1_000_000,
    "megabyte of string": '"' + "a" * 1_000_000 + '"',
    "huge integer": "9" * 9_999,
    "huge float": "1e999",
    "not a number": "NaN",
    "infinity": "-Infinity",
    "null character": '{"a":"\x00"}',
    "control characters": "\x1b[2J",
    "repeated key": '{"a":1,"a":2}',
    "many quotes": '"\\' * 4_000,
    "empty": "",
    "two documents": "{} {}",
    "comment": "{} // ok",
    "single quotes": "{'a': 1}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_documents_are_refused_in_time(text):
    start = time.perf_counter()
    with pytest.raises(ValueError):
        parse_json(text)
    assert SchemaScore(SCHEMA, check=False)(text) == 0
    assert time.perf_counter() - start < 0.1


def test_brackets_in_strings_do_not_nest():
    text = json.dumps({"a": "[" * 100, "b": '"[{'})
    assert parse_json(text) == json.loads(text)


def test_bad_schemas():
    with pytest.raises(ValueError, match="schema must be a JSON schema"):
        SchemaScore({"type": "nonsense", "properties": {"a": {}}})
    with pytest.raises(ValueError, match="schema must describe at least one property"):
        SchemaScore({"type": "object"})


def test_schema_of_a_prompt():
    task = Json(properties=2, nested=1)
    ids = {task.token_text(token): token for token in range(task.pad_id)}
    prompt = ['"age"', "<at-least-5>", '"tags"', "<two-integers>", '"kind"', "<object>", '"id"', "<colour>", "<sep>"]
    closed = {"type": "object", "additionalProperties": False}
    integers = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
    inner = closed | {"properties": {"id": {"enum": ["red", "blue"]}}, "required": ["id"]}
    properties = {"age": {"type": "integer", "minimum": 5}, "tags": integers, "kind": inner}
    assert task.schema(np.array([ids[text] for text in prompt])) == closed | {
        "properties": properties,
        "required": ["age", "tags", "kind"],
    }


@pytest.mark.parametrize("dense", [True, False])
def test_reward_through_the_environment(dense):
    env = textgym.TextGenEnv("json", properties=2, dense=dense)
    observation, _ = env.reset(seed=0)
    task = env.task
    schema = task.schema(observation[observation != task.pad_id])
    assert len(schema["required"]) == 2
    ids = {task.token_text(token): token for token in range(task.vocab_size)}
    for token in "{}":
        assert env.step(ids[token])[1] == 0
    _, reward, terminated, _, _ = env.step(task.eos_id)
    assert terminated and reward == (0.1 if dense else 0)


@pytest.mark.parametrize("kwargs", [{"properties": 8}, {"properties": 1, "nested": 6}, {"properties": 3, "nested": 3}])
def test_the_oracle_fits_the_budget(kwargs):
    envs = textgym.TextGenVectorEnv(64, "json", masked=True, **kwargs)
    envs.reset(seed=0)
    returns, running = np.zeros(64), np.ones(64, bool)
    while running.any():
        _, rewards, terminated, _, infos = envs.step(envs.task.oracle(envs.episodes))
        assert not infos.get("final_info", {}).get("illegal_action", np.False_).any()
        returns += rewards * running
        running &= ~terminated
    assert (returns == 1).all()


def test_mask_by_hand():
    env = textgym.TextGenEnv("json", properties=1, masked=True)
    env.reset(seed=0)
    task = env.task
    ids = {task.token_text(token): token for token in range(task.vocab_size)}
    strings = {text for text in ids if text.startswith('"')}
    values = strings | set("0123456789") | {"true", "false", "null", "{", "["}

    def legal_after(token):
        env.step(ids[token])
        return {task.token_text(token) for token in np.flatnonzero(env.action_masks())}

    assert legal_after("{") == strings | {"}"}
    assert legal_after('"age"') == {":"}
    assert legal_after(":") == values
    assert legal_after("[") == values | {"]"}
    assert legal_after("7") == {",", "]"}
    assert legal_after("]") == {",", "}"}
    assert legal_after("}") == {"<eos>"}


def test_masked_play_is_always_json():
    envs = textgym.TextGenVectorEnv(64, "json", properties=2, masked=True)
    envs.reset(seed=0)
    generator, n_texts = np.random.default_rng(0), 0
    for _ in range(60):
        masks = envs.action_masks()
        actions = np.where(masks, generator.random(masks.shape), -1).argmax(axis=1)
        _, _, terminated, _, infos = envs.step(actions)
        for row in np.flatnonzero(terminated):
            start = 5  # two keys, two types, <sep>
            document = json.loads(envs.task.decode(infos["final_obs"][row, start:]))
            assert isinstance(document, dict)
            n_texts += 1
    assert n_texts > 100


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"properties": 0}, "properties must be an integer of at least 1, got 0"),
        ({"nested": -1}, "nested must be an integer of at least 0, got -1"),
        ({"properties": 9}, "properties and nested must take at most 8 keys, got 9"),
        ({"properties": 7, "nested": 1}, "at most 8 keys, got 9"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Json(**kwargs)
