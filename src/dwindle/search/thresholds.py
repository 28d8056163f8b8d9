"""Which weights matter: for each tensor the magnitude at which removing one costs the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dwindle import chains
from dwindle.prune import get_mask, global_threshold, set_mask

ENERGIES = (1 / 256, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the squared weights that are removed together, until it shows."""

MOST = 32
"""Tensors that are tried alone, the largest; the others are taken to be like these on average."""

TRUSTED, RANGE = 3.0, 16.0
"""Costs of a tensor's energy that differ from the mean by less than the first factor are taken for equal: on
LeNet-300-100, with training between rounds, thresholds that followed smaller differences did worse than one
for all. By more than the second, a single score does not say how much."""

GRID = (*(2.0 ** (step / 4 - 12) for step in range(48)), 1.0)
"""Shares of the squared weights at which thresholds are known."""

TINY = 1e-30

Judge = Callable[[str, nn.Module], float]
"""The score of a model, higher is better; the text says which model it is."""


@dataclass(frozen=True)
class Thresholds:
    """A sensitivity analysis.

    Attributes:
        scale: by tensor name the magnitude of weights that matter alike, positive.
        survivors: how many weights of all tensors can be left without training.
    """

    scale: dict[str, float]
    survivors: int


def analyse(
    model: nn.Module, names: Sequence[str], judge: Judge, *, reference: float, harmless: float, visible: float
) -> Thresholds:
    """Prune all tensors until it shows, then each alone, without training; the model is left as it is.

    Takes at most one evaluation for each of `ENERGIES` and of the `MOST` largest tensors.

    Args:
        model: not changed.
        names: prunable tensors.
        judge: called with copies of the model.
        reference: score of the model.
        harmless: a drop that training makes good.
        visible: a drop that is no noise, so that it can be told whose it is.

    Han et al. 2015, section 5: layers differ in what they can lose.
    """
    weights = {name: chains.effective(*chains.weights(model)[name]) for name in names}
    tables = {name: _table(weight) for name, weight in weights.items()}

    def threshold(name: str, energy: float) -> float:
        return float(tables[name][min(range(len(GRID)), key=lambda at: abs(GRID[at] - energy))])

    def pruned(limits: dict[str, float]) -> nn.Module:
        small = chains.duplicate(model)
        for name, limit in limits.items():
            set_mask(small, name, weights[name].abs() >= limit)
        return small

    survivors = sum(weight.numel() for weight in weights.values())
    for energy in ENERGIES:
        limits = {name: threshold(name, energy) for name in names}
        drop = reference - judge(f"all without {energy:.2%} of energy", pruned(limits))
        if not drop < visible:
            break
        if drop > harmless:
            continue
        survivors = sum(int((weights[name].abs() >= limit).sum()) for name, limit in limits.items())
    alone: dict[str, float] = {}
    if len(names) > 1:
        for name in sorted(names, key=lambda name: -weights[name].numel())[:MOST]:
            label = f"{name} without {energy:.2%} of energy"
            alone[name] = reference - judge(label, pruned({name: limits[name]}))
    energies = {
        name: max(float(_wide(weight).double().square().sum()), TINY) for name, weight in weights.items()
    }
    tried = sum(energies[name] for name in alone)
    # Cost of a unit of squared weights: what a tensor's removed energy cost, over that energy.
    mean = max(sum(alone.values()) / tried if alone else 0.0, TINY)
    scale = {}
    for name in names:
        cost = alone.get(name, mean * energies[name]) / energies[name] / mean
        beyond = min(max(cost / TRUSTED, 1.0), RANGE) * max(min(cost * TRUSTED, 1.0), 1 / RANGE)
        scale[name] = beyond**-0.5
    return Thresholds(scale, survivors)


def prune_to(model: nn.Module, scale: dict[str, float], survivors: int) -> int:
    """Remove the weights that matter least, in place, until so many are left in all tensors.

    Args:
        model: changed in place; what is pruned stays pruned.
        scale: see `Thresholds`.
        survivors: weights to leave.

    Returns:
        Weights that are left.
    """
    owners = {name: chains.weights(model)[name] for name in scale}
    weights = [_wide(chains.effective(*owner)) / scale[name] for name, owner in owners.items()]
    masks: list[Tensor | None] = [get_mask(*owner) for owner in owners.values()]
    total = sum(weight.numel() for weight in weights)
    share = min(max(1 - survivors / max(total, 1), 0.0), 1.0)
    kept = global_threshold(weights, share, masks=masks, names=list(scale))
    for name, mask in zip(scale, kept, strict=True):
        set_mask(model, name, mask)
    return sum(int(mask.count_nonzero()) for mask in kept)


def _table(weight: Tensor) -> list[float]:
    """The magnitude under which each share of `GRID` of the squared weights lies."""
    values = _wide(weight).abs().flatten().sort().values
    sums = values.double().square().cumsum(0)
    limits = torch.tensor(GRID, dtype=torch.float64, device=sums.device) * sums[-1]
    places = torch.searchsorted(sums, limits).clamp_max(len(sums) - 1)
    found: list[float] = values[places].double().tolist()
    return found


def _wide(weight: Tensor) -> Tensor:
    return weight if weight.dtype == torch.float64 else weight.float()
