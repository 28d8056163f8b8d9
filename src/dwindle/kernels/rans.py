"""Range asymmetric numeral systems (Duda 2013) by table.

A state is a number from 2**bits up to twice that; its place is what it is above 2**bits. The decoder looks up
the symbol that has the slot at this place, and in which of the symbol's slots it is: so it knows the state
before, but for some low bits, which it reads. As the interval is so short that this is all there is to a
step, the variant is also called tANS. Eight lanes take the symbols in turn; four of them share a run of bits,
and may do so without waiting for each other, since how many bits a lane takes depends on its state alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels.words import bits_of, leading_zeros, load64, store, trailing_zeros, varint_at, word_at

SPLIT = 1 << 14
"""From this many symbols on there are eight lanes in two runs of bits, else one."""

LANES = 8

SLACK = 16
"""Bytes `encode` needs for a run besides those of its symbols: for states, and as it writes whole words."""

LENGTHS, STATES = 1, 2
"""What `decode` finds wrong: the length of the first run, or a run that does not end where it began."""

_TOP = np.uint64(1 << 63)
_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
_LOW, _BYTE = np.uint64(0xFFFFFFFF), np.uint64(0xFF)
_SHIFT, _ONE, _THREE, _FOUR, _EIGHT = np.uint64(63), np.uint64(1), np.uint64(3), np.uint64(4), np.uint64(8)
_WORD_BITS = np.uint64(56)  # a word surely has those of four symbols, of 14 bits each


@njit(cache=True, nogil=True, forceinline=True)
def _push(
    state: np.uint64, step: np.uint64, following: NDArray[np.uint16], word: np.uint64, filled: np.uint64
) -> Any:
    """Take a symbol in: put the low bits of the state that the decoder will read under those of `word`."""
    bits = (state + (step & _LOW)) >> np.uint64(16)
    word = word << bits | state & ~(_ONES << bits)
    return np.uint64(following[(state >> bits) + (step >> np.uint64(32)) & _LOW]), word, filled + bits


@njit(cache=True, nogil=True, forceinline=True)
def _flush(word: np.uint64, filled: np.uint64, out: NDArray[np.uint8], at: np.uint64) -> Any:
    """Store whole bytes before `at`; where the next ones end, and how many bits still wait."""
    store(out, at - _EIGHT, word << (np.uint64(0) - filled & _SHIFT), word)
    return at - (filled >> _THREE), filled & np.uint64(7)


@njit(cache=True, nogil=True)
def encode(
    symbols: NDArray[Any],
    first: np.uint64,
    lanes: np.uint64,
    steps: NDArray[np.uint64],
    following: NDArray[np.uint16],
    bits: np.uint64,
    out: NDArray[np.uint8],
) -> Any:
    """Code the symbols of one run of bits, from the end of `out` towards its start.

    Args:
        symbols: uint8 or uint16, shape (n,).
        first: the first of them.
        lanes: 1, which takes all symbols, or 4, which take the symbols `first` to `first + 3` of every eight.
        steps: what `frequencies.steps_of` made, as the next; longer than the highest symbol.
        following: states by symbol.
        bits: logarithm of the number of slots.
        out: `bits` for each symbol and SLACK bytes.

    Returns:
        Where in `out` the run begins, or 0 where a symbol has no slots.
    """
    n = np.uint64(len(symbols))
    a = b = c = d = _ONE << bits
    word, filled, least = np.uint64(0), np.uint64(0), _ONES
    at = np.uint64(len(out))
    i = first
    if lanes == _FOUR:
        for _ in range((n - first + _FOUR) // _EIGHT):
            p, q = steps[symbols[i]], steps[symbols[i + _ONE]]
            r, s = steps[symbols[i + np.uint64(2)]], steps[symbols[i + _THREE]]
            a, word, filled = _push(a, p, following, word, filled)
            b, word, filled = _push(b, q, following, word, filled)
            c, word, filled = _push(c, r, following, word, filled)
            d, word, filled = _push(d, s, following, word, filled)
            at, filled = _flush(word, filled, out, at)
            least = min(least, min(min(p, q), min(r, s)))
            i += _EIGHT
    left = n - min(i, n)
    for _ in range(left):  # one lane takes them all; of four, each at most one
        step = steps[symbols[i]]
        a, word, filled = _push(a, step, following, word, filled)
        at, filled = _flush(word, filled, out, at)
        least = min(least, step)
        if lanes == _FOUR:
            a, b, c, d = b, c, d, a
        i += _ONE
    if lanes == _FOUR:
        for _ in range(_FOUR - left):
            a, b, c, d = b, c, d, a
    for _ in range(lanes):
        word, filled = word << bits | a & ~(_ONES << bits), filled + bits
        at, filled = _flush(word, filled, out, at)
        a, b, c, d = b, c, d, a
    # A one bit says where the run begins within its first byte.
    at, filled = _flush(word << _ONE | _ONE, filled + _ONE, out, at)
    at -= np.uint64(filled > np.uint64(0))
    return at if least else np.uint64(0)


@njit(cache=True, nogil=True, forceinline=True)
def _pull(state: np.uint64, word: np.uint64, table: NDArray[Any], out: NDArray[Any], at: np.uint64) -> Any:
    """Write the symbol of a place; the place before, and the bits left."""
    entry = np.uint64(table[state])
    out[at] = entry >> bits_of(out)
    bits = entry & _BYTE
    return (entry >> bits_of(out) >> bits_of(out)) + (word & ~(_ONES << bits)), word >> bits


@njit(cache=True, nogil=True)
def _pull_alone(
    data: NDArray[np.uint8],
    position: np.uint64,
    state: np.uint64,
    table: NDArray[Any],
    out: NDArray[Any],
    at: np.uint64,
) -> Any:
    """Likewise, every access checked; the place before, and the bit after what was read."""
    entry = np.uint64(table[state])
    out[at] = entry >> bits_of(out)
    bits = entry & _BYTE
    word = word_at(data, position >> _THREE) >> (position & np.uint64(7))
    return (entry >> bits_of(out) >> bits_of(out)) + (word & ~(_ONES << bits)), position + bits


@njit(cache=True, nogil=True, forceinline=True)
def _refill(data: NDArray[np.uint8], position: np.uint64) -> Any:
    """At least 56 bits of the run from bit `position` on, under a one bit at the top."""
    return load64(data, position >> _THREE) >> (position & np.uint64(7)) | _TOP


@njit(cache=True, nogil=True)
def _rows(
    data: NDArray[np.uint8],
    positions: NDArray[np.uint64],
    table: NDArray[Any],
    states: NDArray[np.uint64],
    out: NDArray[Any],
    rows: np.uint64,
) -> Any:
    """Read rows of eight symbols, the last first, as far as whole words surely go; how many are left."""
    # Unpacked as a tuple, the states would stay in memory all through the loop, a third slower.
    a, b, c, d = states[0], states[1], states[2], states[3]
    e, f, g, h = states[4], states[5], states[6], states[7]
    p, q = positions[0], positions[1]
    last = _EIGHT * max(np.uint64(len(data)), _EIGHT) - np.uint64(64)
    while True:
        rounds = min((max(last, max(p, q)) - max(p, q)) // _WORD_BITS, rows)
        if rounds == np.uint64(0):
            break
        for _ in range(rounds):
            v, w = _refill(data, p), _refill(data, q)
            rows -= _ONE
            at = _EIGHT * rows
            h, w = _pull(h, w, table, out, at + np.uint64(7))
            d, v = _pull(d, v, table, out, at + np.uint64(3))
            g, w = _pull(g, w, table, out, at + np.uint64(6))
            c, v = _pull(c, v, table, out, at + np.uint64(2))
            f, w = _pull(f, w, table, out, at + np.uint64(5))
            b, v = _pull(b, v, table, out, at + np.uint64(1))
            e, w = _pull(e, w, table, out, at + np.uint64(4))
            a, v = _pull(a, v, table, out, at)
            p += leading_zeros(v)
            q += leading_zeros(w)
    states[0], states[1], states[2], states[3] = a, b, c, d
    states[4], states[5], states[6], states[7] = e, f, g, h
    positions[0], positions[1] = p, q
    return rows


@njit(cache=True, nogil=True)
def _one_lane(
    data: NDArray[np.uint8],
    position: np.uint64,
    table: NDArray[Any],
    state: np.uint64,
    out: NDArray[Any],
    left: np.uint64,
) -> Any:
    """Read a lane that is alone as far as whole words surely go; its state, the next bit, what is left."""
    last = _EIGHT * max(np.uint64(len(data)), _EIGHT) - np.uint64(64)
    for _ in range(min((max(last, position) - position) // _WORD_BITS, left // _FOUR)):
        word = _refill(data, position)
        for _ in range(_FOUR):
            left -= _ONE
            state, word = _pull(state, word, table, out, left)
        position += leading_zeros(word)
    return state, position, left


@njit(cache=True, nogil=True)
def decode(
    data: NDArray[np.uint8],
    table: NDArray[Any],
    slots: np.int64,
    out: NDArray[Any],
) -> Any:
    """Read a stream.

    Args:
        data: all of its bytes.
        table: what `frequencies.fill_table` made.
        slots: logarithm of their number.
        out: uint8 or uint16 as `table` has it, filled.

    Returns:
        0, or what is wrong with it.
    """
    states, positions, bits = np.empty(LANES, np.uint64), np.empty(4, np.uint64), np.uint64(slots)
    count, stop = np.uint64(len(out)), np.uint64(len(data))
    runs = np.uint64(2) if count >= np.uint64(SPLIT) else _ONE
    lanes = _FOUR if runs == np.uint64(2) else _ONE
    start, end = np.uint64(0), stop
    if runs == np.uint64(2):
        size, start = varint_at(data, start, stop)
        if size > stop or start + size > stop:
            return np.int64(LENGTHS)
        end = start + size
    for run in range(runs):
        if start >= end or not data[start]:
            return np.int64(STATES)
        position = _EIGHT * start + trailing_zeros(np.uint64(data[start])) + _ONE
        for i in range(lanes):
            word = word_at(data, position >> _THREE) >> (position & np.uint64(7))
            states[_FOUR * run + lanes - _ONE - i] = word & ~(_ONES << bits)
            position += bits
        positions[run], positions[np.uint64(2) + run] = position, _EIGHT * end
        start, end = end, stop
    if runs == np.uint64(2):
        rows = count // _EIGHT
        for i in range(count - _EIGHT * rows):
            lane = count - _EIGHT * rows - _ONE - i
            position, at = positions[lane // _FOUR], _EIGHT * rows + lane
            states[lane], position = _pull_alone(data, position, states[lane], table, out, at)
            positions[lane // _FOUR] = position
        rows = _rows(data, positions, table, states, out, rows)
        for i in range(_EIGHT * rows):
            at = _EIGHT * rows - _ONE - i
            lane = at & np.uint64(7)
            position = positions[lane // _FOUR]
            states[lane], position = _pull_alone(data, position, states[lane], table, out, at)
            positions[lane // _FOUR] = position
    else:
        states[0], positions[0], left = _one_lane(data, positions[0], table, states[0], out, count)
        for i in range(left):
            at = left - _ONE - i
            states[0], positions[0] = _pull_alone(data, positions[0], states[0], table, out, at)
    for run in range(runs):
        if positions[run] != positions[np.uint64(2) + run]:
            return np.int64(STATES)
    for i in range(runs * lanes):
        if states[i]:
            return np.int64(STATES)
    return np.int64(0)
