"""Codebooks: a tensor whose weights share trainable values, as part of the model."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dwindle import chains
from dwindle.errors import TensorError


class Codebook(nn.Module):
    """Parametrization that computes a weight from shared values and ignores the weight it is given.

    An entry that is exactly zero gets no gradient and stays zero, so pruned weights stay pruned.

    Attributes:
        centroids: parameter in the weight's dtype, shape (k,): the shared values, trained in its place.
        indices: buffer, which of them each weight takes, C order, shape (n,), uint8 where k <= 256, else
            int32.
    """

    indices: Tensor

    def __init__(self, centroids: Tensor, indices: Tensor) -> None:
        super().__init__()
        self.centroids = nn.Parameter(centroids)
        # Not int16: DistributedDataParallel over gloo cannot send it.
        self.register_buffer("indices", indices.to(torch.uint8 if len(centroids) <= 256 else torch.int32))

    def forward(self, weight: Tensor) -> Tensor:
        """The shared weight; an entry's gradient is summed over its weights (Han et al. 2016, eq. 3)."""
        entries = torch.where(self.centroids == 0, 0.0, self.centroids)
        # index_select: five times faster than indexing, and the same gradient on every run.
        return entries.index_select(0, self.indices.int()).view(weight.shape)


def set_codebook(module: nn.Module, name: str, centroids: Tensor, indices: Tensor) -> Codebook:
    """Make a weight share values, in place; a codebook it has already is replaced.

    The weight underneath is frozen: it is kept for its name and shape, and no longer read. Optimizers made
    before do not know the centroids: make a new one. Every owner of a tied tensor under `module` gets the
    same `Codebook`, so pass the module that holds them all: the model.

    Args:
        module: the model or a part of it.
        name: tensor name relative to `module`: "fc1.weight" of a model, "weight" of a layer.
        centroids: shape (k,). Copied, to the weight's dtype and device.
        indices: integers under k, as many as the weight has elements, in C order. Copied.

    Raises:
        TensorError: if there is no such tensor, or the codebook or the indices do not fit it.
    """
    owners = chains.owners(module, name)
    weight = chains.source(*owners[0])
    elements = chains.effective(*owners[0]).numel()
    if centroids.ndim != 1 or not weight.is_floating_point():
        got = f"{list(centroids.shape)} for {weight.dtype}"
        raise TensorError(f"{name}: expected 1-D centroids for a float tensor, got {got}")
    flat = indices.detach().to(weight.device, torch.int32).reshape(-1)
    if len(flat) != elements or (elements and not 0 <= int(flat.min()) <= int(flat.max()) < len(centroids)):
        raise TensorError(
            f"{name}: expected {elements} indices under {len(centroids)}, got {len(flat)}"
            + (f" from {int(flat.min())} to {int(flat.max())}" if len(flat) else "")
        )
    codebook = Codebook(centroids.detach().to(weight.device, weight.dtype, copy=True), flat)
    for owner in owners:
        old = [link for link in chains.chain(*owner) if isinstance(link, Codebook)]
        chains.append(*owner, codebook)
        for link in old:
            chains.detach(*owner, link)
        _freeze(*owner, codebook)
    return codebook


def get_codebook(module: nn.Module, name: str) -> Codebook | None:
    """The codebook of a tensor; None without one.

    Args:
        module: the model or a part of it.
        name: tensor name relative to `module`.

    Raises:
        TensorError: if there is no such tensor.
    """
    for owner in chains.owners(module, name):
        for link in chains.chain(*owner):
            if isinstance(link, Codebook):
                return link
    return None


def _freeze(module: nn.Module, name: str, codebook: Codebook) -> None:
    """Stop training whatever else the tensor is computed from: a parameter without gradient breaks DDP."""
    links = module.parametrizations[name]  # type: ignore[index]
    assert isinstance(links, parametrize.ParametrizationList)  # noqa: S101 (torch's own invariant)
    for parameter in links.parameters():
        if parameter is not codebook.centroids:
            parameter.requires_grad_(False)
            parameter.grad = None
