"""Dense index maps to gaps and survivors, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Symbols = NDArray[np.unsignedinteger[Any]]


@njit(cache=True, nogil=True)
def count_distances(indices: Symbols, zero: int, counts: NDArray[np.int64]) -> None:
    """Add to `counts[d]` how many survivors lie d places after the one before (the first counts from -1).

    `counts` has at least len(indices) + 1 entries.
    """
    last = np.int64(-1)
    for position in range(indices.size):
        if indices[position] != zero:
            counts[position - last] += 1
            last = np.int64(position)


@njit(cache=True, nogil=True)
def split_distances(
    indices: Symbols, zero: int, width: int, gaps: NDArray[np.uint16], symbols: Symbols
) -> np.int64:
    """Write one gap and one symbol for each survivor and filler; how many.

    A distance d is stored as d - 1 in `width` bits; while it does not fit, a filler (the zero symbol) is put
    2**width places on. `gaps` and `symbols` are long enough for survivors and fillers together.
    """
    step = np.int64(1) << width
    entry = np.int64(0)
    last = np.int64(-1)
    for position in range(indices.size):
        symbol = indices[position]
        if symbol != zero:
            while position - last > step:
                gaps[entry] = step - 1
                symbols[entry] = zero
                entry += 1
                last += step
            gaps[entry] = position - last - 1
            symbols[entry] = symbol
            entry += 1
            last = np.int64(position)
    return entry


@njit(cache=True, nogil=True)
def place(gaps: NDArray[np.uint16], symbols: Symbols, out: Symbols) -> np.int64:
    """Put each symbol its gap (plus one) after the one before; the last position, or -2 if past the end."""
    position = np.int64(-1)
    size = np.int64(out.size)
    for entry in range(gaps.size):
        position += np.int64(gaps[entry]) + np.int64(1)
        if position >= size:
            return np.int64(-2)
        out[position] = symbols[entry]
    return position
