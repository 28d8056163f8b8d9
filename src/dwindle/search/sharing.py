"""Codebooks of about so many bits a weight over all tensors."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from dwindle import chains
from dwindle.share import Signal, get_codebook, share_levels
from dwindle.share.apply import array_of
from dwindle.share.vectors import rounded

SIGNIFICANT = 7
"""Bits that are kept of biases, of the scales of norms and of the entries of codebooks."""

NORMAL = math.log2(2 * math.pi * math.e) / 2
"""Bits of normal weights, coded at their entropy, at a step of their standard deviation."""

LEAST = 2.0
"""Fewest bits of a tensor, in the same measure: what it matters is known too roughly to remove all of it."""


def share_at(model: nn.Module, names: Sequence[str], bits: float, importance: Mapping[str, float]) -> None:
    """Share tensors in place by entropy-constrained clustering, all of them at one price of a bit.

    So tensors that matter more, or are larger, have more bits. One that has no more values than fit `bits`
    keeps its codebook.

    Args:
        model: changed in place.
        names: sharable tensors.
        bits: what a survivor would take on average if each tensor's were normal; others take less.
        importance: by tensor name what a squared error costs, positive.
    """
    owners = chains.weights(model)
    books = {name: get_codebook(model, name) for name in names}
    chosen = [name for name in names if (book := books[name]) is None or len(book.centroids) > 2**bits]
    signals = {name: Signal.of(array_of(*owners[name])) for name in chosen}
    alive = {name: signal for name, signal in signals.items() if signal.survivors}
    roots = {name: math.sqrt(importance[name]) for name in alive}
    total = sum(signal.survivors for signal in alive.values())
    spread = sum(
        signal.survivors * math.log2(signal.scale * roots[name]) for name, signal in alive.items()
    ) / max(total, 1)
    steps = dict.fromkeys(chosen, 1.0)
    for name, signal in alive.items():
        step = min(2 ** (spread + NORMAL - bits) / roots[name], signal.scale * 2 ** (NORMAL - LEAST))
        steps[name] = max(step, signal.finest)
    share_levels(model, steps, entropy_constrained=True)


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
