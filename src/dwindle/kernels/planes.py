"""Elements to planes of bytes and back, and the changes of numbers that make planes small."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def split(words: NDArray[Any], turned: bool, planes: NDArray[np.uint8]) -> None:
    """Cut words into bytes, the highest to the first plane.

    Args:
        words: unsigned, shape (n,).
        turned: turn each left by one bit first: so the sign of a float leaves its exponent a byte of its own.
        planes: shape (bytes of a word, n).
    """
    wide = 8 * words.itemsize
    count = planes.shape[0]
    for j in range(count):
        shift = np.uint64(wide - 8 * (j + 1))
        plane = planes[j]
        if turned:
            for i in range(len(words)):
                word = np.uint64(words[i])
                plane[i] = np.uint8((word << np.uint64(1) | word >> np.uint64(wide - 1)) >> shift)
        else:
            for i in range(len(words)):
                plane[i] = np.uint8(np.uint64(words[i]) >> shift)


@njit(cache=True, nogil=True)
def merge2(a: NDArray[np.uint8], b: NDArray[np.uint8], turned: bool, words: NDArray[np.uint16]) -> None:
    """Undo `split` for two planes."""
    if turned:
        for i in range(len(words)):
            word = np.uint16(a[i]) << np.uint16(8) | np.uint16(b[i])
            words[i] = word >> np.uint16(1) | word << np.uint16(15)
    else:
        for i in range(len(words)):
            words[i] = np.uint16(a[i]) << np.uint16(8) | np.uint16(b[i])


@njit(cache=True, nogil=True)
def merge4(
    a: NDArray[np.uint8],
    b: NDArray[np.uint8],
    c: NDArray[np.uint8],
    d: NDArray[np.uint8],
    turned: bool,
    words: NDArray[np.uint32],
) -> None:
    """Undo `split` for four planes."""
    for i in range(len(words)):
        word = np.uint32(a[i]) << np.uint32(24) | np.uint32(b[i]) << np.uint32(16)
        word |= np.uint32(c[i]) << np.uint32(8) | np.uint32(d[i])
        words[i] = word >> np.uint32(1) | word << np.uint32(31) if turned else word


@njit(cache=True, nogil=True)
def merge(planes: NDArray[np.uint8], turned: bool, words: NDArray[Any]) -> None:
    """Undo `split` for any number of planes."""
    wide = np.uint64(8 * words.itemsize)
    for i in range(len(words)):
        word = np.uint64(0)
        for j in range(planes.shape[0]):
            word = word << np.uint64(8) | np.uint64(planes[j, i])
        words[i] = word >> np.uint64(1) | word << (wide - np.uint64(1)) if turned else word
