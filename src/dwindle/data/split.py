"""A validation set held out of the training set, so that settings are chosen without the test set."""

from __future__ import annotations

import torch
from torch import Tensor


def split(count: int, held_out: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Split examples into those to train on and those to validate on, at random.

    Args:
        count: number of examples.
        held_out: how many of them to hold out, 0 to `count`.
        seed: the same seed gives the same split.

    Returns:
        Positions to train on, shape (count - held_out,), and held out, shape (held_out,), int64, each rising.

    Raises:
        ValueError: if `held_out` is not within 0 to `count`.
    """
    if not 0 <= held_out <= count:
        raise ValueError(f"expected held_out within 0 to {count}, got {held_out}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[held_out:].sort().values, order[:held_out].sort().values
