"""Fixed-width packing. Callers check widths and lengths; nothing is checked here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

SLACK = 8
"""Bytes a packed buffer must have after its last used one, so that whole words can be moved."""


@njit(cache=True, nogil=True)
def pack(values: NDArray[Any], width: np.uint64, out: NDArray[np.uint8]) -> None:
    """Write `width` bits of each value.

    Args:
        values: unsigned, shape (n,), all under 2**width.
        width: 1 to 32.
        out: zeros, at least ceil(n * width / 8) + SLACK bytes.
    """
    word = np.uint64(0)
    filled = np.uint64(0)
    at = np.uint64(0)
    for value in values:
        word |= np.uint64(value) << filled
        filled += width
        while filled >= np.uint64(8):
            out[at] = np.uint8(word & np.uint64(0xFF))
            word >>= np.uint64(8)
            filled -= np.uint64(8)
            at += np.uint64(1)
    if filled:
        out[at] = np.uint8(word)


@njit(cache=True, nogil=True)
def unpack(data: NDArray[np.uint8], width: np.uint64, out: NDArray[Any]) -> None:
    """Read values of `width` bits.

    Args:
        data: at least ceil(n * width / 8) + SLACK bytes.
        width: 1 to 32.
        out: unsigned, shape (n,), filled.
    """
    mask = (np.uint64(1) << width) - np.uint64(1)
    word = np.uint64(0)
    filled = np.uint64(0)
    at = np.uint64(0)
    for i in range(np.uint64(len(out))):
        while filled < width:
            word |= np.uint64(data[at]) << filled
            filled += np.uint64(8)
            at += np.uint64(1)
        out[i] = word & mask
        word >>= width
        filled -= width
