"""What pruning a language model costs and saves: ``python -m benchmarks.pruned_language_model --model DIR``.

A quarter of the feed-forward neurons and a third of the heads go, ranked by norms of weights and by what they add to
text; then the model recovers for some steps. Perplexity is that of English that Python brings along, of which the end
is held out. One process, one thread; seconds are the processor's, so that whatever else runs on the machine is not
counted. Whole and pruned model take turns, and the ratio of their speeds is the median over turns.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from agents.pruning.pruned_transformer import PrunedTransformer, local_directory
from agents.pruning.recover import match_hidden_states
from agents.saving.json_lines import append
from benchmarks.comparison import print_table
from benchmarks.offline_data import standard_library_prose

app = typer.Typer(add_completion=False)
Row = dict[str, Any]
RESULTS = Path("results/representations.jsonl")
FFN_SPARSITY, HEAD_SPARSITY = 0.25, 1 / 3
READ = 512
"""Tokens that are read at once, for perplexity and to be timed."""
TRAIN_LENGTH, BATCH_SIZE = 128, 4
CALIBRATION_ROWS = 32
N_STEPS_TIMED = 16
SEED = 0


@app.command()
def main(
    model: Annotated[Path, typer.Option(help="Local directory of a causal Llama, Mistral or Qwen2.")],
    out: Annotated[Path, typer.Option(help="File of the results, JSON lines.")] = RESULTS,
    tokens: Annotated[int, typer.Option(min=READ, help="Held-out tokens.")] = 20_480,
    steps: Annotated[int, typer.Option(min=1, help="Steps of recovery, of 512 tokens each.")] = 100,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Highest learning rate of the recovery.")] = 3e-4,
    logits_weight: Annotated[float, typer.Option(min=0.0, help="Weight of the divergence of the logits.")] = 1.0,
    repeats: Annotated[int, typer.Option(min=1, help="Turns that are timed.")] = 8,
) -> None:
    """Prune a language model, let it recover, and measure it before and after."""
    torch.set_num_threads(1)
    directory = local_directory(model)

    def load() -> Any:
        return AutoModelForCausalLM.from_pretrained(directory, local_files_only=True).eval()

    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    held_out, rows = split_text(tokenizer, tokens, (BATCH_SIZE * steps + CALIBRATION_ROWS) * TRAIN_LENGTH)
    measured = measure(load, held_out, rows, steps, learning_rate, logits_weight, repeats)
    columns = dict.fromkeys(name for row in measured for name in row)
    print_table("pruned, one thread", [{name: row.get(name, "") for name in columns} for row in measured])
    facts: Row = {
        "machine": {"platform": platform.platform(), "torch": torch.__version__, "threads": 1},
        "model": {"type": load().config.model_type, "million parameters": measured[0]["million parameters"]},
        "held-out tokens": held_out.numel(),
        "recovery": {"steps": steps, "tokens": steps * BATCH_SIZE * TRAIN_LENGTH}
        | {"learning_rate": learning_rate, "logits_weight": logits_weight},
    }
    append(out, {"name": "language model", **facts, "rows": measured})
    Console().print(f"wrote {out}", soft_wrap=True)


def split_text(tokenizer: Any, n_held_out: int, n_train: int) -> tuple[Tensor, Tensor]:
    """English to be tested on, (n, 512), and to learn from, (m, 128); token ids, which do not overlap.

    Args:
        tokenizer: A tokenizer of ``transformers``.
        n_held_out: Tokens to be tested on; whole rows of them.
        n_train: Most tokens to learn from.
    """
    text = standard_library_prose()
    cut = len(text) - 6 * n_held_out  # a token has four characters or so
    ids = [torch.tensor(tokenizer(part, verbose=False)["input_ids"]) for part in (text[cut:], text[:cut])]
    held_out, train = ids[0][:n_held_out], ids[1][:n_train]
    rows = [
        part[: len(part) // width * width].view(-1, width) for part, width in ((held_out, READ), (train, TRAIN_LENGTH))
    ]
    return rows[0], rows[1]


def measure(
    load: Callable[[], Any],
    held_out: Tensor,
    train: Tensor,
    steps: int,
    learning_rate: float,
    logits_weight: float,
    repeats: int,
) -> list[Row]:
    """A row for the whole model, the pruned one by either ranking, and the recovered one.

    Args:
        load: Makes the whole model.
        held_out: Token ids to be tested on, (n, T).
        train: Token ids to learn from, (m, L); the first rows rank neurons and heads.
        steps: Steps of recovery.
        learning_rate: Its highest learning rate.
        logits_weight: Weight of the divergence of the logits in it.
        repeats: Turns that are timed.
    """
    whole = load()
    rows = [_row("whole", whole, held_out)]
    sparsities: Row = {"scope": "layer", "ffn_sparsity": FFN_SPARSITY, "head_sparsity": HEAD_SPARSITY}
    by_norms = PrunedTransformer(load(), "structured", **sparsities)
    rows.append(_row("pruned by norms of weights", by_norms.model, held_out))
    calibration = train[:CALIBRATION_ROWS].split(BATCH_SIZE)
    pruned = PrunedTransformer(load(), "structured", **sparsities, calibration=calibration)
    rows.append(_row("pruned by what it adds to text", pruned.model, held_out))
    # Timed before it learns: that changes no shape.
    for index, speeds in zip((0, 2), compare_speeds([whole, pruned.model], held_out[:1], repeats), strict=True):
        rows[index] |= speeds
    batches = train[CALIBRATION_ROWS:].split(BATCH_SIZE)
    order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(SEED)).tolist()
    start = time.process_time()
    losses = match_hidden_states(
        pruned,
        whole,
        [batches[index] for index in order],
        n_steps=steps,
        learning_rate=learning_rate,
        logits_weight=logits_weight,
    )
    row = _row("and recovered", pruned.model, held_out)
    ends = [float(np.mean(part)) for part in (losses[:5], losses[-5:])]
    rows.append(row | {"seconds of recovery": time.process_time() - start, "first losses": ends[0], "last": ends[1]})
    return rows


def _row(name: str, model: Any, held_out: Tensor) -> Row:
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return {"model": name, "million parameters": millions, "perplexity": perplexity(model, held_out)}


def perplexity(model: Any, rows: Tensor) -> float:
    """Perplexity of token ids, (n, T), of which each row is read on its own and its first token is given."""
    total = 0.0
    with torch.inference_mode():
        for row in rows:
            logits = model(row.unsqueeze(0), use_cache=False).logits[0, :-1]
            total += float(torch.nn.functional.cross_entropy(logits, row[1:], reduction="sum"))
    return math.exp(total / (rows.numel() - len(rows)))


def compare_speeds(models: list[Any], ids: Tensor, repeats: int) -> list[Row]:
    """Tokens a second of reading ``ids``, (1, T), at once, and of going on from there a token at a time.

    The head is run for the last token alone. Ratios are those to the first model's speed.
    """
    seconds = np.zeros((repeats + 1, len(models), 2))
    with torch.inference_mode():
        for repeat in range(repeats + 1):  # the first warms up
            for index, model in enumerate(models):
                start = time.process_time()
                cache = model(ids, use_cache=True, logits_to_keep=1).past_key_values
                middle = time.process_time()
                for _ in range(N_STEPS_TIMED):
                    cache = model(ids[:, :1], past_key_values=cache, use_cache=True).past_key_values
                seconds[repeat, index] = middle - start, time.process_time() - middle
    speeds = np.array([ids.shape[1], N_STEPS_TIMED]) / seconds[1:]  # (repeats, models, 2)
    best, ratios = speeds.max(axis=0), np.median(speeds / speeds[:, :1], axis=0)
    names = ("read tokens/s", "step tokens/s")
    return [
        {name: float(best[index, part]) for part, name in enumerate(names)}
        | {f"{name.split()[0]} ratio": float(ratios[index, part]) for part, name in enumerate(names)}
        for index in range(len(models))
    ]


if __name__ == "__main__":
    app()
