"""What somebody else shared: tensors of few values, each of them many times."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from dwindle import chains, dtypes
from dwindle.io.torch_file import to_raw
from dwindle.records import few_values
from dwindle.share.codebook import get_codebook, set_codebook


def adopt_values(model: nn.Module, names: Iterable[str]) -> dict[str, int]:
    """Give tensors that have few values (`records.few_values`) a codebook of exactly these, in place.

    Args:
        model: any module.
        names: sharable tensors to look at; those with a codebook are left.

    Returns:
        The number of values by the name of each tensor that got a codebook.
    """
    owners = {full: (module, name) for full, module, name in chains.named_tensors(model)}
    found = {}
    for name in names:
        if get_codebook(model, name) is not None:
            continue
        small = few_values(to_raw(chains.effective(*owners[name])))
        if small is not None:
            values = dtypes.to_float(small.codebook, small.dtype).copy()
            set_codebook(model, name, torch.from_numpy(values), torch.from_numpy(small.indices))
            found[name] = len(values)
    return found
