"""Optimal lengths of prefix codes, and how a table of them is stored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dwindle.kernels import lengths as kernels
from dwindle.kernels import tables

MAX_LENGTH = kernels.LONGEST
"""Longest code a table may hold, in bits."""

WIDTH = np.int64(2)
"""Bits of a table's Rice parameter."""


def code_lengths(counts: NDArray[np.int64], limit: int = MAX_LENGTH) -> NDArray[np.uint8]:
    """Lengths of the prefix code that codes these counts in the fewest bits, none over `limit`.

    Of equally frequent symbols the earlier one never has the longer code.

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
    n = int(np.count_nonzero(counts))
    if n > 1 << limit:
        raise ValueError(f"expected at most {1 << limit} symbols for codes of {limit} bits, got {n}")
    lengths = np.empty(len(counts), np.uint8)
    work, leaf = np.empty((5, 2 * n + 1), np.int64), np.empty((MAX_LENGTH, 2 * n + 1), np.bool_)
    kernels.code_lengths(np.ascontiguousarray(counts), np.int64(limit), lengths, work, leaf)
    return lengths


def check_lengths(lengths: NDArray[np.uint8]) -> None:
    """Refuse lengths that are not those of a complete prefix code.

    Complete: no code is a prefix of another and no further code fits (Kraft's sum is 1). No symbol at all, or
    one alone with length 1, is allowed too.

    Raises:
        ValueError: if they are not, or one is over `MAX_LENGTH`.
    """
    if len(lengths) > 1 << 16:
        raise ValueError(f"expected at most {1 << 16} symbols, got {len(lengths)}")
    room = int(kernels.room_left(lengths))
    if room:
        raise ValueError("expected a complete prefix code, got " + ("too many codes" if room < 0 else "gaps"))


def write_lengths(lengths: NDArray[np.uint8]) -> bytes:
    """Store a table of code lengths as in `kernels.tables`; the reader must know the alphabet.

    The first length is told apart from the one all codes would have if they were equally long, rounded up.
    The last one is left out: it is what completes the code (1 where it is alone). k has 2 bits.

    Raises:
        ValueError: if the lengths are not those of a complete prefix code.
    """
    check_lengths(lengths)
    present = np.int64(np.count_nonzero(lengths))
    out = np.zeros(10 * len(lengths) + tables.SLACK, np.uint8)
    stored = max(present - np.int64(1), np.int64(0))
    return out[: int(tables.put(lengths, tables.equal_length(present), stored, WIDTH, out))].tobytes()
