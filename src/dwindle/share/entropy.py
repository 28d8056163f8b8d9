"""Codebooks for the bytes that are left after entropy coding: entropy-constrained clustering.

Error and code length are weighed against each other in everything: which value a weight takes, where the
values are, which of them there are at all, and how many weights become zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle import dtypes
from dwindle.records import index_dtype
from dwindle.rounding import round_significant
from dwindle.share.allocate import entropy
from dwindle.share.assign import assign
from dwindle.share.binned import Binned
from dwindle.share.layer import squared_error
from dwindle.share.levels import from_levels, to_levels

MOST = 256
"""Entries over which levels are as good: the gain falls with the square of the step."""

ITERATIONS, ENOUGH = 100, 1e-5
"""Most iterations, and the share of the cost under which another is not worth while."""

SIGNIFICANT, ENTRY_BITS = 8, 16
"""Significant bits of an entry, and about what it takes in a file; those of levels take next to none."""


def price(step: float) -> float:
    """What a bit may cost in squared error, to be as dear as in levels of a step.

    At high rates one more bit a weight brings the error, step ** 2 / 12, down to a quarter.
    """
    return math.log(2) * step * step / 6


def entropy_constrained(weights: NDArray[Any], step: float, dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cluster a layer's weights at the least squared error plus `price` times bits.

    Zeros are what was pruned, and stay zero. Where levels of the step (`levels.from_levels`) come out
    cheaper, their codebook with them, they are it.

    Args:
        weights: float32 or float64, finite, any shape.
        step: the step of levels that a bit buys as much with, positive.
        dtype: name of the dtype the codebook will be stored in.

    Returns:
        The codebook, float32, or float64 where `dtype` is that, shape (k,), ascending; and which entry each
        weight takes, C order, shape (n,), uint8 where k <= 256, else uint16.

    Raises:
        ValueError: if there are too many levels.

    Chou, Lookabaugh, Gray 1989, "Entropy-constrained vector quantization", in one dimension.
    """
    levels = from_levels(to_levels(weights, step), step, dtype)
    if not weights.any() or len(levels[0]) > MOST:
        return levels
    entries, codes = _entries(weights, levels[0].astype(np.float64), price(step))
    found = _assigned(weights, entries, codes, dtype)
    costs = [
        squared_error(weights, *book) + price(step) * (entropy(np.bincount(book[1])) + extra)
        for book, extra in ((found, ENTRY_BITS * len(found[0])), (levels, 0))
    ]
    return found if costs[0] < costs[1] else levels


def _entries(
    weights: NDArray[Any], entries: NDArray[np.float64], cost_of_bit: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Entries in use, ascending, zero itself among them while it is, and what the code of each costs."""
    alive = weights[weights != 0]
    binned = Binned.of(alive)
    pruned = weights.size - alive.size
    chosen = np.abs(binned.means[:, None] - entries).argmin(1)
    before = math.inf
    for _ in range(ITERATIONS):
        zero = entries == 0
        counts = np.bincount(chosen, binned.counts, len(entries)) + pruned * zero
        sums = np.bincount(chosen, binned.counts * binned.means, len(entries))
        used = counts > 0
        entries = np.where(zero, 0.0, sums / np.where(used, counts, 1.0))[used]
        chosen, counts = (np.cumsum(used) - 1)[chosen], counts[used]
        off = binned.means - entries[chosen]
        cost = float(binned.counts @ (off * off)) + cost_of_bit * entropy(counts)
        lengths = np.log2(weights.size) - np.log2(counts)
        if cost >= before * (1 - ENOUGH):
            break
        before = cost
        chosen = ((binned.means[:, None] - entries) ** 2 + cost_of_bit * lengths).argmin(1)
    return entries, cost_of_bit * lengths


def _assigned(
    weights: NDArray[Any], entries: NDArray[np.float64], codes: NDArray[np.float64], dtype: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Codebook and indices: every weight takes the entry of least squared error plus what its code costs."""
    wide = np.float64 if dtype == "float64" else np.float32
    short = round_significant(entries, SIGNIFICANT)
    values = dtypes.to_float(dtypes.from_float(short, dtype), dtype).astype(wide)
    values, firsts = np.unique(values, return_index=True)
    codes, exact = codes[firsts], values.astype(np.float64)
    borders = (exact[1:] + exact[:-1]) / 2 + np.diff(codes) / (2 * np.diff(exact))
    # Rounded entries may have lost their place between their neighbours; then nothing takes them.
    borders = np.maximum.accumulate(borders)
    indices = assign(weights.astype(wide, copy=False), values, borders=borders)
    if not (weights != 0).all():
        indices[weights.reshape(-1) == 0] = np.flatnonzero(values == 0)[0]
    used = np.bincount(indices, minlength=len(values)) > 0
    places = (np.cumsum(used) - 1).astype(index_dtype(int(used.sum())))
    return values[used], places[indices]
