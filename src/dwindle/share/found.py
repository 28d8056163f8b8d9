"""What somebody else shared: tensors of few values, each of them many times."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from dwindle import chains
from dwindle.share.codebook import get_codebook, set_codebook

MAX_VALUES = 256
"""Most values of a tensor that is taken for shared."""

REPEATS = 8
"""How often each of them occurs at least, on average."""


def adopt_values(model: nn.Module, names: Iterable[str]) -> dict[str, int]:
    """Give tensors that have few values a codebook of exactly these, in place.

    Args:
        model: any module.
        names: sharable tensors to look at; those with a codebook are left.

    Returns:
        The number of values by the name of each tensor that got a codebook.
    """
    tensors, found = chains.weights(model), {}
    for name in names:
        if get_codebook(model, name) is not None:
            continue
        weight = chains.effective(*tensors[name])
        # Most tensors show on a sample that they have more values.
        if len(torch.unique(weight.flatten()[: 4 * MAX_VALUES])) > MAX_VALUES:
            continue
        values, places = torch.unique(weight, return_inverse=True)
        if len(values) <= MAX_VALUES and len(values) * REPEATS <= weight.numel():
            set_codebook(model, name, values, places.to(torch.int32))
            found[name] = len(values)
    return found
