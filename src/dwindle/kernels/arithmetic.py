"""A binary range coder, adaptive probabilities, and logistic mixing, all in whole numbers.

The coder (G. N. N. Martin, "Range encoding", 1979; carries go back into the bytes already written) narrows an
interval [low, low + span) of 64-bit numbers. A bit whose probability of being 1 is p / 2**16 takes the lower
part, `(span >> 16) * p` wide, when it is 1 and the rest when it is 0. Whenever span falls under 2**32 the
upper 32 bits of low are written, highest byte first, and both are shifted left by 32. The end is the least
number inside the last interval with the most zero bytes at its end, and no zero byte is stored after the last
one that is not zero: a reader takes all bytes after the end for zeros.

State travels in three uint64 values that the caller keeps in local variables: `low` (`code` when decoding),
`span` and `at`, the next byte. It begins as 0, `WHOLE`, 0; for decoding as `first_code(data)`, `WHOLE`, 8.

An adaptive probability is a uint32: 22 bits of probability over 10 bits of how often it was updated. It moves
towards each bit by 1 / (updates + 1.5) of the way, updates counted up to a limit: a mean at first, later a
window. Mixing weighs predictions in the logistic domain (M. Mahoney, "Adaptive Weighing of Context Models for
Lossless Data Compression", 2005): `STRETCH` maps probabilities to logarithms of odds in steps of 1/256, and
`SQUASH` maps them back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dwindle.kernels.words import load64

WHOLE = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
"""The span before the first bit."""

FRESH = np.uint32(1 << 31)
"""An adaptive probability of one half, never updated."""

LIMIT = np.uint64(1023)
"""Highest limit of the number of updates."""

DOMAIN = 3071
"""Largest logarithm of odds, in steps of 1/256: odds of e**12."""

_ZERO, _ONE, _FOUR, _EIGHT = np.uint64(0), np.uint64(1), np.uint64(4), np.uint64(8)
_SIXTEEN, _WORD, _BYTE = np.uint64(16), np.uint64(32), np.uint64(0xFF)
_TEN = np.uint64(10)


def _squash_table() -> NDArray[np.uint16]:
    """Probability of 1 in 2**-16, for log odds (i - DOMAIN) / 256.

    Powers of e**(1/256) in fixed point: E(0) = 2**64, E(k + 1) = E(k) * R >> 64, R = floor(e**(1/256) 2**64).
    Entry DOMAIN + k is min(65535, (E(k) << 16) // (E(k) + 2**64)), and entry DOMAIN - k is 65536 less that.
    """
    one, ratio = 1 << 64, 18518942588666869714
    power, upper = one, []
    for _ in range(DOMAIN + 1):
        upper.append(min(65535, (power << 16) // (power + one)))
        power = power * ratio >> 64
    return np.array([65536 - p for p in upper[:0:-1]] + upper, np.uint16)


def _stretch_table(squash: NDArray[np.uint16]) -> NDArray[np.int16]:
    """Log odds in steps of 1/256, by i: the least that `squash` maps to at least (16 i + 8) / 2**16."""
    least = np.searchsorted(squash, 16 * np.arange(4096) + 8)
    return (least - DOMAIN).astype(np.int16)


SQUASH = _squash_table()
STRETCH = _stretch_table(SQUASH)

RATES = np.array([(2 << 16) // (2 * n + 3) for n in range(int(LIMIT) + 1)], np.uint32)
"""How far an adaptive probability moves after n updates, in 2**-16: 1 / (n + 1.5)."""


@njit(cache=True, nogil=True, forceinline=True)
def _next_word(data: NDArray[np.uint8], at: np.uint64) -> Any:
    """Bytes `at` to `at + 3`, highest first; those after the end are zero."""
    if at + _EIGHT <= np.uint64(len(data)):
        word = load64(data, at)
        return (
            (word & _BYTE) << np.uint64(24)
            | (word & np.uint64(0xFF00)) << _EIGHT
            | (word & np.uint64(0xFF0000)) >> _EIGHT
            | (word & np.uint64(0xFF000000)) >> np.uint64(24)
        )
    word = _ZERO
    for i in range(_FOUR):
        word <<= _EIGHT
        if at + i < np.uint64(len(data)):
            word |= np.uint64(data[at + i])
    return word


@njit(cache=True, nogil=True)
def first_code(data: NDArray[np.uint8]) -> Any:
    """What a decoder's `code` begins as: the first eight bytes; those after the end are zero."""
    return _next_word(data, _ZERO) << _WORD | _next_word(data, _FOUR)


@njit(cache=True, nogil=True, forceinline=True)
def decode_bit(data: NDArray[np.uint8], code: np.uint64, span: np.uint64, at: np.uint64, p: np.uint64) -> Any:
    """The next bit.

    Args:
        data: what `finish` left, shape (n,); any bytes are safe.
        code: the number read so far, less the interval's start.
        span: width of the interval.
        at: the next byte to read; may run past the end.
        p: probability of a 1 in 2**-16, 1 to 65535.

    Returns:
        The bit as uint64, code, span and at.
    """
    bound = (span >> _SIXTEEN) * p
    bit = code < bound
    code = code if bit else code - bound
    span = bound if bit else span - bound
    if span >> _WORD == _ZERO:
        code = code << _WORD | _next_word(data, at)
        span <<= _WORD
        at += _FOUR
    return np.uint64(bit), code, span, at


@njit(cache=True, nogil=True)
def carry(out: NDArray[np.uint8], at: np.uint64) -> None:
    """Add one to the number whose last byte is the one before `at`."""
    i = at
    while i > _ZERO:
        i -= _ONE
        if i < np.uint64(len(out)):
            out[i] = np.uint8((np.uint64(out[i]) + _ONE) & _BYTE)
            if out[i] != np.uint8(0):
                return


@njit(cache=True, nogil=True)
def put_word(out: NDArray[np.uint8], at: np.uint64, word: np.uint64) -> None:
    """Write the upper 32 bits of `word`, highest byte first, as far as `out` reaches."""
    for i in range(_FOUR):
        if at + i < np.uint64(len(out)):
            out[at + i] = np.uint8(word >> (np.uint64(56) - _EIGHT * i) & _BYTE)


@njit(cache=True, nogil=True, forceinline=True)
def encode_bit(
    out: NDArray[np.uint8], low: np.uint64, span: np.uint64, at: np.uint64, p: np.uint64, bit: np.uint64
) -> Any:
    """Add a bit.

    Args:
        out: written up to its end; what does not fit is only counted by `at`.
        low: start of the interval.
        span: its width.
        at: the next byte to write.
        p: probability of a 1 in 2**-16, 1 to 65535.
        bit: 0 or 1.

    Returns:
        low, span and at.
    """
    bound = (span >> _SIXTEEN) * p
    start = low if bit else low + bound
    span = bound if bit else span - bound
    if start < low:
        carry(out, at)
    low = start
    if span >> _WORD == _ZERO:
        put_word(out, at, low)
        low <<= _WORD
        span <<= _WORD
        at += _FOUR
    return low, span, at


@njit(cache=True, nogil=True)
def finish(out: NDArray[np.uint8], low: np.uint64, span: np.uint64, at: np.uint64) -> Any:
    """End the code.

    Returns:
        Its number of bytes. If that is more than `out` holds, nothing in `out` is of use.
    """
    kept = np.uint64(56)
    end = (low + ((_ONE << kept) - _ONE)) >> kept << kept
    while end - low >= span:  # differences wrap as the numbers do, so a carry is no special case
        kept -= _EIGHT
        end = (low + ((_ONE << kept) - _ONE)) >> kept << kept
    if end < low:
        carry(out, at)
    put_word(out, at, end)
    put_word(out, at + _FOUR, end << _WORD)
    at += _EIGHT
    if at > np.uint64(len(out)):
        return at
    while at > _ZERO and out[at - _ONE] == np.uint8(0):
        at -= _ONE
    return at


@njit(cache=True, nogil=True, forceinline=True)
def chance(state: np.uint32) -> Any:
    """Probability of a 1 of an adaptive probability, in 2**-16: 1 to 65535."""
    return np.uint64(state) >> _SIXTEEN


@njit(cache=True, nogil=True, forceinline=True)
def adapted(state: np.uint32, bit: np.uint64, limit: np.uint64) -> Any:
    """An adaptive probability after one more bit.

    It moves towards 2**22 - 64 or 64 (in 2**-22), so that `chance` stays within 1 and 65535.

    Args:
        state: 22 bits of probability, then 10 bits of updates.
        bit: 0 or 1.
        limit: updates are counted up to here, at most `LIMIT`.
    """
    updates = np.uint64(state) & LIMIT
    p = np.int64(np.uint64(state) >> _TEN)
    aim = np.int64(64) + np.int64(bit) * np.int64((1 << 22) - 128)
    p += ((aim - p) * np.int64(RATES[updates])) >> np.int64(16)
    return np.uint32(np.uint64(p) << _TEN | min(updates + _ONE, limit))


@njit(cache=True, nogil=True, forceinline=True)
def stretch(p: np.uint64) -> Any:
    """Logarithm of the odds of a probability in 2**-16, in steps of 1/256, as int64."""
    return np.int64(STRETCH[p >> _FOUR])


@njit(cache=True, nogil=True, forceinline=True)
def squash(odds: np.int64) -> Any:
    """Probability in 2**-16, 1 to 65535, of log odds (int64) in steps of 1/256, clipped to DOMAIN."""
    clipped = min(max(odds, np.int64(-DOMAIN)), np.int64(DOMAIN))
    return np.uint64(SQUASH[np.uint64(clipped + np.int64(DOMAIN))])
