"""The environment for verifiers, played by its real runner and an endpoint that answers from the oracle."""

import contextlib
import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

vf = pytest.importorskip("verifiers", reason="verifiers is not installed")

from tests.textgym.test_text_steps import BASE, GAMES, native_turns  # noqa: E402
from textgym.adapters import TextSteps  # noqa: E402
from textgym.adapters.verifiers import verifiers_environment  # noqa: E402


@pytest.fixture(autouse=True)
def signals_as_they_were():
    """verifiers takes SIGINT and SIGTERM for itself."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def endpoint(answer):
    """An OpenAI-compatible endpoint: ``answer`` makes the assistant's message out of the messages before it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = {"role": "assistant", "content": answer(request["messages"])}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            body = {"id": "1", "object": "chat.completion", "created": 0, "model": "oracle", "choices": [choice]}
            body = json.dumps(body | {"usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield vf.ClientConfig(api_base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key_var="NO_KEY_NEEDED")
    finally:
        server.shutdown()
        server.server_close()


def text(message):
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def oracle_episode(env_id, seed, **arguments):
    """The texts of the oracle's episode, the prompt first, then message and reply in turns; and its return."""
    steps = TextSteps(env_id, **arguments)
    texts, total, over = [steps.reset(seed)], 0.0, False
    while not over:
        turn = steps.get_state()
        tokens, replied = [], False
        while not (over or replied):
            tokens.append(int(steps.task.oracle(steps._env._batch.episodes)[0]))
            _, _, over, _, info = steps.step_tokens(tokens[-1:])
            replied = len(info["reply_tokens"]) > 0
        steps.set_state(turn)
        message = steps.task.decode(np.array(tokens))
        answer, reward, over, _, _ = steps.step(message)
        texts += [message, answer]
        total += reward
    return texts, total


@pytest.mark.parametrize(
    ("env_id", "arguments"),
    [
        ("TextGen/Reverse-v0", {"length": 4, "vocab_size": 6}),
        ("TextGen/Hangman-v0", {}),
        ("TextGen/GuessNumber-v0", {}),
    ],
)
def test_the_oracle_earns_what_it_earns(env_id, arguments, monkeypatch):
    monkeypatch.setitem(os.environ, "NO_KEY_NEEDED", "none")
    episodes = {seed: oracle_episode(env_id, seed, **arguments) for seed in range(7, 11)}
    moves = {
        tuple(texts[:place]): texts[place] for texts, _ in episodes.values() for place in range(1, len(texts) - 1, 2)
    }
    env = verifiers_environment(env_id, n=2, n_eval=2, seed=7, **arguments)
    rows = [*env.get_dataset(), *env.get_eval_dataset()]
    assert [row["info"]["seed"] for row in rows] == [7, 8, 9, 10]
    inputs = [{**row, "example_id": number} for number, row in enumerate(rows) for _ in range(2)]  # groups of two
    with endpoint(lambda messages: moves[tuple(map(text, messages[1:]))]) as client:
        results = env.generate_sync(inputs, client=client, model="oracle", on_progress=[])
    assert len(results["outputs"]) == 8
    for output in results["outputs"]:
        assert output["reward"] == pytest.approx(episodes[output["info"]["seed"]][1], abs=0)
        assert output["metrics"]["refused"] == 0 and output["error"] is None
        assert output["metrics"]["num_turns"] == len(episodes[output["info"]["seed"]][0]) // 2


@pytest.mark.slow
@pytest.mark.parametrize("env_id", BASE)
def test_every_task_pays_what_the_environment_pays(env_id, monkeypatch):
    monkeypatch.setitem(os.environ, "NO_KEY_NEEDED", "none")
    moves, expected = {}, {}
    for seed in range(4):
        task, turns, _ = native_turns(env_id, seed, oracle=env_id in GAMES)
        texts, expected[seed] = [TextSteps(env_id).reset(seed)], 0.0
        for actions, reply, total in turns:
            message = task.decode(np.array(actions))
            moves[tuple(texts)] = message
            texts += [message, task.decode(np.array(reply, np.int64))]
            expected[seed] += total
    env = verifiers_environment(env_id, n=2, n_eval=2, seed=0)
    inputs = [{**row, "example_id": number} for number, row in enumerate([*env.get_dataset(), *env.get_eval_dataset()])]
    with endpoint(lambda messages: moves[tuple(map(text, messages[1:]))]) as client:
        outputs = env.generate_sync(inputs, client=client, model="random", on_progress=[])["outputs"]
    assert {output["info"]["seed"]: output["reward"] for output in outputs} == expected


def test_what_cannot_be_read_earns_the_floor(monkeypatch):
    monkeypatch.setitem(os.environ, "NO_KEY_NEEDED", "none")
    env = vf.load_environment("textgym.adapters.verifiers", id_or_task="TextGen/Hangman-v0", n=1, n_eval=1)
    with endpoint(lambda messages: "¿?") as client:
        (output,) = env.evaluate_sync(client, "oracle", num_examples=1, rollouts_per_example=1)["outputs"]
    steps = TextSteps("TextGen/Hangman-v0")
    steps.reset(1)
    assert output["reward"] == steps.step("¿?")[1] and output["metrics"]["refused"] == 1
    assert "This can't be read" in text(output["completion"][-1])


@pytest.mark.parametrize("name", ["n", "n_eval"])
def test_wrong_arguments(name):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, got 0"):
        verifiers_environment("TextGen/Hangman-v0", **{name: 0})
