"""Prefix codes over streams of symbols. Callers check tables and lengths; reads never pass a stream's end."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

SYMBOL_SHIFT = 8
"""A table entry is symbol << SYMBOL_SHIFT | code length."""


@njit(cache=True, nogil=True)
def encode(symbols: NDArray[Any], codes: NDArray[np.uint32], out: NDArray[np.uint8]) -> np.uint64:
    """Write one stream; returns its bits, or all ones if a symbol has no code.

    Args:
        symbols: shape (n,).
        codes: bit-reversed code << 8 | length for each possible symbol; length 0: none.
        out: long enough.
    """
    word = np.uint64(0)
    filled = np.uint64(0)
    at = np.uint64(0)
    for symbol in symbols:
        entry = np.uint64(codes[symbol])
        length = entry & np.uint64(0xFF)
        if length == np.uint64(0):
            return ~np.uint64(0)
        word |= (entry >> np.uint64(8)) << filled
        filled += length
        while filled >= np.uint64(8):
            out[at] = np.uint8(word & np.uint64(0xFF))
            word >>= np.uint64(8)
            filled -= np.uint64(8)
            at += np.uint64(1)
    if filled:
        out[at] = np.uint8(word)
    return at * np.uint64(8) + filled


@njit(cache=True, nogil=True)
def decode(
    data: NDArray[np.uint8], position: np.uint64, table: NDArray[np.uint32], out: NDArray[Any]
) -> np.uint64:
    """Read one stream from bit `position`; returns the bit after the last code, past the end if short."""
    size = np.uint64(len(data))
    mask = np.uint64(len(table) - 1)
    for i in range(np.uint64(len(out))):
        first = position >> np.uint64(3)
        word = np.uint64(0)
        for j in range(np.uint64(4)):
            if first + j < size:
                word |= np.uint64(data[first + j]) << (np.uint64(8) * j)
        entry = table[(word >> (position & np.uint64(7))) & mask]
        out[i] = entry >> SYMBOL_SHIFT
        position += np.uint64(entry & np.uint32(0xFF))
    return position
