"""Pruning little by little, with fine-tuning in between."""

from __future__ import annotations

from collections.abc import Callable

from agents.pruning.pruned_transformer import PrunedTransformer
from agents.pruning.report import PruningReport


def cubic_sparsity(step: int, n_steps: int, final: float, initial: float = 0.0) -> float:
    """Sparsity after ``step`` of ``n_steps``: fast at first, slow at the end (Zhu & Gupta 2017, arXiv:1710.01878).

    Raises:
        ValueError: If ``step`` is not in [0, ``n_steps``], or ``n_steps`` is below 1.
    """
    if n_steps < 1 or not 0 <= step <= n_steps:
        raise ValueError(f"step must be in [0, n_steps] and n_steps at least 1, got {step} and {n_steps}")
    return final + (initial - final) * (1 - step / n_steps) ** 3


def prune_gradually(
    pruned: PrunedTransformer,
    fine_tune: Callable[[PrunedTransformer], object],
    n_steps: int,
    sparsity: float,
    ffn_sparsity: float | None = None,
    head_sparsity: float | None = None,
) -> list[PruningReport]:
    """Prune a little, fine-tune, prune a little more, on the cubic schedule; it ends with fine-tuning.

    Args:
        pruned: What to prune; from where it stands now, no sparsity ever falls.
        fine_tune: Trains the model for a while; it makes its own optimiser.
        n_steps: Number of rounds (≥ 1).
        sparsity: Final sparsity; see :class:`PrunedTransformer`, as for the two others.
        ffn_sparsity: Final sparsity of the feed-forward neurons.
        head_sparsity: Final sparsity of the attention heads.

    Returns:
        The report after each round.

    Raises:
        ValueError: If an argument is out of range.
    """
    reports = []
    for step in range(1, n_steps + 1):
        targets = [
            None if final is None else cubic_sparsity(step, n_steps, final) for final in (ffn_sparsity, head_sparsity)
        ]
        pruned.prune(cubic_sparsity(step, n_steps, sparsity), *targets)
        fine_tune(pruned)
        reports.append(pruned.report())
    return reports
