"""Ways to learn better texts from a reward: each leaves policies along a frontier of reward and divergence."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from agents import DoubleDQN, make_vec_env
from agents.saving.arguments import merge
from agents.saving.presets import DENSE_STEERING
from benchmarks.steering_policies import Finetuned, LookAhead, Plain, Policy, RewardLookAhead, Steered, sample
from benchmarks.steering_tasks import ASKED
from textgym.language_models import HuggingFaceLM
from textgym.rewards import RewardFunction

LENGTH = 40
"""Tokens of a text."""
STRENGTHS = (0.7, 1.0, 1.5)
LOOK_AHEAD_STRENGTHS = (5.0, 15.0)
TEMPERATURES = (0.9, 0.8, 0.7)
LORA: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
CHECKPOINTS = 4
"""Points of a frontier that training goes through."""
GROUP = 8
"""Texts of a prompt in an update of GRPO."""


@dataclass(frozen=True)
class Task:
    """What is to be learned.

    Attributes:
        model: The language model.
        reward: See :data:`benchmarks.steering_tasks.REWARDS`.
        prompts: To train on.
        tokens: Tokens that may be generated in training.
        seed: Of everything random.
    """

    model: HuggingFaceLM
    reward: RewardFunction
    prompts: list[str]
    tokens: int
    seed: int


Points = Iterator[tuple[str, Policy]]
"""Names and policies along a frontier, each to be used before the next is asked for."""


def ours(task: Task) -> Points:
    """``DoubleDQN`` with a ``LanguageModelPolicy``, at several strengths.

    Where a part of the reward can be asked, that is what the agent learns: it is asked for every candidate in training,
    and nobody at use.
    """
    asked = ASKED.get(task.reward)
    arguments = {
        "prompts": task.prompts,
        "reward": task.reward if asked is None else asked.reward,
        "tokenizer": task.model.tokenizer,
        "max_new_tokens": LENGTH,
        "dense": asked is not None,
    }
    env = make_vec_env("TextGen-v0", n_envs=64, seed=task.seed, env_kwargs=arguments)
    policy: dict[str, Any] = {"model": task.model} | ({} if asked is None else {"candidates": asked.candidates})
    chosen = merge({"gamma": 1.0}, {} if asked is None else DENSE_STEERING, {"policy_kwargs": policy})
    agent = DoubleDQN("LanguageModelPolicy", env, seed=task.seed, **chosen)
    agent.learn(task.tokens)
    for strength in STRENGTHS:
        yield f"strength {strength:g}", Steered(agent, strength)


def reward_look_ahead(task: Task) -> Points:
    """What can be asked of the reward, for every candidate, and nothing learned: what ours is worth beyond it."""
    if asked := ASKED.get(task.reward):
        for strength in asked.strengths:
            policy = RewardLookAhead(task.model, asked.reward, strength, asked.candidates)
            yield f"strength {strength:g}", policy


def temperature(task: Task) -> Points:
    """The model itself at lower temperatures, which any reward has to beat that asks how likely a text is."""
    for value in TEMPERATURES:
        yield f"temperature {value:g}", Plain(task.model, value)


def look_ahead(task: Task) -> Points:
    """A value of texts, learned from plain samples, asked for every candidate: RAD's guidance (arXiv:2310.09520)."""
    texts, rewards = _plain_texts(task)
    value = learn_values(task, texts, rewards)
    for strength in LOOK_AHEAD_STRENGTHS:
        yield f"strength {strength:g}", LookAhead(task.model, value, strength)


def cloning(task: Task, best: float = 0.125, learning_rate: float = 3e-4, batch_size: int = 16) -> Points:
    """LoRA that imitates the best eighth of the plain samples of each prompt."""
    texts, rewards = _plain_texts(task)
    chosen = []
    for prompt in task.prompts:
        numbers = [number for number, (one, _) in enumerate(texts) if one == prompt]
        numbers.sort(key=lambda number: -rewards[number])
        chosen += [texts[number] for number in numbers[: max(1, round(best * len(numbers)))]]
    tuned, parameters = _with_lora(task)
    optimizer = torch.optim.AdamW(parameters, learning_rate)
    random = np.random.default_rng(task.seed)
    for point in range(CHECKPOINTS):
        for batch in np.array_split(random.permutation(len(chosen)), max(1, len(chosen) // batch_size)):
            loss = _likelihood_loss(tuned, task.model, [chosen[number] for number in batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield f"epoch {point + 1}", Finetuned(_as_language_model(tuned, task.model), task.model)


def grpo(task: Task, learning_rate: float = 3e-4) -> Points:
    """TRL's ``GRPOTrainer`` with LoRA, at four times of its training."""
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(task.model.path, local_files_only=True)
    bos = tokenizer.bos_token or ""  # HuggingFaceLM begins every text with it
    steps = max(CHECKPOINTS, task.tokens // (2 * GROUP * LENGTH))
    marks = {round(steps * (point + 1) / CHECKPOINTS) for point in range(CHECKPOINTS)}
    tuned, parameters = _with_lora(task)
    snapshots: list[list[Tensor]] = []

    def reward(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
        return [float(r) for r in task.reward([prompt.removeprefix(bos) for prompt in prompts], completions)]

    class Snapshots(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step in marks:
                snapshots.append([parameter.detach().clone() for parameter in parameters])

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=2 * GROUP,
            num_generations=GROUP,
            max_completion_length=LENGTH,
            learning_rate=learning_rate,
            max_steps=steps,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,  # there is room, and a model that checkpoints keeps no keys and values
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=task.seed,
        )
        GRPOTrainer(
            model=tuned,
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": [bos + prompt for prompt in task.prompts]}),
            processing_class=tokenizer,
            callbacks=[Snapshots()],
        ).train()
    for point, weights in enumerate(snapshots):
        with torch.no_grad():
            for parameter, value in zip(parameters, weights, strict=True):
                parameter.copy_(value)
        yield f"{point + 1}/{CHECKPOINTS} of the training", Finetuned(_as_language_model(tuned, task.model), task.model)


METHODS: dict[str, Callable[[Task], Points]] = {
    "ours": ours,
    "reward-look-ahead": reward_look_ahead,
    "temperature": temperature,
    "look-ahead": look_ahead,
    "cloning": cloning,
    "grpo": grpo,
}
_samples: dict[tuple[int, int, tuple[str, ...]], list[tuple[str, str]]] = {}


def _plain_texts(task: Task) -> tuple[list[tuple[str, str]], NDArray[np.float64]]:
    """As many (prompt, text) pairs of the plain model as the tokens allow, and their rewards."""
    key = (task.seed, task.tokens, tuple(task.prompts))
    if key not in _samples:
        each = max(1, task.tokens // (LENGTH * len(task.prompts)))
        drawn = sample(Plain(task.model), task.model, [*task.prompts] * each, LENGTH, task.seed)
        _samples.clear()
        _samples[key] = list(zip(drawn.prompts, drawn.texts, strict=True))
    texts = _samples[key]
    rewards = task.reward([prompt for prompt, _ in texts], [text for _, text in texts])
    return texts, np.asarray(rewards, np.float64)


def learn_values(
    task: Task,
    texts: Sequence[tuple[str, str]],
    rewards: NDArray[np.float64],
    epochs: int = 20,
    width: int = 256,
) -> nn.Module:
    """A network of the model's hidden states, (..., D), that tells the return of a text from each of its beginnings.

    The loss counts a beginning of t tokens t times, as RAD's does, and stops getting better on a tenth of the prompts.
    """
    hidden, lengths = _hidden_states(task.model, texts)
    torch_random = torch.Generator().manual_seed(task.seed)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(task.seed)
        network = nn.Sequential(
            nn.LayerNorm(hidden.shape[-1]), nn.Linear(hidden.shape[-1], width), nn.GELU(), nn.Linear(width, 1)
        )
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.1)
    returns = torch.from_numpy(rewards).float()[:, None]
    place = torch.arange(hidden.shape[1])
    weights = torch.where(place < lengths[:, None], place + 1.0, 0.0)
    held_out = torch.tensor([one in task.prompts[:: max(1, len(task.prompts) // 3)] for one, _ in texts])
    training = torch.nonzero(~held_out).squeeze(1)
    best, kept = float("inf"), copy.deepcopy(network.state_dict())
    for _ in range(epochs):
        for rows in training[torch.randperm(len(training), generator=torch_random)].split(32):
            error = network(hidden[rows].float()).squeeze(-1) - returns[rows]
            loss = (weights[rows] * error**2).sum() / weights[rows].sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            error = network(hidden[held_out].float()).squeeze(-1) - returns[held_out]
            missed = float((weights[held_out] * error**2).sum() / weights[held_out].sum())
        if missed < best:
            best, kept = missed, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    return network.eval()


def _hidden_states(model: HuggingFaceLM, texts: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """The last hidden state after each token of each text, float16, (n, LENGTH, D), and numbers of tokens, (n,)."""
    trunk = model._model.base_model
    hidden = torch.zeros(len(texts), LENGTH, model.hidden_dim, dtype=torch.float16)
    lengths = torch.zeros(len(texts), dtype=torch.int64)
    for start in range(0, len(texts), 64):
        batch = texts[start : start + 64]
        before = [model._prefix(model.tokenizer.encode(prompt)) for prompt, _ in batch]
        after = [model.tokenizer.encode(text)[:LENGTH] for _, text in batch]
        ids, mask = model._pad([first + second for first, second in zip(before, after, strict=True)])
        with torch.inference_mode():
            output = trunk(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        for row, (first, second) in enumerate(zip(before, after, strict=True)):
            hidden[start + row, : len(second)] = output[row, len(first) : len(first) + len(second)].half()
            lengths[start + row] = len(second)
    return hidden, lengths


def _with_lora(task: Task) -> tuple[Any, list[nn.Parameter]]:
    """A copy of the model with low-rank matrices beside its projections, and their parameters."""
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(task.seed)
        tuned = get_peft_model(copy.deepcopy(task.model._model), LoraConfig(task_type="CAUSAL_LM", **LORA))
    return tuned, [parameter for parameter in tuned.parameters() if parameter.requires_grad]


def _as_language_model(tuned: Any, plain: HuggingFaceLM) -> HuggingFaceLM:
    """The matrices added to a copy of the weights: no slower than the plain model."""
    return HuggingFaceLM(plain.path, plain.tokenizer, model=copy.deepcopy(tuned).merge_and_unload())


def _likelihood_loss(tuned: Any, model: HuggingFaceLM, texts: Sequence[tuple[str, str]]) -> Tensor:
    """Mean −log-probability of the tokens of some texts after their prompts."""
    before = [model._prefix(model.tokenizer.encode(prompt)) for prompt, _ in texts]
    rows = [first + model.tokenizer.encode(text) for first, (_, text) in zip(before, texts, strict=True)]
    ids, mask = model._pad(rows)
    places = torch.arange(ids.shape[1])
    counts = (places >= torch.tensor([len(row) for row in before])[:, None]) & mask.bool()
    logits = tuned(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return F.cross_entropy(logits[counts[:, 1:]], ids[:, 1:][counts[:, 1:]])
