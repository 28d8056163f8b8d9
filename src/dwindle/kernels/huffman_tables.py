"""Canonical prefix codes: the tables a decoder looks symbols and runs of them up in. Callers check lengths.

A table grows bit by bit: what is known of fewer bits holds whatever bit follows, and a code that ends at the
new bit has one place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels import tables
from dwindle.kernels.codes import FIVE, FOUR, SHORT_LANES, lanes_of
from dwindle.kernels.lengths import LONGEST
from dwindle.kernels.words import bits_of, reversed_bits

_LOW16, _BYTE = np.uint64(0xFFFF), np.uint64(0xFF)


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

    A code ends at the new bit where it follows a run that ended as many bits before.

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


@njit(cache=True, nogil=True)
def make(lengths: NDArray[np.uint8], like: NDArray[Any]) -> Any:
    """The tables of a code in memory of their own.

    Args:
        lengths: of a complete prefix code, of fewer than two symbols too.
        like: of the dtype that the table of single symbols has, see `fill_lookup`.

    Returns:
        How many symbols have codes, the last of them (0 if there is none), the lanes of a long stream, and
        the tables of single symbols and of runs: the first empty for fewer than two symbols, the second
        where codes are long, or one is longer than FOUR.
    """
    places, ordered = np.empty(16, np.uint64), np.empty(len(lengths), np.uint64)
    count, last = in_order(lengths, places, ordered), len(lengths) - 1
    while last > 0 and not lengths[last]:
        last -= 1
    if count < np.uint64(2):
        return np.int64(count), max(last, 0), np.int64(1), np.empty(0, like.dtype), np.empty(0, np.uint64)
    ordered, many = ordered[:count], lanes_of(lengths)
    longest = np.int64(ordered[-1] & _LOW16)
    lookup = np.empty(1 << longest, like.dtype)
    fill_lookup(ordered, lookup)
    bits = np.int64(FIVE) if longest < FIVE else longest
    runs = np.empty(2 << bits if many == SHORT_LANES and bits <= FOUR else 0, np.uint64)
    if len(runs):
        wide = bits_of(like) >> np.uint64(1)
        fill_runs(ordered, wide, np.uint64(bits), runs, np.empty(1 << bits, np.uint16), places)
    return np.int64(count), last, many, lookup, runs[len(runs) >> 1 :]


@njit(cache=True, nogil=True)
def read(data: NDArray[np.uint8], alphabet: np.int64, width: np.int64, like: NDArray[Any]) -> Any:
    """Read a table of code lengths, and make the tables of the code.

    Args:
        data: bytes that begin with it.
        alphabet: number of symbols.
        width: bits of its Rice parameter.
        like: see `make`.

    Returns:
        The bytes read, or `tables.BROKEN`, and what `make` returns.
    """
    lengths = np.empty(alphabet, np.uint8)
    size = tables.get(data, lengths, np.int64(LONGEST), True, width)
    if size == tables.BROKEN:
        lengths[:] = np.uint8(0)
    return size, make(lengths, like)
