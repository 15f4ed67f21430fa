"""Recovery after pruning: the small model learns to say what the whole one said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from agents.pruning.activations import Batch, as_inputs
from agents.pruning.pruned_transformer import PrunedTransformer
from textgym.checks import check_at_least, check_positive

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""
MOST_NORM = 1.0
"""Gradients with a larger norm are scaled down to it."""


def match_hidden_states(
    pruned: PrunedTransformer,
    whole: Any,
    data: Sequence[str] | Iterable[Batch],
    tokenizer: Any = None,
    n_steps: int = 200,
    batch_size: int = 8,
    max_length: int = 128,
    learning_rate: float = 2e-4,
    logits_weight: float = 0.0,
    seed: int = 0,
) -> list[float]:
    """Train a pruned model, in place, so that its last hidden states are the whole model's again.

    The loss is the squared distance of the last hidden states (Jiao et al. 2019, arXiv:1909.10351) as a fraction of
    their squared norm, each summed over a batch; 0 where they agree. With ``logits_weight`` it is joined by the
    divergence KL(whole ‖ pruned) of the next-token distributions in nats a token (Hinton et al. 2015,
    arXiv:1503.02531; for pruned models, Minitron, arXiv:2407.14679), which is what perplexity wants. Embeddings and
    heads on top stay as they are: they are the whole model's own. The optimiser is AdamW without weight decay; its
    learning rate rises over a tenth of the steps and falls linearly to 0. Dropout is off, so nothing but ``seed``
    is random.

    Args:
        pruned: The pruned model; masked weights stay zero. Both models end in evaluation mode.
        whole: The model before pruning, on the same device. Pruning works in place: copy or load it anew.
        data: Texts, of which every pass draws all in a random order; or token ids ready for the models, (B, L) int64
            tensors or mappings with ``input_ids`` and perhaps ``attention_mask``, as a ``DataLoader`` gives them. Begun
            anew where it ends.
        tokenizer: Tokenizer of ``transformers`` for ``data`` that is texts.
        n_steps: Optimiser steps (≥ 1).
        batch_size: Texts a step (≥ 1).
        max_length: Tokens of a text that count (≥ 1).
        learning_rate: Highest learning rate (> 0).
        logits_weight: Weight of the divergence (≥ 0); above 0 only where both models have a language-modelling head.
        seed: Seed of the order of the texts; the global generators are left alone.

    Returns:
        The loss before each step, ``n_steps`` numbers.

    Raises:
        ValueError: If an argument is out of range, ``whole`` is the pruned model itself or of another width, or
            ``data`` is empty or not what it should be.
        FloatingPointError: If the loss is NaN or infinite.
    """
    for name, count in (("n_steps", n_steps), ("batch_size", batch_size), ("max_length", max_length)):
        check_at_least(name, count, 1)
    check_positive("learning_rate", learning_rate)
    if not 0 <= logits_weight < float("inf"):
        raise ValueError(f"logits_weight must be a finite number of at least 0, got {logits_weight}")
    if not isinstance(pruned, PrunedTransformer):
        raise ValueError(f"pruned must be a PrunedTransformer, got {type(pruned).__name__}")
    student = pruned.model.eval()
    teacher = (whole.model if isinstance(whole, PrunedTransformer) else whole).eval()
    if teacher is student:
        raise ValueError("whole must be the model before pruning, which changes it in place, got the pruned one itself")
    widths = [model.config.get_text_config().hidden_size for model in (student, teacher)]
    if widths[0] != widths[1]:
        raise ValueError(f"whole must have hidden states as wide as pruned, {widths[0]}, got {widths[1]}")
    if logits_weight and any(model.get_output_embeddings() is None for model in (student, teacher)):
        raise ValueError("logits_weight must be 0 where a model has no language-modelling head")
    batches = _batches(data, tokenizer, batch_size, max_length, seed)
    parameters = _trained(student)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    warm_up = max(1, round(WARM_UP * n_steps))
    losses = []
    for step in range(n_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min((step + 1) / warm_up, (n_steps - step) / (n_steps - warm_up + 1))
        batch = {name: tensor.to(student.device) for name, tensor in next(batches).items()}
        loss = _distance(student, teacher, batch, logits_weight)
        losses.append(float(loss.detach()))
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss became {losses[-1]} in step {step + 1}; lower learning_rate")
        loss.backward(inputs=parameters)
        torch.nn.utils.clip_grad_norm_(parameters, MOST_NORM)
        optimizer.step()
        optimizer.zero_grad()
    return losses


def _trained(model: Any) -> list[Tensor]:
    """Parameters that learn: all but the embeddings and the head on top."""
    fixed = {
        id(parameter)
        for part in (model.get_input_embeddings(), model.get_output_embeddings())
        if part is not None
        for parameter in part.parameters()
    }
    return [p for p in model.parameters() if p.requires_grad and id(p) not in fixed]


def _distance(student: Any, teacher: Any, batch: Mapping[str, Tensor], logits_weight: float) -> Tensor:
    """The loss on one batch, a scalar."""
    with torch.no_grad():
        wanted, wanted_logits = _read(teacher, batch, bool(logits_weight))
    given, logits = _read(student, batch, bool(logits_weight))
    read = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()  # (B, L)
    wanted, given = wanted[read].float(), given[read].float()  # (tokens, D)
    loss = (given - wanted).square().sum() / wanted.square().sum()
    if logits is None or wanted_logits is None:
        return loss
    target, guess = (every[read].float().log_softmax(dim=-1) for every in (wanted_logits, logits))  # (tokens, V)
    divergence = torch.nn.functional.kl_div(guess, target, reduction="batchmean", log_target=True)
    return loss + logits_weight * divergence


def _read(model: Any, batch: Mapping[str, Tensor], with_logits: bool) -> tuple[Tensor, Tensor | None]:
    """Last hidden states, (B, L, D), and logits, (B, L, V)."""
    arguments = {"use_cache": False} if hasattr(model.config, "use_cache") else {}
    if with_logits:
        output = model(**batch, output_hidden_states=True, **arguments)
        return output.hidden_states[-1], output.logits
    return model.base_model(**batch, **arguments).last_hidden_state, None


def _batches(
    data: Sequence[str] | Iterable[Batch],
    tokenizer: Any,
    batch_size: int,
    max_length: int,
    seed: int,
) -> Iterator[Mapping[str, Tensor]]:
    """What the models read, without end."""
    if isinstance(data, str):
        raise ValueError(f"data must be a list of texts or of batches, got one string: {data[:40]!r}")
    if isinstance(data, Sequence) and data and all(isinstance(text, str) for text in data):
        if tokenizer is None:
            raise ValueError("tokenizer must be given where data is texts, got None")
        return _texts(data, tokenizer, batch_size, max_length, seed)
    return _prepared(data)  # type: ignore[arg-type]


def _texts(
    texts: Sequence[str], tokenizer: Any, batch_size: int, max_length: int, seed: int
) -> Iterator[Mapping[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < batch_size:
            waiting += torch.randperm(len(texts), generator=generator).tolist()
        chosen, waiting = waiting[:batch_size], waiting[batch_size:]
        rows = tokenizer([texts[index] for index in chosen], truncation=True, max_length=max_length)["input_ids"]
        if not any(rows):
            raise ValueError("data must hold texts of at least one token")
        width = max(map(len, rows))
        # Padded here, as language models' tokenizers often have no padding token; the mask hides what it is.
        yield {
            "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in rows]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        }


def _prepared(batches: Iterable[Batch]) -> Iterator[Mapping[str, Tensor]]:
    while True:
        found = False
        for batch in batches:
            found = True
            yield as_inputs(batch, "data")
        if not found:
            raise ValueError("data must hold at least one text or batch, and can be gone through again, got none")
