"""rANS: a static code within a hair of the entropy, in streams that decode side by side.

Table. Every symbol has a weight: 0 if it does not occur, else w = 1 + 8 s + m, 0 <= m < 8, for a frequency in
proportion to (8 + m) << s. So frequencies are told to within 1/16, which costs 0.001 bits a symbol. Slots,
2**bits of
them, are given out in order of the symbols; with V the proportions and T the least whole number, from the
sum of all
V on, that makes it fit, a symbol gets max(1, (V << bits) // T) slots, and the first of those with most gets
what is left.
`bits` is 12 for up to 256 symbols that occur, 15 for more.

Layout. Where fewer than two symbols occur, nothing. Else the states the decoder begins with, 4 bytes each,
little-endian: one under `SPLIT` (16,384) symbols, eight from there on; then words of two bytes, as the
decoder takes them
(`kernels.rans`). It ends with all states 2**15 and no word left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dwindle.errors import CorruptError
from dwindle.kernels import frequencies as tables
from dwindle.kernels import rans as kernels

SPLIT = 1 << 14
"""From this many symbols on there are eight states."""

MOST = 4096
"""Most symbols that may occur."""

START = 1 << 15

Weights = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Table:
    """A code ready for decoding; build it once for all streams that share it.

    Attributes:
        slots: see `kernels.rans.decode`; empty where fewer than two symbols occur.
        bits: logarithm of the number of slots.
        only: the symbol that is the whole alphabet, or None.
        highest: the largest symbol.
    """

    slots: NDArray[np.uint64]
    bits: int
    only: int | None
    highest: int


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
    bits = 12 if used <= 256 else 15
    counts = np.zeros(len(weights), np.int64)
    if used:
        tables.slots_of(weights, np.int64(bits), counts)
    return counts, bits


def coded_bits(counts: NDArray[np.int64], weights: Weights) -> int:
    """About how many bits symbols that occur this often take, without the table; exact to some bytes."""
    slots, bits = slot_counts(weights)
    present = counts > 0
    if np.count_nonzero(weights) < 2:
        return 0
    lanes = 1 if int(counts.sum()) < SPLIT else kernels.LANES
    ideal = float((counts[present] * (bits - np.log2(slots[: len(counts)][present]))).sum())
    return int(ideal) + 32 * lanes


def write_frequencies(weights: Weights) -> bytes:
    """Store a table of weights; the reader must know the alphabet.

    Fields, lowest bit first: Rice parameter k, 3 bits, the one that makes the table shortest, the smaller of
    equals, among those for which no z >> k is over 48; one bit, 1 if every symbol occurs. After a 0 the
    lengths of runs, in turn of symbols that occur and of
    symbols that do not, as in `lengths.write_lengths`. Then for each that occurs the difference of its weight
    to that of the one before (the first: to `LARGEST`), z = 2d for d >= 0 and -2d - 1 for d < 0, as z >> k
    in unary
    (ones, then a zero) and the k low bits of z.
    """
    out = np.zeros(16 + 12 * len(weights), np.uint8)
    return out[: int(tables.put_table(weights, out))].tobytes()


def read_frequencies(data: memoryview, offset: int, alphabet: int) -> tuple[Weights, int]:
    """Read what `write_frequencies` wrote.

    Returns:
        Weights, shape (alphabet,), and the offset after the table.

    Raises:
        CorruptError: if the bytes end early or are not what `write_frequencies` makes of any weights.
    """
    weights = np.zeros(alphabet, np.uint8)
    size = int(tables.get_table(np.array(data[offset:], np.uint8), weights))
    if size == tables.BROKEN or np.count_nonzero(weights) > MOST:
        raise CorruptError(f"expected a table of at most {MOST} symbols in use, got something else")
    return weights, offset + size


def decode_table(weights: Weights) -> Table:
    """Prepare decoding."""
    present = np.flatnonzero(weights)
    highest = int(present[-1]) if len(present) else 0
    counts, bits = slot_counts(weights)
    if len(present) < 2:
        return Table(np.zeros(0, np.uint64), bits, highest if len(present) else None, highest)
    slots = np.empty(1 << bits, np.uint64)
    tables.fill_slots(counts, slots)
    return Table(slots, bits, None, highest)


def encode(symbols: NDArray[np.uint8] | NDArray[np.uint16], weights: Weights) -> bytes:
    """Code symbols, shape (n,), in the layout above.

    Raises:
        ValueError: if a symbol has no weight.
    """
    if symbols.ndim != 1 or symbols.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected 1-D uint8 or uint16 symbols, got {symbols.ndim}-D {symbols.dtype}")
    flat = np.ascontiguousarray(symbols)
    counts, bits = slot_counts(weights)
    size = max(len(weights), 1 << 8 * flat.itemsize)
    spans, reciprocals = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
    tables.reciprocals_of(counts, reciprocals, spans)
    if np.count_nonzero(weights) < 2:
        if not spans[flat].all():
            raise ValueError("expected symbols that have a code, got others")
        return b""
    states = np.full(_lanes(len(flat)), START, np.uint64)
    words = np.empty(len(flat) + 1, np.uint16)
    first = int(kernels.encode(flat, reciprocals, spans, np.uint64(bits), states, words))
    if first == int(kernels.NO_CODE):
        raise ValueError("expected symbols that have a code, got others")
    return states.astype("<u4").tobytes() + words[first:].astype("<u2", copy=False).tobytes()


def decode(data: bytes | memoryview, count: int, table: Table, dtype: DTypeLike) -> NDArray[Any]:
    """Read what `encode` wrote: `count` symbols out of exactly `data`, of a dtype wide enough for the table.

    Raises:
        CorruptError: if the bytes are not `count` symbols in this code, no more and no less.
        ValueError: if the dtype is too narrow.
    """
    target = np.dtype(dtype)
    if target not in (np.uint8, np.uint16) or table.highest >> 8 * target.itemsize:
        raise ValueError(f"expected uint8 or uint16 for symbols up to {table.highest}, got {target}")
    if len(table.slots) == 0:
        if len(data) or (count and table.only is None):
            raise CorruptError(f"expected no bytes and no choice, got {len(data)} for {count} symbols")
        return np.full(count, table.only or 0, target)
    head = 4 * _lanes(count)
    if len(data) < head or (len(data) - head) % 2 or (len(data) - head) // 2 > count:
        raise CorruptError(f"expected states and at most {count} words, got {len(data)} bytes")
    states = np.frombuffer(data[:head], "<u4").astype(np.uint64)
    words = np.frombuffer(data[head:], "<u2").astype(np.uint16, copy=False)
    if (states < START).any() or (states >> 31).any():
        raise CorruptError("expected states from 2**15 up to 2**31")
    out = np.empty(count, target)
    at, done = np.uint64(0), np.uint64(0)
    if len(states) == kernels.LANES:
        at, done = kernels.decode_lanes(words, at, table.slots, np.uint64(table.bits), states, out)
    at = kernels.decode(
        words, np.uint64(at), table.slots, np.uint64(table.bits), states, out, np.uint64(done)
    )
    if int(at) != len(words) or (states != START).any():
        raise CorruptError(
            f"expected a code that ends with its last word, got {len(words)} words, {int(at)} used"
        )
    return out


def _lanes(count: int) -> int:
    return 1 if count < SPLIT else kernels.LANES
