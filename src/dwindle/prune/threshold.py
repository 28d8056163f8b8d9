"""Which weights go: by quality times the standard deviation, by sparsity, by one global threshold.

All functions return masks, true where a weight survives, and take the mask of what survived before: what was
removed stays removed. They work on any device, in blocks, so that beside the mask little memory is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat

import torch
from torch import Tensor

from dwindle.errors import TensorError

_BLOCK = 1 << 18
_DIGIT = 16
_SIGNED = {torch.float32: torch.int32, torch.float64: torch.int64}


def by_quality(weight: Tensor, quality: float, *, mask: Tensor | None = None, name: str = "weight") -> Tensor:
    """Remove every weight whose magnitude is under quality times the standard deviation of the layer.

    Args:
        weight: float tensor of any shape.
        quality: 0 or more; 0 removes nothing.
        mask: bool, the weight's shape: what survived so far. The deviation is that of the survivors.
        name: the tensor's name, for errors.

    Returns:
        bool, the weight's shape, true where a weight survives.

    Raises:
        TensorError: if the weight is not float, or holds NaN or infinite values.
        ValueError: if quality is negative or not finite.

    Han et al. 2015, section 4.
    """
    if not 0 <= quality < float("inf"):
        raise ValueError(f"expected a finite quality of 0 or more, got {quality}")
    check_finite(weight, name)
    limit = quality * _deviation(weight, mask)
    kept = torch.empty(weight.shape, dtype=torch.bool, device=weight.device)
    for (values, before), out in zip(_blocks(weight, mask), _split(kept), strict=True):
        torch.ge(values.to(_wide([weight])).abs(), limit, out=out)
        if before is not None:
            out &= before
    return kept


def by_sparsity(
    weight: Tensor, sparsity: float, *, mask: Tensor | None = None, name: str = "weight"
) -> Tensor:
    """Remove the smallest weights until round(sparsity * n) of the n weights are gone.

    What `mask` removed counts; where it removed more, nothing else goes. Of equal magnitudes the one at the
    lower position goes first, so the result is the same on every run.

    Args:
        weight: float tensor of any shape.
        sparsity: share of all weights to remove, 0 to 1.
        mask: bool, the weight's shape: what survived so far.
        name: the tensor's name, for errors.

    Returns:
        bool, the weight's shape, true where a weight survives.

    Raises:
        TensorError: if the weight is not float, or holds NaN or infinite values.
        ValueError: if sparsity is not in 0 to 1.
    """
    return global_threshold([weight], sparsity, masks=[mask], names=[name])[0]


def global_threshold(
    weights: Sequence[Tensor],
    sparsity: float,
    *,
    masks: Sequence[Tensor | None] | None = None,
    names: Sequence[str] | None = None,
) -> list[Tensor]:
    """Remove the smallest weights of several tensors, under one threshold for all.

    Exactly round(sparsity * n) of all n weights are gone afterwards, those counted that `masks` removed
    before (where they removed more, nothing else goes). Of equal magnitudes the one in the earlier tensor,
    then at the lower position, goes first.

    Args:
        weights: float tensors of any shapes.
        sparsity: share of all weights to remove, 0 to 1.
        masks: what survived so far of each, bool in its shape, or None.
        names: the tensors' names, for errors.

    Returns:
        One mask for each weight, bool in its shape, true where a weight survives.

    Raises:
        TensorError: if a weight is not float, or holds NaN or infinite values.
        ValueError: if sparsity is not in 0 to 1.
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"expected a sparsity of 0 to 1, got {sparsity}")
    for weight, name in zip(weights, names or repeat("weight", len(weights)), strict=True):
        check_finite(weight, name)
    before = list(masks) if masks is not None else [None] * len(weights)
    wide = _wide(weights)
    remove = round(sparsity * sum(weight.numel() for weight in weights))

    def keys() -> Iterator[Tensor]:
        for weight, mask in zip(weights, before, strict=True):
            for block in _blocks(weight, mask):
                yield _keys(*block, wide)

    limit, smaller = _select(keys, remove, torch.iinfo(_SIGNED[wide]).bits)
    ties = remove - smaller
    result = []
    for weight, mask in zip(weights, before, strict=True):
        kept = torch.empty(weight.shape, dtype=torch.bool, device=weight.device)
        for block, out in zip(_blocks(weight, mask), _split(kept), strict=True):
            ties -= _cut(_keys(*block, wide), limit, ties, out)
            if block[1] is not None:
                out &= block[1]
        result.append(kept)
    return result


def check_finite(weight: Tensor, name: str) -> None:
    """Refuse a tensor that has no order of magnitudes.

    Raises:
        TensorError: if the tensor is not float, or holds NaN or infinite values.
    """
    if not weight.is_floating_point():
        raise TensorError(f"{name}: expected a float tensor, got {weight.dtype}")
    if weight.numel():
        low, high = torch.aminmax(weight.detach())
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise TensorError(f"{name}: expected finite weights, got NaN or infinity among them")


def _blocks(weight: Tensor, mask: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    values = _split(weight.detach())
    return zip(values, repeat(None, len(values)) if mask is None else _split(mask), strict=True)


def _split(tensor: Tensor) -> tuple[Tensor, ...]:
    """The elements in C order, in blocks; views where the tensor is contiguous."""
    return torch.split(tensor.reshape(-1), _BLOCK)


def _wide(weights: Sequence[Tensor]) -> torch.dtype:
    """The dtype that holds the values of all weights exactly."""
    return torch.float64 if any(weight.dtype == torch.float64 for weight in weights) else torch.float32


def _deviation(weight: Tensor, mask: Tensor | None) -> float:
    """Standard deviation of the survivors (divided by n, not n - 1), in double precision; 0 without any."""
    count = weight.numel() if mask is None else int(torch.count_nonzero(mask))
    total = squares = 0.0
    for values, before in _blocks(weight, mask):
        total += float((values if before is None else values[before]).sum(dtype=torch.float64))
    mean = total / max(count, 1)
    for values, before in _blocks(weight, mask):
        chosen = (values if before is None else values[before]).double()
        squares += float((chosen - mean).square_().sum())
    return float((squares / max(count, 1)) ** 0.5)


def _keys(values: Tensor, before: Tensor | None, wide: torch.dtype) -> Tensor:
    """Integers in the order of removal: 0 for what is gone already, then ascending with magnitude.

    The bits of a non-negative IEEE float, read as an integer, ascend with its value.
    """
    keys = values.to(wide).abs().view(_SIGNED[wide]).add_(1)
    return keys if before is None else keys.mul_(before)


def _select(keys: Callable[[], Iterator[Tensor]], rank: int, bits: int) -> tuple[int, int]:
    """The key of a rank, counted from 1, and how many keys are under it; (0, 0) for rank 0.

    Radix selection: one pass for each 16 bits of a key counts the next digit among the keys whose digits
    above are already known.
    """
    prefix = smaller = 0
    if rank == 0:
        return prefix, smaller
    for shift in range(bits - _DIGIT, -1, -_DIGIT):
        counts = torch.zeros(1 << _DIGIT, dtype=torch.int64)
        for block in keys():
            digits = block >> shift
            if shift + _DIGIT < bits:
                digits = digits[digits >> _DIGIT == prefix] & ((1 << _DIGIT) - 1)
            counts += torch.bincount(digits, minlength=1 << _DIGIT).cpu()
        upto = counts.cumsum(0)
        digit = int(torch.searchsorted(upto, rank - smaller))
        smaller += int(upto[digit] - counts[digit])
        prefix = prefix << _DIGIT | digit
    return prefix, smaller


def _cut(keys: Tensor, limit: int, ties: int, out: Tensor) -> int:
    """Keep the keys above a limit, and those at it but for the first `ties`; how many of these were found."""
    torch.gt(keys, limit, out=out)
    at = (keys == limit).nonzero().view(-1)
    out[at[ties:]] = True
    return min(ties, len(at))
