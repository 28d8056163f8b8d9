"""Symbols to lanes of prefix codes, written from the lowest bit of each byte on, the last symbol first.

An entry of the encoder's table has a code in its top bits, so that putting it to those before is a shift and
an or; what it has in its low bits falls out below before the word is stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels.codes import KNOWN, LONG_LANES, SHORT_LANES, SPLIT
from dwindle.kernels.words import load64, put_varint, store

SLACK = 8
"""Bytes `encode` needs after the last one that holds a code, since it writes whole words."""

HEAD = 16 * 9
"""Most bytes before the lanes of a stream."""

_NEVER = np.uint64(1 << 62)  # a size that no lane reaches
_GATHERED = 12  # longest code of which four are gathered between stores, after up to seven bits that wait
_SAMPLE = np.uint64(5)
_LOW, _LOW16, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(0xFFFF), np.uint64(63)
_ONE, _THREE, _FOUR, _EIGHT = np.uint64(1), np.uint64(3), np.uint64(4), np.uint64(8)


@njit(cache=True, nogil=True, forceinline=True)
def _joined(first: np.uint64, second: np.uint64) -> Any:
    """Two codes in the top bits as one."""
    return first >> (second & _SHIFT) | second


@njit(cache=True, nogil=True, forceinline=True)
def _flush(word: np.uint64, filled: np.uint64, out: NDArray[np.uint8], at: np.uint64) -> Any:
    """Store a word; where the next one goes, and how many bits of the byte there are taken."""
    store(out, at, word >> (np.uint64(0) - filled & _SHIFT), word)
    return at + (filled >> _THREE & np.uint64(7)), filled & np.uint64(7)


@njit(cache=True, nogil=True, forceinline=True)
def _encode_lane(
    symbols: NDArray[Any],
    end: np.uint64,
    step: np.uint64,
    count: np.uint64,
    codes: NDArray[np.uint64],
    four: Any,
    out: NDArray[np.uint8],
    start: np.uint64,
    full: np.uint64,
) -> Any:
    """Write codes of every `step`-th symbol before `end`, until there are `count`, or about `full` bytes.

    Returns:
        How many there are, where in `out` they end, and whether every symbol had a code.
    """
    i, left, at, full = end, count, start, start + full
    word, filled, total = np.uint64(0), np.uint64(0), np.uint64(0)
    while four and left >= _FOUR and at < full:
        i -= _FOUR * step
        a, b = codes[symbols[i + _THREE * step]], codes[symbols[i + np.uint64(2) * step]]
        c, d = codes[symbols[i + step]], codes[symbols[i]]
        # In pairs, so that there is less to wait for than if each code was put to those before.
        later = c + d
        joined = _joined(a, b) >> (later & _SHIFT) | _joined(c, d)
        bits = a + b + later
        word, filled, total = word >> (bits & _SHIFT) | joined, filled + bits, total + bits
        at, filled = _flush(word, filled, out, at)
        left -= _FOUR
    while left and at < full:
        i -= step
        entry = codes[symbols[i]]
        word, filled, total = _joined(word, entry), filled + entry, total + entry
        at, filled = _flush(word, filled, out, at)
        left -= _ONE
    # The low halves of entries add up to the bits of all codes, and to KNOWN for each.
    known = (total - _EIGHT * (at - start) - filled - KNOWN * (count - left)) & _LOW == np.uint64(0)
    if filled:
        store(out, at, word >> (np.uint64(0) - filled & _SHIFT), word)
        at += _ONE
    return count - left, at, known


@njit(cache=True, nogil=True)
def _encode_near(
    symbols: NDArray[Any],
    end: np.uint64,
    count: np.uint64,
    codes: NDArray[np.uint64],
    four: Any,
    out: NDArray[np.uint8],
    at: np.uint64,
    full: np.uint64,
) -> Any:
    # The compiler makes a quick loop of a step that it knows.
    return _encode_lane(symbols, end, _ONE, count, codes, four, out, at, full)


@njit(cache=True, nogil=True)
def _encode_pairs(
    symbols: NDArray[Any],
    end: np.uint64,
    codes: NDArray[np.uint64],
    pairs: NDArray[np.uint64],
    out: NDArray[np.uint8],
    start: np.uint64,
    full: np.uint64,
) -> Any:
    """As `_encode_lane` does of all symbols before `end`, two bytes at a time."""
    i, at, full = end, start, start + full
    word, filled, total = np.uint64(0), np.uint64(0), np.uint64(0)
    while i >= _EIGHT and at < full:
        i -= _EIGHT
        eight = load64(symbols, i)
        a, b = pairs[eight >> np.uint64(48)], pairs[eight >> np.uint64(32) & _LOW16]
        c, d = pairs[eight >> np.uint64(16) & _LOW16], pairs[eight & _LOW16]
        bits = a + b
        word, filled, total = word >> (bits & _SHIFT) | _joined(a, b), filled + bits, total + bits
        at, filled = _flush(word, filled, out, at)
        bits = c + d
        word, filled, total = word >> (bits & _SHIFT) | _joined(c, d), filled + bits, total + bits
        at, filled = _flush(word, filled, out, at)
    while i and at < full:
        i -= _ONE
        entry = codes[symbols[i]]
        word, filled, total = _joined(word, entry), filled + entry, total + entry
        at, filled = _flush(word, filled, out, at)
    known = (total - _EIGHT * (at - start) - filled - KNOWN * (end - i)) & _LOW == np.uint64(0)
    if filled:
        store(out, at, word >> (np.uint64(0) - filled & _SHIFT), word)
        at += _ONE
    return end - i, at, known


@njit(cache=True, nogil=True)
def _encode_far(
    symbols: NDArray[Any],
    end: np.uint64,
    count: np.uint64,
    codes: NDArray[np.uint64],
    four: Any,
    out: NDArray[np.uint8],
    at: np.uint64,
) -> Any:
    return _encode_lane(symbols, end, _EIGHT, count, codes, four, out, at, _NEVER)


@njit(cache=True, nogil=True)
def about_bits(symbols: NDArray[Any], codes: NDArray[np.uint64]) -> Any:
    """About how many bits a stream takes, from the codes of every fifth symbol."""
    bits = np.uint64(0)
    for i in range(np.uint64(0), np.uint64(len(symbols)), _SAMPLE):
        bits += codes[symbols[i]] & _SHIFT
    return bits * _SAMPLE


@njit(cache=True, nogil=True)
def encode(
    symbols: NDArray[Any],
    codes: NDArray[np.uint64],
    longest: np.int64,
    many: np.int64,
    bits: np.uint64,
    pairs: NDArray[np.uint64],
    out: NDArray[np.uint8],
    lanes: NDArray[np.uint64],
) -> Any:
    """Write the lanes of a stream one after the other.

    Args:
        symbols: uint8 or uint16, shape (n,).
        codes: what `codes.codes_of` made, longer than the highest symbol.
        longest: bits of the longest code.
        many: lanes, if the stream is long: what `codes.lanes_of` says.
        bits: about how many all codes have together.
        pairs: what `codes.pairs_of` made of bytes, or nothing.
        out: bytes of n longest codes, of a byte for each lane, and SLACK.
        lanes: shape (2, 8); set to how many symbols each lane has and how many bytes it takes.

    Returns:
        How many lanes there are, or 0 where a symbol has no code.
    """
    n, four = np.uint64(len(symbols)), longest <= _GATHERED
    number = _ONE if n < np.uint64(SPLIT) else np.uint64(many)
    at, left, known = np.uint64(0), n, True
    for i in range(number):
        if number == np.uint64(LONG_LANES):
            count = (n - i + number - _ONE) // number
            lanes[0, i], stop, every = _encode_far(symbols, i + number * count, count, codes, four, out, at)
        else:
            # Lanes of as many bytes, so that they are decoded in about as many steps.
            full = _NEVER if i == number - _ONE else bits // (_EIGHT * number)
            if len(pairs):
                lanes[0, i], stop, every = _encode_pairs(symbols, left, codes, pairs, out, at, full)
            else:
                lanes[0, i], stop, every = _encode_near(symbols, left, left, codes, four, out, at, full)
            left -= lanes[0, i]
        lanes[1, i], at = stop - at, stop
        known = known and every
    return np.int64(number) if known else np.int64(0)


@njit(cache=True, nogil=True)
def put_head(lanes: NDArray[np.uint64], many: np.int64, out: NDArray[np.uint8], at: np.uint64) -> Any:
    """Write what goes before the lanes that `encode` made, at most HEAD bytes; the place after it."""
    for i in range(np.uint64(many - 1)):
        if many == SHORT_LANES:
            at = put_varint(lanes[0, i], out, at)
        at = put_varint(lanes[1, i], out, at)
    return at
