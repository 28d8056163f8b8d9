"""Canonical Huffman coding of symbols, in lanes that decode side by side.

Codes. Canonical (RFC 1951, section 3.2.2): shorter codes come first, of equal length those of smaller
symbols, counted upwards. A code is stored with its most significant bit first, into bytes that are filled
from their lowest bit; so a decoder can look up the next bits of a lane, taken as a number, in one table.

Layout. Where one symbol is the whole alphabet, or there is no symbol at all, nothing is stored. Under `SPLIT`
(16,384) symbols: one lane. From `SPLIT` on, if codes are short: six lanes of neighbouring symbols, the first
of the last ones, about equally long in bytes; before them how many symbols and how many bytes each but the
last has, as varints. Else eight, of which lane i holds the symbols i, i + 8, i + 16 and so on; before them
the bytes of each but the last. A lane is the codes of its symbols, the last symbol's first, and zero bits up
to the end of its last byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.code.bits import packed_size
from dwindle.code.lengths import WIDTH, check_lengths
from dwindle.errors import CorruptError
from dwindle.kernels import codes, huffman_decode, huffman_encode, huffman_tables, tables

SPLIT = codes.SPLIT
"""From this many symbols on there are several lanes."""

_LIKE = np.empty(0, np.uint16), np.empty(0, np.uint32)

WRONG = {
    huffman_decode.LENGTHS: "lanes that fit into their bytes",
    huffman_decode.ENDS: "the last code of each lane in its last byte",
    huffman_decode.PADDING: "zero bits after the last code",
}


@dataclass(frozen=True, eq=False)
class Table:
    """A prefix code ready for decoding; build it once for all streams that share it.

    Attributes:
        lookup: see `kernels.huffman_tables.fill_lookup`; empty where fewer than two symbols occur.
        runs: the table of `kernels.huffman_tables.fill_runs`; empty where codes are long, or one is longer
            than `kernels.codes.FOUR`.
        lanes: how many a long stream has.
        only: the symbol that is the whole alphabet, or None.
        highest: the largest symbol.
    """

    lookup: NDArray[np.uint16] | NDArray[np.uint32]
    runs: NDArray[np.uint64]
    lanes: int
    only: int | None
    highest: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of symbols as they are decoded: uint8 for alphabets of up to 256, else uint16."""
        return np.dtype(np.uint8 if self.lookup.itemsize == 2 else np.uint16)


def decode_table(lengths: NDArray[np.uint8]) -> Table:
    """Prepare decoding.

    Args:
        lengths: bits of each symbol's code, 0 for none, shape (alphabet,).

    Raises:
        ValueError: if they are not the lengths of a complete prefix code.
    """
    check_lengths(lengths)
    return _table(huffman_tables.make(lengths, _like(len(lengths))))


def read_table(data: bytes | memoryview, alphabet: int) -> tuple[Table, int]:
    """Read a table that `lengths.write_lengths` wrote, and prepare decoding.

    Args:
        data: bytes that begin with it.
        alphabet: number of symbols, 0 to 65,536.

    Returns:
        The table, and how many bytes it took.

    Raises:
        CorruptError: if the bytes end early or are not what `write_lengths` makes of any lengths.
    """
    stored = np.frombuffer(data, np.uint8)
    size, made = huffman_tables.read(stored, np.int64(alphabet), WIDTH, _like(alphabet))
    if size == tables.BROKEN:
        raise CorruptError("expected a table of the lengths of a complete prefix code, got something else")
    return _table(made), size


def _like(alphabet: int) -> NDArray[Any]:
    """An array of the dtype of a lookup."""
    return _LIKE[alphabet > 1 << 8]


def _table(made: tuple[int, int, int, NDArray[Any], NDArray[np.uint64]]) -> Table:
    count, highest, lanes, lookup, runs = made
    return Table(lookup, runs, lanes, highest if count == 1 else None, highest)


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
    if len(flat) and flat.max() >= len(lengths):
        raise ValueError(f"expected symbols that have a code, got {flat.max()} of {len(lengths)}")
    entries = np.empty(len(lengths), np.uint64)
    codes.codes_of(lengths, np.empty(16, np.uint64), entries)
    if np.count_nonzero(lengths) < 2:
        if not entries[flat].all():
            raise ValueError("expected symbols that have a code, got others")
        return b""
    longest, lanes = np.int64(lengths.max()), np.empty((2, 8), np.uint64)
    out = np.empty(packed_size(len(flat), int(longest)) + 8 + huffman_encode.SLACK, np.uint8)
    many, about = codes.lanes_of(lengths), np.uint64(huffman_encode.about_bits(flat, entries))
    number = int(huffman_encode.encode(flat, entries, longest, many, about, entries[:0], out, lanes))
    if not number:
        raise ValueError("expected symbols that have a code, got others")
    head = np.empty(huffman_encode.HEAD, np.uint8)
    head_size = int(huffman_encode.put_head(lanes, np.int64(number), head, np.uint64(0)))
    return head[:head_size].tobytes() + out[: int(lanes[1, :number].sum())].tobytes()


def decode(data: bytes | memoryview, lengths: NDArray[np.uint8] | Table, out: NDArray[Any]) -> None:
    """Read what `encode` wrote.

    Args:
        data: exactly the bytes of one `encode`.
        lengths: bits of each symbol's code, or the table made of them.
        out: uint8 or uint16, wide enough for every symbol of the table; filled, shape (n,).

    Raises:
        CorruptError: if the bytes are not n symbols in this code, no more and no less.
        ValueError: if the lengths are not those of a complete prefix code or the dtype is too narrow.
    """
    table = lengths if isinstance(lengths, Table) else decode_table(lengths)
    if out.dtype not in (np.uint8, np.uint16) or table.highest >> 8 * out.itemsize:
        raise ValueError(f"expected uint8 or uint16 for symbols up to {table.highest}, got {out.dtype}")
    if len(table.lookup) == 0:
        if len(data) or (len(out) and table.only is None):
            raise CorruptError(
                f"expected no bytes and no choice of symbol, got {len(data)} for {len(out)} symbols"
            )
        out[:] = table.only or 0
        return
    if len(out) > 8 * len(data):
        raise CorruptError(f"expected at most {8 * len(data)} symbols in {len(data)} bytes, got {len(out)}")
    place = out if out.dtype == table.dtype else np.empty(len(out), table.dtype)
    start, stop, lanes = np.uint64(0), np.uint64(len(data)), np.int64(table.lanes)
    stored = np.frombuffer(data, np.uint8)
    wrong = huffman_decode.decode(stored, start, stop, table.lookup, table.runs, lanes, place)
    if wrong:
        raise CorruptError(f"expected {WRONG[wrong]} of {len(out)} symbols, got others in {len(data)} bytes")
    if place is not out:
        out[:] = place
