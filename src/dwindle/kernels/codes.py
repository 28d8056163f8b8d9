"""Canonical prefix codes: what an encoder and a decoder look up. Callers check lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels.lengths import LONGEST
from dwindle.kernels.words import bits_of, reversed_bits

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

_LOW16, _LOW7, _SHIFT = np.uint64(0xFFFF), np.uint64(127), np.uint64(63)


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
    for i in range(len(lengths)):
        following[lengths[i]] += np.uint64(1)
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


@njit(cache=True, nogil=True)
def fill_lookup(lengths: NDArray[np.uint8], following: NDArray[np.uint64], lookup: NDArray[Any]) -> None:
    """The table of single symbols: for the next bits of a stream, symbol above the code's length.

    Args:
        lengths: of a complete prefix code of at least two symbols.
        following: shape (16,), overwritten.
        lookup: uint16 for symbols up to 255, length in the low byte; else uint32, length in the low half;
            shape (2**longest,).
    """
    _first_codes(lengths, following)
    half = bits_of(lookup) >> np.uint64(1)
    size = np.uint64(len(lookup))
    for i in range(len(lengths)):
        length = np.uint64(lengths[i])
        if length:
            entry = np.uint64(i) << half | length
            for at in range(reversed_bits(following[length]), size, np.uint64(1) << length):
                lookup[at] = entry
            following[length] += np.uint64(1) << (np.uint64(64) - length)


@njit(cache=True, nogil=True)
def _full_run(lookup: NDArray[Any], ahead: np.uint64, most: np.uint64) -> np.uint64:
    """The run of the next `most` symbols, however many bits they take."""
    wide = bits_of(lookup) >> np.uint64(1)
    run, used, place = np.uint64(0), np.uint64(0), np.uint64(64)
    for _ in range(most):
        entry = np.uint64(lookup[ahead >> used & np.uint64(len(lookup) - 1)])
        used += entry & ((np.uint64(1) << wide) - np.uint64(1))
        place -= wide
        run |= entry >> wide << place
    return run | most << np.uint64(8) | used


@njit(cache=True, nogil=True)
def fill_runs(lookup: NDArray[Any], bits: np.uint64, runs: NDArray[np.uint64]) -> None:
    """The tables of runs: as many symbols as surely are in the next bits of a stream.

    Args:
        lookup: what `fill_lookup` made.
        bits: how many bits a run looks at.
        runs: shape (2**(bits + 1),). The table for `bits` bits is from 2**bits on; before it are those for
            fewer that it is made of. An entry has from the lowest byte the run's bits, how many symbols it
            has, then the symbols, the first in the highest place: six of 8 bits or three of 16.
    """
    wide, one = bits_of(lookup) >> np.uint64(1), np.uint64(1)
    most, mask, low = np.uint64(48) // wide, np.uint64(len(lookup) - 1), (one << wide) - one
    shortest = bits
    for entry in lookup:
        shortest = min(shortest, np.uint64(entry) & low)
    for few in range(bits + one):
        # Only the last table is asked for more bits than the shortest code leaves.
        for ahead in range(one << few if few + shortest <= bits or few == bits else np.uint64(0)):
            entry = np.uint64(lookup[ahead & mask])
            length, run = entry & low, np.uint64(0)
            if length <= few:
                # The first symbol, and the run in the bits after it.
                rest = runs[one << few >> length | ahead >> length]
                run = (rest & ~_LOW16) >> wide | entry >> wide << (np.uint64(64) - wide)
                run += (rest & _LOW16) + (np.uint64(256) + length)
                if rest >> np.uint64(8) & np.uint64(0xFF) == most:
                    run = _full_run(lookup, np.uint64(ahead), most)
            runs[one << few | ahead] = run
