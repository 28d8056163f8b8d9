"""Tables of rANS codes: from counts to weights, from weights to slots, and weights to bits and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

LARGEST = 129
"""Largest weight."""

MAX_RICE, MAX_ONES = 7, 48
"""Largest Rice parameter of a stored table, and longest run of ones in it."""

BROKEN = -1
"""What `get_table` returns for bytes that are no table."""


@njit(cache=True, nogil=True)
def weigh(counts: NDArray[np.int64], weights: NDArray[np.uint8]) -> None:
    """The weight of each symbol: 0, or 1 + 8 s + m for (8 + m) << s, where the largest count is 2**19."""
    most = np.uint64(max(counts.max(), 1))
    # Counts of more than 44 bits would not fit when they are scaled.
    down = np.uint64(0)
    while most >> down >= np.uint64(1) << np.uint64(44):
        down += np.uint64(1)
    for i in range(len(counts)):
        weights[i] = 0
        if counts[i] > 0:
            scaled = (np.uint64(counts[i]) >> down << np.uint64(19)) // (most >> down)
            scaled = max(scaled, np.uint64(8))
            shift = np.uint64(0)
            while scaled >> shift >= np.uint64(16):
                shift += np.uint64(1)
            digits = (scaled + ((np.uint64(1) << shift) >> np.uint64(1))) >> shift
            weights[i] = np.uint8(
                min(np.uint64(1) + np.uint64(8) * shift + digits - np.uint64(8), np.uint64(LARGEST))
            )


@njit(cache=True, nogil=True)
def _given(weights: NDArray[np.uint8], bits: np.int64, total: np.int64, counts: NDArray[np.int64]) -> Any:
    """Slots of all symbols together, if each gets its share of `total` proportions, at least one."""
    given = np.int64(0)
    for i in range(len(weights)):
        counts[i] = 0
        if weights[i]:
            code = np.int64(weights[i]) - 1
            share = (np.int64(8) + code % 8) << (code // 8)
            counts[i] = max(np.int64((share << bits) // total), np.int64(1))
            given += counts[i]
    return given


@njit(cache=True, nogil=True)
def slots_of(weights: NDArray[np.uint8], bits: np.int64, counts: NDArray[np.int64]) -> None:
    """Slots of each symbol, 2**bits in all; `weights` has at least one symbol and fewer than 2**bits."""
    least = np.int64(0)
    for i in range(len(weights)):
        if weights[i]:
            code = np.int64(weights[i]) - 1
            least += (np.int64(8) + code % 8) << (code // 8)
    whole = np.int64(1) << bits
    if _given(weights, bits, least, counts) > whole:
        most = least << 16
        while least + 1 < most:
            middle = (least + most) // 2
            if _given(weights, bits, middle, counts) > whole:
                least = middle
            else:
                most = middle
        least = most
    left = whole - _given(weights, bits, least, counts)
    counts[np.argmax(counts)] += left


@njit(cache=True, nogil=True)
def fill_slots(counts: NDArray[np.int64], slots: NDArray[np.uint64]) -> None:
    """Of every slot its symbol << 32 | place among the symbol's slots << 16 | number of these - 1."""
    at = 0
    for symbol in range(len(counts)):
        for place in range(counts[symbol]):
            slots[at] = (
                np.uint64(symbol) << np.uint64(32)
                | np.uint64(place) << np.uint64(16)
                | np.uint64(counts[symbol] - 1)
            )
            at += 1


@njit(cache=True, nogil=True)
def reciprocals_of(
    counts: NDArray[np.int64], reciprocals: NDArray[np.uint64], spans: NDArray[np.uint64]
) -> None:
    """What `rans.encode` takes; both arrays are at least as long as `counts` and hold zeros."""
    first = np.uint64(0)
    for symbol in range(len(counts)):
        count = np.uint64(counts[symbol])
        if count:
            shift = np.uint64(31)
            while count > np.uint64(1) << (shift - np.uint64(31)):
                shift += np.uint64(1)
            spans[symbol] = first << np.uint64(16) | count
            whole = ((np.uint64(1) << shift) + count - np.uint64(1)) // count
            reciprocals[symbol] = whole << np.uint64(6) | shift
            first += count


@njit(cache=True, nogil=True)
def _put(out: NDArray[np.uint8], at: np.int64, value: np.uint64, width: np.int64) -> Any:
    """Write bits from the lowest on; `out` holds zeros."""
    for i in range(width):
        if value >> np.uint64(i) & np.uint64(1):
            out[at >> 3] |= np.uint8(1 << (at & 7))
        at += 1
    return at


@njit(cache=True, nogil=True)
def _cost(weights: NDArray[np.uint8], k: np.int64) -> Any:
    """Bits of all differences at a Rice parameter, or a huge number where a run of ones is too long."""
    previous, total = np.int64(LARGEST), np.int64(0)
    for i in range(len(weights)):
        if weights[i]:
            delta = np.int64(weights[i]) - previous
            z = -2 * delta - 1 if delta < 0 else 2 * delta
            if z >> k > MAX_ONES:
                return np.int64(1) << 62
            total += (z >> k) + 1 + k
            previous = np.int64(weights[i])
    return total


@njit(cache=True, nogil=True)
def rice_parameter(weights: NDArray[np.uint8]) -> Any:
    """The one that takes the fewest bits, the smallest of equals."""
    best = np.int64(0)
    for k in range(1, MAX_RICE + 1):
        if _cost(weights, np.int64(k)) < _cost(weights, best):
            best = np.int64(k)
    return best


@njit(cache=True, nogil=True)
def put_table(weights: NDArray[np.uint8], out: NDArray[np.uint8]) -> Any:
    """Store weights; the bytes used. `out` holds zeros, 12 bytes for each symbol and 16 more."""
    k = rice_parameter(weights)
    at = _put(out, np.int64(0), np.uint64(k), np.int64(3))
    every = np.uint64(1)
    for i in range(len(weights)):
        if not weights[i]:
            every = np.uint64(0)
    at = _put(out, at, every, np.int64(1))
    if not every:
        state, start, extra = True, 0, 1
        for i in range(len(weights) + 1):
            if i == len(weights) or (weights[i] > 0) != state:
                run = np.uint64(i - start + extra)
                low = np.int64(0)
                while run >> np.uint64(low + 1):
                    low += 1
                at = _put(out, at, (np.uint64(1) << np.uint64(low)) - np.uint64(1), low + 1)
                at = _put(out, at, run - (np.uint64(1) << np.uint64(low)), low)
                state, start, extra = not state, i, 0
    previous = np.int64(LARGEST)
    for i in range(len(weights)):
        if weights[i]:
            delta = np.int64(weights[i]) - previous
            z = -2 * delta - 1 if delta < 0 else 2 * delta
            ones = z >> k
            at = _put(out, at, (np.uint64(1) << np.uint64(ones)) - np.uint64(1), ones + 1)
            at = _put(out, at, np.uint64(z) & ((np.uint64(1) << np.uint64(k)) - np.uint64(1)), k)
            previous = np.int64(weights[i])
    return (at + 7) >> 3


@njit(cache=True, nogil=True)
def _bit(data: NDArray[np.uint8], at: np.int64) -> Any:
    """A bit; 1 after the end, which ends every loop that waits for a 0 by its limit."""
    return np.int64(data[at >> 3] >> (at & 7) & 1) if at >> 3 < len(data) else np.int64(1)


@njit(cache=True, nogil=True)
def _get(data: NDArray[np.uint8], at: np.int64, width: np.int64) -> Any:
    value = np.int64(0)
    for i in range(width):
        value |= _bit(data, at + i) << i
    return value


@njit(cache=True, nogil=True)
def get_table(data: NDArray[np.uint8], weights: NDArray[np.uint8]) -> Any:
    """Read what `put_table` wrote into `weights`, which hold zeros; the bytes read, or `BROKEN`."""
    alphabet = len(weights)
    k, every = _get(data, np.int64(0), np.int64(3)), _bit(data, np.int64(3))
    at = np.int64(4)
    if every:
        weights[:] = 1
    else:
        position, state, extra = np.int64(0), True, np.int64(1)
        while position < alphabet:
            low = np.int64(0)
            while _bit(data, at):
                low, at = low + 1, at + 1
                if low > 17:
                    return np.int64(BROKEN)
            run = (np.int64(1) << low) + _get(data, at + 1, low) - extra
            at += low + 1
            # Only the first run may be empty: two runs of the same kind would be one.
            if run > alphabet - position or (run == 0 and not extra):
                return np.int64(BROKEN)
            if state:
                weights[position : position + run] = 1
            position, state, extra = position + run, not state, np.int64(0)
        if weights.all():
            return np.int64(BROKEN)
    previous = np.int64(LARGEST)
    for i in range(alphabet):
        if weights[i]:
            ones = np.int64(0)
            while _bit(data, at):
                ones, at = ones + 1, at + 1
                if ones > MAX_ONES:
                    return np.int64(BROKEN)
            z = ones << k | _get(data, at + 1, k)
            at += k + 1
            previous += -((z + 1) >> 1) if z & 1 else z >> 1
            if previous < 1 or previous > LARGEST:
                return np.int64(BROKEN)
            weights[i] = np.uint8(previous)
    size = (at + 7) >> 3
    if size > len(data) or k != rice_parameter(weights) or _get(data, at, -at & 7):
        return np.int64(BROKEN)
    return size
