"""Rounding the biases and norms of a model."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dwindle.rounding import is_vector, round_significant


def round_vectors(model: nn.Module, bits: int) -> None:
    """Round the biases and norms of a model in place.

    Vectors with parametrizations are left alone.

    Args:
        model: any module.
        bits: significant bits to keep.
    """
    for name, tensor in _vectors(model):
        if is_vector(name, tensor.ndim, str(tensor.dtype).removeprefix("torch.")):
            wide = tensor.detach().cpu().to(torch.float64 if tensor.dtype == torch.float64 else torch.float32)
            with torch.no_grad():
                tensor.copy_(torch.from_numpy(round_significant(wide.numpy(), bits)))


def _vectors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, module in model.named_modules():
        if isinstance(module, parametrize.ParametrizationList) or "parametrizations" in path.split("."):
            continue
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                yield f"{path}.{name}", tensor
