"""One lane of prefix codes, read at several places at once.

A reader that begins amid a code soon meets the ends of codes by chance, and from there on reads what one from
the start does (codes synchronize themselves). So a lane that is alone, whose reader would wait from one
code's end to the next one's, is read from several places as lanes are. Then the reader from the start and the
next part's go on by turns, whichever is behind, until they meet; the rest of the part is taken over.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels.codes import FOUR, LONG_LANES, SHORT_LANES
from dwindle.kernels.huffman_lanes import long_lanes, short_lanes, single
from dwindle.kernels.words import trailing_zeros

FROM, FROM_RUNS = 512, 2048
"""Fewest symbols for which this pays, looked up one by one or in runs."""

_MARGIN = np.uint64(64)
"""The last part is longer, by one part in so many of the lane, so that it does not run past the end."""

_ONE = np.uint64(1)


@njit(cache=True, nogil=True)
def in_parts(
    data: NDArray[np.uint8],
    lookup: NDArray[Any],
    runs: NDArray[np.uint64],
    out: NDArray[Any],
    lanes: NDArray[np.uint64],
) -> None:
    """Read the most of a lane that is alone.

    Args:
        data: bytes that hold it.
        lookup: what `huffman_tables.fill_lookup` made.
        runs: the table that `huffman_tables.fill_runs` made, or nothing where codes are long.
        out: the symbols, uint8 or uint16, the first read to the end.
        lanes: shape (4, 8). First come the lane's first bit, its end in bytes, and where in `out` it begins
            and ends, as `huffman_decode` has them; the first and the last are moved on. Else overwritten.
    """
    position, stop, left = lanes[0, 0], lanes[1, 0], lanes[3, 0]
    if left < np.uint64(FROM_RUNS if len(runs) else FROM) or len(lookup) > 1 << FOUR:
        return
    parts = np.uint64(SHORT_LANES if len(runs) else LONG_LANES)
    rows, longest = left // parts, trailing_zeros(np.uint64(len(lookup)))
    bits = np.uint64(8) * stop - position
    apart = (bits - bits // _MARGIN) // parts
    apart -= apart % longest  # codes that are equally long never meet otherwise
    for i in range(parts):
        lanes[0, i], lanes[2, i], lanes[3, i] = position + i * apart, i * rows, (i + _ONE) * rows
    begin, room = position, np.empty(parts * rows, out.dtype)
    if len(runs):
        short_lanes(data, lanes[0], runs, room, lanes[2], lanes[3], stop)
    else:
        unread = long_lanes(data, lanes[0], lookup, room, rows)
    for i in range(parts):
        if len(runs):
            first, step, had = lanes[3, i], _ONE, (i + _ONE) * rows - lanes[3, i]
        else:
            first, step, had = parts * unread + i, parts, rows - unread
        guess = begin + i * apart
        while guess != position and had and left:
            if guess < position:
                _, guess = single(data, guess, lookup)
                had -= _ONE
            else:
                left -= _ONE
                out[left], position = single(data, position, lookup)
        if had > left:
            break
        if guess == position and had:
            left -= had
            for k in range(had):
                out[left + k] = room[first + k * step]
            position = lanes[0, i]
    lanes[0, 0], lanes[2, 0], lanes[3, 0] = position, np.uint64(0), left
