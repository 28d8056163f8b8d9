"""Canonical prefix codes: what both sides agree on, and what an encoder looks up. Callers check lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels.lengths import LONGEST
from dwindle.kernels.words import reversed_bits

SPLIT = 1 << 14
"""From this many symbols on a stream has several lanes."""

SHORT_LANES, LONG_LANES = 6, 8
"""Lanes of neighbouring symbols where codes are short, of every eighth symbol where they are long."""

SHORT = 6 << 15
"""Codes are short if the lengths of codes, each times 2**(15 - length), add up to less: 6 bits expected."""

FIVE, FOUR = 11, 14
"""Longest codes of which five and four fit into the 56 bits a word surely has; longer ones are read slowly.

A table of runs looks at FIVE bits, or as many as the longest code has.
"""

KNOWN = np.uint64(64)
"""Set in what `codes_of` makes of a symbol that has a code."""

PAIRED = 64
"""Most bytes that have codes where two are coded at a time."""

_LOW7, _SHIFT = np.uint64(127), np.uint64(63)


@njit(cache=True, nogil=True)
def lanes_of(lengths: NDArray[np.uint8]) -> Any:
    """How many lanes a long stream in this code has."""
    expected = np.int64(0)
    for length in lengths:
        if length:
            expected += np.int64(length) << (LONGEST - np.int64(length))
    return np.int64(SHORT_LANES if expected < SHORT else LONG_LANES)


@njit(cache=True, nogil=True)
def _first_codes(lengths: NDArray[np.uint8], following: NDArray[np.uint64]) -> None:
    """The first canonical code of each length, padded with zeros to 64 bits; `following` has 16 entries."""
    following[:] = np.uint64(0)
    for length in lengths:
        if length:
            following[length] += np.uint64(1)
    code = np.uint64(0)
    for length in range(np.uint64(1), np.uint64(LONGEST + 1)):
        count = following[length]
        following[length] = code
        code += count << (np.uint64(64) - length)


@njit(cache=True, nogil=True)
def codes_of(lengths: NDArray[np.uint8], following: NDArray[np.uint64], codes: NDArray[np.uint64]) -> None:
    """What the encoder takes of each symbol: its code in the top bits, first bit lowest, KNOWN, its length.

    Args:
        lengths: of a complete prefix code, shape (n,).
        following: shape (16,), overwritten.
        codes: shape (n,), filled; 0 where a symbol has no code.
    """
    _first_codes(lengths, following)
    for i in range(len(lengths)):
        length = np.uint64(lengths[i])
        codes[i] = np.uint64(0)
        if length:
            code = reversed_bits(following[length])
            following[length] += np.uint64(1) << (np.uint64(64) - length)
            codes[i] = code << (np.uint64(64) - length) | KNOWN | length


@njit(cache=True, nogil=True)
def pairs_of(codes: NDArray[np.uint64], pairs: NDArray[np.uint64], paired: NDArray[np.uint8]) -> Any:
    """The codes of two bytes together, where there are few enough for a table that stays in the cache.

    Args:
        codes: what `codes_of` made, shape (256,), none longer than 12 bits.
        pairs: shape (2**16,); set at each pair of bytes, the second times 256, that both have a code. It
            holds zeros, or what this made before.
        paired: shape (256,), which bytes have codes in `pairs`.

    Returns:
        Whether there are at most PAIRED of them.
    """
    chosen = np.flatnonzero(paired)
    for first in chosen:
        for second in chosen:
            pairs[second << 8 | first] = np.uint64(0)
    paired[:] = np.uint8(0)
    chosen = np.flatnonzero(codes)
    if len(chosen) > PAIRED:
        return False
    for first in chosen:
        before = codes[first]
        paired[first] = np.uint8(1)
        for second in chosen:
            # The second comes first, as a lane's symbols do.
            after = codes[second]
            high = (after & ~_LOW7) >> (before & _SHIFT) | before & ~_LOW7
            pairs[second << 8 | first] = high | (before & _LOW7) + (after & _LOW7)
    return True
