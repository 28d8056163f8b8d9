"""Prefix codes over streams of symbols, written and read from the lowest bit of each byte on.

The decoders look up the next bits of a stream in a table. What bounds them is the wait from one code's end to
the next one's, so they take four streams in turn, and where codes are short a table entry holds a *run* of up
to three symbols. A word of the stream is shifted right code by code under a one bit set at its top: the zeros
above that bit say how much has been used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels.words import leading_zeros, load64, store, top_bits, word_at

RUN_BITS = 11
"""Bits that a table of runs looks at."""

RUN_SYMBOLS = 3
"""Most symbols of a run."""

SINGLE_BITS = 12
"""Longest code of a table of single symbols."""

SLACK = 8
"""Bytes `encode` needs after the last one that holds a code, since it writes whole words."""

NO_CODE = np.uint64(0xFFFFFFFFFFFFFFFF)
"""What `encode` returns where a symbol has no code."""

_TOP = np.uint64(1 << 63)
_RUNS = 5  # lookups per word: 5 * RUN_BITS and 4 * SINGLE_BITS are at most the 56 bits a word surely has
_SINGLES = 4
_LONGEST = np.uint64(15)  # bits of the longest code there is
_RUN_STEP_BITS = np.uint64(_RUNS * RUN_BITS) + _LONGEST
_RUN_STEP_SYMBOLS = np.uint64(_RUNS * RUN_SYMBOLS + 1)


@njit(cache=True, nogil=True)
def encode(symbols: NDArray[Any], codes: NDArray[np.uint32], group: np.uint64, out: NDArray[np.uint8]) -> Any:
    """Write one stream.

    Args:
        symbols: uint8 or uint16, shape (n,).
        codes: code, first bit lowest, << 8 | length, for every symbol the dtype can hold; 0: no code.
        group: codes that surely fit into 57 bits together.
        out: bytes of n longest codes + SLACK.

    Returns:
        Bits written, or `NO_CODE`.
    """
    n = np.uint64(len(symbols))
    word = np.uint64(0)
    filled = np.uint64(0)
    at = np.uint64(0)
    missing = np.uint64(0)
    for first in range(np.uint64(0), n, group):
        for i in range(first, min(first + group, n)):
            entry = np.uint64(codes[symbols[i]])
            length = entry & np.uint64(0xFF)
            missing |= length - np.uint64(1)
            word |= entry >> np.uint64(8) << filled
            filled += length
        store(out, at, word, word)
        at += filled >> np.uint64(3)
        # Two steps, for a shift by 64 is undefined.
        half = filled >> np.uint64(1) & np.uint64(0x3C)
        word = word >> half >> half
        filled &= np.uint64(7)
    return NO_CODE if missing >> np.uint64(63) else at * np.uint64(8) + filled


@njit(cache=True, nogil=True)
def _refill(data: NDArray[np.uint8], position: np.uint64) -> Any:
    """At least 56 bits of the stream from bit `position` on, under a one bit at the top."""
    return load64(data, position >> np.uint64(3)) >> (position & np.uint64(7)) | _TOP


@njit(cache=True, nogil=True)
def _rounds(data: NDArray[np.uint8], position: np.uint64, step: np.uint64) -> Any:
    """How many steps of at most `step` bits surely start and end where a whole word can be loaded."""
    last = np.uint64(8) * max(np.uint64(len(data)), np.uint64(8)) - np.uint64(64)
    return (max(last, position) - position) // step


@njit(cache=True, nogil=True)
def decode(
    data: NDArray[np.uint8], position: np.uint64, lookup: NDArray[np.uint32], out: NDArray[Any]
) -> np.uint64:
    """Read one stream, any code, with every access checked.

    Args:
        data: the bytes; zeros are read after them.
        position: first bit of the stream.
        lookup: symbol << 8 | code length for the next bits, shape (2**longest,).
        out: filled.

    Returns:
        The bit after the last code: after the end of `data` if they are too short.
    """
    mask = np.uint64(len(lookup) - 1)
    count = np.uint64(len(out))
    done = np.uint64(0)
    while done < count:
        rounds = min(_rounds(data, position, _LONGEST), count - done)
        for i in range(done, done + rounds):
            entry = lookup[_refill(data, position) & mask]
            out[i] = entry >> np.uint32(8)
            position += np.uint64(entry & np.uint32(0xFF))
        done += rounds
        if rounds == np.uint64(0):
            word = word_at(data, position >> np.uint64(3)) >> (position & np.uint64(7))
            entry = lookup[word & mask]
            out[done] = entry >> np.uint32(8)
            position += np.uint64(entry & np.uint32(0xFF))
            done += np.uint64(1)
    return position


@njit(cache=True, nogil=True)
def decode_singles(
    data: NDArray[np.uint8],
    positions: NDArray[np.uint64],
    lookup: NDArray[np.uint16],
    out: NDArray[np.uint8],
    places: NDArray[np.uint64],
    count: np.uint64,
) -> None:
    """Read four streams, one symbol per lookup, as far as whole words and groups of symbols go.

    Args:
        data: the bytes.
        positions: first bit of each stream, shape (4,); moved on.
        lookup: symbol << 8 | code length for the next bits, shape (2**longest,), longest at most SINGLE_BITS.
        out: the symbols of all streams.
        places: where in `out` each stream's symbols begin, shape (4,); moved on.
        count: symbols of the shortest stream.
    """
    mask = np.uint64(len(lookup) - 1)
    p0, p1, p2, p3 = positions
    q0, q1, q2, q3 = places
    o = np.uint64(0)
    while True:
        rounds = _rounds(data, max(p0, p1, p2, p3), np.uint64(_SINGLES * SINGLE_BITS))
        rounds = min(rounds, (count - o) // np.uint64(_SINGLES))
        if rounds == np.uint64(0):
            break
        for _ in range(rounds):
            w0, w1, w2, w3 = _refill(data, p0), _refill(data, p1), _refill(data, p2), _refill(data, p3)
            for _ in range(_SINGLES):
                e0 = lookup[w0 & mask]
                e1 = lookup[w1 & mask]
                e2 = lookup[w2 & mask]
                e3 = lookup[w3 & mask]
                out[q0 + o] = e0 >> np.uint16(8)
                out[q1 + o] = e1 >> np.uint16(8)
                out[q2 + o] = e2 >> np.uint16(8)
                out[q3 + o] = e3 >> np.uint16(8)
                w0 >>= np.uint64(e0) & np.uint64(63)
                w1 >>= np.uint64(e1) & np.uint64(63)
                w2 >>= np.uint64(e2) & np.uint64(63)
                w3 >>= np.uint64(e3) & np.uint64(63)
                o += np.uint64(1)
            p0 += leading_zeros(w0)
            p1 += leading_zeros(w1)
            p2 += leading_zeros(w2)
            p3 += leading_zeros(w3)
        positions[0], positions[1], positions[2], positions[3] = p0, p1, p2, p3
    places += o


@njit(cache=True, nogil=True)
def decode_runs(
    data: NDArray[np.uint8],
    positions: NDArray[np.uint64],
    runs: NDArray[Any],
    lookup: NDArray[np.uint32],
    out: NDArray[Any],
    places: NDArray[np.uint64],
    ends: NDArray[np.uint64],
) -> None:
    """Read four streams, up to three symbols per lookup, as far as whole words and groups of runs go.

    Args:
        data: the bytes.
        positions: first bit of each stream, shape (4,); moved on.
        runs: for the next RUN_BITS bits, from the lowest bit: 6 bits of length together, the symbols, and in
            the two top bits how many; uint32 where `out` is uint8, uint64 where it is uint16. 0 where the
            first code is longer than RUN_BITS.
        lookup: symbol << 8 | code length for the next bits, shape (2**longest,), for those codes.
        out: the symbols of all streams, uint8 or uint16.
        places: where in `out` each stream's symbols begin, shape (4,); moved on.
        ends: where in `out` they end, shape (4,). Nothing is written outside.
    """
    mask = np.uint64(len(runs) - 1)
    every = np.uint64(len(lookup) - 1)
    p0, p1, p2, p3 = positions
    o0, o1, o2, o3 = places
    while True:
        rounds = _rounds(data, max(p0, p1, p2, p3), _RUN_STEP_BITS)
        for i in range(4):
            # A store covers four symbols, whatever the run's length.
            left = ends[i] - places[i]
            rounds = min(rounds, (max(left, np.uint64(4)) - np.uint64(4)) // _RUN_STEP_SYMBOLS)
        if rounds == np.uint64(0):
            break
        for _ in range(rounds):
            w0, w1, w2, w3 = _refill(data, p0), _refill(data, p1), _refill(data, p2), _refill(data, p3)
            e0 = e1 = e2 = e3 = runs[0]
            for _ in range(_RUNS):
                e0 = runs[w0 & mask]
                e1 = runs[w1 & mask]
                e2 = runs[w2 & mask]
                e3 = runs[w3 & mask]
                store(out, o0, np.uint64(e0) >> np.uint64(6), e0)
                store(out, o1, np.uint64(e1) >> np.uint64(6), e1)
                store(out, o2, np.uint64(e2) >> np.uint64(6), e2)
                store(out, o3, np.uint64(e3) >> np.uint64(6), e3)
                w0 >>= np.uint64(e0) & np.uint64(63)
                w1 >>= np.uint64(e1) & np.uint64(63)
                w2 >>= np.uint64(e2) & np.uint64(63)
                w3 >>= np.uint64(e3) & np.uint64(63)
                o0 += top_bits(e0)
                o1 += top_bits(e1)
                o2 += top_bits(e2)
                o3 += top_bits(e3)
            p0 += leading_zeros(w0)
            p1 += leading_zeros(w1)
            p2 += leading_zeros(w2)
            p3 += leading_zeros(w3)
            # A stream that met a code longer than RUN_BITS stands still before it. A helper function here
            # would not be inlined, and cost two thirds of the speed.
            if top_bits(e0) == np.uint64(0):
                single = lookup[_refill(data, p0) & every]
                out[o0] = single >> np.uint32(8)
                o0 += np.uint64(1)
                p0 += np.uint64(single & np.uint32(0xFF))
            if top_bits(e1) == np.uint64(0):
                single = lookup[_refill(data, p1) & every]
                out[o1] = single >> np.uint32(8)
                o1 += np.uint64(1)
                p1 += np.uint64(single & np.uint32(0xFF))
            if top_bits(e2) == np.uint64(0):
                single = lookup[_refill(data, p2) & every]
                out[o2] = single >> np.uint32(8)
                o2 += np.uint64(1)
                p2 += np.uint64(single & np.uint32(0xFF))
            if top_bits(e3) == np.uint64(0):
                single = lookup[_refill(data, p3) & every]
                out[o3] = single >> np.uint32(8)
                o3 += np.uint64(1)
                p3 += np.uint64(single & np.uint32(0xFF))
        positions[0], positions[1], positions[2], positions[3] = p0, p1, p2, p3
        places[0], places[1], places[2], places[3] = o0, o1, o2, o3
