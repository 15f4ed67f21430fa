"""``python -m benchmarks.steering_costs --model DIR``: what steering a language model costs.

What is compared takes turns in one process, on one thread; a ratio is the median over turns, and seconds are those of
the processor, so that what else runs on the machine matters little. The head is a new one: what it has learned does not
change what it costs.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from torch import nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from agents import DoubleDQN, make_vec_env
from agents.pruning.language_model import load_language_model
from agents.saving.json_lines import append
from benchmarks.comparison import Figure, print_figures
from benchmarks.steering_methods import LENGTH
from benchmarks.steering_tasks import positive, prompts
from textgym.language_models import HuggingFaceLM
from textgym.rewards import Distinctness, RewardFunction
from textgym.rewards.base import require

app = typer.Typer(add_completion=False)
RESULTS = Path("results/steering_costs.jsonl")
GENERATE_BAR = 1.15
UPDATE_BAR = 1.1
GENERATE_BATCHES = (1, 16)
N_ENVS = (32, 64)
BATCH_SIZE, LORA_BATCH_SIZE = 64, 8
"""Episodes of an update; with adapters, which are read forward and backward, of fewer."""
LORA = {"rank": 8}


@app.command()
def main(
    model: Annotated[Path, typer.Option(help="Local directory of a causal language model and its tokenizer.")],
    out: Annotated[Path, typer.Option(help="File of the results, JSON lines.")] = RESULTS,
    repeats: Annotated[int, typer.Option(min=1, help="Turns that are timed, of what takes seconds.")] = 5,
    length: Annotated[int, typer.Option(min=1, help="Tokens of a text.")] = LENGTH,
) -> None:
    """Measure what steering adds to generating, updating and acting."""
    torch.set_num_threads(1)
    require("peft", "peft", "benchmarks.steering_costs")
    trunk = load_language_model(model)
    agents = {n: new_agent(trunk, n, length) for n in N_ENVS}
    figures = [
        *acting_figures(agents, length, max(1, repeats // 2)),
        *generate_figures(agents[N_ENVS[0]], trunk, length, repeats),
        *asking_figures(trunk, length, repeats),
        update_figure(agents[N_ENVS[-1]], trunk, length, 4 * repeats),
        lora_figure(trunk, length, max(1, repeats // 2)),
    ]
    measured = {
        "name": "steering costs",
        "machine": {"platform": platform.platform(), "torch": torch.__version__, "threads": 1},
        "model": {"type": trunk._model.config.model_type, "million parameters": n_parameters(trunk._model) / 1e6},
        "tokens of a text": length,
        "figures": [asdict(figure) | {"met": figure.met} for figure in figures],
    }
    print_figures(measured)
    append(out, measured)
    Console().print(f"wrote {out}", soft_wrap=True)


def new_agent(model: HuggingFaceLM, n_envs: int, length: int, **policy_kwargs: Any) -> DoubleDQN:
    """An agent that collects and never updates by itself, on the prompts of :mod:`benchmarks.steering_tasks`."""
    arguments = {"reward": Distinctness(), "tokenizer": model.tokenizer, "max_new_tokens": length}
    env = make_vec_env("TextGen-v0", n_envs, seed=0, env_kwargs={"prompts": prompts()[0], **arguments})
    policy = {"model": model, **policy_kwargs}
    own: dict[str, Any] = {"learning_starts": 0, "updates_per_step": 0, "device": "cpu", "seed": 0}
    return DoubleDQN("LanguageModelPolicy", env, gamma=1.0, policy_kwargs=policy, **own)


# ---------------------------------------------------------------------------------------------- acting


def acting_figures(agents: dict[int, DoubleDQN], length: int, repeats: int) -> list[Figure]:
    """Tokens a second of collecting whole texts, prompts included, and the share of the model's own forward passes.

    Args:
        agents: By their number of environments; all of the same model.
        length: Tokens of a text.
        repeats: Turns.
    """
    lm: Any = next(iter(agents.values())).policy.language_model
    spent: dict[int, list[tuple[float, float]]] = {n: [] for n in agents}
    with forward_seconds(lm._model) as forward:
        for _ in range(repeats + 1):
            for n, agent in agents.items():
                forward[0], begun = 0.0, time.process_time()
                agent.learn(n * length)
                spent[n].append((time.process_time() - begun, forward[0]))
    figures = []
    for n, turns in spent.items():
        whole, passes = np.array(turns[1:]).T
        rate = float(np.median(n * length / whole))
        alone = float(np.median(n * length / passes))
        share = float(np.median(passes / whole))
        figures.append(Figure(f"acting, {n} environments", "tokens/s", rate, alone, "the model's passes alone", share))
    return figures


@contextmanager
def forward_seconds(model: Any) -> Iterator[list[float]]:
    """Within the context, a list of one number: seconds that the trunk and the output layer of a model have taken."""
    total, begun = [0.0], [0.0]

    def start(*_: Any) -> None:
        begun[0] = time.process_time()

    def stop(*_: Any) -> None:
        total[0] += time.process_time() - begun[0]

    parts: list[nn.Module] = [model.base_model, model.get_output_embeddings()]
    handles = [part.register_forward_pre_hook(start) for part in parts]
    handles += [part.register_forward_hook(stop) for part in parts]
    try:
        yield total
    finally:
        for handle in handles:
            handle.remove()


# ---------------------------------------------------------------------------------------------- generating


def generate_figures(agent: DoubleDQN, model: HuggingFaceLM, length: int, repeats: int) -> list[Figure]:
    """Seconds of ``generate``, which samples with its cache, steered beside plain."""
    return [_generate_figure(agent, model, length, batch, repeats) for batch in GENERATE_BATCHES]


def asking_figures(model: HuggingFaceLM, length: int, repeats: int) -> list[Figure]:
    """The same where VADER's tone is asked for every candidate."""
    agent = new_agent(model, 1, length, candidate_rewards=True)
    return [_generate_figure(agent, model, length, batch, repeats, positive) for batch in GENERATE_BATCHES]


def _generate_figure(
    agent: DoubleDQN,
    model: HuggingFaceLM,
    length: int,
    batch: int,
    repeats: int,
    reward: RewardFunction | None = None,
) -> Figure:
    lm, tokenizer = model._model, model.tokenizer
    pad_id = tokenizer.eos_id
    rows = [tokenizer.encode(prompt) for prompt in prompts()[1][:batch]]
    width = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    own = lm.generation_config
    lm.generation_config = GenerationConfig(pad_token_id=pad_id)  # without an end: every text has as many tokens

    def run(steered: bool) -> None:
        with agent.steering(lm, reward=reward) if steered else nullcontext(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            text = lm.generate(ids, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=length)
        assert text.shape == (batch, width + length)

    try:
        seconds = take_turns([lambda: run(True), lambda: run(False)], repeats)
    finally:
        lm.generation_config = own
    asking = ", the reward asked" if reward else ""
    return figure(f"generate, {batch} x {length} tokens{asking}", seconds, "plain", GENERATE_BAR)


# ---------------------------------------------------------------------------------------------- updates


def update_figure(agent: DoubleDQN, model: HuggingFaceLM, length: int, repeats: int) -> Figure:
    """Seconds of an update beside those under a model of a million parameters, of as many numbers a state and tokens.

    Args:
        agent: Of the model; with texts in its replay.
        model: The model.
        length: Tokens of a text.
        repeats: Turns.
    """
    small = new_agent(small_model(model), BATCH_SIZE, length).learn(BATCH_SIZE * length)
    contestants = [lambda one=one: one.train(1, BATCH_SIZE) for one in (agent, small)]
    seconds = take_turns(contestants, repeats)
    return figure(f"update, {BATCH_SIZE} texts", seconds, "a model of 1 M parameters", UPDATE_BAR)


def lora_figure(model: HuggingFaceLM, length: int, repeats: int) -> Figure:
    """Seconds of an update in which adapters learn, beside those of the head alone."""
    contestants = []
    for policy in ({"lora": LORA}, {}):
        agent = new_agent(model, LORA_BATCH_SIZE, length, **policy).learn(LORA_BATCH_SIZE * length)
        contestants.append(lambda agent=agent: agent.train(1, LORA_BATCH_SIZE))
    seconds = take_turns(contestants, repeats)
    return figure(f"update with adapters, {LORA_BATCH_SIZE} texts", seconds, "the head alone")


def small_model(model: HuggingFaceLM) -> HuggingFaceLM:
    """A random Llama of one layer, with a model's width and tokens; a million parameters beside an embedding of 576."""
    config = model._model.config
    heads = config.num_attention_heads
    sizes: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": model.hidden_dim,
        "intermediate_size": model.hidden_dim // 8,
        "num_hidden_layers": 1,
        "num_attention_heads": heads,
        "num_key_value_heads": getattr(config, "num_key_value_heads", heads),
        "max_position_embeddings": model.context_length,
    }
    small = LlamaConfig(**sizes, tie_word_embeddings=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return HuggingFaceLM(model.path, model.tokenizer, model=LlamaForCausalLM(small))


# ---------------------------------------------------------------------------------------------- timing


def take_turns(contestants: Sequence[Callable[[], Any]], repeats: int) -> NDArray[np.float64]:
    """Seconds of processor time of each contestant in each turn, (repeats, n), after one turn that warms up."""
    seconds = np.zeros((repeats + 1, len(contestants)))
    for turn in seconds:
        for number, work in enumerate(contestants):
            begun = time.process_time()
            work()
            turn[number] = time.process_time() - begun
    return seconds[1:]


def figure(name: str, seconds: NDArray[np.float64], against: str, bar: float | None = None) -> Figure:
    """Medians of turns, (repeats, 2), of ours and of the other, in ms, and of their ratio."""
    ours, other = 1e3 * np.median(seconds, axis=0)
    ratio = float(np.median(seconds[:, 0] / seconds[:, 1]))
    return Figure(name, "ms", float(ours), float(other), against, ratio, bar, at_most=True)


def n_parameters(model: nn.Module) -> int:
    """Parameters of a model, those that are used twice counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    app()
