"""Bytes predicted from the bytes before them, bit by bit: contexts of up to four bytes, and repeats, mixed.

Each bit of a byte, highest first, has six predictions: an adaptive probability for the bits of this byte so
far, after the last 0, 1, 2, 3 and 4 bytes; and, where the last five bytes occurred before, one that says
how often what followed the last time came again. They are mixed in the logistic domain, with weights chosen
by the length of the repeat (M. Mahoney, "Adaptive Weighing of Context Models for Lossless Data Compression",
2005).
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

ORDERS = 5
"""Contexts of 0 to 4 bytes."""

SLOTS = 1 << 16
"""Adaptive probabilities of each context."""

REPEATS = 1 << 16
"""Places remembered by the five bytes before them."""

LONGEST = 31
"""Length from which on repeats are alike."""

WEIGHT = np.int64(22000)
"""What a prediction counts at first, in 2**-16."""

LIMITS = np.array([250, 120, 60, 40, 30], np.uint64)
"""How many updates an adaptive probability of each order counts."""

_RATE = np.int64(14)
_ZERO, _ONE = np.uint64(0), np.uint64(1)
_MIX = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True)
def run(
    text: NDArray[np.uint8],
    known: np.uint64,
    stream: NDArray[np.uint8],
    decoding: bool,
    used: NDArray[np.uint32],
) -> Any:
    """Code all bytes of `text` after the first `known`, from which the model only learns.

    Args:
        text: read, or written from `known` on when decoding.
        known: how many bytes are there beforehand.
        stream: the coded bytes: written, or read; any bytes are safe.
        decoding: which of the two.
        used: bytes of the stream that each of the coded bytes has reached, shape (len(text) - known,).

    Returns:
        Bytes of the stream; when decoding, those looked at, which may be more than there are.
    """
    probabilities = np.full((ORDERS, SLOTS), FRESH, np.uint32)
    repeated = np.full(LONGEST + 1, FRESH, np.uint32)
    weights = np.full((LONGEST + 1, ORDERS + 1), WEIGHT, np.int64)
    places = np.zeros(REPEATS, np.uint32)
    bases = np.zeros(ORDERS, np.uint64)
    slots = np.zeros(ORDERS, np.uint64)
    odds = np.zeros(ORDERS + 1, np.int64)
    low, span, at = _ZERO, WHOLE, _ZERO
    code = _ZERO
    if decoding:
        code, at = first_code(stream), np.uint64(8)
    last = _ZERO  # the eight bytes before, the nearest one lowest
    match, length = _ZERO, _ZERO
    for i in range(np.uint64(len(text))):
        for order in range(np.uint64(1), np.uint64(ORDERS)):
            seen = last & ((_ONE << (np.uint64(8) * order)) - _ONE)
            bases[order] = (seen + order) * _MIX >> np.uint64(30)
        expected = np.uint64(text[match]) | np.uint64(256) if length else _ZERO
        node = _ONE
        for depth in range(np.uint64(8)):
            agrees = length > _ZERO and expected >> (np.uint64(8) - depth) == node
            row = min(length, np.uint64(LONGEST)) if agrees else _ZERO
            foretold = expected >> (np.uint64(7) - depth) & _ONE
            total = np.int64(0)
            for order in range(np.uint64(ORDERS)):
                slots[order] = (bases[order] + node * np.uint64(0x2F0B4C47)) & np.uint64(SLOTS - 1)
                odds[order] = stretch(chance(probabilities[order, slots[order]]))
                total += weights[row, order] * odds[order]
            odds[ORDERS] = np.int64(0)
            if agrees:
                surely = stretch(chance(repeated[row]))
                odds[ORDERS] = surely if foretold else -surely
                total += weights[row, ORDERS] * odds[ORDERS]
            p = squash(total >> np.int64(16))
            if i < known:
                bit = np.uint64(text[i]) >> (np.uint64(7) - depth) & _ONE
            elif decoding:
                bit, code, span, at = decode_bit(stream, code, span, at, p)
            else:
                bit = np.uint64(text[i]) >> (np.uint64(7) - depth) & _ONE
                low, span, at = encode_bit(stream, low, span, at, p, bit)
            error = (np.int64(bit) << np.int64(16)) - np.int64(p)
            for order in range(np.uint64(ORDERS)):
                weights[row, order] += odds[order] * error >> _RATE
                slot = slots[order]
                probabilities[order, slot] = adapted(probabilities[order, slot], bit, LIMITS[order])
            if agrees:
                weights[row, ORDERS] += odds[ORDERS] * error >> _RATE
                repeated[row] = adapted(repeated[row], np.uint64(bit == foretold), np.uint64(250))
            node = node << _ONE | bit
        value = node & np.uint64(0xFF)
        if i >= known:
            text[i] = np.uint8(value)
            used[i - known] = min(at, np.uint64(len(stream)))
        last = last << np.uint64(8) | value
        # The place after this byte, by the five bytes up to it.
        key = (last & np.uint64(0xFFFFFFFFFF)) * _MIX >> np.uint64(48)
        if length and np.uint64(text[match]) == value:
            length, match = min(length + _ONE, np.uint64(LONGEST)), match + _ONE
        else:
            match = np.uint64(places[key])
            length = _ONE if match else _ZERO
        places[key] = i + _ONE
    if decoding:
        return at
    return finish(stream, low, span, at)
