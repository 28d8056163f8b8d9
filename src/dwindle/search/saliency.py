"""What each weight matters, from the gradients of the user's own training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from dwindle import chains
from dwindle.prune import get_mask, global_threshold, set_mask
from dwindle.share import get_codebook

MEMORY = 0.5
"""Weight of earlier passes against the latest."""

LEAST = 1e-6
"""Least importance of a tensor, so that none is free."""


class Saliency:
    """Sums of squared gradients by weight, kept over passes of training.

    What removing a weight w costs is about w^2 F / 2, where F, the diagonal of the Fisher information, is the
    mean of its squared gradient: one scale for all tensors, and next to nothing for weights whose inputs are
    always zero, however large they are. It is the sensitivity analysis of a search, at no evaluation's cost.

    LeCun, Denker, Solla 1990, "Optimal brain damage", with the gradients of Theis et al. 2018, "Faster gaze
    prediction with dense networks and Fisher pruning".

    Attributes:
        squares: by tensor name, float32, the weight's shape; of tensors that can be pruned.
        stale: whether they are of a model that had other weights left, until the next pass.
    """

    def __init__(self, squares: Mapping[str, Tensor] | None = None, *, stale: bool = True) -> None:
        self.squares: dict[str, Tensor] = dict(squares or {})
        self.stale = stale

    @contextlib.contextmanager
    def watching(self, model: nn.Module, names: Sequence[str]) -> Iterator[None]:
        """For the length of a `with` block of training, learn from gradients of tensors without codebooks.

        Where none is seen, because a copy is trained, all weights matter by their magnitudes alone.
        """
        latest: dict[str, Tensor] = {}
        handles, owners = [], chains.weights(model)
        trained = {
            name: source
            for name in names
            if (source := chains.source(*owners[name])).requires_grad and get_codebook(model, name) is None
        }
        for name, source in trained.items():
            hook = partial(_add, latest, name)
            handles.append(source.register_hook(hook))  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if not trained:
            return
        seen = latest or {name: torch.ones_like(source).float() for name, source in trained.items()}
        for name, found in seen.items():
            before = None if self.stale else self.squares.get(name)
            self.squares[name] = found if before is None else torch.lerp(found, before.to(found), MEMORY)
        self.stale = False

    def importance(self, model: nn.Module, names: Sequence[str]) -> dict[str, float]:
        """Of each tensor the mean over its survivors, relative to that of all; 1.0 where nothing is known."""
        owners = chains.weights(model)
        means = {}
        for name in names:
            alive = chains.effective(*owners[name]) != 0
            if name in self.squares and alive.any():
                means[name] = float(self.squares[name].to(alive.device)[alive].double().mean())
        known = [mean for mean in means.values() if mean > 0]
        typical = sum(known) / len(known) if known else 1.0
        return {name: max(means.get(name, typical) / typical, LEAST) for name in names}

    def prune_to(self, model: nn.Module, survivors: int) -> int:
        """Remove the weights that matter least, in place, until so many are left in the tensors it knows.

        Args:
            model: changed in place; what is pruned stays pruned.
            survivors: weights to leave.

        Returns:
            Weights that are left.
        """
        owners = {name: chains.weights(model)[name] for name in self.squares}
        masks = [get_mask(*owner) for owner in owners.values()]
        # The root of the cost, which has its order and stays within float32.
        weights = [chains.effective(*owner).float().abs() for owner in owners.values()]
        costs = [
            weight * square.to(weight.device).sqrt()
            for weight, square in zip(weights, self.squares.values(), strict=True)
        ]
        total = sum(cost.numel() for cost in costs)
        share = min(max(1 - survivors / max(total, 1), 0.0), 1.0)
        kept = global_threshold(costs, share, masks=masks, names=[*owners])
        for name, mask in zip(owners, kept, strict=True):
            set_mask(model, name, mask)
        return self.left(model)

    def left(self, model: nn.Module) -> int:
        """Weights that are not masked in the tensors it knows."""
        owners = {name: chains.weights(model)[name] for name in self.squares}
        masks = {name: get_mask(*owner) for name, owner in owners.items()}
        return sum(
            self.squares[name].numel() if mask is None else int(mask.count_nonzero())
            for name, mask in masks.items()
        )


def _add(latest: dict[str, Tensor], name: str, gradient: Tensor) -> None:
    """Add the square of a gradient; infinities, as a loss that is scaled up may give, count as nothing."""
    dense = gradient.to_dense() if gradient.is_sparse else gradient
    square = dense.detach().float().nan_to_num(0.0, 0.0, 0.0).square()
    latest[name] = latest[name].to(square) + square if name in latest else square
