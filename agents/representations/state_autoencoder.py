"""An autoencoder of state vectors: fewer numbers that say nearly the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from agents.representations.neighbours import batches, nearest_vectors, neighbour_divergence
from textgym.checks import check_list

if TYPE_CHECKING:
    from agents.representations.state_embedding import StateEmbedding


@dataclass
class FitHistory:
    """What :meth:`StateAutoEncoder.fit` went through.

    Attributes:
        train: Mean training loss of each epoch.
        validation: Validation loss after each epoch.
        best_epoch: The epoch, from 0, whose weights were kept.
    """

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = 0


class StateAutoEncoder(nn.Module):
    """A regularised autoencoder in the manner of SAC-AE (Yarats et al. 2019, arXiv:1910.01741).

    The loss is the squared error of the reconstruction, plus a penalty on the size of the latent vector, and the
    decoder's weights decay: that keeps the latent space smooth. What differs from the paper:

    * Vectors take the place of images, centred and scaled by statistics of the data that :meth:`fit` saw.
    * The latent vector is not squashed by a tanh: angles between latent vectors are meant to say something.
    * Beside the hidden networks runs a linear path, on which :meth:`fit` begins at the principal components.
    * A further term asks that the neighbours of a vector stay its neighbours. A softmax over the cosines with the
      others in the batch is one's distribution of neighbours, and the term is the divergence of the codes' from the
      vectors' (as in stochastic neighbour embedding, Hinton & Roweis 2002). Reconstruction alone spends its few
      dimensions on what varies most, wherever that is, and loses neighbours; ``benchmarks/representations.py``
      measures by how much.

    Args:
        input_dim: Size of a state vector (≥ 1).
        latent_dim: Size of its code (≥ 1).
        hidden: Widths of the encoder's hidden layers, which the decoder has in reverse; empty for a linear one.
        latent_penalty: Weight of half the mean squared norm of the code (≥ 0).
        decoder_weight_decay: Weight decay of the decoder (≥ 0); see :meth:`parameter_groups`.
        neighbour_weight: Weight of the divergence between distributions of neighbours, in nats (≥ 0); 0 for SAC-AE.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> autoencoder = StateAutoEncoder(input_dim=6, latent_dim=2, hidden=(8,))
        >>> autoencoder.encode(torch.zeros(3, 6)).shape, autoencoder(torch.zeros(3, 6)).shape
        (torch.Size([3, 2]), torch.Size([3, 6]))
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        input_dim: int = 384,
        latent_dim: int = 32,
        hidden: Sequence[int] = (512,),
        latent_penalty: float = 1e-6,
        decoder_weight_decay: float = 1e-7,
        neighbour_weight: float = 1.0,
    ) -> None:
        super().__init__()
        hidden = check_list("hidden", hidden, "widths")
        sizes = {"input_dim": input_dim, "latent_dim": latent_dim, "hidden": min(hidden, default=1)}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        weights = {
            "latent_penalty": latent_penalty,
            "decoder_weight_decay": decoder_weight_decay,
            "neighbour_weight": neighbour_weight,
        }
        for name, weight in weights.items():
            if weight < 0:
                raise ValueError(f"{name} must not be negative, got {weight}")
        self.input_dim, self.latent_dim, self.hidden = input_dim, latent_dim, tuple(hidden)
        self.latent_penalty, self.decoder_weight_decay = latent_penalty, decoder_weight_decay
        self.neighbour_weight = neighbour_weight
        self.encoder = _LinearPlusHidden([input_dim, *hidden, latent_dim])
        self.decoder = _LinearPlusHidden([latent_dim, *reversed(self.hidden), input_dim])
        self.register_buffer("mean", torch.zeros(input_dim))
        self.register_buffer("scale", torch.ones(()))

    def encode(self, embeddings: Tensor) -> Tensor:
        """Return the codes of state vectors: (B, input_dim) to (B, latent_dim)."""
        code: Tensor = self.encoder((embeddings - self.mean) / self.scale)
        return code

    def decode(self, codes: Tensor) -> Tensor:
        """Return state vectors for codes: (B, latent_dim) to (B, input_dim)."""
        decoded: Tensor = self.decoder(codes) * self.scale + self.mean
        return decoded

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return what is left of state vectors after encoding and decoding, (B, input_dim)."""
        return self.decode(self.encode(embeddings))

    def loss(self, embeddings: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar; a decoder that always answers the mean has a squared error of 1.

        The target gets no gradient: else embeddings that are learned would learn to be easy, not to be useful.
        """
        code = self.encode(embeddings)
        target = (embeddings.detach() - self.mean) / self.scale
        loss = F.mse_loss(self.decoder(code), target) + self.latent_penalty * 0.5 * code.square().sum(dim=1).mean()
        if self.neighbour_weight and len(code) > 2:  # of two, each is the other's only neighbour
            loss = loss + self.neighbour_weight * neighbour_divergence(code, embeddings.detach())
        return loss

    def auxiliary_loss(self, embeddings: Tensor) -> Tensor:
        """Return :meth:`loss`, to be added to an agent's: its gradient reaches what made the embeddings."""
        return self.loss(embeddings)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for an AdamW optimiser in which the decoder alone decays."""
        return [
            {"params": list(self.encoder.parameters()), "weight_decay": 0.0},
            {"params": list(self.decoder.parameters()), "weight_decay": self.decoder_weight_decay},
        ]

    def fit(
        self,
        data: NDArray[np.floating] | Tensor | Sequence[str],
        embedding: StateEmbedding | None = None,
        *,
        epochs: int = 40,
        batch_size: int = 512,
        learning_rate: float = 2e-3,
        validation_fraction: float = 0.1,
        generator: torch.Generator | None = None,
        progress: bool = True,
    ) -> FitHistory:
        """Learn from state vectors, and keep the weights of the epoch with the lowest validation loss.

        The linear path begins anew, at the principal components. If ``neighbour_weight`` is not zero, a batch is made
        of random vectors and, of each, 7 of its 20 nearest: a batch drawn at random holds hardly any neighbours.

        Args:
            data: State vectors, (N, input_dim) with N ≥ 2, or texts.
            embedding: What makes vectors of texts.
            epochs: Updates, in multiples of what a pass over the data takes (≥ 1). The learning rate falls to zero over
                them as half a cosine.
            batch_size: Vectors in an update (≥ 1).
            learning_rate: Of the first update.
            validation_fraction: Part of the data, chosen at random, that is not learned from, in (0, 1).
            generator: Source of the order of the data; None for one that always gives the same.
            progress: Whether to show a progress bar.

        Raises:
            ValueError: If an argument is out of range, or texts come without ``embedding``.
        """
        for name, value in {"epochs": epochs, "batch_size": batch_size}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 < validation_fraction < 1:
            raise ValueError(f"validation_fraction must be in (0, 1), got {validation_fraction}")
        vectors = self._vectors(data, embedding)
        generator = generator or torch.Generator().manual_seed(0)
        order = torch.randperm(len(vectors), generator=generator)
        n_validation = min(len(vectors) - 1, max(1, round(validation_fraction * len(vectors))))
        validation, train = vectors[order[:n_validation]], vectors[order[n_validation:]]
        with torch.no_grad():
            self.mean.copy_(train.mean(dim=0))
            self.scale.copy_((train - self.mean).square().mean().sqrt().clamp(min=1e-8))
            self._start_from_principal_components((train - self.mean) / self.scale)
        optimizer = torch.optim.AdamW(self.parameter_groups(), lr=learning_rate)
        n_updates = epochs * -(-len(train) // batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_updates)
        history, best = FitHistory(), {}
        nearest = nearest_vectors(train) if self.neighbour_weight and len(train) > 2 else None
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, disable=not progress) as bars:
            bar = bars.add_task(f"autoencoder {self.input_dim} → {self.latent_dim}", total=epochs)
            for epoch in range(epochs):
                self.train()
                losses: list[float] = []
                for index in batches(len(train), batch_size, nearest, generator):
                    loss = self.loss(train[index])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
                    losses.append(float(loss.detach()))
                self.eval()
                with torch.no_grad():
                    error = float(self.loss(validation))
                if not history.validation or error < min(history.validation):
                    history.best_epoch = epoch
                    best = {name: value.clone() for name, value in self.state_dict().items()}
                history.train.append(sum(losses) / len(losses))
                history.validation.append(error)
                bars.update(bar, advance=1, description=f"autoencoder → {self.latent_dim}, validation {error:.4f}")
        self.load_state_dict(best)
        return history

    def save(self, path: str | Path) -> None:
        """Write weights and arguments to one safetensors file."""
        arguments = {
            "input_dim": self.input_dim,
            "latent_dim": self.latent_dim,
            "hidden": self.hidden,
            "latent_penalty": self.latent_penalty,
            "decoder_weight_decay": self.decoder_weight_decay,
            "neighbour_weight": self.neighbour_weight,
        }
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, str(path), metadata={"arguments": json.dumps(arguments)})

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> StateAutoEncoder:
        """Read what :meth:`save` wrote, in evaluation mode.

        Raises:
            ValueError: If the file is none that :meth:`save` wrote.
        """
        if not Path(path).is_file():
            raise ValueError(f"path must be a file that save() wrote, got {str(path)!r}")
        with safe_open(str(path), "pt", device=device) as file:
            metadata = file.metadata() or {}
            if "arguments" not in metadata:
                raise ValueError(f"path must be a file that save() wrote, got {str(path)!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        autoencoder = cls(**json.loads(metadata["arguments"])).to(device)
        autoencoder.load_state_dict(tensors)
        return autoencoder.eval()

    def _start_from_principal_components(self, inputs: Tensor) -> None:
        _, vectors = torch.linalg.eigh(inputs.T @ inputs)  # by rising eigenvalue, in columns
        components = vectors.flip(1)[:, : min(self.latent_dim, len(inputs))].T  # (K, input_dim)
        self.encoder.start_from(components)
        self.decoder.start_from(components.T)

    def _vectors(self, data: Any, embedding: StateEmbedding | None) -> Tensor:
        if hasattr(data, "to_numpy"):  # a data frame, whose columns are the vectors' numbers
            data = np.array(data.to_numpy())
        if not isinstance(data, (np.ndarray, Tensor)):
            if embedding is None:
                raise ValueError("embedding must be given to learn from texts, got None")
            data = embedding.embed(data)
        vectors = torch.as_tensor(data, dtype=self.mean.dtype, device=self.mean.device).detach()
        if vectors.ndim != 2 or vectors.shape[1] != self.input_dim or len(vectors) < 2:
            raise ValueError(
                f"data must have shape (N, input_dim = {self.input_dim}) with N >= 2, got {tuple(vectors.shape)}"
            )
        return vectors


class _LinearPlusHidden(nn.Module):
    """A linear layer plus, if there are hidden layers, a network that starts as zero."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.linear = nn.Linear(sizes[0], sizes[-1])
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes[:-1]):
            layers += [nn.Linear(before, after), nn.ReLU()]
        last = nn.Linear(sizes[-2], sizes[-1], bias=False)
        nn.init.zeros_(last.weight)
        self.network = nn.Sequential(*layers, last) if layers else None

    def start_from(self, weight: Tensor) -> None:
        """Make this linear map the whole, as far as it goes: a code may have more numbers than there are components."""
        self.linear.weight[: weight.shape[0], : weight.shape[1]] = weight
        self.linear.bias.zero_()
        if self.network is not None:
            last = self.network[-1]
            assert isinstance(last, nn.Linear)
            last.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        linear: Tensor = self.linear(x)
        return linear if self.network is None else linear + self.network(x)
