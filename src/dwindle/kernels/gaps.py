"""Dense index maps to gaps and survivors, and back."""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

CHUNK = 4096
"""Elements whose survivors are gathered at a time."""

Symbols = NDArray[np.unsignedinteger[Any]]


@njit(cache=True, nogil=True)
def _gather(indices: Symbols, start: np.int64, zero: int, places: NDArray[np.int64]) -> Any:
    """Where in a chunk the survivors are; how many. No jump depends on them: they are hard to foresee."""
    found = np.uint64(0)
    stop = min(start + CHUNK, np.int64(len(indices)))
    for position in range(start, stop):
        places[found] = position
        found += np.uint64(indices[np.uint64(position)] != zero)
    return found


@njit(cache=True, nogil=True)
def count_distances(
    indices: Symbols, zero: int, places: NDArray[np.int64], counts: NDArray[np.int64]
) -> np.int64:
    """Add to `counts[d]` how many survivors lie d places after the one before (the first counts from -1).

    Args:
        indices: shape (n,).
        zero: the index that does not survive.
        places: shape (CHUNK,), overwritten.
        counts: at least n + 1.

    Returns:
        The longest distance.
    """
    last, longest = np.int64(-1), np.int64(0)
    for start in range(0, len(indices), CHUNK):
        found = _gather(indices, np.int64(start), zero, places)
        for i in range(found):
            distance = places[i] - last
            counts[np.uint64(distance)] += 1
            longest = max(longest, distance)
            last = places[i]
    return longest


@njit(cache=True, nogil=True)
def split_distances(
    indices: Symbols,
    zero: int,
    width: int,
    places: NDArray[np.int64],
    gaps: Symbols,
    symbols: Symbols,
) -> np.int64:
    """Write one gap and one symbol for each survivor and filler; how many.

    A distance d is stored as d - 1 in `width` bits; while it does not fit, a filler (the zero symbol) is put
    2**width places on. `gaps` and `symbols` are long enough for survivors and fillers together; `places` has
    the shape (CHUNK,) and is overwritten.
    """
    step = np.int64(1) << width
    entry, last = np.uint64(0), np.int64(-1)
    for start in range(0, len(indices), CHUNK):
        found = _gather(indices, np.int64(start), zero, places)
        for i in range(found):
            position = places[i]
            while position - last > step:
                gaps[entry] = step - 1
                symbols[entry] = zero
                entry += np.uint64(1)
                last += step
            gaps[entry] = position - last - 1
            symbols[entry] = indices[np.uint64(position)]
            entry += np.uint64(1)
            last = position
    return np.int64(entry)


@njit(cache=True, nogil=True)
def count_gaps(distances: NDArray[np.int64], width: int, counts: NDArray[np.int64]) -> None:
    """How often each stored gap occurs; `counts` holds zeros, shape (2**width,)."""
    step = np.int64(1) << width
    for distance in range(1, len(distances)):
        times = distances[distance]
        counts[(distance - 1) & (step - 1)] += times
        counts[step - 1] += ((distance - 1) >> width) * times


@njit(cache=True, nogil=True)
def estimates(
    distances: NDArray[np.int64],
    share: float,
    entropy: float,
    table: float,
    counts: NDArray[np.float64],
    bits: NDArray[np.float64],
) -> None:
    """About how many bits gaps and indices take at each width, if both have codes near their entropy.

    Args:
        distances: how many survivors lie d places after the one before, shape (longest + 1,).
        share: what share of all survivors they are.
        entropy: zero-order entropy of the survivors' indices, in bits for each.
        table: bits of the table of a gap, for each that occurs.
        counts: shape (2**widths,), overwritten.
        bits: shape (widths,), filled for the widths 1 and up.
    """
    survivors = 0.0
    for distance in range(1, len(distances)):
        survivors += distances[distance] / share
    for i in range(len(bits)):
        step = np.int64(2) << i
        counts[:step] = 0.0
        fillers = 0.0
        for distance in range(1, len(distances)):
            if distances[distance]:
                times = distances[distance] / share
                counts[(distance - 1) & (step - 1)] += times
                fillers += ((distance - 1) >> (i + 1)) * times
        counts[step - 1] += fillers
        total = survivors + fillers
        if total <= 0.0:
            bits[i] = 0.0
            continue
        found = total * log2(total)  # of the gaps; what follows is of the indices
        for gap in range(step):
            if counts[gap] > 0.0:
                found += table - counts[gap] * log2(counts[gap])
        found += total * log2(total) + survivors * entropy
        found -= survivors * log2(survivors) if survivors > 0.0 else 0.0
        found -= fillers * log2(fillers) if fillers > 0.0 else 0.0
        bits[i] = found


@njit(cache=True, nogil=True)
def place(gaps: Symbols, symbols: Symbols, out: Symbols) -> np.int64:
    """Put each symbol its gap (plus one) after the one before; the last position, or -2 if past the end."""
    position = np.int64(-1)
    size = np.int64(out.size)
    for entry in range(gaps.size):
        position += np.int64(gaps[entry]) + np.int64(1)
        if position >= size:
            return np.int64(-2)
        out[np.uint64(position)] = symbols[entry]
    return position
