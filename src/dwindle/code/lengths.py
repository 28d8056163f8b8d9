"""Optimal lengths of prefix codes, and how a table of them is stored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dwindle.code.bits import BitReader, BitWriter
from dwindle.errors import CorruptError

MAX_LENGTH = 15
"""Longest code a table may hold, in bits."""

MAX_RICE = 3
"""Largest Rice parameter of a stored table."""


def code_lengths(counts: NDArray[np.int64], limit: int = MAX_LENGTH) -> NDArray[np.uint8]:
    """Lengths of the prefix code that codes these counts in the fewest bits, none over `limit`.

    Package-merge (Larmore and Hirschberg 1990). Of equally frequent symbols the earlier one never has the
    longer code.

    Args:
        counts: occurrences of each symbol, shape (alphabet,), none negative.
        limit: longest code allowed, 1 to `MAX_LENGTH` bits.

    Returns:
        Bits of each symbol's code, shape (alphabet,); 0 where the count is 0. A symbol alone gets length 1.

    Raises:
        ValueError: if the limit is out of range or more than 2**limit symbols occur.
    """
    if not 1 <= limit <= MAX_LENGTH:
        raise ValueError(f"expected a limit of 1 to {MAX_LENGTH} bits, got {limit}")
    if len(counts) and int(counts.min()) < 0:
        raise ValueError(f"expected counts of at least 0, got {int(counts.min())}")
    lengths = np.zeros(len(counts), np.uint8)
    # Rarest first; of equals the last first.
    order = len(counts) - 1 - np.argsort(counts[::-1], kind="stable")
    order = order[counts[order] > 0]
    n = len(order)
    if n > 1 << limit:
        raise ValueError(f"expected at most {1 << limit} symbols for codes of {limit} bits, got {n}")
    if n == 1:
        lengths[order] = 1
    elif n > 1:
        lengths[order] = _package_merge(counts[order].astype(np.int64), min(limit, n - 1))
    return lengths


def _package_merge(weights: NDArray[np.int64], limit: int) -> NDArray[np.uint8]:
    """Code lengths of at least two sorted weights."""
    n = len(weights)
    leaves_before = []  # per level, deepest first: how many of the first i items are leaves
    items, leaf = weights, np.ones(n, np.bool_)
    for level in range(limit):
        if level:
            pairs = len(items) // 2
            packages = items[: 2 * pairs].reshape(pairs, 2).sum(axis=1)
            items = np.concatenate([weights, packages])
            order = np.argsort(items, kind="stable")  # a leaf goes before a package of the same weight
            items, leaf = items[order], order < n
        leaves_before.append(np.concatenate([[0], np.cumsum(leaf)]))
    # Taking the 2n - 2 lightest items of the last level takes leaves, and packages that open into items of
    # the level below; a leaf's length is the number of levels it is taken in.
    taken = np.zeros(n + 1, np.int64)
    wanted = 2 * n - 2
    for before in reversed(leaves_before):
        leaves = int(before[wanted])
        taken[leaves] += 1
        wanted = 2 * (wanted - leaves)
    return np.cumsum(taken[::-1])[::-1][1:].astype(np.uint8)


def check_lengths(lengths: NDArray[np.uint8]) -> None:
    """Refuse lengths that are not those of a complete prefix code.

    Complete: no code is a prefix of another and no further code fits (Kraft's sum is 1). No symbol at all, or
    one alone with length 1, is allowed too.

    Raises:
        ValueError: if they are not, or one is over `MAX_LENGTH`.
    """
    if len(lengths) > 1 << 16:
        raise ValueError(f"expected at most {1 << 16} symbols, got {len(lengths)}")
    present = lengths[lengths > 0].astype(np.int64)
    if len(present) and int(present.max()) > MAX_LENGTH:
        raise ValueError(f"expected codes of at most {MAX_LENGTH} bits, got {int(present.max())}")
    if len(present) == 0 or (len(present) == 1 and present[0] == 1):
        return
    room = (1 << MAX_LENGTH) - int((1 << (MAX_LENGTH - present)).sum())
    if room:
        raise ValueError("expected a complete prefix code, got " + ("too many codes" if room < 0 else "gaps"))


def write_lengths(lengths: NDArray[np.uint8]) -> bytes:
    """Store a table of code lengths; the reader must know the alphabet.

    Fields, LSB first (`BitWriter`):

    1. Rice parameter k, 2 bits: the one that makes the table shortest, the smaller of equals.
    2. One bit: 1 if every symbol of the alphabet occurs. If 0, the lengths of alternating runs follow, of
       occurring symbols first (that run may be empty, no other may), to the end of the alphabet. A run of r
       symbols is stored as the Elias gamma code of r + 1 (first run) or r (others): its bit length minus
       one in unary (ones, then a zero), then its bits below the highest.
    3. For each occurring symbol but the last, the difference d of its length to that of the occurring symbol
       before it; before the first is the length all codes would have if all were equally long, rounded up.
       d is stored as z = 2d (d >= 0) or -2d - 1 (d < 0): z >> k in unary, then the low k bits of z. The last
       symbol's length is what completes the code (1 where it is alone).

    Raises:
        ValueError: if the lengths are not those of a complete prefix code.
    """
    check_lengths(lengths)
    symbols = np.flatnonzero(lengths)
    present = lengths[symbols].astype(np.int64)
    deltas = np.diff(present[:-1], prepend=_first(len(present))) if len(present) else present
    zigzag = np.where(deltas < 0, -2 * deltas - 1, 2 * deltas)
    k = _rice_parameter(zigzag)
    writer = BitWriter()
    writer.write(k, 2)
    writer.write(int(len(symbols) == len(lengths)), 1)
    if len(symbols) != len(lengths):
        _write_runs(writer, lengths > 0)
    for z in zigzag.tolist():
        quotient = z >> k
        writer.write((1 << quotient) - 1, quotient + 1)
        writer.write(z & ((1 << k) - 1), k)
    return writer.getvalue()


def read_lengths(data: memoryview, offset: int, alphabet: int) -> tuple[NDArray[np.uint8], int]:
    """Read what `write_lengths` wrote.

    Args:
        data: bytes that hold the table.
        offset: where it begins.
        alphabet: number of symbols, 0 to 65,536.

    Returns:
        Lengths, shape (alphabet,), and the offset after the table.

    Raises:
        CorruptError: if the bytes end early or are not what `write_lengths` makes of any lengths.
    """
    reader = BitReader(data, offset)
    k = reader.read(2)
    every = reader.read(1)
    symbols = np.arange(alphabet) if every else np.flatnonzero(_read_runs(reader, alphabet))
    if not every and len(symbols) == alphabet:
        raise CorruptError("expected no runs where every symbol occurs")
    lengths = np.zeros(alphabet, np.uint8)
    room = 1 << MAX_LENGTH
    previous = _first(len(symbols))
    zigzag = []
    for symbol in symbols[:-1].tolist():
        z = reader.read_unary(2 * MAX_LENGTH) << k | reader.read(k)
        zigzag.append(z)
        previous += -(z + 1 >> 1) if z & 1 else z >> 1
        if not 1 <= previous <= MAX_LENGTH:
            raise CorruptError(f"expected a code of 1 to {MAX_LENGTH} bits, got {previous}")
        room -= 1 << (MAX_LENGTH - previous)
        if room <= 0:
            raise CorruptError("expected a complete prefix code, got too many codes")
        lengths[symbol] = previous
    if len(symbols) == 1:
        lengths[symbols] = 1
    elif len(symbols):
        if room.bit_count() != 1:
            raise CorruptError("expected a complete prefix code, got gaps")
        lengths[symbols[-1]] = MAX_LENGTH + 1 - room.bit_length()
    if k != _rice_parameter(np.array(zigzag, np.int64)):
        raise CorruptError(f"expected the Rice parameter that makes the code table shortest, got {k}")
    return lengths, reader.finish()


def _rice_parameter(zigzag: NDArray[np.int64]) -> int:
    """The one that takes the fewest bits, the smaller of equals."""
    return int(np.argmin([((zigzag >> k) + 1 + k).sum() for k in range(MAX_RICE + 1)]))


def _first(present: int) -> int:
    """The length the first symbol's is told apart from."""
    return max(present - 1, 1).bit_length()


def _write_runs(writer: BitWriter, present: NDArray[np.bool_]) -> None:
    edges = np.flatnonzero(np.diff(present, prepend=True, append=not present[-1]))
    runs = np.diff(edges, prepend=0)
    runs[0] += 1
    for run in runs.tolist():
        low = run.bit_length() - 1
        writer.write((1 << low) - 1, low + 1)
        writer.write(run - (1 << low), low)


def _read_runs(reader: BitReader, alphabet: int) -> NDArray[np.bool_]:
    present = np.zeros(alphabet, np.bool_)
    at, state, extra = 0, True, 1
    while at < alphabet:
        low = reader.read_unary(alphabet.bit_length())
        run = (1 << low) + reader.read(low) - extra
        if run > alphabet - at:
            raise CorruptError(f"expected a run of at most {alphabet - at} symbols, got {run}")
        present[at : at + run] = state
        at, state, extra = at + run, not state, 0
    return present
