"""Words to planes of their bytes and back, and planes whose lowest bit says nothing in fewer bytes.

Words come in pieces of PIECE but for the last. Of each of its planes a piece has a byte, how the plane is
stored, and then: STORED, its bytes; ONE, the byte that all are; CODED, a table of code lengths and a stream,
each behind its size; AGAIN, a stream behind its size, in the code that the plane of the same place was coded
in last; SEVENS, the lowest bit of all bytes, and the other bits as `pack_sevens` leaves them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels.words import bits_of, turned

PIECE = 1 << 16
"""Words of a piece."""

STORED, ONE, CODED, AGAIN, SEVENS = range(5)

LIMIT = 11
"""Longest code of a plane: so five fit into a word, and tables are small and quickly made."""

WIDTH = 2
"""Bits of the Rice parameter of a table of code lengths."""

Bytes = NDArray[np.uint8]


@njit(cache=True, nogil=True, forceinline=True)
def _split(words: NDArray[Any], turn: np.uint64, planes: NDArray[np.uint8]) -> Any:
    wide = bits_of(words)
    last = wide // np.uint64(8) - np.uint64(1)
    either, both = words.dtype.type(0), words.dtype.type(1)
    for i in range(len(words)):
        word = np.uint64(turned(words[i], turn))
        either = words.dtype.type(either | word)
        both = words.dtype.type(both & word)
        for j in range(last + np.uint64(1)):
            planes[j, i] = np.uint8(word >> (wide - np.uint64(8) * (j + np.uint64(1))))
    return np.int64(both) if np.uint64(either) & np.uint64(1) == np.uint64(both) else np.int64(2)


@njit(cache=True, nogil=True)
def split(words: NDArray[Any], turn: np.uint64, planes: NDArray[np.uint8]) -> Any:
    """Cut words into bytes, the highest to the first plane.

    Args:
        words: unsigned, shape (n,).
        turn: bits that each is turned left by first, at most 2.
        planes: shape (bytes of a word, n or more).

    Returns:
        The lowest bit of the last plane, if it is the same in all words, else 2.
    """
    # The compiler makes quick loops of turns that it knows.
    if turn == np.uint64(0):
        return _split(words, np.uint64(0), planes)
    if turn == np.uint64(1):
        return _split(words, np.uint64(1), planes)
    return _split(words, np.uint64(2), planes)


@njit(cache=True, nogil=True, forceinline=True)
def _merge(
    a: Bytes,
    b: Bytes,
    c: Bytes,
    d: Bytes,
    e: Bytes,
    f: Bytes,
    g: Bytes,
    h: Bytes,
    turn: np.uint64,
    words: NDArray[Any],
) -> None:
    wide = bits_of(words)
    for i in range(len(words)):
        word = np.uint64(a[i])
        if wide > np.uint64(8):
            word = word << np.uint64(8) | np.uint64(b[i])
        if wide > np.uint64(16):
            word = word << np.uint64(16) | np.uint64(c[i]) << np.uint64(8) | np.uint64(d[i])
        if wide > np.uint64(32):
            word = word << np.uint64(16) | np.uint64(e[i]) << np.uint64(8) | np.uint64(f[i])
            word = word << np.uint64(16) | np.uint64(g[i]) << np.uint64(8) | np.uint64(h[i])
        words[i] = turned(words.dtype.type(word), wide - turn)


@njit(cache=True, nogil=True)
def merge(
    a: Bytes,
    b: Bytes,
    c: Bytes,
    d: Bytes,
    e: Bytes,
    f: Bytes,
    g: Bytes,
    h: Bytes,
    turn: np.uint64,
    words: NDArray[Any],
) -> None:
    """Undo `split`, the first plane first, as many planes as a word has bytes; shape (n,) each."""
    if turn == np.uint64(0):
        _merge(a, b, c, d, e, f, g, h, np.uint64(0), words)
    elif turn == np.uint64(1):
        _merge(a, b, c, d, e, f, g, h, np.uint64(1), words)
    else:
        _merge(a, b, c, d, e, f, g, h, np.uint64(2), words)


@njit(cache=True, nogil=True)
def pack_sevens(plane: Bytes, out: Bytes) -> None:
    """Leave out the lowest bit of each byte.

    The bits of an eighth of the bytes go on top of those of the seven eighths before; up to seven bytes that
    are left at the end stay as they are.

    Args:
        plane: shape (n,).
        out: shape (n - n // 8,), filled.
    """
    part = np.uint64(len(plane)) >> np.uint64(3)
    last = plane[np.uint64(7) * part :]
    for row in range(np.uint64(7)):
        source, target = plane[row * part :], out[row * part :]
        for i in range(part):
            eighth = last[i] >> (row + np.uint64(1)) & np.uint8(1)
            target[i] = source[i] >> np.uint8(1) | eighth << np.uint8(7)
    for i in range(np.uint64(8) * part, np.uint64(len(plane))):
        out[i - part] = plane[i]


@njit(cache=True, nogil=True)
def unpack_sevens(packed: Bytes, lowest: np.uint8, plane: Bytes) -> None:
    """Undo `pack_sevens`, given the lowest bit of all bytes."""
    part = np.uint64(len(plane)) >> np.uint64(3)
    last = plane[np.uint64(7) * part :]
    for i in range(part):
        last[i] = lowest
    for row in range(np.uint64(7)):
        source, target = packed[row * part :], plane[row * part :]
        for i in range(part):
            target[i] = source[i] << np.uint8(1) | lowest
            last[i] |= source[i] >> np.uint8(7) << (row + np.uint64(1))
    for i in range(np.uint64(8) * part, np.uint64(len(plane))):
        plane[i] = packed[i - part]
