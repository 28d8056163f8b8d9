"""Rounding the biases and norms of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from dwindle.rounding import NORM, STATISTICS, is_vector, round_significant


def vectors(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The biases and norms of a model, by their names in its state, and the modules that own them.

    Those with parametrizations are left out, and buffers that are not part of the state.
    """
    for path, module in model.named_modules():
        if isinstance(module, parametrize.ParametrizationList) or "parametrizations" in path.split("."):
            continue
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None or name in module._non_persistent_buffers_set:
                continue
            if is_vector(name, tensor.ndim, str(tensor.dtype).removeprefix("torch.")):
                yield (f"{path}.{name}" if path else name), module


def round_vectors(model: nn.Module, names: Iterable[str], bits: int) -> None:
    """Round tensors of a model in place.

    Args:
        model: any module.
        names: as in its state, see `vectors`.
        bits: significant bits to keep.
    """
    state = model.state_dict()
    with torch.no_grad():
        for name in names:
            state[name].copy_(rounded(state[name], bits))


def coarsen_statistics(model: nn.Module, names: Iterable[str]) -> None:
    """Round the running statistics of batch norms; scales and shifts make up for it.

    They compute the same in evaluation mode, where two numbers a channel would do for the four there are. In
    training mode, where statistics are those of the batch, channels come out a few percent larger or smaller
    until they have been trained.

    Args:
        model: changed in place.
        names: of vectors that may be changed; norms with others, or with one that another module has too, or
            that would overflow, are left as they are.
    """
    allowed = set(names)
    tensors = [
        tensor
        for module in model.modules()
        for tensor in (*module._parameters.values(), *module._buffers.values())
    ]
    owners = Counter(map(id, tensors))
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        if not isinstance(module, _BatchNorm) or not allowed.issuperset(prefix + part for part in NORM):
            continue
        if all(owners[id(getattr(module, part))] == 1 for part in NORM):
            _coarsen(module)


@torch.no_grad()
def _coarsen(norm: _BatchNorm) -> None:
    scale, shift, mean, variance = (getattr(norm, part).double() for part in NORM)
    coarse_mean, coarse_variance = rounded(mean, STATISTICS), rounded(variance, STATISTICS)
    deviation = (variance + norm.eps).sqrt()
    new = (
        scale * (coarse_variance + norm.eps).sqrt() / deviation,
        shift + scale * (coarse_mean - mean) / deviation,
        coarse_mean,
        coarse_variance,
    )
    if all(bool(values.to(norm.weight.dtype).isfinite().all()) for values in new):
        for part, values in zip(NORM, new, strict=True):
            getattr(norm, part).copy_(values)


def rounded(values: Tensor, bits: int) -> Tensor:
    """A float tensor with so many significant bits, of its dtype and on its device."""
    wide = values.detach().cpu().to(torch.float64 if values.dtype == torch.float64 else torch.float32)
    return torch.from_numpy(round_significant(wide.numpy(), bits)).to(values.device, values.dtype)
