"""Levels around a centre: magnitudes by rANS, in one of 44 codes that the size of their surroundings picks.

Along a trellis it is the numbers of levels (`kernels.trellis`) that are coded so, and where they are small,
states of even and of odd levels have codes of their own.

A magnitude is cut into a *token*, which has a code, and bits below it, which are stored as they are together
with the sign: magnitudes under 16 are their own tokens; above, a token tells the highest bit and the two bits
after it. The code of an element is that of the mean magnitude of its row and its column so far, on a scale of
half octaves, so that rows and columns of different size do not blur each other's distribution.

Codes adapt by steps: the slots of a code are given out anew, from how often its tokens occurred, after it was
used 16, 32, 64 times more and so on, later every 8,192 times. In between, a token is one look-up. That is
what makes this way several times faster than probabilities that move with every bit, at bytes that are all
but the same. The row's mean moves once for four elements, so that these do not wait for one another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels.arithmetic import RATES
from dwindle.kernels.trellis import following
from dwindle.kernels.words import leading_zeros, load64, store

LANES = 4
"""States of a long stream."""

START = 1 << 15
"""A state before the first token, and after the last one when decoding."""

DIRECT = 16
"""Magnitudes under this are tokens of their own."""

MOST_TOKENS = DIRECT + 4 * 12
"""Tokens of magnitudes under 2**16."""

SLACK = 16
"""Zero bytes after the stored bits when decoding, and room there when encoding: both move whole words."""

_CODES = 44  # half octaves of a mean magnitude
_APART = 16  # below a mean of 4, states of odd levels have codes of their own
_SLOT_BITS = np.uint64(12)
_SLOTS = 1 << 12
_FIRST, _LAST = 16, 8192  # uses of a code between two changes of it
_PRIOR_SHIFT = np.uint64(22)  # 2**31 >> 22 = 512: what is foretold counts as 32 tokens seen
_SEEN = np.uint32(16)
_HALVED = np.uint64(20)  # logarithm of the sum of counts from which on they are halved
_ROW = np.uint64(31)
_COLUMN = np.uint64(15)
_ZERO, _ONE, _TWO, _THREE = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3)
_SIX, _SIXTEEN, _WORD = np.int64(6), np.uint64(16), np.uint64(0xFFFF)
_FIELD = np.uint64(0xFFF)


def _token_table() -> NDArray[np.uint32]:
    """Of each token its least magnitude << 5 | the number of bits below it, shape (MOST_TOKENS,)."""
    table = np.arange(MOST_TOKENS, dtype=np.uint32) << np.uint32(5)
    for token in range(DIRECT, MOST_TOKENS):
        bits = (token - DIRECT) // 4 + 2
        table[token] = (4 | token % 4) << bits << 5 | bits
    return table


TOKENS = _token_table()


@njit(cache=True, nogil=True, forceinline=True)
def octaves(mean: np.uint64) -> Any:
    """A number on a scale of half octaves: 0, 1, then twice its bits less 2, one more in the upper half."""
    bits = np.uint64(64) - leading_zeros(mean | _TWO)
    return bits * _TWO - _TWO + (mean >> (bits - _TWO) & _ONE) if mean >> _ONE else mean


@njit(cache=True, nogil=True)
def foretell(octave: np.uint64, counts: NDArray[np.uint32]) -> None:
    """Begin a code: tokens of magnitudes that fall geometrically, with a mean in the middle of its octave."""
    least = (_TWO | octave & _ONE) << ((octave >> _ONE) - _ONE) if octave >> _ONE else octave
    mean = max(least * np.uint64(5) >> _TWO, _ONE)
    more = (mean << np.uint64(32)) // (mean + np.uint64(64))  # that a magnitude goes on, in 2**-32
    left = np.uint64(1 << 31)
    width = _ZERO
    for token in range(len(counts)):
        # A token of 2**n magnitudes: the chance to go on past it is the n-fold square.
        while width < np.uint64(TOKENS[token] & np.uint32(31)):
            more = more * more >> np.uint64(32)
            width += _ONE
        rest = left * more >> np.uint64(32)
        counts[token] = np.uint32(((left - rest) >> _PRIOR_SHIFT) + _ONE)
        left = rest


@njit(cache=True, nogil=True)
def give_out(
    counts: NDArray[np.uint32], spans: NDArray[np.uint32], slots: NDArray[np.uint32], decoding: bool
) -> None:
    """Give the slots of a code out anew.

    Args:
        counts: how often each token occurred, in 1/16, shape (tokens,); halved where they grew large.
        spans: filled: first slot << 16 | number of slots of each token.
        slots: filled when decoding: token << 24 | number of slots - 1 << 12 | place among them, of each slot.
        decoding: whether the slots are needed.
    """
    total = _ZERO
    for token in range(len(counts)):
        total += np.uint64(counts[token])
    if total >> _HALVED:
        total = _ZERO
        for token in range(len(counts)):
            counts[token] >>= np.uint32(1)
            total += np.uint64(counts[token])
    left, best, most = np.uint64(_SLOTS), 0, _ZERO
    for token in range(len(counts)):
        size = np.uint64(counts[token]) * np.uint64(_SLOTS - len(counts)) // total + _ONE
        spans[token] = np.uint32(size)
        left -= size
        if size > most:
            best, most = token, size
    spans[best] += np.uint32(left)
    first = np.uint32(0)
    for token in range(len(counts)):
        size = spans[token]
        spans[token] = first << np.uint32(16) | size
        if decoding:
            entry = np.uint32(token) << np.uint32(24) | (size - np.uint32(1)) << np.uint32(12)
            for place in range(size):
                slots[first + place] = entry | np.uint32(place)
        first += size


@njit(cache=True, nogil=True)
def run(
    ranks: NDArray[np.uint16],
    start: np.uint64,
    columns: np.uint64,
    tracked: np.uint64,
    centre: np.int64,
    tokens: np.uint64,
    states: NDArray[np.uint64],
    words: NDArray[np.uint16],
    packed: NDArray[np.uint32],
    bits: NDArray[np.uint8],
    trellis: np.uint64,
    decoding: bool,
) -> Any:
    """Model the ranks of a block and, when decoding, read them.

    Args:
        ranks: read or, when decoding, written modulo 2**16.
        start: place of the first in its tensor.
        columns: elements of a row of the tensor, at least 1.
        tracked: columns that have a mean of their own, at least 1; those beyond share the last.
        centre: the rank whose level is 0.
        tokens: how many there are, 1 to MOST_TOKENS; when encoding, more than any of the block's.
        states: when decoding, those of the stream, one or LANES; changed.
        words: when decoding, those of the stream and a zero after them.
        packed: when encoding, filled with the span of each token: first slot << 16 | number of slots.
        bits: stored bits; when decoding with SLACK zeros after them, when encoding room for two bytes a rank
            and SLACK.
        trellis: 1 if levels follow a trellis, for which all columns must be tracked; else 0.
        decoding: which of the two.

    Returns:
        Words read (0 when encoding), and bits read or written.
    """
    codes = _CODES + _APART if trellis else _CODES
    counts = np.zeros((codes, tokens), np.uint32)
    spans = np.zeros((codes, tokens), np.uint32)
    slots = np.empty((codes if decoding else 1, _SLOTS), np.uint32)
    uses, left = np.zeros(codes, np.int64), np.zeros(codes, np.int64)
    paths = np.zeros(tracked if trellis else _ONE, np.uint8)
    means = np.full(tracked, -1, np.int32)  # of columns, in 2**-6
    lane_mask, slot_mask = np.uint64(len(states) - 1), np.uint64(_SLOTS - 1)
    last_word = np.uint64(len(words) - 1) if decoding else _ZERO
    last_byte = np.uint64(len(bits)) - np.uint64(8)
    mean, group, grouped = np.int64(64), np.int64(0), _ZERO  # of the row, and of the last four
    column = start % columns
    word, at, filled, pending = _ZERO, _ZERO, _ZERO, _ZERO
    for i in range(np.uint64(len(ranks))):
        if column & _THREE == _ZERO:
            if column and grouped == np.uint64(4):
                rate = np.int64(RATES[min((column >> _TWO) - _ONE, _ROW)])
                mean += ((group << np.int64(4)) - mean) * rate >> np.int64(16)
            group, grouped = np.int64(0), _ZERO
        here = min(column, tracked - _ONE)
        other = np.int64(means[here])
        both = mean + other if other >= 0 else mean + mean
        # Without a trellis this is all one path that stays in state 0.
        path = here if trellis else _ZERO
        odd = np.uint64(paths[path]) & _ONE
        octave = octaves(np.uint64(both) >> _ONE)
        code = octave + np.uint64(_CODES) if odd and octave < np.uint64(_APART) else octave
        left[code] -= 1
        if left[code] < 0:
            if uses[code] == 0:
                foretell(octave, counts[code])
            uses[code] = min(max(uses[code] * 2, _FIRST), _LAST)
            left[code] = uses[code] - 1
            give_out(counts[code], spans[code], slots[code if decoding else _ZERO], decoding)
        if decoding:
            state = states[i & lane_mask]
            entry = np.uint64(slots[code, state & slot_mask])
            state = ((entry >> _SLOT_BITS & _FIELD) + _ONE) * (state >> _SLOT_BITS) + (entry & _FIELD)
            # Arithmetic in place of choices, which would be compiled to jumps that are hard to foresee.
            low = np.uint64(state < np.uint64(START))
            state = state << (low << np.uint64(4)) | np.uint64(words[min(word, last_word)]) & (_ZERO - low)
            word += low
            states[i & lane_mask] = state
            token = entry >> np.uint64(24)
            shape = np.uint64(TOKENS[token])
            width = shape & np.uint64(31)
            tail = load64(bits, min(at >> _THREE, last_byte)) >> (at & np.uint64(7))
            size = np.int64((shape >> np.uint64(5)) + (tail & ((_ONE << width) - _ONE)))
            signed = np.uint64(size > 0)
            minus = np.int64(tail >> width & signed)
            at += width + signed
            far = (size << np.int64(trellis)) - np.int64(odd & signed)
            ranks[i] = np.uint16(centre + ((far ^ -minus) + minus))
        else:
            level = np.int64(ranks[i]) - centre
            size = (abs(level) + np.int64(odd)) >> np.int64(trellis)
            token, width = np.uint64(size), _ZERO
            if token >= np.uint64(DIRECT):
                width = np.uint64(61) - leading_zeros(token)
                token = np.uint64(DIRECT) + ((width - _TWO) << _TWO) + (token >> width & _THREE)
            tail = np.uint64(size) & ((_ONE << width) - _ONE) | np.uint64(level < 0) << width
            pending |= tail << filled
            filled += width + np.uint64(size > 0)
            store(bits, at >> _THREE, pending, pending)
            at += filled & np.uint64(0x38)
            pending >>= filled & np.uint64(0x38)
            filled &= np.uint64(7)
            packed[i] = spans[code, token]
        if trellis:
            paths[path] = following(paths[path], size)
        counts[code, token] += _SEEN
        group += size
        grouped += _ONE
        scaled = size << _SIX
        if other >= 0:
            means[here] = np.int32(other + ((scaled - other) * np.int64(RATES[_COLUMN]) >> np.int64(16)))
        else:
            means[here] = np.int32((scaled + mean) >> np.int64(1))
        column += _ONE
        if column == columns:
            column = _ZERO
    return word, at + filled


@njit(cache=True, nogil=True)
def push(packed: NDArray[np.uint32], states: NDArray[np.uint64], words: NDArray[np.uint16]) -> Any:
    """Write a stream from its last token to its first.

    Args:
        packed: the span of each token: first slot << 16 | number of slots, shape (n,).
        states: one or LANES, changed.
        words: room for n and one more, filled from its end.

    Returns:
        Where in `words` the first word is.
    """
    mask, at = np.uint64(len(states) - 1), np.uint64(len(words))
    for j in range(np.uint64(len(packed))):
        i = np.uint64(len(packed) - 1) - j
        state, span = states[i & mask], packed[i]
        size = np.uint64(span & np.uint32(0xFFFF))
        full = np.uint64(state >= size << np.uint64(19))
        words[at - _ONE] = np.uint16(state & _WORD)
        at -= full
        state >>= full << np.uint64(4)
        whole = np.uint64(np.uint32(state) // np.uint32(size))
        states[i & mask] = (whole << _SLOT_BITS) + (state - whole * size) + np.uint64(span >> _SIXTEEN)
    return at
