"""Fixed-width packing. Callers check widths and lengths; nothing is checked here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels.words import load64, store, word_at

SLACK = 8
"""Bytes `pack` needs after the last one that holds a value, since it writes whole words."""


@njit(cache=True, nogil=True)
def pack(values: NDArray[Any], width: np.uint64, out: NDArray[np.uint8]) -> None:
    """Write `width` bits of each value.

    Args:
        values: unsigned, shape (n,), all under 2**width.
        width: 1 to 32.
        out: ceil(n * width / 8) + SLACK bytes.
    """
    n = np.uint64(len(values))
    group = np.uint64(57) // width  # 7 bits may wait from the group before
    word = np.uint64(0)
    filled = np.uint64(0)
    at = np.uint64(0)
    for first in range(np.uint64(0), n, group):
        for i in range(first, min(first + group, n)):
            word |= np.uint64(values[i]) << filled
            filled += width
        store(out, at, word, word)
        at += filled >> np.uint64(3)
        # Two steps, for a shift by 64 is undefined.
        half = filled >> np.uint64(1) & np.uint64(0x3C)
        word = word >> half >> half
        filled &= np.uint64(7)


@njit(cache=True, nogil=True)
def unpack(data: NDArray[np.uint8], width: np.uint64, out: NDArray[Any]) -> None:
    """Read values of `width` bits.

    Args:
        data: at least ceil(n * width / 8) bytes.
        width: 1 to 32.
        out: unsigned, shape (n,), filled.
    """
    mask = (np.uint64(1) << width) - np.uint64(1)
    n, size = np.uint64(len(out)), np.uint64(len(data))
    # So many values begin at least a word before the end.
    whole = min(n, (max(size, np.uint64(8)) - np.uint64(8)) * np.uint64(8) // width)
    position = np.uint64(0)
    for i in range(whole):
        out[i] = load64(data, position >> np.uint64(3)) >> (position & np.uint64(7)) & mask
        position += width
    for i in range(whole, n):
        out[i] = word_at(data, position >> np.uint64(3)) >> (position & np.uint64(7)) & mask
        position += width
