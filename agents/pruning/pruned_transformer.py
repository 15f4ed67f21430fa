"""Transformers with weights set to zero, or with attention heads and feed-forward neurons taken out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import safe_open
from safetensors.torch import load_model as load_safetensors
from safetensors.torch import save_model as save_safetensors
from torch import nn

from agents.pruning.activations import Batch, mean_squares
from agents.pruning.blocks import PLAIN, add_mask, linear_layers, transformer_blocks
from agents.pruning.report import LayerReport, PruningReport

Method = Literal["magnitude", "structured"]
"""Single weights become zero, or whole heads and neurons go."""
Scope = Literal["global", "layer"]
"""What is ranked together: everything of its kind, or each layer on its own."""


_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "BOOL": "bool",
    "I64": "int64",
    "U8": "uint8",
}
"""Of a safetensors file → of PyTorch."""
PRUNING_FILE = "pruning.json"
"""Beside ``config.json`` where the model was saved by :class:`PrunedTransformer`."""


class PrunedTransformer(nn.Module):
    """A transformer, pruned by magnitude, that can be trained and pruned further.

    ``"magnitude"`` (Han et al. 2015, arXiv:1506.02626) masks the smallest weights of the linear layers in the blocks.
    Dense kernels multiply zeros as slowly as anything else: it saves no time and, until the file is compressed, no
    memory. ``"structured"`` removes whole attention heads and feed-forward neurons, so the matrices shrink and so does
    the time. A neuron counts as much as the product of the norms of its weights, in, out and of its gate if it has one,
    a head as much as that of its value and output weights: that bounds what either can add to the residual stream.
    Heads that share keys and values (grouped-query attention, arXiv:2305.13245) go together, with what they share, as
    one. Embeddings, tied or not, biases of what stays, norms and heads on top are left alone, and every layer keeps a
    head and a neuron.

    Such a bound says little of language models, whose few neurons with huge activations all text needs. With
    ``calibration``, text that the model reads before it is pruned, a neuron or head counts as much as it adds there:
    the root mean square of its activation times the norm of its weights out (after Wanda, arXiv:2306.11695).

    The sparsity always refers to the model before any pruning, and what is pruned stays pruned.

    Args:
        model: A model of ``transformers``, which is changed in place, or a local path. ``"structured"`` knows the
            blocks of BERT, RoBERTa, ELECTRA, DistilBERT, GPT-2, Llama, Mistral and Qwen2.
        method: See above.
        sparsity: Fraction of the weights to mask, or of the neurons and of the heads to remove, in [0, 1).
        scope: Whether to rank everything of its kind together or each layer on its own.
        ffn_sparsity: Fraction of the feed-forward neurons to remove, if not ``sparsity``; ``"structured"`` only.
        head_sparsity: Fraction of the attention heads to remove, if not ``sparsity``; ``"structured"`` only.
        calibration: Token ids of text, (B, L) tensors or mappings with ``input_ids`` and perhaps ``attention_mask``, of
            all of which every pruning reads the whole twice; some thousand tokens will do. ``"structured"`` only.

    Attributes:
        model: The pruned model, to be used as any other.
        calibration: What the next pruning ranks by; of a model read from a file it is None until it is set.

    Raises:
        ValueError: If an argument is out of range, the path holds no model, or its blocks are of an unknown kind.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
        >>> pruned = PrunedTransformer(BertModel(config), "structured", sparsity=0.5)
        >>> pruned.model.encoder.layer[0].intermediate.dense.out_features, pruned.report().sparsity
        (8, 0.5)
    """

    def __init__(
        self,
        model: Any,
        method: Method = "magnitude",
        sparsity: float = 0.0,
        scope: Scope = "global",
        ffn_sparsity: float | None = None,
        head_sparsity: float | None = None,
        calibration: Iterable[Batch] | None = None,
    ) -> None:
        super().__init__()
        if method not in get_args(Method):
            raise ValueError(f"method must be one of {get_args(Method)}, got {method!r}")
        if scope not in get_args(Scope):
            raise ValueError(f"scope must be one of {get_args(Scope)}, got {scope!r}")
        if calibration is not None and method == "magnitude":
            raise ValueError("calibration must be None where method is 'magnitude'")
        self.method, self.scope = method, scope
        self.calibration = None if calibration is None else list(calibration)
        self.model: Any = load_model(model) if isinstance(model, (str, Path)) else model
        self._original = {name: layer.weight.numel() for name, layer in linear_layers(self.model)}
        if not self._original:
            raise ValueError(f"model must have blocks with linear layers, got {type(self.model).__name__}")
        self._sizes = (
            [(block.n_heads, block.n_neurons) for block in transformer_blocks(self.model)] if self._structured else []
        )
        self.prune(sparsity, ffn_sparsity, head_sparsity)

    @property
    def _structured(self) -> bool:
        return self.method == "structured"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the pruned model."""
        return self.model(*args, **kwargs)

    def prune(self, sparsity: float, ffn_sparsity: float | None = None, head_sparsity: float | None = None) -> None:
        """Prune to a sparsity; one that was reached before changes nothing.

        Structured pruning replaces parameters, so an optimiser has to be made anew afterwards.

        Args:
            sparsity: See the class.
            ffn_sparsity: See the class.
            head_sparsity: See the class.

        Raises:
            ValueError: If an argument is out of range.
        """
        given = {"sparsity": sparsity, "ffn_sparsity": ffn_sparsity, "head_sparsity": head_sparsity}
        for name, value in given.items():
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")
            if value is not None and name != "sparsity" and not self._structured:
                raise ValueError(f"{name} must be None where method is 'magnitude', got {value}")
        with torch.no_grad():
            if self._structured:
                self._remove("heads", sparsity if head_sparsity is None else head_sparsity)
                self._remove("neurons", sparsity if ffn_sparsity is None else ffn_sparsity)
            elif sparsity:
                self._mask(sparsity)

    def make_permanent(self) -> PrunedTransformer:
        """Write the zeros into the weights and drop the masks, and return itself; nothing to do if structured.

        The model then costs no more than an unpruned one, but training it brings weights back.
        """
        for _, layer in linear_layers(self.model):
            if type(layer) in PLAIN:
                with torch.no_grad():
                    layer.weight.mul_(layer.mask)
                del layer.mask
                layer.__class__ = PLAIN[type(layer)]
        return self

    def report(self) -> PruningReport:
        """Sparsity and number of weights of every prunable matrix."""
        rows = PruningReport()
        for name, layer in linear_layers(self.model):
            if self._structured:
                kept = layer.weight.numel()
            else:
                kept = int((getattr(layer, "mask", layer.weight) != 0).sum())
            rows.append(LayerReport(name, self._original[name], kept, tuple(layer.weight.shape)))
        return rows

    def save_pretrained(self, path: str | Path, tokenizer: Any = None) -> None:
        """Write the model, its masks or sizes, and optionally its tokenizer, to a directory.

        ``AutoModel`` reads a masked model from there as well; a structured one only :meth:`from_pretrained`,
        :func:`load_model` and what builds on it.
        """
        directory = Path(path)
        directory.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            for _, layer in linear_layers(self.model):
                if hasattr(layer, "mask"):
                    layer.weight.mul_(layer.mask)  # whoever reads the weights alone finds them pruned
        self.model.config.architectures = [type(self.model).__name__]
        self.model.config.save_pretrained(directory)
        save_safetensors(self.model, str(directory / "model.safetensors"))
        if tokenizer is not None:
            tokenizer.save_pretrained(directory)
        description = {
            "method": self.method,
            "scope": self.scope,
            "masked": any(hasattr(layer, "mask") for _, layer in linear_layers(self.model)),
            "kept_sizes": [(block.n_heads, block.n_neurons) for block in transformer_blocks(self.model)]
            if self._sizes
            else [],
        }
        (directory / PRUNING_FILE).write_text(json.dumps(description, indent=2) + "\n", "utf-8")

    @classmethod
    def from_pretrained(cls, path: str | Path) -> PrunedTransformer:
        """Read what :meth:`save_pretrained` wrote, in evaluation mode.

        Raises:
            ValueError: If the directory holds no pruned model.
        """
        import transformers

        directory = local_directory(path)
        if not (directory / PRUNING_FILE).is_file():
            raise ValueError(f"path must hold a {PRUNING_FILE}, as save_pretrained() writes it, got {str(path)!r}")
        description = json.loads((directory / PRUNING_FILE).read_text("utf-8-sig"))
        config = transformers.AutoConfig.from_pretrained(str(directory), local_files_only=True)
        model: Any = getattr(transformers, config.architectures[0])(config)
        pruned = cls(model, description["method"], scope=description["scope"])
        with torch.no_grad():
            for block, (heads, neurons) in zip(
                transformer_blocks(model) if description["kept_sizes"] else (), description["kept_sizes"], strict=True
            ):
                block.keep_heads(torch.arange(heads))
                block.keep_neurons(torch.arange(neurons))
            if description["masked"]:
                for _, layer in linear_layers(model):
                    add_mask(layer)
        file = str(directory / "model.safetensors")
        with safe_open(file, "pt") as stored:  # a new model is float32, the stored one maybe not
            names = set(stored.keys())
            for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]:
                if name in names:
                    tensor.data = tensor.data.to(getattr(torch, _DTYPES[stored.get_slice(name).get_dtype()]))
        load_safetensors(model, file)
        model.eval()
        return pruned

    def _mask(self, sparsity: float) -> None:
        layers = [layer for _, layer in linear_layers(self.model)]
        # What is masked ranks below everything that is left, zeros included.
        ranks = [(layer.weight.abs() + 1e-30) * getattr(layer, "mask", 1) for layer in layers]
        groups = [list(range(len(layers)))] if self.scope == "global" else [[index] for index in range(len(layers))]
        for group in groups:
            values = torch.cat([ranks[index].flatten() for index in group])
            keep = torch.ones_like(values, dtype=torch.bool)
            keep[values.argsort(stable=True)[: round(sparsity * len(values))]] = False
            for index, part in zip(group, keep.split([ranks[index].numel() for index in group]), strict=True):
                mask = add_mask(layers[index])
                mask &= part.view_as(mask)

    def _remove(self, kind: Literal["heads", "neurons"], sparsity: float) -> None:
        blocks = list(transformer_blocks(self.model))
        read: list[Any] = [None] * len(blocks)
        if self.calibration is not None and sparsity:
            read = mean_squares(self.model, [b.write if kind == "heads" else b.down for b in blocks], self.calibration)
        scores = [
            block.head_scores(part) if kind == "heads" else block.neuron_scores(part)
            for block, part in zip(blocks, read, strict=True)
        ]
        original = [heads if kind == "heads" else neurons for heads, neurons in self._sizes]
        if self.scope == "layer":
            counts = [round(size * (1 - sparsity)) for size in original]
            kept = [score.topk(min(len(score), max(1, n))).indices for score, n in zip(scores, counts, strict=True)]
        else:
            # The best of each layer stays, whatever the others are worth.
            ranks = [score.index_fill(0, score.argmax(), torch.inf) for score in scores]
            count = min(max(len(blocks), round(sum(original) * (1 - sparsity))), sum(map(len, ranks)))
            chosen = torch.zeros(sum(map(len, ranks)), dtype=torch.bool, device=ranks[0].device)
            chosen[torch.cat(ranks).topk(count).indices] = True
            kept = [part.nonzero().squeeze(1) for part in chosen.split([len(rank) for rank in ranks])]
        for block, index in zip(blocks, kept, strict=True):
            (block.keep_heads if kind == "heads" else block.keep_neurons)(index.sort().values)


def local_directory(path: str | Path) -> Path:
    """Return a path that holds a model.

    Raises:
        ValueError: If it is no directory with a ``config.json``; nothing is ever downloaded.
    """
    directory = Path(path)
    if not (directory / "config.json").is_file():
        raise ValueError(
            f"path must be a local directory with a config.json, as nothing is downloaded, got {str(path)!r}: download "
            "it beforehand (`hf download NAME --local-dir DIR`, `huggingface-cli download` in older versions, or "
            "huggingface_hub.snapshot_download(NAME, local_dir=DIR)) and give DIR"
        )
    return directory


def load_model(path: str | Path) -> Any:
    """Load a transformer without its head, in evaluation mode; pruned ones with their pruning.

    Args:
        path: A local directory that ``save_pretrained`` wrote.

    Raises:
        ValueError: If it holds no model.
    """
    directory = local_directory(path)
    if (directory / PRUNING_FILE).is_file():
        return PrunedTransformer.from_pretrained(directory).model
    from transformers import AutoModel

    return AutoModel.from_pretrained(str(directory), local_files_only=True).eval()
