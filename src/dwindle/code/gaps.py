"""Relative indices: the survivors of a pruned tensor as gaps, with fillers where a gap does not fit.

Han et al. 2016, section 2 and figure 2. A stored gap g means: position += g + 1, starting from -1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.errors import CorruptError
from dwindle.kernels import gaps as kernels

WIDTHS = range(1, 17)
"""Widths of a gap in bits."""

TABLE_BITS = 3.0
"""What a gap takes in a code table, about."""

Symbols = NDArray[np.unsignedinteger[Any]]


def split(indices: Symbols, zero: int, width: int) -> tuple[Symbols, Symbols]:
    """Gaps and symbols of the survivors of an index map.

    Args:
        indices: which codebook entry each element takes, shape (n,).
        zero: the entry that means 0.0; elements with it are not stored.
        width: bits of one gap, 1 to 16.

    Returns:
        Stored gaps (distance minus one) and symbols, both of shape (survivors + fillers,). A filler has the
        symbol `zero` and lies 2**width places after the entry before it. Gaps are uint8 up to 8 bits, else
        uint16.

    Raises:
        ValueError: if `width` is out of range.
    """
    _check_width(width)
    entries = int(gap_counts(distance_counts(indices, zero), width).sum())
    gaps: Symbols = np.empty(entries, np.uint8 if width <= 8 else np.uint16)
    symbols = np.empty(entries, indices.dtype)
    kernels.split_distances(indices, zero, width, np.empty(kernels.CHUNK, np.int64), gaps, symbols)
    return gaps, symbols


def join(gaps: Symbols, symbols: Symbols, zero: int, out: Symbols) -> None:
    """Undo `split`: fill `out`, shape (n,), with the index map.

    Raises:
        CorruptError: if the gaps lead past the end of `out`.
    """
    if len(gaps) != len(symbols):
        raise ValueError(f"expected as many symbols as gaps, got {len(symbols)} and {len(gaps)}")
    out[:] = zero
    if kernels.place(gaps, symbols, out) == -2:
        raise CorruptError(f"expected gaps within {len(out)} elements, got a position past them")


def distance_counts(indices: Symbols, zero: int, block: int | None = None) -> NDArray[np.int64]:
    """How many survivors lie d places after the one before, for every d from 0 to the longest that occurs.

    Args:
        indices: which codebook entry each element takes, shape (n,).
        zero: the entry that means 0.0.
        block: elements after which counting begins anew; None: never.

    Returns:
        Counts, shape (longest + 1,).
    """
    block = min(block or len(indices), len(indices))
    counts = np.zeros(block + 1, np.int64)
    places, longest = np.empty(kernels.CHUNK, np.int64), 0
    for start in range(0, len(indices), max(block, 1)):
        part = indices[start : start + block]
        longest = max(longest, int(kernels.count_distances(part, zero, places, counts)))
    return counts[: longest + 1]


def gap_counts(distances: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """How often each stored gap occurs at `width` bits, fillers included, shape (2**width,).

    Args:
        distances: what `distance_counts` returned.
        width: bits of one gap, 1 to 16.
    """
    _check_width(width)
    counts = np.zeros(1 << width, np.int64)
    kernels.count_gaps(distances, width, counts)
    return counts


def estimated_bits(distances: NDArray[np.int64], share: float, entropy: float, widths: int) -> list[float]:
    """About how many bits gaps and indices take together at each width from 1 on.

    That is their zero-order entropy and `TABLE_BITS` for each gap that occurs.

    Args:
        distances: what `distance_counts` returned, of all survivors or of some.
        share: what share of the survivors these are.
        entropy: zero-order entropy of the survivors' indices, in bits for each.
        widths: the widest gap to try.
    """
    bits = np.empty(widths, np.float64)
    kernels.estimates(distances, share, entropy, TABLE_BITS, np.empty(1 << widths, np.float64), bits)
    estimates: list[float] = bits.tolist()
    return estimates


@dataclass(frozen=True)
class FillerCost:
    """Fillers a tensor needs at one gap width.

    Attributes:
        actual: for the survivors where they are.
        best: for the kindest placement of as many survivors.
        worst: for the unkindest placement.
        expected: for survivors placed at random.
    """

    actual: int
    best: int
    worst: int
    expected: float


def filler_cost(distances: NDArray[np.int64], elements: int, width: int) -> FillerCost:
    """What fillers cost at `width` bits, against the bounds for that many survivors.

    With density d, a distance exceeds 2**b with probability q = (1 - d)**(2**b), so a survivor placed at
    random needs q / (1 - q) fillers on average. The zeros after the last survivor are free, so the kindest
    placement (survivors first) needs none and the unkindest (survivors last) floor(zeros / 2**b).
    """
    _check_width(width)
    survivors = int(distances.sum())
    actual = int(gap_counts(distances, width).sum()) - survivors
    if survivors == 0:
        return FillerCost(actual, 0, 0, 0.0)
    q = (1.0 - survivors / elements) ** (1 << width)
    return FillerCost(actual, 0, (elements - survivors) >> width, survivors * q / (1.0 - q))


def _check_width(width: int) -> None:
    if width not in WIDTHS:
        raise ValueError(f"expected a gap width of 1 to 16 bits, got {width}")
