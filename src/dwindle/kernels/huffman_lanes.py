"""Lanes of prefix codes to symbols, several in turn.

What bounds a decoder is the wait from one code's end to the next one's, and the instructions for each symbol.
So it takes several lanes in turn, and looks up single symbols, or where codes are short *runs* of up to six.
A lane's symbols come last first: so a run is stored whole, and what is below its symbols is overwritten by
the symbols before. A word of a lane is shifted right code by code under a one bit set at its top: the zeros
above that bit say how much has been used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels.codes import FIVE, FOUR, SHORT_LANES
from dwindle.kernels.words import bits_of, leading_zeros, load64, prefetch, store, trailing_zeros, word_at

_TOP = np.uint64(1 << 63)
_WORD_BITS = np.uint64(56)
_ONES, _BYTE, _SHIFT = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0xFF), np.uint64(63)

_FIVE_MASK, _FOUR_MASK = np.uint64((1 << FIVE) - 1), np.uint64((1 << 12) - 1)  # of usual tables of runs
_LINE, _LINES = np.uint64(64), np.uint64(4)  # bytes of a line of a cache, and lines to fetch in a round

_ONE, _THREE, _FOUR, _EIGHT = np.uint64(1), np.uint64(3), np.uint64(4), np.uint64(8)


@njit(cache=True, nogil=True, forceinline=True)
def _refill(data: NDArray[np.uint8], position: np.uint64) -> Any:
    """At least 56 bits of the stream from bit `position` on, under a one bit at the top."""
    return load64(data, position >> _THREE) >> (position & np.uint64(7)) | _TOP


@njit(cache=True, nogil=True)
def _rounds(data: NDArray[np.uint8], position: np.uint64) -> Any:
    """How many rounds surely start and end where a whole word can be loaded."""
    last = _EIGHT * max(np.uint64(len(data)), _EIGHT) - np.uint64(64)
    return (max(last, position) - position) // _WORD_BITS


@njit(cache=True, nogil=True)
def single(data: NDArray[np.uint8], position: np.uint64, lookup: NDArray[Any]) -> Any:
    """The next symbol, and the bit after its code; zeros are read after the data."""
    half = bits_of(lookup) >> _ONE
    ahead = word_at(data, position >> _THREE) >> (position & np.uint64(7))
    entry = np.uint64(lookup[ahead & np.uint64(len(lookup) - 1)])
    return entry >> half, position + (entry & ((_ONE << half) - _ONE))


@njit(cache=True, nogil=True, forceinline=True)
def _run(
    word: np.uint64, place: np.uint64, runs: NDArray[np.uint64], mask: np.uint64, out: NDArray[Any]
) -> Any:
    """Write the run at the end of `word`, in the eight bytes from `place` on; both without it."""
    run = runs[word & mask]
    store(out, place, run, run)
    return word >> (run & _SHIFT), place - (run >> _EIGHT & _BYTE)


@njit(cache=True, nogil=True)
def lane(
    data: NDArray[np.uint8],
    position: np.uint64,
    lookup: NDArray[Any],
    runs: NDArray[np.uint64],
    out: NDArray[Any],
    low: np.uint64,
    high: np.uint64,
) -> np.uint64:
    """Read one lane of neighbouring symbols, `out[low:high]`, every access checked; the bit after it."""
    span, mask = np.uint64(64) // bits_of(out), np.uint64(len(runs) - 1)
    step = _FOUR * (span - span // _FOUR)  # most symbols of a round
    left = high - low
    while len(runs):
        rounds = min(_rounds(data, position), (max(left, span) - span) // step)
        if rounds == np.uint64(0):
            break
        place = low + left - span
        for _ in range(rounds):
            word = _refill(data, position)
            for _ in range(_FOUR):
                word, place = _run(word, place, runs, mask, out)
            position += leading_zeros(word)
        left = place + span - low
    while len(runs) and left >= span:
        ahead = word_at(data, position >> _THREE) >> (position & np.uint64(7))
        _, place = _run(ahead, low + left - span, runs, mask, out)
        position += runs[ahead & mask] & _SHIFT
        left = place + span - low
    while left:
        symbol, position = single(data, position, lookup)
        left -= _ONE
        out[low + left] = symbol
    return position


@njit(cache=True, nogil=True, forceinline=True)
def _short_lanes(
    data: NDArray[np.uint8],
    positions: NDArray[np.uint64],
    runs: NDArray[np.uint64],
    mask: np.uint64,
    lookups: np.uint64,
    out: NDArray[Any],
    lows: NDArray[np.uint64],
    highs: NDArray[np.uint64],
    ahead: np.uint64,
    lines: np.uint64,
) -> None:
    """Read six lanes of neighbouring symbols, run by run, as far as whole words and stores surely go.

    This leaves memory all but idle, so what is wanted next is fetched meanwhile.

    Args:
        data: the bytes.
        positions: first bit of each lane; moved on.
        runs: the table that `huffman_tables.fill_runs` made.
        mask: its length minus one.
        lookups: how many of its runs surely are in a word.
        out: the symbols of all lanes, uint8 or uint16.
        lows: where in `out` each lane begins. Nothing is written outside.
        highs: where in `out` it ends; moved down.
        ahead: place in `data` of what is wanted next.
        lines: of a cache, to fetch in each round.
    """
    span = np.uint64(64) // bits_of(out)
    step = lookups * (span - span // _FOUR)  # most symbols of a round
    end = max(np.uint64(len(data)), _LINE * lines) - _LINE * lines  # pages that are not there cost most
    p0, p1, p2 = positions[0], positions[1], positions[2]
    p3, p4, p5 = positions[3], positions[4], positions[5]
    o0, o1, o2 = highs[0] - span, highs[1] - span, highs[2] - span
    o3, o4, o5 = highs[3] - span, highs[4] - span, highs[5] - span
    while True:
        rounds = _rounds(data, max(p0, p1, p2, p3, p4, p5))
        for i in range(SHORT_LANES):
            left = highs[i] - lows[i]
            rounds = min(rounds, (max(left, span) - span) // step)
        if rounds == np.uint64(0):
            break
        for _ in range(rounds):
            w0, w1, w2 = _refill(data, p0), _refill(data, p1), _refill(data, p2)
            w3, w4, w5 = _refill(data, p3), _refill(data, p4), _refill(data, p5)
            for _ in range(lookups):
                w0, o0 = _run(w0, o0, runs, mask, out)
                w1, o1 = _run(w1, o1, runs, mask, out)
                w2, o2 = _run(w2, o2, runs, mask, out)
                w3, o3 = _run(w3, o3, runs, mask, out)
                w4, o4 = _run(w4, o4, runs, mask, out)
                w5, o5 = _run(w5, o5, runs, mask, out)
            ahead = min(ahead, end)
            for _ in range(lines):
                prefetch(data, ahead)
                ahead += _LINE
            p0 += leading_zeros(w0)
            p1 += leading_zeros(w1)
            p2 += leading_zeros(w2)
            p3 += leading_zeros(w3)
            p4 += leading_zeros(w4)
            p5 += leading_zeros(w5)
        highs[0], highs[1], highs[2] = o0 + span, o1 + span, o2 + span
        highs[3], highs[4], highs[5] = o3 + span, o4 + span, o5 + span
    positions[0], positions[1], positions[2] = p0, p1, p2
    positions[3], positions[4], positions[5] = p3, p4, p5


@njit(cache=True, nogil=True)
def short_lanes(
    data: NDArray[np.uint8],
    positions: NDArray[np.uint64],
    runs: NDArray[np.uint64],
    out: NDArray[Any],
    lows: NDArray[np.uint64],
    highs: NDArray[np.uint64],
    ahead: np.uint64,
) -> None:
    """Read six lanes of neighbouring symbols as far as whole words and stores surely go (`_short_lanes`).

    `ahead` is the place in `data` of what is wanted next, after the stream.
    """
    # The compiler makes quicker code of numbers it knows. Planes of bytes have codes of up to FIVE bits.
    four, five, none, mask = np.uint64(4), np.uint64(5), np.uint64(0), np.uint64(len(runs) - 1)
    if len(runs) == 1 << FIVE and ahead < np.uint64(len(data)):
        _short_lanes(data, positions, runs, _FIVE_MASK, five, out, lows, highs, ahead, _LINES)
    elif len(runs) == 1 << FIVE:
        _short_lanes(data, positions, runs, _FIVE_MASK, five, out, lows, highs, ahead, none)
    elif mask == _FOUR_MASK:
        _short_lanes(data, positions, runs, _FOUR_MASK, four, out, lows, highs, ahead, none)
    elif len(runs):
        _short_lanes(data, positions, runs, mask, four, out, lows, highs, ahead, none)


@njit(cache=True, nogil=True, forceinline=True)
def _symbol(
    word: np.uint64, place: np.uint64, lookup: NDArray[Any], width: np.uint64, out: NDArray[Any]
) -> Any:
    """Write the symbol at the end of `word`; the word without it."""
    entry = np.uint64(lookup[word & ~(_ONES << width)])  # an instruction less than with a mask
    out[place] = entry >> bits_of(out)
    return word >> (entry & _SHIFT)


@njit(cache=True, nogil=True, forceinline=True)
def _long_lanes(
    data: NDArray[np.uint8],
    positions: NDArray[np.uint64],
    lookup: NDArray[Any],
    lookups: np.uint64,
    out: NDArray[Any],
    rows: np.uint64,
) -> Any:
    """Read eight lanes symbol by symbol, the last row of eight first, as far as whole words surely go.

    Args:
        data: the bytes.
        positions: first bit of each lane; moved on.
        lookup: what `huffman_tables.fill_lookup` made.
        lookups: how many of its codes surely are in a word.
        out: the symbols, uint8 or uint16.
        rows: how many rows of eight are wanted of the start of `out`.

    Returns:
        How many of them are left.
    """
    width = trailing_zeros(np.uint64(len(lookup)))
    p0, p1, p2, p3 = positions[0], positions[1], positions[2], positions[3]
    p4, p5, p6, p7 = positions[4], positions[5], positions[6], positions[7]
    while True:
        rounds = min(_rounds(data, max(p0, p1, p2, p3, p4, p5, p6, p7)), rows // lookups)
        if rounds == np.uint64(0):
            break
        for _ in range(rounds):
            w0, w1, w2, w3 = _refill(data, p0), _refill(data, p1), _refill(data, p2), _refill(data, p3)
            w4, w5, w6, w7 = _refill(data, p4), _refill(data, p5), _refill(data, p6), _refill(data, p7)
            for _ in range(lookups):
                rows -= _ONE
                place = _EIGHT * rows
                w0 = _symbol(w0, place, lookup, width, out)
                w1 = _symbol(w1, place + np.uint64(1), lookup, width, out)
                w2 = _symbol(w2, place + np.uint64(2), lookup, width, out)
                w3 = _symbol(w3, place + np.uint64(3), lookup, width, out)
                w4 = _symbol(w4, place + np.uint64(4), lookup, width, out)
                w5 = _symbol(w5, place + np.uint64(5), lookup, width, out)
                w6 = _symbol(w6, place + np.uint64(6), lookup, width, out)
                w7 = _symbol(w7, place + np.uint64(7), lookup, width, out)
            p0 += leading_zeros(w0)
            p1 += leading_zeros(w1)
            p2 += leading_zeros(w2)
            p3 += leading_zeros(w3)
            p4 += leading_zeros(w4)
            p5 += leading_zeros(w5)
            p6 += leading_zeros(w6)
            p7 += leading_zeros(w7)
    positions[0], positions[1], positions[2], positions[3] = p0, p1, p2, p3
    positions[4], positions[5], positions[6], positions[7] = p4, p5, p6, p7
    return rows


@njit(cache=True, nogil=True)
def long_lanes(
    data: NDArray[np.uint8],
    positions: NDArray[np.uint64],
    lookup: NDArray[Any],
    out: NDArray[Any],
    rows: np.uint64,
) -> Any:
    """Read eight lanes of every eighth symbol as far as whole words surely go (`_long_lanes`)."""
    if len(lookup) <= 1 << FIVE:
        return _long_lanes(data, positions, lookup, np.uint64(5), out, rows)
    if len(lookup) <= 1 << FOUR:
        return _long_lanes(data, positions, lookup, np.uint64(4), out, rows)
    return rows
