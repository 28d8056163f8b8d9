"""Masks: which weights of a tensor survive, as part of the model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dwindle import chains
from dwindle.errors import TensorError


class Mask(nn.Module):
    """Parametrization that keeps removed weights at zero: +0.0, with no gradient.

    Attributes:
        mask: bool buffer in the weight's shape, true where a weight survives.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with what is removed replaced by zero."""
        # Not a product: -1 * 0 is -0.0, and inf * 0 is NaN.
        return torch.where(self.mask, weight, 0.0)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """A weight that `forward` masks: itself. Lets users assign to a masked weight."""
        return weight


def prunable(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """The weights of a model that pruning may touch: those of `chains.weights`.

    Returns:
        (owner, attribute) by full tensor name, in the model's order.
    """
    return chains.weights(model)


def set_mask(module: nn.Module, name: str, mask: Tensor) -> None:
    """Remove weights for good, in place: those where `mask` is false, besides those removed before.

    Survivors keep their values, and the parameter stays the same object, so that optimizers go on. Every
    owner of a tied tensor under `module` gets the same `Mask`, so pass the module that holds them all: the
    model. The `Mask` goes last in the chain of parametrizations, also behind a codebook.

    Args:
        module: the model or a part of it.
        name: tensor name relative to `module`: "fc1.weight" of a model, "weight" of a layer.
        mask: bool, the weight's shape, true where a weight survives. Copied.

    Raises:
        TensorError: if there is no such tensor, or the mask does not fit it.
    """
    holders = chains.owners(module, name)
    original = chains.source(*holders[0])
    shape = chains.effective(*holders[0]).shape
    if mask.dtype != torch.bool or mask.shape != shape:
        got = f"{list(mask.shape)} as {mask.dtype}"
        raise TensorError(f"{name}: expected a mask of shape {list(shape)} as torch.bool, got {got}")
    kept = mask.detach().to(original.device, copy=True)
    before = {id(old): old for holder in holders for old in _masks(*holder)}
    for old in before.values():
        kept &= old.mask
    current = next(iter(before.values()), None)
    if current is None:
        current = Mask(kept)
    else:
        current.mask.copy_(kept)
    for holder in holders:
        for old in _masks(*holder):
            if old is not current or chains.chain(*holder)[-1] is not current:
                chains.detach(*holder, old)
        if not _masks(*holder):
            chains.append(*holder, current)
    if all(len(chains.chain(*holder)) == 1 for holder in holders):
        # Zeros below the mask too: weight decay and norms over model.parameters() then see the pruned model.
        with torch.no_grad():
            original.masked_fill_(~kept, 0.0)


def get_mask(module: nn.Module, name: str) -> Tensor | None:
    """The mask of a tensor, bool in the weight's shape, true where a weight survives; None without one.

    Args:
        module: the model or a part of it.
        name: tensor name relative to `module`.

    Raises:
        TensorError: if there is no such tensor.
    """
    for holder in chains.owners(module, name):
        for old in _masks(*holder):
            return old.mask
    return None


@contextlib.contextmanager
def masked(module: nn.Module, name: str, mask: Tensor) -> Iterator[None]:
    """For the length of a `with` block, also remove the weights of one tensor where `mask` is false.

    Nothing is written to: afterwards parameters, values, chains and their order are what they were.

    Args:
        module: the model or a part of it that holds every owner of the tensor.
        name: tensor name relative to `module`.
        mask: bool in the weight's shape.
    """
    extra = Mask(mask)
    holders = chains.owners(module, name)
    orders = [list(holder._parameters) for holder, _ in holders]
    for holder in holders:
        chains.append(*holder, extra)
    try:
        yield
    finally:
        for holder in holders:
            chains.detach(*holder, extra)
        # torch puts a parameter back behind its siblings, but optimizers go by the order.
        for (owner, _), order in zip(holders, orders, strict=True):
            for key in order:
                owner._parameters[key] = owner._parameters.pop(key)


def _masks(module: nn.Module, name: str) -> list[Mask]:
    return [link for link in chains.chain(module, name) if isinstance(link, Mask)]
