"""Codebooks of about so many bits over all tensors, and small numbers rounded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dwindle import chains
from dwindle.share import get_codebook, share
from dwindle.share.allocate import allocate, points

SIGNIFICANT = 8
"""Binary digits that are kept of biases, of the scales of norms and of the entries of codebooks."""


def share_at(model: nn.Module, names: Sequence[str], bits: int, scale: Mapping[str, float]) -> None:
    """Share tensors in place, in the bytes that indices of `bits` bits would take in each.

    Tensors get more or fewer bits as it lowers the squared error in units of `scale`. One that has no more
    values than fit `bits` keeps its codebook.

    Args:
        model: changed in place.
        names: sharable tensors.
        bits: 2 to 8.
        scale: by tensor name the magnitude that matters alike, positive.
    """
    owners = chains.weights(model)
    books = {name: get_codebook(model, name) for name in names}
    chosen = [name for name in names if (book := books[name]) is None or len(book.centroids) > 1 << bits]
    arrays = {name: _array(*owners[name]) for name in chosen}
    budget = sum(points(array, [bits], init="optimal")[0].nbytes for array in arrays.values())
    widths = allocate(
        arrays,
        budget,
        importance={name: scale[name] ** -2 for name in chosen},
        choices=range(min(bits, 2), min(bits + 2, 9)),
        init="optimal",
    )
    share(model, bits=widths, init="optimal")


@contextlib.contextmanager
def averaged(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """For the length of a `with` block, codebooks get the mean of their weights' gradients, not the sum.

    An entry then moves as far as its weights would have on average, so that the learning rate of the user's
    loop, chosen for weights, is right for thousands of them together.
    """
    handles = []
    for name in names:
        book = get_codebook(model, name)
        if book is not None and book.centroids.requires_grad:
            counts = torch.bincount(book.indices.int(), minlength=len(book.centroids)).clamp_min(1)
            divisor = counts.to(book.centroids.dtype)
            handles.append(book.centroids.register_hook(partial(torch.mul, 1 / divisor)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def round_small(model: nn.Module, base: nn.Module, names: Sequence[str], small: Sequence[str]) -> None:
    """Round small tensors and the entries of codebooks in place to `SIGNIFICANT` binary digits.

    Their bytes are a good part of a small file. Codebooks that `base` has too are left as they are.

    Args:
        model: changed in place.
        base: the model before.
        names: tensors that may have codebooks.
        small: parameters and buffers to round.
    """
    state = model.state_dict()
    with torch.no_grad():
        for name in small:
            state[name].copy_(significant(state[name]))
        for name in names:
            book, before = get_codebook(model, name), get_codebook(base, name)
            if book is not None and (before is None or not torch.equal(before.indices, book.indices)):
                book.centroids.copy_(significant(book.centroids))


def significant(values: Tensor, digits: int = SIGNIFICANT) -> Tensor:
    """Floats rounded to so many binary digits; what is not finite, or would not stay so, as it is."""
    mantissa, exponent = torch.frexp(values.double())
    rounded = torch.ldexp((mantissa * 2**digits).round() / 2**digits, exponent).to(values.dtype)
    return torch.where(rounded.isfinite() & values.isfinite(), rounded, values)


def _array(module: nn.Module, name: str) -> NDArray[Any]:
    weight = chains.effective(module, name).cpu()
    array: NDArray[Any] = (weight if weight.dtype == torch.float64 else weight.float()).numpy()
    return array
