"""Streams of prefix codes to symbols: where the lanes are, and that they end where they must."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels.codes import LONG_LANES, SHORT_LANES, SPLIT
from dwindle.kernels.huffman_lanes import lane, long_lanes, short_lanes, single
from dwindle.kernels.huffman_parts import in_parts
from dwindle.kernels.words import varint_at

LENGTHS, ENDS, PADDING = 1, 2, 3
"""What `decode` finds wrong: the lengths of lanes, where they end, the bits after their ends."""

_ONE, _THREE, _EIGHT = np.uint64(1), np.uint64(3), np.uint64(8)


@njit(cache=True, nogil=True)
def _bounds(
    data: NDArray[np.uint8],
    start: np.uint64,
    stop: np.uint64,
    count: np.uint64,
    many: np.uint64,
    lanes: NDArray[np.uint64],
) -> bool:
    """Read the counts and sizes of lanes.

    Args:
        data: bytes that hold the stream.
        start: where it begins.
        stop: where it ends.
        count: symbols of all lanes.
        many: how many lanes there are.
        lanes: set to the first bit, the end in bytes, and the place of the first and the last symbol of each.
    """
    at, left = start, count
    for i in range(many):
        taken, size = left, np.uint64(0)
        if i < many - _ONE:
            if many == np.uint64(SHORT_LANES):
                taken, at = varint_at(data, at, stop)
            size, at = varint_at(data, at, stop)
        if taken > left or size > stop - start:  # what is no varint is more than any
            return False
        lanes[1, i], lanes[2, i], lanes[3, i] = size, left - taken, left
        left -= taken if many != np.uint64(LONG_LANES) else np.uint64(0)
    for i in range(many):
        lanes[0, i] = _EIGHT * at
        at = stop if i == many - _ONE else at + lanes[1, i]
        if at > stop:
            return False
        lanes[1, i] = at
    return True


@njit(cache=True, nogil=True)
def decode(
    data: NDArray[np.uint8],
    start: np.uint64,
    stop: np.uint64,
    lookup: NDArray[Any],
    runs: NDArray[np.uint64],
    many: np.int64,
    out: NDArray[Any],
) -> Any:
    """Read a stream of at least two symbols that have codes.

    Args:
        data: bytes that hold it.
        start: where it begins.
        stop: where it ends.
        lookup: what `huffman_tables.fill_lookup` made.
        runs: the table that `huffman_tables.fill_runs` made, or nothing where codes are long, one over FOUR.
        many: lanes, if the stream is long: what `codes.lanes_of` says.
        out: uint8 or uint16 as `lookup` has it, filled.

    Returns:
        0, or what is wrong with it.
    """
    lanes = np.empty((4, 8), np.uint64)
    count = np.uint64(len(out))
    split = count >= np.uint64(SPLIT)
    number = np.uint64(many) if split else _ONE
    if not _bounds(data, start, stop, count, number, lanes):
        return np.int64(LENGTHS)
    if number == np.uint64(LONG_LANES):
        rows = count // _EIGHT
        for i in range(count - _EIGHT * rows):
            out[_EIGHT * rows + i], lanes[0, i] = single(data, lanes[0, i], lookup)
        rows = long_lanes(data, lanes[0], lookup, out, rows)
        for i in range(number):
            for row in range(rows):
                place = _EIGHT * (rows - _ONE - row) + i
                out[place], lanes[0, i] = single(data, lanes[0, i], lookup)
    else:
        if split:
            short_lanes(data, lanes[0], runs, out, lanes[2], lanes[3], stop)
        else:
            in_parts(data, lookup, runs, out, lanes)
        for i in range(number):
            lanes[0, i] = lane(data, lanes[0, i], lookup, runs, out, lanes[2, i], lanes[3, i])
    for i in range(number):
        position = lanes[0, i]
        if (position + np.uint64(7)) >> _THREE != lanes[1, i]:
            return np.int64(ENDS)
        if position & np.uint64(7) and data[position >> _THREE] >> (position & np.uint64(7)):
            return np.int64(PADDING)
    return np.int64(0)
