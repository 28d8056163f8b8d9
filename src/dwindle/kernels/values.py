"""Small tensors and codebooks, bit by bit from the top, each element predicted from those before it.

Every element has four predictions of its next bit. One knows what values of its class begin like; the others
each follow one guess of the whole element: the element before, the line through the last two, and the line
through the two before the last (which a single value out of line does not disturb). A guess is followed as
long as it is near: it *agrees* with the bits so far, or is just *under* or *over* them (100.. after 011.. was
guessed), or else is *far*. The predictions are mixed in the logistic domain as in `kernels.text`. The lower
bits, which no guess reaches as a rule, have a single prediction.

Nearly all of the time that small files take is spent here, so what an element's bits need is in registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels.arithmetic import (
    FRESH,
    WHOLE,
    adapted,
    chance,
    decode_bit,
    encode_bit,
    finish,
    first_code,
    squash,
    stretch,
)

CLASSES = 16
"""Kinds of items that are told apart."""

PLAIN, FLOAT32, BFLOAT16 = 0, 1, 2
"""How guesses continue a line: on the order of the bit patterns, or on the values."""

GUESSES = 3
AGREES, UNDER, OVER, FAR = 0, 1, 2, 3


def _moves() -> np.uint64:
    """States by what they were, the bit, and the bit foretold, two bits each."""
    found = 0
    for state in (AGREES, UNDER, OVER, FAR):
        for bit in (0, 1):
            for foretold in (0, 1):
                if state == AGREES:
                    after = AGREES if bit == foretold else UNDER if bit else OVER
                else:  # under stays so by a 0 where a 1 was foretold, over by a 1 where a 0 was
                    near = (bit, foretold) == (state - UNDER, OVER - state)
                    after = state if near else FAR
                found |= after << 2 * (4 * state + 2 * bit + foretold)
    return np.uint64(found)


_MOVES = _moves()

_TREE = 15  # upper bits predicted by those before them
_MIXED = 20  # upper bits with all predictions
_SLOTS = 1 << 16
_FIRST = np.int64(26000)
_RATE = np.int64(14)
_LIMIT = np.uint64(60)
_LIMIT_LOW = np.uint64(400)
_ZERO, _ONE, _TWO, _THREE = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3)
_MIX = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True)
def _key(pattern: np.uint64, width: np.uint64, floats: bool) -> Any:
    """A number in the order of the values."""
    top = _ONE << (width - _ONE)
    mask = top | (top - _ONE)
    if floats and pattern & top:
        return ~pattern & mask
    return (pattern ^ top) & mask


@njit(cache=True, nogil=True)
def _pattern(key: np.uint64, width: np.uint64, floats: bool) -> Any:
    """Undo `_key`."""
    top = _ONE << (width - _ONE)
    mask = top | (top - _ONE)
    if floats and not key & top:
        return ~key & mask
    return (key ^ top) & mask


@njit(cache=True, nogil=True)
def _line(
    near: np.uint64,
    far: np.uint64,
    ahead: np.uint64,
    width: np.uint64,
    kind: np.uint64,
    floats: bool,
    words: NDArray[np.uint32],
    values: NDArray[np.float32],
) -> Any:
    """The pattern `ahead` steps after `near` on the line from `far`, one step before."""
    if kind == np.uint64(PLAIN):
        start, before = _key(near, width, floats), _key(far, width, floats)
        mask = _ONE << (width - _ONE) | ((_ONE << (width - _ONE)) - _ONE)
        return _pattern((start + ahead * (start - before)) & mask, width, floats)
    shift = np.uint64(16) if kind == np.uint64(BFLOAT16) else _ZERO
    words[0], words[1] = np.uint32(near << shift), np.uint32(far << shift)
    # Both products are exact in double precision, so there is one rounding, fused or not.
    value = np.float64(ahead + _ONE) * np.float64(values[0]) - np.float64(ahead) * np.float64(values[1])
    values[2] = np.float32(value)
    if values[2] != values[2]:
        return _ZERO
    return np.uint64(words[2]) >> shift


@njit(cache=True, nogil=True, forceinline=True)
def _moved(state: np.uint64, bit: np.uint64, foretold: np.uint64) -> Any:
    """The state of a guess after a bit."""
    return _MOVES >> (state << _THREE | bit << _TWO | foretold << _ONE) & _THREE


@njit(cache=True, nogil=True, forceinline=True)
def _run(
    elements: NDArray[np.uint8],
    items: NDArray[np.uint64],
    stream: NDArray[np.uint8],
    decoding: bool,
    used: NDArray[np.uint32],
) -> Any:
    starts = np.full(_SLOTS, FRESH, np.uint32)
    # By guess, class, depth, state and foretold bit; by class and depth, and what the guess says; by class,
    # depth, state of the second guess, and prediction.
    follows = np.full(GUESSES * CLASSES * _MIXED * 8, FRESH, np.uint32)
    lows = np.full(CLASSES * 64 * 3, FRESH, np.uint32)
    weights = np.full(CLASSES * _MIXED * 4 * (GUESSES + 1), _FIRST, np.int64)
    words = np.zeros(3, np.uint32)
    values = words.view(np.float32)
    low, span, at = _ZERO, WHOLE, _ZERO
    code = _ZERO
    if decoding:
        code, at = first_code(stream), np.uint64(8)
    position, apart = _ZERO, np.uint64(CLASSES * _MIXED * 8)
    for item in range(np.uint64(len(items))):
        count, width, group, kind = items[item, 0], items[item, 1], items[item, 2], items[item, 3]
        floats = items[item, 4] != _ZERO
        mixed = min(width, np.uint64(_MIXED))
        x1 = x2 = x3 = _ZERO
        for i in range(count):
            y2 = _line(x1, x2, _ONE, width, kind, floats, words, values)
            y3 = _line(x2, x3, _TWO, width, kind, floats, words, values)
            s1 = s2 = s3 = np.uint64(AGREES)
            first = _ONE if i == _ZERO else _ZERO
            value = done = _ZERO
            if not decoding:
                for k in range(width >> _THREE):
                    value |= np.uint64(elements[position + k]) << (k << _THREE)
            for depth in range(mixed):
                down = width - _ONE - depth
                f1, f2, f3 = x1 >> down & _ONE, y2 >> down & _ONE, y3 >> down & _ONE
                if depth < np.uint64(_TREE):
                    slot = (done | _ONE << depth) + (group << np.uint64(24)) + (first << np.uint64(28))
                else:
                    slot = depth + (group << np.uint64(24)) + (_ONE << np.uint64(29))
                slot = slot * _MIX >> np.uint64(48)
                place = group * np.uint64(_MIXED) + depth
                c1 = place << _THREE | s1 << _ONE | f1
                c2 = (place << _THREE | s2 << _ONE | f2) + apart
                c3 = (place << _THREE | s3 << _ONE | f3) + apart + apart
                w = (place << _TWO | s2) << _TWO
                o0, o1 = stretch(chance(starts[slot])), stretch(chance(follows[c1]))
                o2, o3 = stretch(chance(follows[c2])), stretch(chance(follows[c3]))
                w1, w2, w3, w0 = weights[w], weights[w + _ONE], weights[w + _TWO], weights[w + _THREE]
                p = squash((w0 * o0 + w1 * o1 + w2 * o2 + w3 * o3) >> np.int64(16))
                if decoding:
                    bit, code, span, at = decode_bit(stream, code, span, at, p)
                else:
                    bit = value >> down & _ONE
                    low, span, at = encode_bit(stream, low, span, at, p, bit)
                error = (np.int64(bit) << np.int64(16)) - np.int64(p)
                weights[w] = w1 + (o1 * error >> _RATE)
                weights[w + _ONE] = w2 + (o2 * error >> _RATE)
                weights[w + _TWO] = w3 + (o3 * error >> _RATE)
                weights[w + _THREE] = w0 + (o0 * error >> _RATE)
                starts[slot] = adapted(starts[slot], bit, _LIMIT)
                follows[c1] = adapted(follows[c1], bit, _LIMIT)
                follows[c2] = adapted(follows[c2], bit, _LIMIT)
                follows[c3] = adapted(follows[c3], bit, _LIMIT)
                s1, s2, s3 = _moved(s1, bit, f1), _moved(s2, bit, f2), _moved(s3, bit, f3)
                done = done << _ONE | bit
            for depth in range(mixed, width):
                down = width - _ONE - depth
                foretold = y2 >> down & _ONE
                tail = _ONE + foretold if s2 == np.uint64(AGREES) else _ZERO
                place = (group * np.uint64(64) + depth) * _THREE + tail
                if decoding:
                    bit, code, span, at = decode_bit(stream, code, span, at, chance(lows[place]))
                else:
                    bit = value >> down & _ONE
                    low, span, at = encode_bit(stream, low, span, at, chance(lows[place]), bit)
                lows[place] = adapted(lows[place], bit, _LIMIT_LOW)
                s2 = _moved(s2, bit, foretold)
                done = done << _ONE | bit
            if decoding:
                for k in range(width >> _THREE):
                    elements[position + k] = np.uint8(done >> (k << _THREE) & np.uint64(0xFF))
            x3, x2, x1 = x2, x1, done
            position += width >> _THREE
        used[item] = min(at, np.uint64(len(stream)))
    if decoding:
        return at
    return finish(stream, low, span, at)


@njit(cache=True, nogil=True)
def run(
    elements: NDArray[np.uint8],
    items: NDArray[np.uint64],
    stream: NDArray[np.uint8],
    decoding: bool,
    used: NDArray[np.uint32],
) -> Any:
    """Code the elements of all items, one after the other.

    Args:
        elements: their bytes, read or, when decoding, written.
        items: of each its number of elements, their width in bits (whole bytes), their class, how lines are
            continued, and whether patterns are those of floats; shape (m, 5).
        stream: the coded bytes: written, or read; any bytes are safe.
        decoding: which of the two.
        used: bytes of the stream reached at the end of each item, shape (m,).

    Returns:
        Bytes of the stream; when decoding, those looked at, which may be more than there are.
    """
    # The compiler makes a loop for each.
    if decoding:
        return _run(elements, items, stream, True, used)
    return _run(elements, items, stream, False, used)
