"""Prune a little, retrain, repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from torch import nn

from dwindle.prune.apply import PruneReport, Target, prune


def prune_iteratively(
    model: nn.Module,
    schedule: Iterable[Target],
    train: Callable[[nn.Module], None],
    *,
    scope: Literal["layer", "global"] = "layer",
) -> list[PruneReport]:
    """Prune to each sparsity of a schedule in place, and train the survivors after each.

    Args:
        model: the model.
        schedule: for each round a sparsity, or sparsities by tensor name; see `schedule`.
        train: one pass over the user's data, from the values the survivors have. Called once a round.
        scope: as for `prune`.

    Returns:
        What each round removed.

    Raises:
        TensorError, ValueError: as for `prune`.

    Han et al. 2015, section 3.4; retraining goes on from the surviving values (section 3.3).
    """
    reports = []
    for target in schedule:
        reports.append(prune(model, sparsity=target, scope=scope))
        train(model)
    return reports
