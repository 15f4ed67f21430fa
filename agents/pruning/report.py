"""What pruning left of a model, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class LayerReport:
    """What pruning left of one weight matrix.

    Attributes:
        name: Its module's name in the model.
        parameters: Weights before pruning, without bias.
        kept: Weights that are neither masked nor removed.
        shape: Its present shape.
    """

    name: str
    parameters: int
    kept: int
    shape: tuple[int, ...]

    @property
    def sparsity(self) -> float:
        """Fraction of its weights that were pruned, in [0, 1]."""
        return 1 - self.kept / self.parameters


class PruningReport(list[LayerReport]):
    """One row a weight matrix; ``str()`` makes a table of it."""

    @property
    def parameters(self) -> int:
        """Weights before pruning."""
        return sum(row.parameters for row in self)

    @property
    def kept(self) -> int:
        """Weights that are left."""
        return sum(row.kept for row in self)

    @property
    def sparsity(self) -> float:
        """Fraction of the weights that were pruned, in [0, 1]."""
        return 1 - self.kept / self.parameters

    def __str__(self) -> str:
        table = Table("layer", "shape", "parameters", "kept", "sparsity")
        total = LayerReport("all", self.parameters, self.kept, ())
        for row in [*self, total]:
            shape = "×".join(map(str, row.shape))
            table.add_row(row.name, shape, f"{row.parameters:,}", f"{row.kept:,}", f"{row.sparsity:.1%}")
        console = Console(width=100, color_system=None)
        with console.capture() as capture:
            console.print(table)
        return capture.get()
