"""Kill commands at every moment, run them again, and see whether the result is the one of a run that was left alone.

``python -m benchmarks.kill_matrix`` kills ``textgym train``, ``steer``, ``tune`` and ``validate``, and a sweep of
``benchmarks``, with SIGKILL, their worker processes with them, at several shares of the time that they take, and prints
a table.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.application.run_folder import CHECKPOINTS, CONFIG, SAMPLES
from agents.saving.checkpoint_folder import CheckpointFolder
from agents.saving.json_lines import append, read
from agents.saving.results import read_results
from agents.saving.state_file import differences

ROOT = Path(__file__).parents[1]
MOMENTS = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97)
_TEXTGYM = [sys.executable, "-m", "agents.application.cli"]
_ENV = "TextGen/Reverse-v0 --env-arg length=2 --env-arg vocab_size=3 --n-envs 8".split()
_AGENT = (
    "--set learning_starts=32 --set batch_size=8 --set policy_kwargs.features_dim=16 --set policy_kwargs.n_layers=1"
)
_SWEEP = """
import sys
from pathlib import Path
from benchmarks.run import run_cells
from benchmarks.cells import Cell
budget = {"budget_steps": 1024, "evaluations": 2, "eval_episodes": 16}
cells = [Cell("ours", "TextGen/Reverse-v0", seed, {"length": 2, "vocab_size": 3}, **budget) for seed in (0, 1)]
sys.exit(bool(run_cells(cells, Path(sys.argv[1]), jobs=1)))
"""
_CLOCK = ("seconds", "time", "per_second", "started", "machine", "versions", "command")


@dataclass(frozen=True)
class Command:
    """A command that can be killed.

    Attributes:
        name: What it is called in the table.
        start: The command line, given the folder to work in.
        again: The command line that goes on; None for the same.
        result: What it leaves in the folder, without what the clock decides.
    """

    name: str
    start: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]] | None
    result: Callable[[Path], Any]


def _train(folder: Path) -> list[str]:
    options = ["--steps", "1600", "--checkpoint-seconds", "0.2", "--run-dir", str(folder / "run")]
    return [*_TEXTGYM, "train", *_ENV, *_AGENT.split(), *options]


def _train_on_text(folder: Path) -> list[str]:
    (folder / "corpus.txt").write_text("the cat sat on the mat and saw the dog\n" * 300)
    options = ["--from-text", str(folder / "corpus.txt"), "--window", "16", "--epochs", "30"]
    options += ["--checkpoint-seconds", "0.2", "--run-dir", str(folder / "run")]
    return [*_TEXTGYM, "train", *_AGENT.split(), *options]


def _steer(folder: Path) -> list[str]:
    _write_language_model(folder / "language_model")
    (folder / "prompts.txt").write_text("a day\na friend\nthe day\nmy friend\n")
    options = ["--model", str(folder / "language_model"), "--prompts", str(folder / "prompts.txt")]
    options += ["--reward", "benchmarks.steering_tasks:positive", "--dense", "--length", "8", "--n-envs", "8"]
    options += ["--set", "learning_starts=64", "--set", "policy_kwargs.candidates=4", "--tokens", "1600"]
    return [*_TEXTGYM, "steer", *options, "--checkpoint-seconds", "0.2", "--run-dir", str(folder / "run")]


def _write_language_model(folder: Path) -> None:
    """A Llama of a few thousand random weights, always the same ones, and its tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = "a the my day friend good bad happy sad <eos>".split()
    end = len(words) - 1
    tokenizer = Tokenizer(models.WordLevel({word: token for token, word in enumerate(words)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", bos_token="<eos>").save_pretrained(folder)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = LlamaConfig(vocab_size=len(words), max_position_embeddings=64, eos_token_id=end, bos_token_id=end, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)


def _goes_on(start: Callable[[Path], list[str]], name: str = "train", *options: str) -> Callable[[Path], list[str]]:
    def again(folder: Path) -> list[str]:
        began = (folder / "run" / CONFIG).is_file()
        return [*_TEXTGYM, name, "--resume", str(folder / "run"), *options] if began else start(folder)

    return again


def _train_result(folder: Path) -> Any:
    run = folder / "run"
    found = CheckpointFolder(run / CHECKPOINTS).load()
    assert found is not None
    state = found[1]["state"]
    del state["random"]  # global generators, from which nothing draws: each process begins them anew
    with (run / "progress.csv").open() as file:
        rows = [_timeless(row) for row in csv.DictReader(file)]
    weights = (run / "model" / "model.safetensors").read_bytes()
    result = _timeless(json.loads((run / "result.json").read_text()))
    return {"state": state, "log": rows, "samples": (run / SAMPLES).read_text(), "result": result, "weights": weights}


def _text_result(folder: Path) -> Any:
    result = json.loads((folder / "run" / "result.json").read_text())
    return {"result": _timeless(result), "weights": (folder / "run" / "model" / "model.safetensors").read_bytes()}


def _tune(folder: Path) -> list[str]:
    (folder / "space.yaml").write_text("learning_rate: {low: 1e-4, high: 1e-2, log: true}\n")
    options = ["--trials", "4", "--steps", "400", "--space", str(folder / "space.yaml"), "--out", str(folder / "study")]
    return [*_TEXTGYM, "tune", *_ENV, *_AGENT.split(), *options]


def _tune_result(folder: Path) -> Any:
    return [_timeless(record) for record in read(folder / "study" / "study.jsonl")]


def _sweep(folder: Path) -> list[str]:
    return [sys.executable, "-c", _SWEEP, str(folder / "cells.jsonl")]


def _sweep_result(folder: Path) -> Any:
    results = read_results(folder / "cells.jsonl")
    for result in results.values():  # a point of the curve is steps, seconds, score
        result["curve"] = [[point[0], point[-1]] for point in result.get("curve", [])]
    return {name: _timeless(result) for name, result in results.items()}


def _validate(model: Path) -> Callable[[Path], list[str]]:
    def start(folder: Path) -> list[str]:
        return [*_TEXTGYM, "validate", str(model), "--episodes", "512", "--json", str(folder / "scores.json")]

    return start


def _validate_result(folder: Path) -> Any:
    return json.loads((folder / "scores.json").read_text())


def _timeless(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not any(word in key for word in _CLOCK)}


def commands(model: Path) -> dict[str, Command]:
    """Everything that is killed; ``model`` is what ``validate`` looks at."""
    made = (
        Command("train", _train, _goes_on(_train), _train_result),
        Command("train-from-text", _train_on_text, _goes_on(_train_on_text), _text_result),
        Command("steer", _steer, _goes_on(_steer, "steer", "--trust"), _train_result),
        Command("tune", _tune, None, _tune_result),
        Command("benchmarks", _sweep, None, _sweep_result),
        Command("validate", _validate(model), None, _validate_result),
    )
    return {command.name: command for command in made}


def run(line: list[str], kill_after: float | None = None) -> tuple[int, float, str]:
    """Run a command line in a session of its own, so that its workers die with it.

    Returns:
        Exit code (negative: the signal), seconds, and the end of what it said.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(line, env=environment, start_new_session=True, **pipes)
    try:
        said, _ = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
    return process.returncode, time.perf_counter() - started, (said or "").strip()[-300:]


def kill_and_repeat(command: Command, folder: Path, after: float, expected: Any) -> dict[str, Any]:
    """Kill a command after so many seconds, run it to its end, and compare."""
    folder.mkdir()
    code, seconds, _ = run(command.start(folder), after)
    killed = code == -signal.SIGKILL
    again, _, said = run((command.again or command.start)(folder)) if killed else (code, 0.0, "")
    row: dict[str, Any] = {"command": command.name, "seconds": round(seconds, 2), "killed": killed}
    if again != 0:
        return {**row, "result": f"failed with {again}: {said}"}
    different = differences(expected, command.result(folder))
    return {**row, "result": "the same" if not different else f"differs in {', '.join(different[:5])}"}


def matrix(names: list[str], moments: list[float], folder: Path) -> list[dict[str, Any]]:
    """Every command, killed at every moment."""
    rows = []
    known = commands(folder / "train" / "whole" / "run" / "model")
    for name in dict.fromkeys(["train", *names] if "validate" in names else names):
        command = known[name]
        whole = folder / name / "whole"
        whole.mkdir(parents=True)
        code, seconds, said = run(command.start(whole))
        if code != 0:
            raise RuntimeError(f"{name} must run to its end when it is left alone, got exit code {code}: {said}")
        expected = command.result(whole)
        for share in moments if name in names else ():
            for attempt in range(3):
                row = kill_and_repeat(command, folder / name / f"{share}-{attempt}", share * seconds, expected)
                if row["killed"]:
                    break
                seconds = row["seconds"]  # it had ended already: the machine is less busy than it was
            rows.append({**row, "share": share, "of_seconds": round(seconds, 2)})
            print(_line(rows[-1]), flush=True)
    return rows


def _line(row: dict[str, Any]) -> str:
    moment = f"{row['seconds']:.1f} s of {row['of_seconds']:.1f} s"
    return f"| {row['command']} | {moment if row['killed'] else f'{moment}: had ended'} | {row['result']} |"


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0 if every result was the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(commands(Path()))
    parser.add_argument("--commands", nargs="+", choices=names, default=names, help="which; all without it")
    parser.add_argument("--moments", nargs="+", type=float, default=list(MOMENTS), help="shares of the command's time")
    parser.add_argument("--out", type=Path, default=Path("results") / "kill_matrix.jsonl", help="JSON lines")
    given = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="kill-matrix-"))
    print("| command | killed after | result |\n|---|---|---|")
    try:
        rows = matrix(given.commands, given.moments, folder)
    finally:
        shutil.rmtree(folder)
    for row in rows:
        append(given.out, row)
    return int(any(row["result"] != "the same" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
