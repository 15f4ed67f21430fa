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

    Attributes:
        attention: The module that splits heads.
        heads_name: Its attribute that holds the number of heads.
        head_dim: Width E of a head.
        reads: Layers that make queries, keys and values: three, or one with all three side by side.
        write: The layer that the heads' outputs go through.
        up: The first layer of the feed-forward network.
        down: Its second layer.
    """

    attention: Any
    heads_name: str
    head_dim: int
    reads: tuple[Any, ...]
    write: Any
    up: Any
    down: Any

    @property
    def n_heads(self) -> int:
        """Present number of attention heads H."""
        return int(getattr(self.attention, self.heads_name))

    @property
    def n_neurons(self) -> int:
        """Present number of feed-forward neurons N."""
        return int(_weight(self.down).shape[1])

    def head_scores(self) -> Tensor:
        """What each head can add to the residual stream, (H,)."""
        value = _weight(self.reads[-1])[-self.n_heads * self.head_dim :]  # (H·E, D)
        written = _weight(self.write).T  # (H·E, D)
        norms = [part.unflatten(0, (self.n_heads, self.head_dim)).flatten(1).norm(dim=1) for part in (value, written)]
        return norms[0] * norms[1]

    def neuron_scores(self) -> Tensor:
        """What each neuron can add to the residual stream, (N,)."""
        return _weight(self.up).norm(dim=1) * _weight(self.down).norm(dim=0)

    def keep_heads(self, heads: Tensor) -> None:
        """Remove all other heads, in place; ``heads`` are numbers in [0, H) in rising order."""
        width = self.n_heads * self.head_dim
        index = torch.arange(width, device=heads.device).view(self.n_heads, self.head_dim)[heads].flatten()
        for layer in self.reads:
            parts = 3 // len(self.reads)
            _keep(layer, torch.cat([index + part * width for part in range(parts)]), out=True)
        _keep(self.write, index, out=False)
        setattr(self.attention, self.heads_name, len(heads))
        for name in ("all_head_size", "split_size"):  # BERT's and GPT-2's widths of all heads together
            if hasattr(self.attention, name):
                setattr(self.attention, name, len(index))

    def keep_neurons(self, neurons: Tensor) -> None:
        """Remove all other neurons, in place; ``neurons`` are numbers in [0, N) in rising order."""
        _keep(self.up, neurons, out=True)
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
            "model must have blocks as in BERT, RoBERTa, ELECTRA, DistilBERT or GPT-2 for method='structured', "
            f"got {type(model).__name__}"
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
