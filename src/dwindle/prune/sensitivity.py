"""How much each tensor alone can lose: the scan from which per-layer sparsities are chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from dwindle import chains
from dwindle.prune.mask import get_mask, masked, prunable
from dwindle.prune.threshold import by_sparsity, check_finite

GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
"""Sparsities a scan tries unless told otherwise: finer where networks begin to break."""


@dataclass(frozen=True)
class Sensitivity:
    """Result of a scan.

    Attributes:
        sparsities: the grid.
        baseline: what `evaluate` gave for the model as it is.
        scores: by tensor name, what it gave with only that tensor pruned to each sparsity of the grid.
    """

    sparsities: tuple[float, ...]
    baseline: float
    scores: dict[str, tuple[float, ...]]

    def within(self, max_drop: float) -> dict[str, float]:
        """For each tensor the largest sparsity up to which every score is within a bound of the baseline.

        Args:
            max_drop: the bound, in the units of `evaluate`.

        Returns:
            Sparsities by tensor name, fit for `prune`; 0 for a tensor that breaks at once.
        """
        chosen = {}
        for name, scores in self.scores.items():
            chosen[name] = 0.0
            for sparsity, score in sorted(zip(self.sparsities, scores, strict=True)):
                # Written so that a NaN score counts as broken.
                if not score >= self.baseline - max_drop:
                    break
                chosen[name] = sparsity
        return chosen

    def to_json(self) -> dict[str, Any]:
        """The table as plain dicts, lists and numbers."""
        return asdict(self)


def scan_sensitivity(
    model: nn.Module,
    evaluate: Callable[[nn.Module], float],
    *,
    sparsities: Sequence[float] = GRID,
    names: Iterable[str] | None = None,
) -> Sensitivity:
    """Evaluate a model with one tensor pruned at a time, to each sparsity of a grid, without retraining.

    The model itself is passed to `evaluate`, with temporary masks on top of what it has; afterwards its
    values, masks and training modes are what they were, also after an error.

    Args:
        model: the model.
        evaluate: higher is better, as for accuracy; called once for the baseline, then once a cell.
        sparsities: the grid, each 0 to 1.
        names: prunable tensors to scan; all by default.

    Returns:
        The table.

    Raises:
        TensorError: if a tensor named is not prunable, or holds NaN or infinite values.
        ValueError: if a sparsity is not in 0 to 1.

    Han et al. 2015, section 5, figure 6.
    """
    tensors = prunable(model)
    chosen = list(tensors) if names is None else list(names)
    for name in chosen:
        if name not in tensors:
            raise chains.unknown(name, tensors, "prunable tensor")
        check_finite(chains.effective(*tensors[name]), name)
    modes = [(module, module.training) for module in model.modules()]
    scores = {}
    try:
        baseline = float(evaluate(model))
        for name in chosen:
            weight, mask = chains.effective(*tensors[name]), get_mask(*tensors[name])
            row = []
            for sparsity in sparsities:
                with masked(model, name, by_sparsity(weight, sparsity, mask=mask, name=name)):
                    row.append(float(evaluate(model)))
            scores[name] = tuple(row)
    finally:
        for module, training in modes:
            module.training = training
    return Sensitivity(tuple(sparsities), baseline, scores)
