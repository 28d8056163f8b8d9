"""Codebooks of about so many bits over all tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from dwindle import chains
from dwindle.share import get_codebook, share
from dwindle.share.allocate import allocate, points
from dwindle.share.apply import array_of
from dwindle.share.vectors import rounded

SIGNIFICANT = 8
"""Bits that are kept of biases, of the scales of norms and of the entries of codebooks."""


def share_at(model: nn.Module, names: Sequence[str], bits: int, importance: Mapping[str, float]) -> None:
    """Share tensors in place, in the bytes that indices of `bits` bits would take in each.

    Tensors get more or fewer bits as it lowers what squared errors cost. One that has no more values than fit
    `bits` keeps its codebook.

    Args:
        model: changed in place.
        names: sharable tensors.
        bits: 2 to 8.
        importance: by tensor name what a squared error costs, positive.
    """
    owners = chains.weights(model)
    books = {name: get_codebook(model, name) for name in names}
    chosen = [name for name in names if (book := books[name]) is None or len(book.centroids) > 1 << bits]
    arrays = {name: array_of(*owners[name]) for name in chosen}
    budget = sum(points(array, [bits], init="optimal")[0].nbytes for array in arrays.values())
    widths = allocate(
        arrays,
        budget,
        importance={name: importance[name] for name in chosen},
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
            hook = partial(torch.mul, 1 / divisor)
            handles.append(book.centroids.register_hook(hook))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def round_books(model: nn.Module, base: nn.Module, names: Sequence[str]) -> None:
    """Round the entries of codebooks in place to `SIGNIFICANT` bits, but for those that `base` has too."""
    with torch.no_grad():
        for name in names:
            book, before = get_codebook(model, name), get_codebook(base, name)
            if book is not None and (before is None or not torch.equal(before.indices, book.indices)):
                book.centroids.copy_(rounded(book.centroids, SIGNIFICANT))
