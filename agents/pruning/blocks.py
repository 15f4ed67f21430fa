"""Where the linear layers of a Hugging Face transformer are, and how to mask or shrink them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class MaskedLinear(nn.Linear):
    """A linear layer that multiplies its weights by a mask, so that no optimiser step can bring one back."""

    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return x, (..., I), times the masked weights plus the bias, (..., O)."""
        return F.linear(x, self.weight * self.mask, self.bias)


class MaskedConv1D(Conv1D):
    """The same for GPT-2's linear layers, whose weights are transposed."""

    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return x, (..., I), times the masked weights plus the bias, (..., O)."""
        return x @ (self.weight * self.mask) + self.bias


_MASKED: Mapping[type[nn.Module], type[nn.Module]] = {nn.Linear: MaskedLinear, Conv1D: MaskedConv1D}
PLAIN = {masked: plain for plain, masked in _MASKED.items()}


@dataclass(frozen=True)
class TransformerBlock:
    """The linear layers of one transformer block, and where it keeps its number of heads.

    A head is what can be removed alone: where several queries share keys and values (grouped-query attention,
    arXiv:2305.13245), a group of query heads with the keys and values that they share. A neuron is a row of ``up``,
    that of ``gate`` if there is one, and a column of ``down`` (the coupled structures of arXiv:2305.11627).

    Attributes:
        attention: The module that splits heads.
        heads_name: Its attribute that holds the number of heads; None where it counts them by their width.
        head_dim: Width E of a head's keys and values.
        reads: Layers that make queries, keys and values: three, or one with all three side by side.
        write: The layer that the heads' outputs go through.
        up: The first layer of the feed-forward network.
        down: Its second layer.
        gate: The layer whose activation multiplies the output of ``up`` (SwiGLU, arXiv:2002.05202), if there is one.
    """

    attention: Any
    heads_name: str | None
    head_dim: int
    reads: tuple[Any, ...]
    write: Any
    up: Any
    down: Any
    gate: Any = None

    @property
    def n_heads(self) -> int:
        """Present number of attention heads H that can be removed alone."""
        return int(_weight(self.reads[-1]).shape[0]) // (self.head_dim * self._parts)

    @property
    def n_neurons(self) -> int:
        """Present number of feed-forward neurons N."""
        return int(_weight(self.down).shape[1])

    @property
    def _parts(self) -> int:
        """How many of queries, keys and values one layer makes, side by side."""
        return 3 // len(self.reads)

    def head_scores(self, mean_square: Tensor | None = None) -> Tensor:
        """What each head can add to the residual stream, (H,): the norm of its values' weights times its outputs'.

        Args:
            mean_square: Of every input of ``write`` on text, (H·G·E,) with G queries a head; then what each head adds
                there, as a root mean square in which its dimensions count as independent.
        """
        written = _weight(self.write).norm(dim=0).unflatten(0, (self.n_heads, -1))  # (H, G·E)
        if mean_square is not None:
            return (mean_square.view_as(written) * written.square()).sum(dim=1).sqrt()
        value = _weight(self.reads[-1])[-self.n_heads * self.head_dim :]  # (H·E, D)
        return value.unflatten(0, (self.n_heads, -1)).flatten(1).norm(dim=1) * written.norm(dim=1)

    def neuron_scores(self, mean_square: Tensor | None = None) -> Tensor:
        """What each neuron can add to the residual stream, (N,): the product of the norms of its weights.

        That of the gate is a factor because |silu(x)| ≤ |x|.

        Args:
            mean_square: Of every input of ``down`` on text, (N,); then what each neuron adds there, as a root mean
                square.
        """
        written = _weight(self.down).norm(dim=0)
        if mean_square is not None:
            return mean_square.sqrt() * written
        scores = _weight(self.up).norm(dim=1) * written
        return scores if self.gate is None else scores * _weight(self.gate).norm(dim=1)

    def keep_heads(self, heads: Tensor) -> None:
        """Remove all other heads, in place; ``heads`` are numbers in [0, H) in rising order."""
        n_heads, parts = self.n_heads, self._parts  # before the layers that they are read from shrink
        for layer in self.reads:
            _keep(layer, _places(_weight(layer).shape[0], (parts, n_heads), heads), out=True)
        written = _places(_weight(self.write).shape[1], (1, n_heads), heads)
        _keep(self.write, written, out=False)
        if self.heads_name is not None:
            setattr(self.attention, self.heads_name, len(heads))
        for name in ("all_head_size", "split_size"):  # BERT's and GPT-2's widths of all heads together
            if hasattr(self.attention, name):
                setattr(self.attention, name, len(written))

    def keep_neurons(self, neurons: Tensor) -> None:
        """Remove all other neurons, in place; ``neurons`` are numbers in [0, N) in rising order."""
        for layer in (self.up, self.gate):
            if layer is not None:
                _keep(layer, neurons, out=True)
        _keep(self.down, neurons, out=False)


def transformer_blocks(model: nn.Module) -> Iterator[TransformerBlock]:
    """Transformer blocks of the kinds that structured pruning knows.

    Raises:
        ValueError: If there are none.
    """
    found = False
    for module in model.modules():
        block = _as_block(module)
        if block is not None:
            found = True
            yield block
    if not found:
        raise ValueError(
            "model must have blocks as in BERT, RoBERTa, ELECTRA, DistilBERT, GPT-2, Llama, Mistral or Qwen2 for "
            f"method='structured', got {type(model).__name__}"
        )


def _as_block(module: Any) -> TransformerBlock | None:
    match module.__class__.__name__:
        case "BertLayer" | "RobertaLayer" | "XLMRobertaLayer" | "ElectraLayer":
            own = module.attention.self
            reads = (own.query, own.key, own.value)
            write, up, down = module.attention.output.dense, module.intermediate.dense, module.output.dense
            return TransformerBlock(own, "num_attention_heads", own.attention_head_size, reads, write, up, down)
        case "TransformerBlock" if hasattr(module, "ffn") and hasattr(module.attention, "q_lin"):  # DistilBERT
            own, ffn = module.attention, module.ffn
            reads = (own.q_lin, own.k_lin, own.v_lin)
            return TransformerBlock(own, "n_heads", own.attention_head_size, reads, own.out_lin, ffn.lin1, ffn.lin2)
        case "GPT2Block":
            own, mlp = module.attn, module.mlp
            return TransformerBlock(own, "num_heads", own.head_dim, (own.c_attn,), own.c_proj, mlp.c_fc, mlp.c_proj)
        case "LlamaDecoderLayer" | "MistralDecoderLayer" | "Qwen2DecoderLayer":
            own, mlp = module.self_attn, module.mlp
            reads = (own.q_proj, own.k_proj, own.v_proj)
            return TransformerBlock(
                own, None, own.head_dim, reads, own.o_proj, mlp.up_proj, mlp.down_proj, mlp.gate_proj
            )
    return None


def linear_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Linear layers inside a numbered block; not embeddings, poolers and heads on top."""
    for name, module in model.named_modules():
        if isinstance(module, tuple(_MASKED)) and any(part.isdigit() for part in name.split(".")):
            yield name, module


def _weight(layer: Any) -> Tensor:
    """The weight of a linear layer as (out, in)."""
    weight: Tensor = layer.weight
    return weight.T if isinstance(layer, Conv1D) else weight


def _places(size: int, shape: tuple[int, int], heads: Tensor) -> Tensor:
    """Where the rows of some heads are, of ``size`` rows that divide evenly into (parts, heads, rows of a head)."""
    return torch.arange(size, device=heads.device).view(*shape, -1)[:, heads].flatten()


def _keep(layer: Any, index: Tensor, out: bool) -> None:
    """Shrink a linear layer, in place, to some of its outputs or inputs."""
    axis = int(out) if isinstance(layer, Conv1D) else int(not out)
    index = index.to(layer.weight.device)
    requires_grad = layer.weight.requires_grad
    layer.weight = nn.Parameter(layer.weight.index_select(axis, index), requires_grad)
    if out and layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias[index], requires_grad)
    names = ("nf", "nx") if isinstance(layer, Conv1D) else ("out_features", "in_features")
    setattr(layer, names[not out], len(index))


def add_mask(layer: Any) -> Tensor:
    """The mask of a linear layer, which gets one that lets everything through if it has none."""
    if type(layer) in _MASKED:
        layer.register_buffer("mask", torch.ones_like(layer.weight, dtype=torch.bool))
        # In place, so that whatever refers to the layer, ties or hooks, refers to the masked one.
        layer.__class__ = _MASKED[type(layer)]
    mask: Tensor = layer.mask
    return mask
