"""Tables of small numbers that belong to symbols, such as lengths of codes, as bits and back.

Fields, lowest bit first: a Rice parameter k, the one that makes the table shortest, the smaller of equals;
one bit, 1 if every symbol has a number. After a 0 the lengths of runs, in turn of symbols that have one and
of symbols that have none, to the end of the alphabet; only the first run may be empty. A run of r is stored
as the Elias gamma code of r + 1 (first run) or r (others): its bit length minus one in unary (ones, then a
zero), then its bits below the highest. Then, of each symbol that has a number, the difference d to the number
before, as z = 2d (d >= 0) or -2d - 1 (d < 0): z >> k in unary, at most MAX_ONES ones, and the k low bits of
z.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels.words import trailing_zeros, word_at

MAX_ONES = 48
"""Longest run of ones for a difference."""

SLACK = 16
"""Bytes `put` needs besides the ten for each symbol that a difference and its share of a run may take."""

BROKEN = -1
"""What `get` returns for bytes that are no table."""

_GAMMA = np.int64(16)  # most ones of the code of a run: alphabets have at most 65,536 symbols


@njit(cache=True, nogil=True)
def _write(out: NDArray[np.uint8], at: np.int64, value: np.int64, width: np.int64) -> Any:
    """Write the bits of a value from the lowest on, into zeros; the bit after them."""
    for i in range(width):
        out[at >> 3] |= np.uint8((value >> i & 1) << (at & 7))
        at += 1
    return at


@njit(cache=True, nogil=True)
def _parameter(numbers: NDArray[np.uint8], first: np.int64, count: np.int64, most: np.int64) -> Any:
    """The Rice parameter up to `most` that takes the fewest bits for `count` differences."""
    bits, previous, left = np.zeros(8, np.int64), first, count
    for number in numbers:
        if number and left:
            z = 2 * (np.int64(number) - previous)
            z = max(z, -z - 1)
            for k in range(most + 1):
                bits[k] += (z >> k) + 1 + k if z >> k <= MAX_ONES else np.int64(1) << 40
            previous, left = np.int64(number), left - 1
    return np.argmin(bits[: most + 1])


@njit(cache=True, nogil=True)
def equal_length(count: np.int64) -> Any:
    """The length that all of so many codes would have if they were equally long, rounded up, at least 1."""
    length = np.int64(1)
    while count - 1 >> length > 0:
        length += 1
    return length


@njit(cache=True, nogil=True)
def put(
    numbers: NDArray[np.uint8], first: np.int64, count: np.int64, width: np.int64, out: NDArray[np.uint8]
) -> Any:
    """Store a table.

    Args:
        numbers: of each symbol, 0 for none, shape (alphabet,).
        first: what the first number is told apart from.
        count: how many numbers are stored: those of all symbols that have one, or one less.
        width: bits of k.
        out: zeros, ten bytes for each symbol and SLACK.

    Returns:
        The bytes used.
    """
    alphabet = np.int64(len(numbers))
    k = _parameter(numbers, first, count, (np.int64(1) << width) - 1)
    at = _write(out, np.int64(0), k, width)
    every = np.int64(1)
    for number in numbers:
        every &= np.int64(number > 0)
    at = _write(out, at, every, np.int64(1))
    state, start, extra = True, np.int64(0), np.int64(1)
    for i in range(alphabet + 1):
        if not every and (i == alphabet or (numbers[i] > 0) != state):
            run, low = i - start + extra, np.int64(0)
            while run >> (low + 1):
                low += 1
            at = _write(out, at, (np.int64(1) << low) - 1, low + 1)
            at = _write(out, at, run - (np.int64(1) << low), low)
            state, start, extra = not state, np.int64(i), np.int64(0)
    previous, left = first, count
    for number in numbers:
        if number and left:
            z = 2 * (np.int64(number) - previous)
            z = max(z, -z - 1)
            at = _write(out, at, (np.int64(1) << (z >> k)) - 1, (z >> k) + 1)
            at = _write(out, at, z & ((np.int64(1) << k) - 1), k)
            previous, left = np.int64(number), left - 1
    return (at + 7) >> 3


@njit(cache=True, nogil=True)
def _ahead(data: NDArray[np.uint8], at: np.int64) -> Any:
    """At least 57 bits from bit `at` on, those after the end zero."""
    return word_at(data, np.uint64(at >> 3)) >> np.uint64(at & 7)


@njit(cache=True, nogil=True)
def _low(word: np.uint64, width: np.int64) -> Any:
    """The lowest bits of a word, as a number."""
    return np.int64(word & ((np.uint64(1) << np.uint64(width)) - np.uint64(1)))


@njit(cache=True, nogil=True)
def _ones(word: np.uint64) -> Any:
    """How many ones a word begins with, counted up to 56."""
    return np.int64(trailing_zeros(~word | np.uint64(1 << 56)))


@njit(cache=True, nogil=True)
def get(
    data: NDArray[np.uint8], numbers: NDArray[np.uint8], largest: np.int64, lengths: bool, width: np.int64
) -> Any:
    """Read what `put` wrote.

    Args:
        data: bytes that begin with a table.
        numbers: shape (alphabet,), filled.
        largest: the largest a number may be.
        lengths: these are lengths of a complete prefix code: the last is not stored, and the first is told
            apart from the one all would have if they were equal; others are told apart from `largest`.
        width: bits of k.

    Returns:
        The bytes read, or BROKEN.
    """
    alphabet, end = np.int64(len(numbers)), np.int64(8 * len(data))
    word, at = _ahead(data, np.int64(0)), width + 1
    k, every = _low(word, width), np.int64(word >> np.uint64(width) & np.uint64(1))
    numbers[:] = every
    position, state, extra, count = np.int64(0), True, np.int64(1), alphabet * every
    while not every and position < alphabet:
        word = _ahead(data, at)
        low = _ones(word)
        if low > _GAMMA or at > end:
            return np.int64(BROKEN)
        run = (np.int64(1) << low) + _low(word >> np.uint64(low + 1), low) - extra
        at += 2 * low + 1
        if run > alphabet - position:
            return np.int64(BROKEN)
        if state:
            numbers[position : position + run] = 1
            count += run
        position, state, extra = position + run, not state, np.int64(0)
    if not every and count == alphabet:
        return np.int64(BROKEN)
    previous, stored, room = largest, count, np.int64(1) << (largest if lengths else 0)
    if lengths:
        stored, previous = max(count - 1, np.int64(0)), equal_length(count)
    first, left = previous, stored
    for i in range(alphabet):
        if numbers[i] and left:
            word = _ahead(data, at)
            ones = _ones(word)
            z = ones << k | _low(word >> np.uint64(ones + 1), k)
            at += ones + 1 + k
            previous += z >> 1 if not z & 1 else -((z + 1) >> 1)
            if ones > MAX_ONES or previous < 1 or previous > largest or at > end:
                return np.int64(BROKEN)
            numbers[i], left = previous, left - 1
            room -= (np.int64(1) << (largest - previous)) if lengths else 0
        elif numbers[i] and count > 1:
            # The last length is what completes the code.
            if room <= 0 or room & (room - 1):
                return np.int64(BROKEN)
            numbers[i] = largest
            while room > 1:
                room >>= 1
                numbers[i] -= 1
    size = (at + 7) >> 3
    right = k == _parameter(numbers, first, stored, (np.int64(1) << width) - 1)
    return size if size <= len(data) and right and not _low(_ahead(data, at), -at & 7) else np.int64(BROKEN)
