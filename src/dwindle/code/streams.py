"""A stream of symbols: numbers of fixed width, or a Huffman or rANS code with its table."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dwindle.code import bits, huffman, lengths, rans
from dwindle.errors import CorruptError

Kind = Literal["huffman", "rans"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Their place in this tuple is their number in a file."""

MOST_CODED = 4096
"""Most symbols in use that get a code: over that the table costs more than the code saves."""

LONGEST, LONGEST_OF_MANY = 12, 14
"""Longest Huffman code of up to 512 symbols, and of more: so the decoder's tables stay in the cache, and four
codes fit into a word."""

Symbols = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, eq=False)
class Code:
    """A code as a file stores it; the table is read when it is first needed.

    Attributes:
        kind: which coder.
        alphabet: number of symbols, those that do not occur included, at most 65,536.
        table: what `lengths.write_lengths` or `rans.write_frequencies` made of it.
        shared: number of the file's table, if several tensors share it.
        known: what the table says, where it was made here: code lengths or weights, shape (alphabet,). Only
            such a code encodes.
    """

    kind: Kind
    alphabet: int
    table: bytes
    shared: int | None = None
    known: NDArray[np.uint8] | None = None

    @property
    def decoder(self) -> huffman.Table | rans.Table:
        """The table ready for decoding.

        Raises:
            CorruptError: if the stored bytes are no table of this kind.
        """
        return _decoder(self)


def index_bits(entries: int) -> int:
    """Bits of a fixed-width index into a codebook."""
    return max(entries - 1, 0).bit_length()


def huffman_code(counts: NDArray[np.int64], shared: int | None = None) -> Code:
    """The Huffman code for symbols that occur this often, shape (alphabet,)."""
    limit = LONGEST if np.count_nonzero(counts) <= 512 else LONGEST_OF_MANY
    found = lengths.code_lengths(counts, limit)
    return Code("huffman", len(counts), lengths.write_lengths(found), shared, found)


def rans_code(counts: NDArray[np.int64]) -> Code:
    """The rANS code for symbols that occur this often, shape (alphabet,)."""
    found = rans.frequencies(counts)
    return Code("rans", len(counts), rans.write_frequencies(found), None, found)


def coded_bits(counts: NDArray[np.int64], code: Code) -> int:
    """Bits of a stream whose symbols occur this often, without its table."""
    numbers = _numbers(code)
    if np.count_nonzero(numbers) < 2:
        return 0
    if code.kind == "huffman":
        return int(np.dot(counts, numbers[: len(counts)].astype(np.int64)))
    return rans.coded_bits(counts, numbers)


def shortest(counts: NDArray[np.int64], width: int, kinds: Collection[Kind]) -> tuple[Code | None, int]:
    """The shortest way to store symbols that occur this often, and its bits with the table.

    Args:
        counts: shape (alphabet,).
        width: bits of a number of fixed width, which is what None stands for.
        kinds: which codes may be used; of equals the first wins, fixed width before all.
    """
    code, best = None, int(counts.sum()) * width
    if not 0 < np.count_nonzero(counts) <= MOST_CODED:
        return None, best
    for kind in kinds:
        made = huffman_code(counts) if kind == "huffman" else rans_code(counts)
        size = coded_bits(counts, made) + 8 * len(made.table)
        if size < best:
            code, best = made, size
    return code, best


def encode(symbols: Symbols, code: Code | None, width: int) -> bytes:
    """The bytes of a stream, its table not included.

    Raises:
        ValueError: if a symbol has no code or does not fit the width, or the code is one out of a file.
    """
    if code is None:
        return bits.pack(symbols, width)
    numbers = _numbers(code)
    return huffman.encode(symbols, numbers) if code.kind == "huffman" else rans.encode(symbols, numbers)


def decode(data: memoryview, code: Code | None, width: int, out: Symbols) -> None:
    """Read what `encode` wrote: exactly `data`, into `out`, shape (n,).

    Raises:
        CorruptError: if the bytes are not n symbols that fit into the dtype of `out`.
    """
    if code is None:
        out[:] = bits.unpack(data, len(out), width, out.dtype)
        return
    table = code.decoder
    # A code shared with larger alphabets may hold symbols that do not fit the dtype.
    place = np.empty(len(out), np.uint16) if table.highest >> 8 * out.itemsize else out
    if isinstance(table, huffman.Table):
        huffman.decode(data, table, place)
    else:
        rans.decode(data, table, place)
    if place is not out:
        if len(place) and int(place.max()) >> 8 * out.itemsize:
            raise CorruptError(f"expected symbols that fit into {out.dtype}, got {place.max()}")
        out[:] = place


def _numbers(code: Code) -> NDArray[np.uint8]:
    """The code lengths or weights of a code that was made here, shape (alphabet,)."""
    if code.known is None:
        raise ValueError("expected a code that was made here, got one out of a file")
    return code.known


# Bounded: a table takes up to 128 KB of memory and more, its description in a file a few bytes.
@lru_cache(maxsize=64)
def _decoder(code: Code) -> huffman.Table | rans.Table:
    if code.known is not None:
        known = code.known
        return huffman.decode_table(known) if code.kind == "huffman" else rans.decode_table(known)
    read = huffman.read_table if code.kind == "huffman" else rans.read_table
    table, end = read(code.table, code.alphabet)
    if end != len(code.table):
        raise CorruptError(f"expected a code table of {end} bytes, got {len(code.table)}")
    return table
