"""Pruning a model in place, and the report of what was removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor, nn

from dwindle import chains
from dwindle.prune.mask import get_mask, prunable, set_mask
from dwindle.prune.threshold import by_quality, by_sparsity, global_threshold

Target = float | Mapping[str, float | None]
"""One number for all prunable tensors, or numbers by name: tensors not named, or None, are left alone."""


@dataclass(frozen=True)
class PrunedTensor:
    """What one call removed from one tensor.

    Attributes:
        name: full name, "fc1.weight".
        elements: number of weights.
        before: survivors before the call.
        kept: survivors after it.
    """

    name: str
    elements: int
    before: int
    kept: int

    @property
    def removed(self) -> int:
        """Weights this call removed."""
        return self.before - self.kept

    @property
    def sparsity(self) -> float:
        """Share of all weights that are gone; 0 for an empty tensor."""
        return 1 - self.kept / self.elements if self.elements else 0.0


@dataclass(frozen=True)
class PruneReport:
    """What one call of `prune` removed, one row for each prunable tensor, in the model's order."""

    tensors: tuple[PrunedTensor, ...]

    @property
    def elements(self) -> int:
        """Number of prunable weights."""
        return sum(row.elements for row in self.tensors)

    @property
    def kept(self) -> int:
        """Survivors after the call."""
        return sum(row.kept for row in self.tensors)

    @property
    def removed(self) -> int:
        """Weights the call removed."""
        return sum(row.removed for row in self.tensors)

    @property
    def sparsity(self) -> float:
        """Share of all prunable weights that are gone; 0 where there are none."""
        return 1 - self.kept / self.elements if self.elements else 0.0

    def to_json(self) -> dict[str, Any]:
        """The report as plain dicts, lists and numbers."""
        rows = [asdict(row) | {"sparsity": row.sparsity} for row in self.tensors]
        return {"elements": self.elements, "kept": self.kept, "sparsity": self.sparsity, "tensors": rows}


def prune(
    model: nn.Module,
    *,
    sparsity: Target | None = None,
    quality: Target | None = None,
    scope: Literal["layer", "global"] = "layer",
) -> PruneReport:
    """Remove the weights of smallest magnitude, in place; survivors keep their values.

    What was removed before stays removed, whatever the target. The model trains, saves and copies as before;
    an error leaves it as it was.

    Args:
        model: any module; `prunable` says which of its tensors are considered.
        sparsity: share of a tensor's weights to be gone afterwards, 0 to 1.
        quality: threshold of a tensor in standard deviations of its survivors, 0 or more.
        scope: "layer" meets a sparsity in each tensor, "global" with one threshold over all of them.

    Returns:
        What was removed, for all prunable tensors.

    Raises:
        TensorError: if a tensor named is not prunable, or one to prune holds NaN or infinite values.
        ValueError: unless exactly one of sparsity and quality is given, in its range; if the global scope
            comes with anything but one sparsity.

    Han et al. 2015, section 3.
    """
    if (sparsity is None) == (quality is None):
        got = "neither" if sparsity is None else "both"
        raise ValueError(f"expected either a sparsity or a quality, got {got}")
    if scope not in ("layer", "global"):
        raise ValueError(f"expected the scope layer or global, got {scope}")
    tensors = prunable(model)
    before = {name: get_mask(*owner) for name, owner in tensors.items()}
    after: dict[str, Tensor] = {}
    if scope == "global":
        if sparsity is None or isinstance(sparsity, Mapping):
            raise ValueError("expected one sparsity for the whole network with the global scope")
        weights = [chains.effective(*owner) for owner in tensors.values()]
        masks = global_threshold(weights, sparsity, masks=list(before.values()), names=list(tensors))
        after = dict(zip(tensors, masks, strict=True))
    if scope == "layer" and sparsity is not None:
        for name, share in by_tensor(model, sparsity).items():
            after[name] = by_sparsity(chains.effective(*tensors[name]), share, mask=before[name], name=name)
    if quality is not None:
        for name, factor in by_tensor(model, quality).items():
            after[name] = by_quality(chains.effective(*tensors[name]), factor, mask=before[name], name=name)
    rows = []
    for name, owner in tensors.items():
        elements = chains.source(*owner).numel()
        survivors = _survivors(before[name], elements)
        if name in after:
            set_mask(model, name, after[name])
        rows.append(PrunedTensor(name, elements, survivors, _survivors(get_mask(*owner), elements)))
    return PruneReport(tuple(rows))


def by_tensor(model: nn.Module, target: Target) -> dict[str, float]:
    """The targets by the names `prunable` uses, in the model's order.

    Raises:
        TensorError: if a tensor named is not prunable.
    """
    tensors = prunable(model)
    if not isinstance(target, Mapping):
        return dict.fromkeys(tensors, target)
    first = {id(chains.source(*owner)): name for name, owner in tensors.items()}
    chosen: dict[str, float | None] = {}
    aliases = {
        full: first.get(id(chains.source(module, name))) for full, module, name in chains.named_tensors(model)
    }
    for name, value in target.items():
        own = aliases.get(name)
        if own is None:
            raise chains.unknown(name, tensors, "prunable tensor")
        chosen[own] = value
    ordered = {name: chosen.get(name) for name in tensors}
    return {name: value for name, value in ordered.items() if value is not None}


def _survivors(mask: Tensor | None, elements: int) -> int:
    return elements if mask is None else int(mask.count_nonzero())
