"""Turning masks into plain zeros."""

from __future__ import annotations

import torch
from torch import nn

from dwindle import chains
from dwindle.errors import TensorError
from dwindle.prune.mask import Mask


def make_permanent(model: nn.Module) -> list[str]:
    """Take the masks off a model, in place, and leave zeros where they were.

    The parameters are the same objects as before, and plain: training them further would revive the zeros.

    Returns:
        Full names of the tensors that had a mask, each tie and alias under its own name.

    Raises:
        TensorError: if a masked tensor has other parametrizations too, such as a codebook; the model is
            then as it was.
    """
    names, holders = [], {}
    for full, module, name in chains.named_tensors(model):
        chain = chains.chain(module, name)
        masks = [link for link in chain if isinstance(link, Mask)]
        if masks and len(chain) > 1:
            got = ", ".join(type(link).__name__ for link in chain)
            raise TensorError(f"{full}: expected no parametrization but one Mask, got {got}")
        if masks:
            names.append(full)
            holders[id(module), name] = (module, name, masks[0])
    for module, name, mask in holders.values():
        with torch.no_grad():
            chains.source(module, name).masked_fill_(~mask.mask, 0.0)
        chains.detach(module, name, mask)
    return names
