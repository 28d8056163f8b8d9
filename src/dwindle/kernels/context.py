"""Index maps as a tree of binary decisions, each predicted from the entries around it.

Entries come as ranks, their places in order of value: is it zero, then the bits of the rank from the top.
That it is zero has four predictions, mixed in the logistic domain: by how dense row and column are; by the
row and the three elements before; by the column and the two above; by the place in the kernel and how many
of it were zero. The upper bits of a rank have two, one of them by how large the values of row and column are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels.arithmetic import (
    FRESH,
    RATES,
    WHOLE,
    adapted,
    chance,
    decode_bit,
    encode_bit,
    finish,
    first_code,
    squash,
    stretch,
)
from dwindle.kernels.levels import octaves

_ROW, _COLUMN = np.uint64(127), np.uint64(15)
_DENSITY_ROW, _DENSITY_COLUMN = np.uint64(127), np.uint64(11)
_LONG, _SHORT = np.uint64(1000), np.uint64(255)
_MIXED = 6  # upper bits of a rank with two predictions
_LOUD = 64
_RATE = np.int64(16)
_GUESSED = np.uint32(1 << 31 | 4)
_ZERO, _ONE, _TWO = np.uint64(0), np.uint64(1), np.uint64(2)


@njit(cache=True, nogil=True, forceinline=True)
def _towards(mean: np.int64, value: np.int64, updates: np.uint64) -> Any:
    """A mean after one more value."""
    return mean + ((value - mean) * np.int64(RATES[updates]) >> np.int64(16))


@njit(cache=True, nogil=True, forceinline=True)
def _code(
    decoding: bool,
    stream: NDArray[np.uint8],
    low: np.uint64,
    span: np.uint64,
    at: np.uint64,
    p: np.uint64,
    bit: np.uint64,
) -> Any:
    """One decision, either way; `low` is the decoder's code when decoding."""
    if decoding:
        bit, low, span, at = decode_bit(stream, low, span, at, p)
    else:
        low, span, at = encode_bit(stream, low, span, at, p, bit)
    return bit, low, span, at


@njit(cache=True, nogil=True)
def run_tree(
    ranks: NDArray[np.uint16],
    start: np.uint64,
    columns: np.uint64,
    tracked: np.uint64,
    kernel: np.uint64,
    zero: np.int64,
    depth: np.uint64,
    stream: NDArray[np.uint8],
    decoding: bool,
) -> Any:
    """Code the ranks of a block.

    Args:
        ranks: read or, when decoding, written; under 2**depth.
        start: place of the first in its tensor.
        columns: elements of a row of the tensor, at least 1.
        tracked: columns that are kept track of, at least 1; those beyond share the last.
        kernel: elements of a kernel, at least 1; a row is made up of kernels.
        zero: the rank of 0.0, -1 where there is none.
        depth: bits of a rank, at most 16.
        stream: the coded bytes: written, or read; any bytes are safe.
        decoding: which of the two.

    Returns:
        Bytes of the stream; when decoding, those looked at, which may be more than there are.
    """
    dense = np.full(4 * 4096, FRESH, np.uint32)
    tree = np.full(_TWO << depth, _GUESSED, np.uint32)
    loud = np.full(_LOUD << _MIXED, FRESH, np.uint32)
    weights = np.full((1 + _MIXED, 4), np.int64(1 << 15))
    weights[0, :] = np.int64(1 << 14)
    densities = np.full(tracked, -1, np.int32)  # of columns, in 2**-16
    sizes = np.full(tracked, -1, np.int32)  # mean magnitude of survivors, in 2**-6
    low, span, at = _ZERO, WHOLE, _ZERO
    if decoding:
        low, at = first_code(stream), np.uint64(8)
    column = start % columns
    place = column % kernel
    density, size = np.int64(1 << 15), np.int64(8 << 6)  # of the row
    all_density, all_size = np.int64(1 << 15), np.int64(8 << 6)
    seen = kept = survivors = inside = _ZERO
    before = np.uint64(0)  # which of the elements before were not zero, the nearest lowest
    for i in range(np.uint64(len(ranks))):
        rank = np.uint64(ranks[i]) if not decoding else _ZERO
        here = min(column, tracked - _ONE)
        other = np.int64(densities[here]) if densities[here] >= 0 else density
        alive = np.uint64(1)
        if zero >= 0:
            up = up2 = np.uint64(2)
            if i >= columns:
                up = np.uint64(np.int64(ranks[i - columns]) != zero)
                if i >= columns * _TWO:
                    up2 = np.uint64(np.int64(ranks[i - columns * _TWO]) != zero)
            joint = np.uint64(min(density * other // max(all_density, np.int64(64)), np.int64(65535)))
            by_row, by_column = np.uint64(density) >> np.uint64(11), np.uint64(other) >> np.uint64(11)
            c0 = joint >> np.uint64(10)
            c1 = np.uint64(4096) + (min(by_row, np.uint64(31)) << np.uint64(3) | before & np.uint64(7))
            c2 = np.uint64(8192) + (min(by_column, np.uint64(31)) << np.uint64(4) | up << _TWO | up2)
            if place:
                filled = inside * np.uint64(31) // place
            else:
                filled = np.uint64(32) + (
                    before >> (kernel - _ONE) & _ONE if kernel < np.uint64(64) else _ZERO
                )
            c3 = np.uint64(12288) + (min(place, np.uint64(63)) << np.uint64(6) | filled)
            o0, o1 = stretch(chance(dense[c0])), stretch(chance(dense[c1]))
            o2, o3 = stretch(chance(dense[c2])), stretch(chance(dense[c3]))
            w = weights[0]
            p = squash(w[0] * o0 + w[1] * o1 + w[2] * o2 + w[3] * o3 >> np.int64(16))
            alive = np.uint64(np.int64(rank) != zero)
            alive, low, span, at = _code(decoding, stream, low, span, at, p, alive)
            error = (np.int64(alive) << np.int64(16)) - np.int64(p)
            w[0] += o0 * error >> _RATE
            w[1] += o1 * error >> _RATE
            w[2] += o2 * error >> _RATE
            w[3] += o3 * error >> _RATE
            dense[c0], dense[c1] = adapted(dense[c0], alive, _LONG), adapted(dense[c1], alive, _LONG)
            dense[c2], dense[c3] = adapted(dense[c2], alive, _LONG), adapted(dense[c3], alive, _LONG)
            target = np.int64(alive) * np.int64(65535)
            density = _towards(density, target, seen)
            all_density = _towards(all_density, target, min(np.uint64(i), np.uint64(1023)))
            if densities[here] < 0:
                densities[here] = np.int32((target + density) >> np.int64(1))
            else:
                densities[here] = np.int32(_towards(other, target, _DENSITY_COLUMN))
            seen = min(seen + _ONE, _DENSITY_ROW)
        if alive:
            level = np.int64(sizes[here]) if sizes[here] >= 0 else size
            ratio = ((size + level) << np.int64(9)) // max(all_size, np.int64(1))
            by_size = min(octaves(np.uint64(ratio)), np.uint64(_LOUD - 1))
            node = _ONE
            for step in range(depth):
                bit = rank >> (depth - _ONE - step) & _ONE
                if step < np.uint64(_MIXED):
                    slot = node << np.uint64(6) | by_size
                    w = weights[step + _ONE]
                    o0, o1 = stretch(chance(tree[node])), stretch(chance(loud[slot]))
                    p = squash(w[0] * o0 + w[1] * o1 >> np.int64(16))
                    bit, low, span, at = _code(decoding, stream, low, span, at, p, bit)
                    error = (np.int64(bit) << np.int64(16)) - np.int64(p)
                    w[0] += o0 * error >> _RATE
                    w[1] += o1 * error >> _RATE
                    loud[slot] = adapted(loud[slot], bit, _SHORT)
                else:
                    bit, low, span, at = _code(decoding, stream, low, span, at, chance(tree[node]), bit)
                tree[node] = adapted(tree[node], bit, _LONG)
                node = node << _ONE | bit
            rank = node - (_ONE << depth)
            m = abs(np.int64(rank) - max(zero, np.int64(0))) << np.int64(6)
            size = _towards(size, m, min(kept, _ROW))
            all_size = _towards(all_size, m, min(survivors, np.uint64(1023)))
            if sizes[here] < 0:
                sizes[here] = np.int32((m + size) >> np.int64(1))
            else:
                sizes[here] = np.int32(_towards(level, m, _COLUMN))
            kept += _ONE
            survivors += _ONE
        else:
            rank = np.uint64(zero)
        if decoding:
            ranks[i] = np.uint16(rank)
        before = before << _ONE | alive
        inside += alive
        column += _ONE
        place += _ONE
        if place == kernel:
            place = inside = _ZERO
        if column == columns:
            column = place = seen = kept = inside = before = _ZERO
    if decoding:
        return at
    return finish(stream, low, span, at)
