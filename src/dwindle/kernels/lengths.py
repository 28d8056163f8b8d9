"""Optimal lengths of prefix codes. Callers check limits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

LONGEST = 15
"""Bits of the longest code there is."""


@njit(cache=True, nogil=True)
def _sort(order: NDArray[np.int64], keys: NDArray[np.int64], n: np.int64, spare: NDArray[np.int64]) -> None:
    """Put `order[:n]` in rising order of `keys[order]`, equals as they were; by merging runs."""
    width = np.int64(1)
    while width < n:
        for start in range(0, n, 2 * width):
            i, middle = start, min(start + width, n)
            j, end = middle, min(start + 2 * width, n)
            for at in range(start, end):
                if j >= end or (i < middle and keys[order[i]] <= keys[order[j]]):
                    spare[at] = order[i]
                    i += 1
                else:
                    spare[at] = order[j]
                    j += 1
        order[:n] = spare[:n]
        width *= 2


@njit(cache=True, nogil=True)
def code_lengths(
    counts: NDArray[np.int64],
    limit: np.int64,
    lengths: NDArray[np.uint8],
    work: NDArray[np.int64],
    leaf: NDArray[np.bool_],
) -> None:
    """Lengths of the prefix code that codes these counts in the fewest bits, by package-merge.

    Of equally frequent symbols the earlier one never has the longer code. A symbol alone gets length 1.

    Args:
        counts: occurrences of each symbol, shape (n,), those that occur at most 2**limit.
        limit: longest code allowed, 1 to LONGEST.
        lengths: shape (n,), filled; 0 where the count is 0.
        work: shape (5, 2 n).
        leaf: shape (LONGEST, 2 n).

    Larmore and Hirschberg 1990.
    """
    order, spare, items, before, taken = work[0], work[1], work[2], work[3], work[4]
    m = np.int64(0)
    for i in range(len(counts) - 1, -1, -1):  # of equals the last first
        lengths[i] = 0
        if counts[i]:
            order[m] = i
            m += 1
    if m < 2:
        if m:
            lengths[order[0]] = 1
        return
    _sort(order, counts, m, spare)
    levels = min(limit, m - 1)
    size = m
    for i in range(m):
        items[i], leaf[0, i], taken[i] = counts[order[i]], True, 0
    for level in range(1, levels):
        # Merge the symbols with pairs of the level below; a symbol goes before a pair of the same weight.
        items, before = before, items
        pairs, symbol, j = size // 2, np.int64(0), np.int64(0)
        size = m + pairs
        for at in range(size):
            pair = before[2 * j] + before[2 * j + 1] if j < pairs else np.int64(0)
            if j >= pairs or (symbol < m and counts[order[symbol]] <= pair):
                items[at], leaf[level, at] = counts[order[symbol]], True
                symbol += 1
            else:
                items[at], leaf[level, at] = pair, False
                j += 1
    # Taking the 2m - 2 lightest items of the last level takes symbols, and pairs that open into items of the
    # level below; a symbol's length is the number of levels it is taken in.
    wanted = 2 * m - 2
    for level in range(int(levels) - 1, -1, -1):
        symbols = np.int64(0)
        for at in range(wanted):
            symbols += np.int64(leaf[level, at])
        for i in range(symbols):
            taken[i] += 1
        wanted = 2 * (wanted - symbols)
    for i in range(m):
        lengths[order[i]] = taken[i]


@njit(cache=True, nogil=True)
def room_left(lengths: NDArray[np.uint8]) -> Any:
    """What is left of 1 for further codes, in 2**-LONGEST: 0 for a complete code.

    So it is for no symbol, and for one alone with length 1. Less than 0 where there are too many codes, or
    one is longer than LONGEST.
    """
    room, used = np.int64(1) << LONGEST, np.int64(0)
    for length in lengths:
        if length > LONGEST:
            return np.int64(-1)
        if length:
            room -= np.int64(1) << (LONGEST - length)
            used += 1
    alone = used == 1 and room == np.int64(1) << (LONGEST - 1)
    return np.int64(0) if not used or alone else room
