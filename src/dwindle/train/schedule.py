"""Learning rates as functions of how much of a phase is done."""

from __future__ import annotations

import math
from collections.abc import Callable


def cosine(first: float, last: float, *, epoch: int, epochs: int) -> Callable[[float], float]:
    """The part of a half cosine from `first` to `last` over `epochs` that falls into one epoch.

    It keeps no state, so a run resumed at an epoch needs nothing but the epoch's number.

    Args:
        first: rate at the start of the phase.
        last: rate at its end.
        epoch: which epoch, counted from 0.
        epochs: epochs of the phase.

    Returns:
        Rate as a function of the part of the epoch done, 0 to 1.

    Raises:
        ValueError: if `epoch` is not within 0 to `epochs` - 1.
    """
    if not 0 <= epoch < epochs:
        raise ValueError(f"expected an epoch within 0 to {epochs - 1}, got {epoch}")
    return lambda part: last + (first - last) * (1 + math.cos(math.pi * (epoch + part) / epochs)) / 2
