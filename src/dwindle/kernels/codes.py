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

_LOW16, _BYTE, _LOW7, _SHIFT = np.uint64(0xFFFF), np.uint64(0xFF), np.uint64(127), np.uint64(63)


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


@njit(cache=True, nogil=True)
def in_order(lengths: NDArray[np.uint8], places: NDArray[np.uint64], ordered: NDArray[np.uint64]) -> Any:
    """The codes from the shortest on, equally long ones in the order of their symbols: as they are counted.

    Args:
        lengths: of a complete prefix code.
        places: shape (16,), overwritten.
        ordered: room for the codes; of each the length in the low half of the lower word, the symbol in its
            high half, and the code, first bit lowest, in the upper word.

    Returns:
        How many there are.
    """
    places[:] = np.uint64(0)
    for length in lengths:
        if length:
            places[length] += np.uint64(1)
    count = np.uint64(0)
    for length in range(LONGEST + 1):
        count, places[length] = count + places[length], count
    for i in range(len(lengths)):
        length = np.uint64(lengths[i])
        if length:
            ordered[places[length]] = np.uint64(i) << np.uint64(16) | length
            places[length] += np.uint64(1)
    code = np.uint64(0)
    for k in range(count):
        length = ordered[k] & _LOW16
        ordered[k] |= reversed_bits(code) << np.uint64(32)
        code += np.uint64(1) << (np.uint64(64) - length)
    return count


@njit(cache=True, nogil=True)
def fill_lookup(ordered: NDArray[np.uint64], lookup: NDArray[Any]) -> None:
    """The table of single symbols: for the next bits of a stream, symbol above the code's length.

    It grows bit by bit: what is known of fewer bits holds whatever bit follows, and a code that ends at the
    new bit has one place.

    Args:
        ordered: what `in_order` made, shape (codes,), at least two.
        lookup: uint16 for symbols up to 255, length in the low byte; else uint32, length in the low half;
            shape (2**longest,).
    """
    half, one = bits_of(lookup) >> np.uint64(1), np.uint64(1)
    known = one
    for entry in ordered:
        length = entry & _LOW16
        while known < one << length:
            for i in range(known):
                lookup[known + i] = lookup[i]
            known <<= one
        lookup[entry >> np.uint64(32)] = (entry >> np.uint64(16) & _LOW16) << half | length


@njit(cache=True, nogil=True)
def fill_runs(
    ordered: NDArray[np.uint64],
    wide: np.uint64,
    bits: np.uint64,
    runs: NDArray[np.uint64],
    whole: NDArray[np.uint16],
    many: NDArray[np.uint64],
) -> None:
    """The table of runs: as many symbols as surely are in the next bits of a stream, up to 48 bits of them.

    It grows as that of single symbols does. Where codes end at the new bit is where one follows a run that
    ended as many bits before.

    Args:
        ordered: what `in_order` made, shape (codes,), at least two.
        wide: bits of a symbol, 8 or 16.
        bits: how many bits a run looks at, at least those of the longest code.
        runs: shape (2**(bits + 1),). The table is from 2**bits on; before it are, from 2**n on, the runs
            that end after n bits. An entry has from the lowest byte the run's bits, how many symbols it has,
            then the symbols, the first in the highest place: six of 8 bits or three of 16.
        whole: shape (2**bits,), overwritten: the bits of those runs.
        many: shape (16,), overwritten: how many end after n bits.
    """
    one, top, most = np.uint64(1), np.uint64(1) << bits, np.uint64(48) // wide
    runs[top] = runs[one] = np.uint64(0)
    whole[one] = np.uint16(0)
    many[0] = one
    for end in range(one, bits + one):
        half, last = one << (end - one), end == bits
        for i in range(half):
            runs[top + half + i] = runs[top + i]
        free = half + half
        for entry in ordered:
            length = entry & _LOW16
            if length > end:
                break
            before = end - length
            code = entry >> np.uint64(32) << before
            symbol = (entry >> np.uint64(16) & _LOW16) << (np.uint64(64) - wide)
            first = one << before
            for i in range(first, first + many[before]):
                run, place = runs[i], code | np.uint64(whole[i])
                count = run >> np.uint64(8) & _BYTE
                run += (symbol >> count * wide) + (np.uint64(256) + length)
                runs[top + place] = run
                if not last:
                    runs[free], whole[free] = run, place
                    free += np.uint64(count + one < most)
        if not last:
            many[end] = free - half - half
