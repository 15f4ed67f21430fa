"""Tokens of a causal language model of ``transformers``, with the probabilities with which they were drawn."""

from __future__ import annotations

import copy
from typing import Any

from textgym.adapters.conversations import Write


def sampler(model: Any, generation_config: Any, pad_id: int, ends: tuple[int, ...]) -> Write:
    """What writes with a model, batched; torch's global random stream decides, as in ``generate`` itself.

    The log-probability of a token is that with which it was drawn: after the temperature, and whatever else the
    configuration does to the logits.

    Args:
        model: A causal language model; its mode (training or evaluation) is left as it is.
        generation_config: A ``transformers.GenerationConfig``: ``do_sample``, ``temperature``, ``top_k`` …
        pad_id: Id that fills rows on the left; the model does not see it.
        ends: Ids that end a message.
    """
    import torch
    from transformers import LogitsProcessor, LogitsProcessorList

    class Record(LogitsProcessor):
        """Keeps the log-probabilities of the tokens that were drawn, and of the next ones until one is."""

        def __init__(self) -> None:
            self.chosen: list[torch.Tensor] = []
            self.next: torch.Tensor | None = None

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            self.take(input_ids)
            self.next = scores.float().log_softmax(dim=-1)  # (n, V)
            return scores

        def take(self, input_ids: Any) -> None:
            if self.next is not None:
                self.chosen.append(self.next.gather(1, input_ids[:, -1:].to(self.next.device)))
                self.next = None

    def write(rows: list[list[int]], limit: int) -> list[tuple[list[int], list[float]]]:
        width = max(map(len, rows))
        device = next(model.parameters()).device
        ids = torch.tensor([[pad_id] * (width - len(row)) + row for row in rows], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        record, config = Record(), copy.deepcopy(generation_config)
        processors = LogitsProcessorList([*_warpers(config), record])
        config.update(max_new_tokens=limit, max_length=None, eos_token_id=list(ends), pad_token_id=pad_id)
        config.update(return_dict_in_generate=False, output_scores=False, num_return_sequences=1, num_beams=1)
        with torch.no_grad():
            whole = model.generate(
                input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=processors
            )
        record.take(whole)
        drawn = whole[:, width:].tolist()
        logprobs = torch.cat(record.chosen, dim=1).tolist()
        lengths = [next((place + 1 for place, token in enumerate(row) if token in ends), len(row)) for row in drawn]
        return [(row[:n], own[:n]) for row, own, n in zip(drawn, logprobs, lengths, strict=True)]

    return write


def _warpers(config: Any) -> list[Any]:
    """What ``generate`` would do to the logits last, taken out of the configuration, so that a record can follow it."""
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    taken = {name: getattr(config, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    config.update(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
    if not config.do_sample:
        return []
    found: list[Any] = []
    if taken["temperature"] not in (None, 1.0):
        found.append(TemperatureLogitsWarper(float(taken["temperature"])))
    if taken["top_k"]:
        found.append(TopKLogitsWarper(taken["top_k"]))
    if taken["top_p"] is not None and taken["top_p"] < 1.0:
        found.append(TopPLogitsWarper(taken["top_p"]))
    if taken["min_p"]:
        found.append(MinPLogitsWarper(taken["min_p"]))
    return found
