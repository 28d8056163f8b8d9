"""Index maps by context: every entry predicted from those around it, as one binary decision after the other.

Entries come as ranks, their places in order of value. There are two ways:

- `run_tree`, for pruned tensors and codebooks of any shape: is it zero, then the bits of the rank from the
  top. That
  it is zero has four predictions, mixed in the logistic domain: by how dense row and column are; by the row
  and
  the three elements before; by the column and the two above; by the place in the kernel and how many of it
  were
  zero. The upper bits of a rank have two, one of them by how large the values of row and column are.
- `run_smooth`, for levels whose frequencies fall smoothly to both sides of a centre: the magnitude as a
  quotient
  by a power of two that follows the mean magnitude of row and column, in unary, and a remainder of which
  only the highest bit is predicted (Golomb 1966; Rice 1979); then the sign.
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
    decode_even,
    encode_bit,
    encode_even,
    finish,
    first_code,
    squash,
    stretch,
)

COLUMNS = 1 << 20
"""Most columns that are kept track of."""

UNARY = 31
"""Longest quotient in unary; what is over has a code of its own."""

_SMOOTH = 40  # half octaves of a mean magnitude
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


@njit(cache=True, nogil=True)
def _bit_count(value: np.uint64) -> Any:
    """Bits of a number, 0 for 0."""
    count = _ZERO
    while value >> count:
        count += _ONE
    return count


@njit(cache=True, nogil=True)
def _octaves(mean: np.uint64) -> Any:
    """A number on a scale of half octaves: 0, 1, then twice its bits less 2, one more in the upper half."""
    count = _bit_count(mean)
    if count < _TWO:
        return count
    return count * _TWO - _TWO + (mean >> (count - _TWO) & _ONE)


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
        kernel: elements of a kernel, at least 1; a row is made up of kernels.
        zero: the rank of 0.0, -1 where there is none.
        depth: bits of a rank, at most 16.
        stream: the coded bytes: written, or read; any bytes are safe.
        decoding: which of the two.

    Returns:
        Bytes of the stream; when decoding, those looked at, which may be more than there are.
    """
    tracked = min(columns, np.uint64(COLUMNS))
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
            by_size = min(_octaves(np.uint64(ratio)), np.uint64(_LOUD - 1))
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


@njit(cache=True, nogil=True)
def run_smooth(
    ranks: NDArray[np.uint16],
    start: np.uint64,
    columns: np.uint64,
    centre: np.int64,
    stream: NDArray[np.uint8],
    decoding: bool,
) -> Any:
    """Code the ranks of a block as levels around a centre; see `run_tree` for what is alike.

    Args:
        ranks: read, or written modulo 2**16.
        start: see there.
        columns: see there.
        centre: the rank whose level is 0.
        stream: see there.
        decoding: see there.
    """
    tracked = min(columns, np.uint64(COLUMNS))
    more = np.empty(_SMOOTH * 32, np.uint32)
    for scale in range(_SMOOTH):
        # As if magnitudes fell geometrically: E / (E + step) goes on.
        count = max(scale // 2, 1)
        mean = np.int64(3 << count) if scale & 1 else np.int64(2 << count)
        step = np.int64(1) << max(np.int64(count + 2), np.int64(8))
        for j in range(32):
            more[scale * 32 + j] = np.uint32(
                (mean << np.int64(22)) // (mean + step) << np.int64(10) | np.int64(6)
            )
    halves = np.full(32 * 32, FRESH | np.uint32(6), np.uint32)
    means = np.full(tracked, -1, np.int64)  # of columns, in 2**-6
    low, span, at = _ZERO, WHOLE, _ZERO
    if decoding:
        low, at = first_code(stream), np.uint64(8)
    column = start % columns
    mean = np.int64(64)  # of the row
    seen = _ZERO
    for i in range(np.uint64(len(ranks))):
        here = min(column, tracked - _ONE)
        other = means[here] if means[here] >= 0 else mean
        both = np.uint64(mean + other) >> _ONE
        scale = min(_octaves(both), np.uint64(_SMOOTH - 1))
        shift = _bit_count(both)
        shift = shift - np.uint64(8) if shift > np.uint64(8) else _ZERO
        level = np.int64(ranks[i]) - centre if not decoding else np.int64(0)
        m = np.uint64(abs(level))
        quotient = m >> shift
        base = scale << np.uint64(5)
        found = _ZERO
        while found < np.uint64(UNARY):
            slot = base + found
            bit = np.uint64(quotient > found)
            bit, low, span, at = _code(decoding, stream, low, span, at, chance(more[slot]), bit)
            more[slot] = adapted(more[slot], bit, _LONG)
            if not bit:
                break
            found += _ONE
        if found == np.uint64(UNARY):
            over = quotient - found if not decoding else _ZERO
            count = _bit_count(over)
            if decoding:
                count, low, span, at = decode_even(stream, low, span, at, np.uint64(5))
                count = min(count, np.uint64(16))
                over, low, span, at = decode_even(stream, low, span, at, count)
            else:
                low, span, at = encode_even(stream, low, span, at, np.uint64(5), count)
                low, span, at = encode_even(stream, low, span, at, count, over)
            found += over
        value = found
        if shift:
            slot = min(found, np.uint64(31)) << np.uint64(5) | shift
            bit = m >> (shift - _ONE) & _ONE
            bit, low, span, at = _code(decoding, stream, low, span, at, chance(halves[slot]), bit)
            halves[slot] = adapted(halves[slot], bit, _LONG)
            value = value << _ONE | bit
        # What is left of the remainder and, unless it must be 0, the sign, are as good as random.
        rest = shift - _ONE if shift else _ZERO
        signed = _ONE if value or rest else _ZERO
        bits = rest + signed
        if bits:
            tail = (m & ((_ONE << rest) - _ONE)) << _ONE | np.uint64(level < 0)
            tail = tail if signed else tail >> _ONE
            if decoding:
                tail, low, span, at = decode_even(stream, low, span, at, bits)
            else:
                low, span, at = encode_even(stream, low, span, at, bits, tail)
            value = value << rest | tail >> signed
            level = -np.int64(value) if tail & signed else np.int64(value)
        else:
            level = np.int64(0)
        if decoding:
            ranks[i] = np.uint16(level + centre)
            m = min(np.uint64(abs(level)), np.uint64(0xFFFF))
        scaled = np.int64(m << np.uint64(6))
        mean = _towards(mean, scaled, seen)
        seen = min(seen + _ONE, _ROW)
        if means[here] < 0:
            means[here] = (scaled + mean) >> np.int64(1)
        else:
            means[here] = _towards(other, scaled, _COLUMN)
        column += _ONE
        if column == columns:
            column = seen = _ZERO
    if decoding:
        return at
    return finish(stream, low, span, at)
