"""Words to planes of bytes, piece by piece, each plane of a piece coded where that pays (see `planes`).

A sample tells what does not pay, and whether the code of a piece before will do: then the plane is not
counted, and a decoder needs no new tables.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels import codes, huffman_encode, lengths, planes, tables
from dwindle.kernels.count import LANES, count
from dwindle.kernels.planes import AGAIN, CODED, LIMIT, ONE, PIECE, SEVENS, STORED, WIDTH, Bytes
from dwindle.kernels.words import copy, leading_zeros, put_varint

_SAMPLE, _STRIPE = 4096, 64  # bytes of a plane that are looked at before all are, and how many at a time
_OFTENER, _THAN = 6, 5  # how much oftener than by chance two bytes are alike, where a code may pay
_GAIN = 32  # a code has to save one byte in so many
_WORSE = 200  # an old code is good enough if it takes at most one bit in so many more than a new one would
_BELOW, _ABOVE = 4, 1  # bytes beyond those that occur which are likely in later pieces
_PAIRS_FROM = 1 << 13  # bytes of a plane that are worth a table of pairs
_VARINT = 4  # most bytes of the size of a table or a stream
_NEXT = np.uint64(1)


class Work(NamedTuple):
    """Room that `encode` writes in.

    Attributes:
        planes: the bytes of a piece, shape (planes, PIECE).
        codes: lengths of the last code of each plane, shape (planes, 256).
        state: of each of them whether `entries` (1) and `pairs` (2) are of it, and how many bits in 2**-10 it
            took for each that there had to be, 0 where there was none, shape (planes, 2).
        new: lengths of a new one, shape (256,).
        table: its table.
        coded: a coded plane.
        entries: what `huffman_encode.encode` looks up, shape (256,).
        pairs: likewise of two, shape (2**16,); and which bytes have codes there, shape (256,).
        paired: see `pairs`.
        lanes: the lanes of a stream, and 16 numbers more, shape (2, 16).
        counts: how often each byte occurs, shape (256,), and before that in parts, shape (LANES, 256).
        parts: see `counts`.
        merged: what `lengths.code_lengths` needs, shape (5, 512).
        leaf: likewise, shape (lengths.LONGEST, 512).
    """

    planes: NDArray[np.uint8]
    codes: NDArray[np.uint8]
    state: NDArray[np.int64]
    new: NDArray[np.uint8]
    table: NDArray[np.uint8]
    coded: NDArray[np.uint8]
    entries: NDArray[np.uint64]
    pairs: NDArray[np.uint64]
    paired: NDArray[np.uint8]
    lanes: NDArray[np.uint64]
    counts: NDArray[np.int64]
    parts: NDArray[np.uint32]
    merged: NDArray[np.int64]
    leaf: NDArray[np.bool_]


def work(width: int) -> Work:
    """Room to encode words of `width` bytes."""
    return Work(
        np.empty((width, PIECE), np.uint8),
        np.empty((width, 256), np.uint8),
        np.empty((width, 2), np.int64),
        np.empty(256, np.uint8),
        np.empty(10 * 256 + tables.SLACK, np.uint8),
        np.empty(PIECE * LIMIT // 8 + 8 + huffman_encode.SLACK, np.uint8),
        np.empty(256, np.uint64),
        np.zeros(1 << 16, np.uint64),
        np.zeros(256, np.uint8),
        np.empty((2, 16), np.uint64),
        np.empty(256, np.int64),
        np.empty((LANES, 256), np.uint32),
        np.empty((5, 512), np.int64),
        np.empty((lengths.LONGEST, 512), np.bool_),
    )


def capacity(width: int, words: int) -> int:
    """Bytes that `encode` may need for so many words."""
    return width * (words + -(-words // PIECE)) + 8


@njit(cache=True, nogil=True)
def _sample(plane: Bytes, counts: NDArray[np.int64]) -> Any:
    """Count the bytes of a sample, shape (256,), all where they are few; how many they are."""
    counts[:] = 0
    n, stripes = len(plane), _SAMPLE // _STRIPE
    if n < _SAMPLE:
        for byte in plane:
            counts[byte] += 1
        return n
    for stripe in range(stripes):
        start = stripe * (n - _STRIPE) // (stripes - 1)
        for i in range(start, start + _STRIPE):
            counts[plane[np.uint64(i)]] += 1
    return _SAMPLE


@njit(cache=True, nogil=True)
def _alike(counts: NDArray[np.int64], total: np.int64, values: np.int64) -> Any:
    """Whether two of the bytes, that may have so many values, are alike so often that a code may pay."""
    pairs = np.int64(0)
    for times in counts:
        pairs += times * (times - 1)
    return values * pairs * _THAN > total * (total - 1) * _OFTENER


@njit(cache=True, nogil=True)
def _logarithm(number: np.int64) -> Any:
    """To base 2, in 2**-16; exact to a hundredth."""
    whole = np.int64(63) - np.int64(leading_zeros(np.uint64(number)))
    rest = (number << 16 >> whole) - 65536
    return (whole << 16) + rest + (rest * (65536 - rest) * 22544 >> 32)


@njit(cache=True, nogil=True)
def _entropy(counts: NDArray[np.int64], total: np.int64) -> Any:
    """The fewest bits that bytes of these counts can take, each by itself."""
    bits, most = np.int64(0), _logarithm(total)
    for times in counts:
        if times:
            bits += times * (most - _logarithm(times))
    return bits >> 16


@njit(cache=True, nogil=True)
def _coded_bits(counts: NDArray[np.int64], code: Bytes) -> Any:
    """Bits that bytes of these counts take in a code; a huge number where one of them has none."""
    bits = np.int64(0)
    for i in range(256):
        if counts[i] and not code[i]:
            return np.int64(1) << 40
        bits += counts[i] * np.int64(code[i])
    return bits


@njit(cache=True, nogil=True)
def _put_stream(
    plane: Bytes, number: int, bits: np.int64, most: np.int64, out: Bytes, at: np.uint64, w: Work
) -> Any:
    """Write a plane in its code.

    Args:
        plane: shape (n,).
        number: which of the piece's.
        bits: about how many it takes.
        most: bytes it may take.
        out: where it goes.
        at: from where on.
        w: room.

    Returns:
        The place after it; `at` where it takes more, or a byte has no code.
    """
    code = w.codes[number]
    many, longest, lanes = codes.lanes_of(code), np.int64(code.max()), w.lanes[:, :8]
    if w.state[number, 0] == 0:  # what is looked up is of another code
        w.state[:, 0] = 0
        codes.codes_of(code, w.lanes[1], w.entries)
        short = many == codes.SHORT_LANES and len(plane) >= _PAIRS_FROM
        w.state[number, 0] = 2 if short and codes.pairs_of(w.entries, w.pairs, w.paired) else 1
    pairs = w.pairs[: len(w.pairs) if w.state[number, 0] == 2 else 0]
    found = huffman_encode.encode(plane, w.entries, longest, many, np.uint64(bits), pairs, w.coded, lanes)
    if not found:
        return at
    coded, head = np.uint64(0), huffman_encode.put_head(lanes, found, w.table, np.uint64(0))
    for i in range(found):
        coded += lanes[1, i]
    if np.int64(head + coded) + _VARINT > most:
        return at
    at = copy(w.table, head, out, put_varint(head + coded, out, at))
    return copy(w.coded, coded, out, at)


@njit(cache=True, nogil=True)
def _new_code(follows: bool, w: Work) -> Any:
    """Make a code for the counts, and its table; the size of the table in bytes.

    Args:
        follows: whether it is for pieces to come too: then bytes get codes that are likely there.
        w: the code and its table go to `new` and `table`.
    """
    low, high = 256, 0
    for i in range(256):
        if w.counts[i]:
            low, high = min(low, i if i else 256), i
    for i in range(max(low - _BELOW, 0), min(high + _ABOVE, 255) + 1 if follows else 0):
        w.counts[i] = max(w.counts[i], 1)
    lengths.code_lengths(w.counts, np.int64(LIMIT), w.new, w.merged, w.leaf)
    used = np.int64(0)
    for length in w.new:
        used += np.int64(length > 0)
    w.table[:] = np.uint8(0)
    return tables.put(w.new, tables.equal_length(used), used - 1, np.int64(WIDTH), w.table)


@njit(cache=True, nogil=True)
def _put_new(
    plane: Bytes, number: int, least: np.int64, follows: bool, out: Bytes, at: np.uint64, w: Work
) -> Any:
    """Write a plane in a code of its own; the place after it, or `at` if that takes `least` bytes or more."""
    entropy = _entropy(w.counts, np.int64(len(plane)))
    if entropy >= 8 * least:
        return at
    size = np.int64(_new_code(follows, w))
    bits, most = _coded_bits(w.counts, w.new), least - least // _GAIN - size
    if bits >= 8 * most:
        return at
    w.codes[number] = w.new
    w.state[number, 0], w.state[number, 1] = 0, (bits << 10) // max(entropy, 1)
    out[at] = np.uint8(CODED)
    middle = copy(w.table, np.uint64(size), out, put_varint(np.uint64(size), out, at + _NEXT))
    end = _put_stream(plane, number, bits, most - _VARINT, out, middle, w)
    if end == middle:
        w.state[number, 1] = 0  # a decoder never sees this code
        return at
    return end


@njit(cache=True, nogil=True)
def _put_again(
    plane: Bytes, number: int, least: np.int64, total: np.int64, out: Bytes, at: np.uint64, w: Work
) -> Any:
    """Write a plane in the last code of its place.

    Returns:
        The place after it; `at` where a sample of `total` bytes says that the code is not good, or it takes
        `least` bytes or more.
    """
    if not w.state[number, 1]:
        return at
    bits, entropy = _coded_bits(w.counts, w.codes[number]), _entropy(w.counts, total)
    if bits << 10 > entropy * (w.state[number, 1] + (1 << 10) // _WORSE):
        return at
    out[at] = np.uint8(AGAIN)
    about = bits * len(plane) // total
    end = _put_stream(plane, number, about, least - least // _GAIN, out, at + _NEXT, w)
    return end if end != at + _NEXT else at


@njit(cache=True, nogil=True)
def _put_plane(
    plane: Bytes, number: int, lowest: np.int64, follows: bool, out: Bytes, at: np.uint64, w: Work
) -> Any:
    """Write a plane of a piece; the place after it.

    Args:
        plane: shape (n,).
        number: which of the piece's.
        lowest: the lowest bit of all bytes, or 2 where they differ or the bit may not be left out.
        follows: whether there are more pieces.
        out: where it goes.
        at: from where on.
        w: room.
    """
    n = np.int64(len(plane))
    least = n - n // 8 if lowest < 2 else n
    total = np.int64(_sample(plane, w.counts))
    if not number or n <= _SAMPLE or _alike(w.counts, total, np.int64(128 if lowest < 2 else 256)):
        end = _put_again(plane, number, least, total, out, at, w)
        if end != at:
            return end
        w.parts[:] = 0
        count(plane, w.parts)
        most = np.int64(0)
        for i in range(256):
            w.counts[i] = 0
            for part in range(LANES):
                w.counts[i] += np.int64(w.parts[part, i])
            most = max(most, w.counts[i])
        if most == n:
            out[at], out[at + _NEXT] = np.uint8(ONE), plane[0]
            return at + np.uint64(2)
        end = _put_new(plane, number, least, follows and number == 0, out, at, w)
        if end != at:
            return end
    if lowest < 2:
        out[at], out[at + _NEXT] = np.uint8(SEVENS), np.uint8(lowest)
        planes.pack_sevens(plane, out[at + np.uint64(2) :])
        return at + np.uint64(2 + least)
    out[at] = np.uint8(STORED)
    return copy(plane, np.uint64(n), out, at + _NEXT)


@njit(cache=True, nogil=True)
def encode(words: NDArray[Any], turn: np.uint64, out: Bytes, start: np.uint64, w: Work) -> Any:
    """Write words.

    Args:
        words: unsigned, shape (n,).
        turn: bits that each is turned left by, at most 2; if by 2, the lowest bit may be left out of the last
            plane.
        out: `capacity` bytes from `start` on.
        start: where in `out` to begin.
        w: what `work` made.

    Returns:
        The place after them.
    """
    at = start
    w.state[:] = 0
    for first in range(0, len(words), PIECE):
        piece = words[first : first + PIECE]
        lowest, width = planes.split(piece, turn, w.planes), len(w.planes)
        for number in range(width):
            known = lowest if turn == np.uint64(2) and number == width - 1 else np.int64(2)
            follows = first + PIECE < len(words)
            at = _put_plane(w.planes[number, : len(piece)], number, known, follows, out, at, w)
    return at
