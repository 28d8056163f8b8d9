"""Planes of bytes to words, piece by piece (see `planes`). Bytes that are no planes are refused."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels import codes, huffman_decode, huffman_tables, lengths, planes, tables
from dwindle.kernels.planes import AGAIN, CODED, LIMIT, ONE, PIECE, SEVENS, STORED, WIDTH, Bytes
from dwindle.kernels.words import BROKEN, varint_at

_NEXT = np.uint64(1)


class Room(NamedTuple):
    """Room that `decode` writes in.

    Attributes:
        planes: the bytes of a piece, shape (planes, PIECE).
        lookups: the tables of single symbols of the last code of each plane, shape (planes, 2**LIMIT).
        runs: those of runs of LIMIT bits, shape (planes, 2**(LIMIT + 1)).
        whole: what `huffman_tables.fill_runs` needs, shape (2**LIMIT,).
        ordered: the codes in order, shape (256,).
        codes: the bits of the longest code of each plane, 0 where there was none, and its lanes, shape
            (planes, 2).
        lengths: of a code, shape (256,).
        places: what `huffman_tables.in_order` needs, shape (16,).
    """

    planes: NDArray[np.uint8]
    lookups: NDArray[np.uint16]
    runs: NDArray[np.uint64]
    whole: NDArray[np.uint16]
    ordered: NDArray[np.uint64]
    codes: NDArray[np.int64]
    lengths: NDArray[np.uint8]
    places: NDArray[np.uint64]


def room(width: int) -> Room:
    """Room to decode words of `width` bytes."""
    return Room(
        np.empty((width, PIECE), np.uint8),
        np.empty((width, 1 << LIMIT), np.uint16),
        np.empty((width, 2 << LIMIT), np.uint64),
        np.empty(1 << LIMIT, np.uint16),
        np.empty(256, np.uint64),
        np.zeros((width, 2), np.int64),
        np.empty(256, np.uint8),
        np.empty(16, np.uint64),
    )


@njit(cache=True, nogil=True)
def _read_code(data: Bytes, at: np.uint64, stop: np.uint64, number: np.int64, r: Room) -> Any:
    """Make the tables of a code; the place after it, or BROKEN."""
    size, at = varint_at(data, at, stop)
    if size > stop - at:
        return BROKEN
    longest = np.int64(lengths.LONGEST)
    found = tables.get(data[at : at + size], r.lengths, longest, True, np.int64(WIDTH))
    most = np.int64(r.lengths.max())
    if found != np.int64(size) or most > LIMIT:
        return BROKEN
    ordered = r.ordered[: huffman_tables.in_order(r.lengths, r.places, r.ordered)]
    if len(ordered) < 2:
        return BROKEN
    many = codes.lanes_of(r.lengths)
    r.codes[number, 0], r.codes[number, 1] = most, many
    huffman_tables.fill_lookup(ordered, r.lookups[number, : 1 << most])
    if many == codes.SHORT_LANES:
        bits = np.uint64(LIMIT)
        huffman_tables.fill_runs(ordered, np.uint64(8), bits, r.runs[number], r.whole, r.places)
    return at + size


@njit(cache=True, nogil=True)
def _get_plane(data: Bytes, at: np.uint64, stop: np.uint64, number: np.int64, n: int, r: Room) -> Any:
    """A plane of a piece, and the place after it, or BROKEN."""
    plane = r.planes[number, :n]
    if at >= stop:
        return plane, BROKEN
    kind, at, size = data[at], at + _NEXT, np.uint64(n)
    if kind == STORED:
        return (data[at : at + size], at + size) if size <= stop - at else (plane, BROKEN)
    if kind in (ONE, SEVENS):
        if at >= stop:
            return plane, BROKEN
        byte, at = data[at], at + _NEXT
        if kind == ONE:
            plane[:] = byte
            return plane, at
        size -= size >> np.uint64(3)
        if byte > np.uint8(1) or size > stop - at:
            return plane, BROKEN
        planes.unpack_sevens(data[at : at + size], byte, plane)
        return plane, at + size
    if kind == CODED:
        at = _read_code(data, at, stop, number, r)
    longest, many = r.codes[number, 0], r.codes[number, 1]
    if kind not in (CODED, AGAIN) or at == BROKEN or not longest:
        return plane, BROKEN
    size, at = varint_at(data, at, stop)
    if size > stop - at:
        return plane, BROKEN
    runs = r.runs[number, 1 << LIMIT : (2 if many == codes.SHORT_LANES else 1) << LIMIT]
    lookup = r.lookups[number, : 1 << longest]
    wrong = huffman_decode.decode(data, at, at + size, lookup, runs, many, plane)
    return plane, BROKEN if wrong else at + size


@njit(cache=True, nogil=True)
def decode(
    data: Bytes, start: np.uint64, turn: np.uint64, words: NDArray[Any], r: Room, sizes: NDArray[np.uint64]
) -> Any:
    """Read what `encode` wrote.

    Args:
        data: bytes that hold it from `start` on.
        start: where it begins.
        turn: as in `encode`.
        words: shape (n,), filled.
        r: what `room` made.
        sizes: set to the bytes that the first planes took, and the others, shape (2,).

    Returns:
        The place after it, or BROKEN.
    """
    at, stop, width = start, np.uint64(len(data)), len(r.planes)
    sizes[:], r.codes[:] = np.uint64(0), 0
    for first in range(0, len(words), PIECE):
        piece = words[first : first + PIECE]
        n, before = len(piece), at
        a, at = _get_plane(data, at, stop, np.int64(0), n, r)
        b = c = d = e = f = g = h = a
        sizes[0] += at - before
        before = at
        if width > 1 and at != BROKEN:
            b, at = _get_plane(data, at, stop, np.int64(1), n, r)
        if width > 2 and at != BROKEN:
            c, at = _get_plane(data, at, stop, np.int64(2), n, r)
        if width > 3 and at != BROKEN:
            d, at = _get_plane(data, at, stop, np.int64(3), n, r)
        if width > 4 and at != BROKEN:
            e, at = _get_plane(data, at, stop, np.int64(4), n, r)
        if width > 5 and at != BROKEN:
            f, at = _get_plane(data, at, stop, np.int64(5), n, r)
        if width > 6 and at != BROKEN:
            g, at = _get_plane(data, at, stop, np.int64(6), n, r)
        if width > 7 and at != BROKEN:
            h, at = _get_plane(data, at, stop, np.int64(7), n, r)
        if at == BROKEN:
            return BROKEN
        sizes[1] += at - before
        planes.merge(a, b, c, d, e, f, g, h, turn, piece)
    return at
