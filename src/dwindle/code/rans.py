"""rANS: a static code within a hair of the entropy, by look-up, in lanes that decode side by side.

Table. Every symbol has a weight: 0 if it does not occur, else w = 1 + 8 s + m, 0 <= m < 8, for a share in
proportion to (8 + m) << s. So shares are told to within 1/16, which costs 0.001 bits a symbol. Slots, 2**bits
of them, are given out by share, rounded, at least one each; the first of those with most gets what is left,
or shares count for a little less where there would be too many. `bits` is 12 for up to 256 symbols that
occur, 14 for more.

Layout. Where fewer than two symbols occur, nothing. Under `SPLIT` (16,384) symbols: one lane, in one run of
bits. From there on eight, of which lane i has the symbols i, i + 8, i + 16 and so on: the size of a run of
bits of the lanes 0 to 3 as a varint, the run, and one of the lanes 4 to 7. Symbols are coded so that the last
is read first (`kernels.rans`). A run begins with a one bit, above zeros that fill its first byte, and the
places of its lanes, `bits` bits each; all lanes end at place 0, where the writer began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.code.bits import packed_size
from dwindle.code.cursor import varint
from dwindle.errors import CorruptError
from dwindle.kernels import frequencies as tables
from dwindle.kernels import rans as kernels
from dwindle.kernels import tables as numbers

SPLIT = kernels.SPLIT
"""From this many symbols on there are eight lanes."""

MOST = tables.MOST
"""Most symbols that may occur."""

_LIKE = (
    (np.empty(0, np.uint8), np.empty(0, np.uint32)),
    (np.empty(0, np.uint16), np.empty(0, np.uint64)),
)

WRONG = {
    kernels.LENGTHS: "two runs that fit into their bytes",
    kernels.STATES: "runs that end where the writer began",
}

LARGEST = np.int64(tables.LARGEST)
"""Largest weight, from which the first one's difference is taken."""

WIDTH = np.int64(3)
"""Bits of a table's Rice parameter."""

Weights = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Table:
    """A code ready for decoding; build it once for all streams that share it.

    Attributes:
        table: see `kernels.frequencies.fill_table`; empty where fewer than two symbols occur.
        bits: logarithm of the number of slots.
        only: the symbol that is the whole alphabet, or None.
        highest: the largest symbol.
    """

    table: NDArray[np.uint32] | NDArray[np.uint64]
    bits: int
    only: int | None
    highest: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of symbols as they are decoded: uint8 for alphabets of up to 256, else uint16."""
        return np.dtype(np.uint8 if self.table.itemsize == 4 else np.uint16)


def frequencies(counts: NDArray[np.int64]) -> Weights:
    """The weight of each symbol, shape (alphabet,).

    Raises:
        ValueError: if more than `MOST` symbols occur.
    """
    if np.count_nonzero(counts) > MOST:
        raise ValueError(f"expected at most {MOST} symbols in use, got {np.count_nonzero(counts)}")
    weights = np.zeros(len(counts), np.uint8)
    if len(counts):
        tables.weigh(np.ascontiguousarray(counts), weights)
    return weights


def slot_counts(weights: Weights) -> tuple[NDArray[np.int64], int]:
    """How many slots each symbol has, shape (alphabet,), and the logarithm of their number."""
    used = int(np.count_nonzero(weights))
    bits = tables.FEW_BITS if used <= tables.FEW else tables.MANY_BITS
    counts = np.zeros(len(weights), np.int64)
    if used:
        tables.slots_of(weights, np.int64(bits), counts)
    return counts, bits


def coded_bits(counts: NDArray[np.int64], weights: Weights) -> int:
    """About how many bits symbols that occur this often take, without the table; exact to some bytes."""
    if np.count_nonzero(weights) < 2:
        return 0
    slots, bits = slot_counts(weights)
    lanes = 1 if int(counts.sum()) < SPLIT else kernels.LANES
    return int(tables.ideal_bits(counts, slots, np.int64(bits))) + bits * lanes


def write_frequencies(weights: Weights) -> bytes:
    """Store a table of weights as in `kernels.tables`; the reader must know the alphabet.

    The first weight is told apart from `LARGEST`; k has `WIDTH` bits.
    """
    out = np.zeros(10 * len(weights) + numbers.SLACK, np.uint8)
    used = np.int64(np.count_nonzero(weights))
    return out[: int(numbers.put(weights, LARGEST, used, WIDTH, out))].tobytes()


def decode_table(weights: Weights) -> Table:
    """Prepare decoding.

    Args:
        weights: shape (alphabet,), at most `MOST` of them not 0.
    """
    return _table(tables.make(weights, *_LIKE[len(weights) > 1 << 8]))


def read_table(data: bytes | memoryview, alphabet: int) -> tuple[Table, int]:
    """Read a table that `write_frequencies` wrote, and prepare decoding.

    Args:
        data: bytes that begin with it.
        alphabet: number of symbols, 0 to 65,536.

    Returns:
        The table, and how many bytes it took.

    Raises:
        CorruptError: if the bytes end early or are not what `write_frequencies` makes of any weights.
    """
    like = _LIKE[alphabet > 1 << 8]
    size, made = tables.read(np.frombuffer(data, np.uint8), np.int64(alphabet), WIDTH, *like)
    if size == numbers.BROKEN:
        raise CorruptError(f"expected a table of at most {MOST} symbols in use, got something else")
    return _table(made), size


def _table(made: tuple[int, int, int, NDArray[Any]]) -> Table:
    count, highest, bits, table = made
    return Table(table, bits, highest if count == 1 else None, highest)


def encode(symbols: NDArray[np.uint8] | NDArray[np.uint16], weights: Weights) -> bytes:
    """Code symbols, shape (n,), in the layout above.

    Raises:
        ValueError: if a symbol has no weight.
    """
    if symbols.ndim != 1 or symbols.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected 1-D uint8 or uint16 symbols, got {symbols.ndim}-D {symbols.dtype}")
    flat = np.ascontiguousarray(symbols)
    counts, bits = slot_counts(weights)
    if len(flat) and flat.max() >= len(weights):
        raise ValueError(f"expected symbols that have a code, got {flat.max()} of {len(weights)}")
    if np.count_nonzero(weights) < 2:
        if not weights[flat].all():
            raise ValueError("expected symbols that have a code, got others")
        return b""
    steps = np.empty(len(weights), np.uint64)
    following = np.empty(1 << bits, np.uint16)
    tables.steps_of(counts, np.uint64(bits), np.empty(1 << bits, np.uint16), steps, following)
    runs = []
    split = len(flat) >= SPLIT
    for first in (0, 4) if split else (0,):
        size = packed_size(len(flat) // 2 + 4 if split else len(flat), bits)
        out = np.empty(size + kernels.SLACK, np.uint8)
        lanes = np.uint64(4 if split else 1)
        start = int(kernels.encode(flat, np.uint64(first), lanes, steps, following, np.uint64(bits), out))
        if not start:
            raise ValueError("expected symbols that have a code, got others")
        runs.append(out[start:].tobytes())
    return b"".join([varint(len(run)) for run in runs[:-1]] + runs)


def decode(data: bytes | memoryview, table: Table, out: NDArray[Any]) -> None:
    """Read what `encode` wrote: exactly `data`, into `out`, of a dtype wide enough for the table, shape (n,).

    Raises:
        CorruptError: if the bytes are not n symbols in this code, no more and no less.
        ValueError: if the dtype is too narrow.
    """
    if out.dtype not in (np.uint8, np.uint16) or table.highest >> 8 * out.itemsize:
        raise ValueError(f"expected uint8 or uint16 for symbols up to {table.highest}, got {out.dtype}")
    if len(table.table) == 0:
        if len(data) or (len(out) and table.only is None):
            raise CorruptError(f"expected no bytes and no choice, got {len(data)} for {len(out)} symbols")
        out[:] = table.only or 0
        return
    place = out if out.dtype == table.dtype else np.empty(len(out), table.dtype)
    wrong = kernels.decode(np.frombuffer(data, np.uint8), table.table, np.int64(table.bits), place)
    if wrong:
        raise CorruptError(f"expected {WRONG[wrong]} of {len(out)} symbols, got others in {len(data)} bytes")
    if place is not out:
        out[:] = place
