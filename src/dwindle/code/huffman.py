"""Canonical Huffman coding of symbols, in streams that decode side by side.

Codes. Canonical (RFC 1951, section 3.2.2): shorter codes come first, of equal length those of smaller
symbols, counted upwards. A code is stored with its most significant bit first, into
bytes that are filled from their lowest bit; so a decoder can look up the next bits of the stream, taken as a
number, in one table.

Layout. Where one symbol is the whole alphabet, or there is no symbol at all, nothing is stored. Under
`SPLIT` (16,384) symbols: one stream. From `SPLIT` on: the byte lengths of the first three streams as varints,
then four streams; with q = ceil(count / 4), stream i holds the symbols i * q up to min((i + 1) * q, count).
A stream is its codes one after the other, the last byte filled up with zero bits; its length is the fewest
bytes that hold it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dwindle.code.bits import packed_size
from dwindle.code.cursor import Cursor, varint
from dwindle.code.lengths import check_lengths
from dwindle.errors import CorruptError
from dwindle.kernels import huffman as kernels

SPLIT = 1 << 14
"""From this many symbols on there are four streams."""

SHORT_RUN = 1.25
"""Mean symbols of a run under which one symbol is looked up at a time. Single lookups were measured faster at
1.0 and 1.1, runs at 1.9 and more; in between it is a guess."""


@dataclass(frozen=True, eq=False)
class Table:
    """A prefix code ready for decoding; build it once for all streams that share it.

    Attributes:
        lookup: for every possible value of the next bits, symbol << 8 | code length, shape (2**longest,);
            empty where fewer than two symbols occur.
        only: the symbol that is the whole alphabet, or None.
        highest: the largest symbol.
    """

    lookup: NDArray[np.uint32]
    only: int | None
    highest: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The narrower dtype that holds every symbol."""
        return np.dtype(np.uint8 if self.highest <= 0xFF else np.uint16)

    @cached_property
    def runs(self) -> NDArray[np.uint32] | NDArray[np.uint64]:
        """The table `kernels.decode_runs` takes."""
        wide = np.uint64(8 * self.dtype.itemsize)
        ahead = np.arange(1 << kernels.RUN_BITS)
        used, length, runs = np.zeros_like(ahead), np.zeros_like(ahead), np.zeros(len(ahead), np.uint64)
        whole = np.ones(len(ahead), np.bool_)
        for i in range(kernels.RUN_SYMBOLS):
            entry = self.lookup[(ahead >> used) & (len(self.lookup) - 1)]
            bits = (entry & 0xFF).astype(np.int64)
            whole &= used + bits <= kernels.RUN_BITS
            symbol = (entry >> 8).astype(np.uint64) << (np.uint64(6) + np.uint64(i) * wide)
            runs |= np.where(whole, symbol, np.uint64(0))
            used += np.where(whole, bits, 0)
            length += whole
        runs |= used.astype(np.uint64)
        if self.dtype == np.uint16:
            return runs | length.astype(np.uint64) << np.uint64(62)
        return (runs | length.astype(np.uint64) << np.uint64(30)).astype(np.uint32)

    @cached_property
    def singles(self) -> NDArray[np.uint16] | None:
        """The table `kernels.decode_singles` takes, where that is the faster kernel; else None."""
        fits = len(self.lookup) <= 1 << kernels.SINGLE_BITS and self.dtype == np.uint8
        if fits and (self.runs >> 30).mean() < SHORT_RUN:
            return self.lookup.astype(np.uint16)
        return None


def decode_table(lengths: NDArray[np.uint8]) -> Table:
    """Prepare decoding.

    Args:
        lengths: bits of each symbol's code, 0 for none, shape (alphabet,).

    Raises:
        ValueError: if they are not the lengths of a complete prefix code.
    """
    check_lengths(lengths)
    present = np.flatnonzero(lengths)
    highest = int(present[-1]) if len(present) else 0
    if len(present) < 2:
        only = highest if len(present) else None
        return Table(np.zeros(0, np.uint32), only, highest)
    longest = int(lengths.max())
    order = present[np.argsort(lengths[present], kind="stable")]
    # Canonical codes padded to the longest one count upwards without a gap: the table in code order.
    entries = order.astype(np.uint32) << np.uint32(8) | lengths[order]
    by_code = np.repeat(entries, 1 << (longest - lengths[order].astype(np.int64)))
    return Table(by_code[_reversed_bits(np.arange(1 << longest), longest)], None, highest)


def encode(symbols: NDArray[np.uint8] | NDArray[np.uint16], lengths: NDArray[np.uint8]) -> bytes:
    """Code symbols.

    Args:
        symbols: uint8 or uint16, shape (n,).
        lengths: bits of each symbol's code, shape (alphabet,).

    Returns:
        The layout above.

    Raises:
        ValueError: if a symbol has no code, or the lengths are not those of a complete prefix code.
    """
    if symbols.ndim != 1 or symbols.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected 1-D uint8 or uint16 symbols, got {symbols.ndim}-D {symbols.dtype}")
    check_lengths(lengths)
    flat = np.ascontiguousarray(symbols)
    codes = _codes(lengths, 1 << 8 * flat.itemsize)
    if np.count_nonzero(lengths) < 2:
        if not codes[flat].all():
            raise ValueError("expected symbols that have a code, got others")
        return b""
    longest = int(lengths.max())
    streams = []
    for first, last in _parts(len(flat)):
        out = np.empty(packed_size(last - first, longest) + kernels.SLACK, np.uint8)
        bits = int(kernels.encode(flat[first:last], codes, np.uint64(57 // longest), out))
        if bits == int(kernels.NO_CODE):
            raise ValueError("expected symbols that have a code, got others")
        streams.append(out[: (bits + 7) // 8].tobytes())
    return b"".join([varint(len(stream)) for stream in streams[:-1]] + streams)


def decode(
    data: bytes | memoryview, count: int, lengths: NDArray[np.uint8] | Table, dtype: DTypeLike
) -> NDArray[Any]:
    """Read what `encode` wrote.

    Args:
        data: exactly the bytes of one `encode`.
        count: number of symbols.
        lengths: bits of each symbol's code, or the table made of them.
        dtype: np.uint8 or np.uint16, wide enough for every symbol of the table.

    Returns:
        Symbols, shape (count,).

    Raises:
        CorruptError: if the bytes are not `count` symbols in this code, no more and no less.
        ValueError: if the lengths are not those of a complete prefix code or the dtype is too narrow.
    """
    table = lengths if isinstance(lengths, Table) else decode_table(lengths)
    target = np.dtype(dtype)
    if target not in (np.uint8, np.uint16) or table.highest >> 8 * target.itemsize:
        raise ValueError(f"expected uint8 or uint16 for symbols up to {table.highest}, got {target}")
    if len(table.lookup) == 0:
        if len(data) or (count and table.only is None):
            raise CorruptError(
                f"expected no bytes and no choice of symbol, got {len(data)} for {count} symbols"
            )
        return np.full(count, table.only or 0, target)
    parts, bounds = _streams(data, count)
    if count > 8 * len(data):
        raise CorruptError(f"expected at most {8 * len(data)} symbols in {len(data)} bytes, got {count}")
    buffer = np.frombuffer(data, np.uint8)
    out = np.empty(count, table.dtype)
    positions = np.array([8 * first for first, _ in bounds], np.uint64)
    places = np.array([first for first, _ in parts], np.uint64)
    ends = [last for _, last in parts]
    if len(parts) == 4:
        if table.singles is not None:
            shortest = np.uint64(ends[3] - int(places[3]))
            kernels.decode_singles(buffer, positions, table.singles, out, places, shortest)
        else:
            last = np.array(ends, np.uint64)
            kernels.decode_runs(buffer, positions, table.runs, table.lookup, out, places, last)
    for position, place, end, (_, last_byte) in zip(positions, places, ends, bounds, strict=True):
        stop = int(kernels.decode(buffer, position, table.lookup, out[int(place) : end]))
        _check_end(data, stop, last_byte)
    return out.astype(target, copy=False)


def _streams(data: bytes | memoryview, count: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Which symbols each stream holds, and which bytes hold it."""
    parts = _parts(count)
    cursor = Cursor(memoryview(data))
    sizes = [cursor.varint(len(data), "the length of a stream") for _ in parts[1:]]
    starts = list(accumulate(sizes, initial=cursor.offset))
    if starts[-1] > len(data):
        raise CorruptError(f"expected streams of at most {len(data)} bytes together, got {starts[-1]}")
    return parts, list(zip(starts, [*starts[1:], len(data)], strict=True))


def _check_end(data: bytes | memoryview, position: int, end: int) -> None:
    """Refuse a stream whose last code does not end in its last byte, or that sets a bit after it."""
    if (position + 7) // 8 != end:
        raise CorruptError(f"expected the last code in byte {end}, got it in byte {(position + 7) // 8}")
    if position % 8 and data[end - 1] >> position % 8:
        raise CorruptError("expected zero bits after the last code, got others")


def _parts(count: int) -> list[tuple[int, int]]:
    """Which symbols go to which stream."""
    if count < SPLIT:
        return [(0, count)]
    quarter = -(-count // 4)
    return [(i * quarter, min((i + 1) * quarter, count)) for i in range(4)]


def _codes(lengths: NDArray[np.uint8], size: int) -> NDArray[np.uint32]:
    """Bit-reversed code << 8 | length of every symbol, 0 for none, shape (size,)."""
    present = np.flatnonzero(lengths)
    order = present[np.argsort(lengths[present], kind="stable")]
    longest = int(lengths.max(initial=0))
    spans = 1 << (longest - lengths[order].astype(np.int64))
    # Codes padded to the longest one begin where the spans of those before end; their low bits are zero,
    # so that reversing all bits leaves the code itself reversed.
    starts = np.cumsum(spans) - spans
    codes = np.zeros(max(size, len(lengths)), np.uint32)
    codes[order] = _reversed_bits(starts, longest) << np.uint32(8) | lengths[order]
    return codes


def _reversed_bits(values: NDArray[np.int64], width: int) -> NDArray[np.uint32]:
    """The low `width` bits of each value in opposite order."""
    result = np.zeros(len(values), np.uint32)
    for bit in range(width):
        result |= (values >> bit & 1).astype(np.uint32) << np.uint32(width - 1 - bit)
    return result
