"""Rounding the biases and norms of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dwindle.rounding import is_vector, round_significant


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


def rounded(values: Tensor, bits: int) -> Tensor:
    """A float tensor with so many significant bits, of its dtype and on its device."""
    wide = values.detach().cpu().to(torch.float64 if values.dtype == torch.float64 else torch.float32)
    return torch.from_numpy(round_significant(wide.numpy(), bits)).to(values.device, values.dtype)
