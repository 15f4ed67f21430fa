"""Low-rank adapters beside a language model's linear layers (LoRA, arXiv:2106.09685): the trunk learns, too."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.double_dqn.language_models.reader import Reader, States
from textgym.checks import check_at_least, check_positive
from textgym.language_models import HuggingFaceLM
from textgym.rewards.base import require
from textgym.spaces import sequence_lengths

ALL_LINEAR = "all-linear"


class Lora(NamedTuple):
    """What the adapters are.

    Attributes:
        rank: Rank of each (≥ 1).
        alpha: An adapter's product counts alpha / rank (> 0).
        target_modules: Names, or last parts of names, of linear layers; ``"all-linear"`` for all but the output
            embedding.
        learning_rate: That of the adapters at the start (> 0); later it changes in proportion to the agent's own.
    """

    rank: int
    alpha: float
    target_modules: str | tuple[str, ...] = ALL_LINEAR
    learning_rate: float = 1e-4


def checked_lora(given: Any) -> Lora:
    """Settings from a mapping with a ``rank`` and, where they are not the defaults, other attributes of :class:`Lora`.

    Raises:
        ValueError: If a name is unknown or a value out of range.
    """
    if not isinstance(given, Mapping) or "rank" not in given or given.keys() - {*Lora._fields}:
        others = ", ".join(Lora._fields[1:])
        raise ValueError(f"lora must be None or a mapping with a rank and, if need be, {others}, got {given!r}")
    rank = check_at_least("lora['rank']", given["rank"], 1)
    rates = {
        name: check_positive(f"lora['{name}']", given[name]) for name in ("alpha", "learning_rate") if name in given
    }
    names = given.get("target_modules", ALL_LINEAR)
    if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
        names = tuple(names)
    elif names != ALL_LINEAR:
        raise ValueError(f"lora['target_modules'] must be {ALL_LINEAR!r} or a list of names of layers, got {names!r}")
    return Lora(rank, **{"alpha": 2.0 * rank, **rates, "target_modules": names})


class Adapters(nn.ParameterDict):
    """The adapters' weights, on the device of the language model, where they stay.

    Attributes:
        changes: How often an optimizer or a file has changed them; after any other change, count one more.
    """

    changes = 0

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Adapters:
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        self.changes += 1
        super()._load_from_state_dict(*args)

    def learn_with(self, optimizer: torch.optim.Optimizer, share: float) -> None:
        """Become a second group of an optimizer's parameters, with ``share`` of the learning rate of the first."""
        (others,) = optimizer.param_groups
        own = set(map(id, self.values()))
        others["params"] = [parameter for parameter in others["params"] if id(parameter) not in own]
        optimizer.add_param_group({"params": list(self.values()), "share": share})

        def before_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            others, mine = optimizer.param_groups
            mine["lr"] = others["lr"] * mine["share"]
            self.changes += 1

        optimizer.register_step_pre_hook(before_step)


class AdaptedLM(HuggingFaceLM):
    """A language model with adapters, read for its hidden states: probabilities are the plain model's business.

    It shares the plain model's weights, which stay as they are. At first an adapter adds zero. Keys and values that
    are kept are forgotten once the adapters have changed: a state is always that of the weights of the moment.

    Args:
        plain: The model.
        lora: The adapters.

    Attributes:
        adapters: Their weights, float32, drawn from torch's global generator: the agent lends it with its own seed.

    Raises:
        ModuleNotFoundError: If the package peft is missing.
        ValueError: If the model has no such layers.
    """

    def __init__(self, plain: HuggingFaceLM, lora: Lora) -> None:
        peft = require("peft", "peft", "lora, of the extra lora,")
        from transformers.pytorch_utils import Conv1D

        model = _with_shared_weights(plain._model)
        head = model.get_output_embeddings()
        kinds = (nn.Linear, Conv1D)
        layers = {
            name: layer for name, layer in model.named_modules() if isinstance(layer, kinds) and layer is not head
        }
        targets: Any = lora.target_modules
        if targets != ALL_LINEAR:
            targets = list(targets)
            if unknown := [name for name in targets if not any(f".{layer}".endswith(f".{name}") for layer in layers)]:
                known = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
                raise ValueError(f"lora['target_modules'] must name layers among {known}, got {', '.join(unknown)}")
        transposed = any(isinstance(layer, Conv1D) for layer in layers.values())
        config = peft.LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, lora_dropout=0.0, fan_in_fan_out=transposed
        )
        try:
            peft.inject_adapter_in_model(config, model)
        except ValueError as error:  # layers of Mamba, which its kernels read past an adapter
            reason = " ".join(str(error).split())
            raise ValueError(
                f"lora['target_modules'] must suit the model, got {lora.target_modules!r}: {reason}"
            ) from None
        learned = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        for parameter in learned.values():
            parameter.data = parameter.data.float()  # small steps would be lost in half precision
        # A dot would divide a parameter's name.
        self.adapters = Adapters({name.replace(".", "-"): parameter for name, parameter in learned.items()})
        self._changes = 0
        super().__init__(plain.path, plain.tokenizer, plain.device, plain.batch_size, model)

    def hidden_after(self, tokens: Tensor, ends: Tensor) -> Tensor:
        """Last hidden states after prefixes of texts, from one pass, with a gradient by the adapters.

        Args:
            tokens: Right-padded token ids, shape ``(B, L)``, where L is at most :attr:`context_length`.
            ends: Lengths of T prefixes of each, in [1, L - 1], shape ``(B, T)``.

        Returns:
            Shape ``(B, T, D)``, float32.
        """
        longest = ends.amax(dim=1).tolist()
        ids, mask = self._pad([self._prefix(row[:end]) for row, end in zip(tokens.tolist(), longest, strict=True)])
        if self._head is None:
            output = self._model(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True)
            hidden = output.hidden_states[-1]
        else:
            output = self._model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
            hidden = output.last_hidden_state  # (B, W, D)
        known = ((tokens >= 0) & (tokens < self.vocab_size)).cumsum(dim=1)
        places = known.gather(1, ends - 1).to(hidden.device)  # BOS is at 0
        return hidden.gather(1, places.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])).float()

    def hidden_of(self, rows: list[list[int]]) -> Tensor:
        """Last hidden states after n texts of ids, BOS included; goes on from the last call, as :meth:`log_probs`.

        Returns:
            Shape ``(n, D)``, float32, without a gradient.
        """
        self._go_on([row[-self.context_length :] for row in rows])
        return self.hidden.float().clone()

    def get_state(self) -> dict[str, Any]:  # noqa: D102
        self._forget_if_changed()
        return super().get_state()

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        super().set_state(state)
        self._changes = self.adapters.changes

    def _go_on(self, rows: list[list[int]]) -> None:
        self._forget_if_changed()
        super()._go_on(rows)

    def _forget_if_changed(self) -> None:
        if self._changes != self.adapters.changes:
            self.forget()
            self._changes = self.adapters.changes

    def _plain_head(self) -> Any:
        return None if super()._plain_head() is None else _no_logits


class AdaptedReader(Reader):
    """Reads texts twice: hidden states are the adapted model's, candidates and probabilities the plain one's.

    Args:
        model: The plain model.
        adapted: The model with adapters.
        pad_id: See :class:`Reader`.
        k: Likewise.
    """

    def __init__(self, model: HuggingFaceLM, adapted: AdaptedLM, pad_id: int, k: int) -> None:
        super().__init__(model, pad_id, k)
        self.adapted = adapted.reading()

    def read(self, rows: NDArray[np.integer], masks: NDArray[np.bool_] | None = None) -> States:  # noqa: D102
        states = super().read(rows, masks)
        self.adapted.log_probs(rows, sequence_lengths(rows, self.pad_id))
        return states._replace(hidden=self.adapted.hidden.float().cpu().clone())

    def with_action(self, states: States, actions: NDArray[np.integer]) -> tuple[States, NDArray[np.float32]]:
        """See :class:`Reader`; without hidden states, which the next update computes anew."""
        return super().with_action(_without_hidden(states), actions)

    def draw(
        self, states: States, scores: NDArray[np.floating], random: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], States]:
        """See :class:`Reader`; without hidden states, which the next update computes anew."""
        return super().draw(_without_hidden(states), scores, random)

    def get_state(self) -> dict[str, Any]:  # noqa: D102
        return {"plain": super().get_state(), "adapted": self.adapted.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        super().set_state(state["plain"])
        self.adapted.set_state(state["adapted"])


def _with_shared_weights(model: nn.Module) -> Any:
    """A copy of a model whose parameters, frozen, and buffers use the memory of the original's."""
    shared: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
    shared |= {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in model.parameters()}
    return copy.deepcopy(model, shared)


def _without_hidden(states: States) -> States:
    return states._replace(hidden=states.hidden[:, :0])


def _no_logits(hidden: Tensor) -> Tensor:
    return hidden[:, :0]
