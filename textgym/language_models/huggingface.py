"""A causal language model of the ``transformers`` library, batched, with its key-value cache."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from textgym.checks import check_at_least
from textgym.tokenizers import as_tokenizer

_SAMPLE = 1_024  # numbers of each tensor in a fingerprint


class HuggingFaceLM:
    """A causal model from a local path; nothing is downloaded.

    Ids are the tokenizer's own, so actions of a task with the same tokenizer are the model's tokens. Every prefix
    begins with the tokenizer's BOS (EOS where it has none). Ids that the model does not know (separators, padding)
    are skipped.

    :meth:`log_probs` keeps the keys and values of its last batch: row ``i`` of the next call costs only the tokens
    that it adds to row ``i`` of this one. A row that does not continue, as after the end of an episode, is read anew
    in the same pass. A model that keeps none (a recurrent one), or attends in chunks, reads whole prefixes each time.

    Args:
        path: Local directory with a causal model and its tokenizer, as ``save_pretrained`` writes them.
        tokenizer: See :func:`textgym.tokenizers.as_tokenizer`; None for the one at ``path``.
        device: Where the model runs.
        batch_size: Texts at once in :meth:`text_log_probs` (≥ 1).
        model: The model itself, with its head, where it is not one that ``transformers`` reads at ``path`` (as
            :func:`agents.pruning.language_model.load_language_model` reads a pruned one); it is put into evaluation
            mode. After a change of its weights, call :meth:`forget`.

    Attributes:
        tokenizer: The tokenizer.
        vocab_size: ``V``, EOS included.
        n_read: Tokens that the model has read in :meth:`log_probs`, padding left out.
        hidden: What the last call of :meth:`log_probs` made its answer of: the model's last hidden state of each row,
            a tensor of shape ``(n, D)``; None before the first call.

    Raises:
        ValueError: If the path does not exist, or the model has fewer tokens than the tokenizer, or no head.
    """

    def __init__(
        self,
        path: str | Path,
        tokenizer: Any = None,
        device: str = "cpu",
        batch_size: int = 32,
        model: Any = None,
    ) -> None:
        if not Path(path).is_dir():
            raise ValueError(f"path must be a local directory (nothing is downloaded), got {str(path)!r}")
        from transformers import AutoModelForCausalLM

        self.path, self.device = str(path), device
        self.batch_size = check_at_least("batch_size", batch_size, 1)
        self.tokenizer = as_tokenizer(self.path if tokenizer is None else tokenizer)
        self.vocab_size = self.tokenizer.vocab_size
        if model is None:
            model = AutoModelForCausalLM.from_pretrained(self.path, local_files_only=True)
        elif getattr(model, "get_output_embeddings", lambda: None)() is None:
            raise ValueError(f"model must be a causal model of transformers with its head, got {type(model).__name__}")
        self._model = model.to(device).eval()
        _align(getattr(self._model.get_output_embeddings(), "weight", None))
        if self._model.config.vocab_size < self.vocab_size:
            raise ValueError(
                f"path must hold a model with at least the {self.vocab_size} tokens of the tokenizer, "
                f"got one with {self._model.config.vocab_size}"
            )
        bos = getattr(getattr(self.tokenizer, "tokenizer", None), "bos_token_id", None)
        self._bos = self.tokenizer.eos_id if bos is None else int(bos)
        self._window = int(getattr(self._model.config, "max_position_embeddings", None) or 2**31)
        self._head = self._plain_head()
        self.n_read = 0
        self.forget()

    @property
    def context_length(self) -> int:
        """Tokens that the model reads at most, BOS included."""
        return self._window

    @property
    def hidden_dim(self) -> int:
        """Size ``D`` of a hidden state."""
        return int(self._model.config.get_text_config().hidden_size)

    @property
    def output_embedding(self) -> Any:
        """What the last layer compares a hidden state with: a tensor of shape ``(tokens, D)``, without a gradient."""
        return self._model.get_output_embeddings().weight.detach()

    @property
    def fingerprint(self) -> str:
        """What tells the model from others: a checksum of its weights, of a sample of each, and one of its tokens."""
        texts = [self.tokenizer.token_text(token) for token in range(self.vocab_size)]
        tokens = hashlib.sha256(json.dumps([texts, self.tokenizer.eos_id, self._bos]).encode())
        return f"{checksum_of_weights(self._model)}-{tokens.hexdigest()[:16]}"

    def __deepcopy__(self, memo: dict[int, Any]) -> HuggingFaceLM:
        return self  # its weights never change: gymnasium.make copies the arguments it is given

    def reading(self) -> Self:
        """The same weights, with a key-value cache of its own."""
        own = copy.copy(self)
        own.forget()
        return own

    def forget(self) -> None:
        """Drop the key-value cache; the next call reads its prefixes from their beginning."""
        self._rows: list[list[int]] = []
        self._cache: Any = None
        self._last: Any = None
        self.hidden: Any = None

    def get_state(self) -> dict[str, Any]:
        """What the next call of :meth:`log_probs` goes on from, as plain values and tensors."""
        kept = {"rows": self._rows, "key_values": self._cache, "last": self._last, "hidden": self.hidden}
        return kept | {"n_read": self.n_read}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that :meth:`get_state` gave, of the same model."""
        if "key_values" not in state:  # of a version that laid the cache out otherwise: all is read anew
            self.forget()
            return
        self._rows, self.n_read = [list(row) for row in state["rows"]], state["n_read"]
        cache = state["key_values"]
        self._cache = None if cache is None else tuple(tensor.to(self.device) for tensor in cache)
        last, hidden = state["last"], state["hidden"]
        self._last = None if last is None else last.to(self.device)
        self.hidden = None if hidden is None else hidden.to(self.device)

    def log_probs(self, tokens: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[np.float32]:
        """See :meth:`~textgym.language_models.LanguageModel.log_probs`.

        Of a prefix longer than the model's context, the last tokens are read, without the cache's help.
        """
        tokens, lengths = np.asarray(tokens), np.asarray(lengths)
        rows = [self._prefix(row[:length].tolist()) for row, length in zip(tokens, lengths, strict=True)]
        if not rows:
            return np.zeros((0, self.vocab_size), np.float32)
        self._go_on(rows)
        return self._last.cpu().numpy()

    def _go_on(self, rows: list[list[int]]) -> None:
        """Read what rows of the model's tokens add to those of the last call."""
        import torch

        from textgym.language_models.key_values import empty_cache

        if len(rows) != len(self._rows):
            self.forget()
            self._cache = empty_cache(self._model, len(rows))
        kept = [0] * len(rows)
        if self._cache is not None and self._rows:
            kept = [len(o) if row[: len(o)] == o else 0 for row, o in zip(rows, self._rows, strict=True)]
        new = [row[count:] for row, count in zip(rows, kept, strict=True)]
        if any(new):
            with torch.inference_mode():
                self._read(new, kept)
        self._rows = rows

    def text_log_probs(self, prompts: Sequence[str], completions: Sequence[str]) -> list[NDArray[np.float64]]:
        """See :meth:`~textgym.language_models.LanguageModel.text_log_probs`; both texts are encoded on their own.

        Of a text longer than the model's context, the last tokens count.
        """
        import torch

        pairs = [
            ([self._bos, *self.tokenizer.encode(prompt)], self.tokenizer.encode(completion))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        result: list[NDArray[np.float64]] = []
        for start in range(0, len(pairs), self.batch_size):
            batch = [(before + after)[-self._window :] for before, after in pairs[start : start + self.batch_size]]
            ids, mask = self._pad(batch)
            with torch.inference_mode():
                logits = self._model(input_ids=ids, attention_mask=mask).logits[..., : self.vocab_size]
                log_probs = logits.double().log_softmax(dim=-1)[:, :-1]  # (B, T - 1, V)
                chosen = log_probs.gather(-1, ids[:, 1:, None]).squeeze(-1).cpu().numpy()  # (B, T - 1)
            for row, text, (_, after) in zip(chosen, batch, pairs[start : start + self.batch_size], strict=True):
                count = min(len(after), len(text) - 1)
                result.append(row[len(text) - 1 - count : len(text) - 1])
        return result

    def _plain_head(self) -> Any:
        """The model's last layer, if logits are that layer's of the last hidden states, and nothing more.

        Then the layer is run for the last token of a row alone: at 49,152 tokens it costs as much as ten blocks.
        """
        import torch

        head = self._model.get_output_embeddings()
        if head is None or self._model.base_model is self._model:
            return None
        token = torch.zeros(1, 1, dtype=torch.int64, device=self.device)
        with torch.inference_mode():
            output = self._model(input_ids=token, output_hidden_states=True, use_cache=False)
            hidden = self._model.base_model(input_ids=token, use_cache=False).last_hidden_state
            plain = torch.equal(hidden, output.hidden_states[-1]) and torch.equal(head(hidden), output.logits)
        return head if plain else None

    def _prefix(self, tokens: list[int]) -> list[int]:
        known = [token for token in tokens if 0 <= token < self.vocab_size]
        return [self._bos, *known][-self._window :]

    def _pad(self, rows: list[list[int]]) -> tuple[Any, Any]:
        """Right-padded ids and their mask, each of shape ``(n, longest row)``."""
        import torch

        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.device)
        return ids, mask

    def _read(self, new: list[list[int]], kept: list[int]) -> None:
        """Feed each row its new tokens, after the ``kept`` tokens that its cache holds already."""
        import torch

        from textgym.language_models.key_values import append

        ids, mask = self._pad(new)  # (n, T)
        counts = torch.tensor([len(row) for row in new], device=self.device)
        model: Any = self._model if self._head is None else self._model.base_model
        wanted: dict[str, Any] = {"output_hidden_states": True} if self._head is None else {}
        if self._cache is None:
            output = model(input_ids=ids, attention_mask=mask, use_cache=False, **wanted)
        else:
            offsets = torch.tensor(kept, device=self.device)
            arguments = {"input_ids": ids, **wanted}
            output, self._cache = append(model, self._cache, offsets, counts, self._window, **arguments)
        self.n_read += int(counts.sum())
        last = torch.arange(len(new)), (counts - 1).clamp(min=0)
        hidden = output.last_hidden_state[last] if self._head else output.hidden_states[-1][last]  # (n, D)
        logits = self._head(hidden) if self._head else output.logits[last]
        fresh = logits[:, : self.vocab_size].float().log_softmax(dim=-1)  # (n, V)
        if self._last is None or self.hidden is None:
            self._last, self.hidden = fresh, hidden
        else:
            grown = (counts > 0)[:, None]
            self._last, self.hidden = torch.where(grown, fresh, self._last), torch.where(grown, hidden, self.hidden)


def _align(weight: Any) -> None:
    """Have a tensor begin with a line of the processor's cache, where a file seldom puts it.

    Products with some of its rows, as a head over it makes them, are four times as fast there.
    """
    if weight is not None and weight.data_ptr() % 64:
        weight.data = weight.data.clone()


def checksum_of_weights(model: Any) -> str:
    """A checksum of a model of ``transformers``: of its kind, and of a sample of each of its tensors."""
    digest = hashlib.sha256(str(model.config.model_type).encode())
    for name, parameter in model.named_parameters():
        flat = parameter.detach().reshape(-1)
        sample = flat[:: max(1, len(flat) // _SAMPLE)].float().cpu().numpy()
        digest.update(f"{name} {tuple(parameter.shape)}".encode() + sample.tobytes())
    return digest.hexdigest()[:16]
