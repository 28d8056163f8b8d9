"""Tables of rANS codes: counts to weights, weights to slots, and slots to what the coder looks up."""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels import tables
from dwindle.kernels.words import bits_of, leading_zeros

LARGEST = 129
"""Largest weight."""

MOST = 4096
"""Most symbols that may occur."""

FEW, FEW_BITS, MANY_BITS = 256, 12, 14
"""Most symbols for which there are 2**FEW_BITS slots; for more there are 2**MANY_BITS."""

_HALF = np.uint64(1 << 31)


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
def _given(weights: NDArray[np.uint8], scale: np.uint64, counts: NDArray[np.int64]) -> Any:
    """Slots of all symbols together, if each gets its proportion times `scale` / 2**32, at least one."""
    given = np.int64(0)
    for i in range(len(weights)):
        counts[i] = 0
        if weights[i]:
            code = np.uint64(weights[i]) - np.uint64(1)
            share = (np.uint64(8) + (code & np.uint64(7))) << (code >> np.uint64(3))
            counts[i] = max(np.int64((share * scale + _HALF) >> np.uint64(32)), np.int64(1))
            given += counts[i]
    return given


@njit(cache=True, nogil=True)
def slots_of(weights: NDArray[np.uint8], bits: np.int64, counts: NDArray[np.int64]) -> None:
    """Slots of each symbol, 2**bits in all; `weights` has at least one symbol and fewer than 2**bits."""
    total = np.uint64(0)
    for i in range(len(weights)):
        if weights[i]:
            code = np.uint64(weights[i]) - np.uint64(1)
            total += (np.uint64(8) + (code & np.uint64(7))) << (code >> np.uint64(3))
    whole = np.int64(1) << bits
    # The largest scale that gives no more than there are; with 0 each symbol has one slot.
    least, most = np.uint64(0), (np.uint64(whole) << np.uint64(32)) // total
    if _given(weights, most, counts) > whole:
        while least + np.uint64(1) < most:
            middle = (least + most) >> np.uint64(1)
            if _given(weights, middle, counts) > whole:
                most = middle
            else:
                least = middle
        most = least
    left = whole - _given(weights, most, counts)
    counts[np.argmax(counts)] += left


@njit(cache=True, nogil=True)
def ideal_bits(counts: NDArray[np.int64], slots: NDArray[np.int64], bits: np.int64) -> float:
    """What symbols that occur this often take, if each takes the logarithm of its share of the slots."""
    total = 0.0
    for symbol in range(min(len(counts), len(slots))):
        if counts[symbol] and slots[symbol]:
            total += counts[symbol] * (bits - log2(slots[symbol]))
    return total


@njit(cache=True, nogil=True)
def _spread(counts: NDArray[np.int64], bits: np.uint64, symbols: NDArray[Any]) -> None:
    """Deal out the places 0 to 2**bits - 1 to the slots of all symbols in turn, far from each other."""
    mask = (np.uint64(1) << bits) - np.uint64(1)
    step = (np.uint64(5) << bits >> np.uint64(3)) + np.uint64(3)
    place = np.uint64(0)
    for symbol in range(len(counts)):
        for _ in range(counts[symbol]):
            symbols[place] = symbol
            place = place + step & mask


@njit(cache=True, nogil=True)
def fill_table(
    counts: NDArray[np.int64], bits: np.uint64, symbols: NDArray[Any], table: NDArray[Any]
) -> None:
    """What `rans.decode` looks up of a place.

    Args:
        counts: slots of each symbol, 2**bits in all; overwritten.
        bits: logarithm of their number.
        symbols: uint8 or uint16, shape (2**bits,), overwritten.
        table: uint32 or uint64, filled: from the lowest quarter how many bits are read, the symbol, and in
            the upper half the place that they are added to.
    """
    _spread(counts, bits, symbols)
    quarter = bits_of(symbols)
    for place in range(np.uint64(1) << bits):
        symbol = symbols[place]
        state = np.uint64(counts[symbol])
        counts[symbol] += 1
        read = bits + leading_zeros(state) - np.uint64(63)
        base = (state << read) - (np.uint64(1) << bits)
        table[place] = base << (quarter + quarter) | np.uint64(symbol) << quarter | read


@njit(cache=True, nogil=True)
def make(weights: NDArray[np.uint8], symbols: NDArray[Any], like: NDArray[Any]) -> Any:
    """The table of a code in memory of its own.

    Args:
        weights: of all symbols.
        symbols: of the dtype of symbols, see `fill_table`.
        like: of the dtype of the table.

    Returns:
        How many symbols have weights, the last of them (0 if there is none), the logarithm of the number of
        slots, and the table, empty for fewer than two symbols.
    """
    count, last = np.count_nonzero(weights), len(weights) - 1
    while last > 0 and not weights[last]:
        last -= 1
    bits = np.int64(FEW_BITS if count <= FEW else MANY_BITS)
    if count < 2:
        return count, max(last, 0), bits, np.empty(0, like.dtype)
    slots, table = np.empty(len(weights), np.int64), np.empty(1 << bits, like.dtype)
    slots_of(weights, bits, slots)
    fill_table(slots, np.uint64(bits), np.empty(1 << bits, symbols.dtype), table)
    return count, last, bits, table


@njit(cache=True, nogil=True)
def read(
    data: NDArray[np.uint8], alphabet: np.int64, width: np.int64, symbols: NDArray[Any], like: NDArray[Any]
) -> Any:
    """Read a table of weights, and make the table of the code.

    Args:
        data: bytes that begin with it.
        alphabet: number of symbols.
        width: bits of its Rice parameter.
        symbols: see `make`.
        like: see `make`.

    Returns:
        The bytes read, or `tables.BROKEN`, which more than MOST symbols are too, and what `make` returns.
    """
    weights = np.empty(alphabet, np.uint8)
    size = tables.get(data, weights, np.int64(LARGEST), False, width)
    if size == tables.BROKEN or np.count_nonzero(weights) > MOST:
        size, weights[:] = np.int64(tables.BROKEN), np.uint8(0)
    return size, make(weights, symbols, like)


@njit(cache=True, nogil=True)
def steps_of(
    counts: NDArray[np.int64],
    bits: np.uint64,
    symbols: NDArray[Any],
    steps: NDArray[np.uint64],
    following: NDArray[np.uint16],
) -> None:
    """What `rans.encode` takes.

    Args:
        counts: slots of each symbol, 2**bits in all; overwritten.
        bits: logarithm of their number.
        symbols: uint8 or uint16, shape (2**bits,), overwritten.
        steps: shape (len(counts) or more,). Its low half is such that added to a state it has in its upper
            half how many bits the state gives away; its high half, added to what is left of the state, is the
            place in `following`. Symbols that have no slots get 0.
        following: shape (2**bits,), filled: the states by symbol.
    """
    _spread(counts, bits, symbols)
    steps[:] = np.uint64(0)
    first = np.uint64(0)
    for symbol in range(len(counts)):
        count = np.uint64(counts[symbol])
        if count:
            most = bits
            if count > np.uint64(1):
                most = bits + leading_zeros(count - np.uint64(1)) - np.uint64(63)
            steps[symbol] = (first - count) << np.uint64(32) | (most << np.uint64(16)) - (count << most)
            counts[symbol] = first
            first += count
    for place in range(np.uint64(1) << bits):
        symbol = symbols[place]
        following[counts[symbol]] = (np.uint64(1) << bits) + place
        counts[symbol] += 1
