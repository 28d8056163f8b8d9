"""Range asymmetric numeral systems (Duda 2013), eight states in turn over one run of 16-bit words.

A state is a number from 2**15 up to 2**31. Symbol i belongs to state i mod 8. The decoder takes the symbol
whose slot
the low bits of the state are, and where the state falls under 2**15 it takes the next word in; the encoder
does
the same backwards, from the last symbol to the first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

LANES = 8

NO_CODE = np.uint64(0xFFFFFFFFFFFFFFFF)
"""What `encode` returns where a symbol has no slots."""

_LEAST = np.uint64(1 << 15)
_WORD, _LOW = np.uint64(16), np.uint64(0xFFFF)
_ONE = np.uint64(1)


@njit(cache=True, nogil=True, forceinline=True)
def _push(
    state: np.uint64,
    reciprocal: np.uint64,
    span: np.uint64,
    bits: np.uint64,
    words: NDArray[np.uint16],
    at: np.uint64,
) -> Any:
    """Take a symbol in; the state, and where in `words` the last word is that was written."""
    count = span & _LOW
    # Arithmetic in place of a choice, which would be compiled to a jump that is hard to foresee.
    full = np.uint64(state >= count << (np.uint64(31) - bits))
    words[at - _ONE] = np.uint16(state & _LOW)
    at -= full
    state >>= full << np.uint64(4)
    # Exact for states under 2**31 (Alverson 1991): the reciprocal is rounded up in enough bits.
    whole = state * (reciprocal >> np.uint64(6)) >> (reciprocal & np.uint64(63))
    return (whole << bits) + (state - whole * count) + (span >> _WORD), at


@njit(cache=True, nogil=True)
def encode(
    symbols: NDArray[Any],
    reciprocals: NDArray[np.uint64],
    spans: NDArray[np.uint64],
    bits: np.uint64,
    states: NDArray[np.uint64],
    words: NDArray[np.uint16],
) -> Any:
    """Code symbols, writing words from the end of `words` towards its start.

    Args:
        symbols: uint8 or uint16, shape (n,).
        reciprocals: of every symbol the dtype can hold, with c slots: with s = bit length of c - 1, ceil of
            2**(s + 31) / c << 6 | s + 31; 0 where it has none.
        spans: likewise first slot << 16 | number of slots.
        bits: logarithm of the number of slots, at most 15.
        states: as many as there are lanes, changed.
        words: at least one more than there are symbols.

    Returns:
        Where in `words` the first word is, or `NO_CODE` where a symbol has no slots.
    """
    lanes = np.uint64(len(states))
    at, i = np.uint64(len(words)), np.uint64(len(symbols))
    missing = np.uint64(0)
    while i % np.uint64(LANES) or (lanes < np.uint64(LANES) and i):
        i -= _ONE
        symbol = symbols[i]
        missing |= np.uint64(reciprocals[symbol] == np.uint64(0))
        states[i % lanes], at = _push(states[i % lanes], reciprocals[symbol], spans[symbol], bits, words, at)
    if i:
        a, b, c, d, e, f, g, h = states
        while i:
            i -= np.uint64(LANES)
            j, k = symbols[i], symbols[i + np.uint64(1)]
            y, m = symbols[i + np.uint64(2)], symbols[i + np.uint64(3)]
            n, o = symbols[i + np.uint64(4)], symbols[i + np.uint64(5)]
            p, q = symbols[i + np.uint64(6)], symbols[i + np.uint64(7)]
            h, at = _push(h, reciprocals[q], spans[q], bits, words, at)
            g, at = _push(g, reciprocals[p], spans[p], bits, words, at)
            f, at = _push(f, reciprocals[o], spans[o], bits, words, at)
            e, at = _push(e, reciprocals[n], spans[n], bits, words, at)
            d, at = _push(d, reciprocals[m], spans[m], bits, words, at)
            c, at = _push(c, reciprocals[y], spans[y], bits, words, at)
            b, at = _push(b, reciprocals[k], spans[k], bits, words, at)
            a, at = _push(a, reciprocals[j], spans[j], bits, words, at)
            missing |= np.uint64(
                min(
                    min(min(spans[j], spans[k]), min(spans[y], spans[m])),
                    min(min(spans[n], spans[o]), min(spans[p], spans[q])),
                )
                == np.uint64(0)
            )
        states[0], states[1], states[2], states[3] = a, b, c, d
        states[4], states[5], states[6], states[7] = e, f, g, h
    return NO_CODE if missing else at


@njit(cache=True, nogil=True)
def decode(
    words: NDArray[np.uint16],
    at: np.uint64,
    slots: NDArray[np.uint64],
    bits: np.uint64,
    states: NDArray[np.uint64],
    out: NDArray[Any],
    first: np.uint64,
) -> Any:
    """Read symbols one at a time, every access checked.

    Args:
        words: the words; zeros are read after them.
        at: the next of them.
        slots: of every slot its symbol << 32 | place among the symbol's slots << 16 | number of these - 1.
        bits: logarithm of the number of slots.
        states: one for each lane, changed.
        out: uint8 or uint16, filled from `first` on.
        first: a multiple of the number of lanes.

    Returns:
        The next word.
    """
    lanes, mask = np.uint64(len(states)), np.uint64(len(slots) - 1)
    for i in range(first, np.uint64(len(out))):
        state = states[i % lanes]
        slot = slots[state & mask]
        out[i] = slot >> np.uint64(32)
        state = ((slot & _LOW) + _ONE) * (state >> bits) + (slot >> _WORD & _LOW)
        if state < _LEAST:
            state = state << _WORD
            if at < np.uint64(len(words)):
                state |= np.uint64(words[at])
            at += _ONE
        states[i % lanes] = state
    return at


@njit(cache=True, nogil=True)
def decode_lanes(
    words: NDArray[np.uint16],
    at: np.uint64,
    slots: NDArray[np.uint64],
    bits: np.uint64,
    states: NDArray[np.uint64],
    out: NDArray[Any],
) -> Any:
    """Read symbols of eight lanes, as far as whole rounds and words surely go; see `decode`.

    Returns:
        The next word, and how many symbols were read.
    """
    mask = np.uint64(len(slots) - 1)
    a, b, c, d, e, f, g, h = states
    done = np.uint64(0)
    while True:
        rounds = min(
            (np.uint64(len(words)) - at) >> np.uint64(3), (np.uint64(len(out)) - done) >> np.uint64(3)
        )
        if rounds == np.uint64(0):
            break
        for _ in range(rounds):
            p, q, r, s = slots[a & mask], slots[b & mask], slots[c & mask], slots[d & mask]
            t, u, v, w = slots[e & mask], slots[f & mask], slots[g & mask], slots[h & mask]
            out[done] = p >> np.uint64(32)
            out[done + np.uint64(1)] = q >> np.uint64(32)
            out[done + np.uint64(2)] = r >> np.uint64(32)
            out[done + np.uint64(3)] = s >> np.uint64(32)
            out[done + np.uint64(4)] = t >> np.uint64(32)
            out[done + np.uint64(5)] = u >> np.uint64(32)
            out[done + np.uint64(6)] = v >> np.uint64(32)
            out[done + np.uint64(7)] = w >> np.uint64(32)
            done += np.uint64(8)
            a = ((p & _LOW) + _ONE) * (a >> bits) + (p >> _WORD & _LOW)
            b = ((q & _LOW) + _ONE) * (b >> bits) + (q >> _WORD & _LOW)
            c = ((r & _LOW) + _ONE) * (c >> bits) + (r >> _WORD & _LOW)
            d = ((s & _LOW) + _ONE) * (d >> bits) + (s >> _WORD & _LOW)
            e = ((t & _LOW) + _ONE) * (e >> bits) + (t >> _WORD & _LOW)
            f = ((u & _LOW) + _ONE) * (f >> bits) + (u >> _WORD & _LOW)
            g = ((v & _LOW) + _ONE) * (g >> bits) + (v >> _WORD & _LOW)
            h = ((w & _LOW) + _ONE) * (h >> bits) + (w >> _WORD & _LOW)
            # Arithmetic in place of a choice, which would be compiled to a jump that is hard to foresee.
            n = np.uint64(a < _LEAST)
            a, at = a << (n << np.uint64(4)) | np.uint64(words[at]) & (np.uint64(0) - n), at + n
            n = np.uint64(b < _LEAST)
            b, at = b << (n << np.uint64(4)) | np.uint64(words[at]) & (np.uint64(0) - n), at + n
            n = np.uint64(c < _LEAST)
            c, at = c << (n << np.uint64(4)) | np.uint64(words[at]) & (np.uint64(0) - n), at + n
            n = np.uint64(d < _LEAST)
            d, at = d << (n << np.uint64(4)) | np.uint64(words[at]) & (np.uint64(0) - n), at + n
            n = np.uint64(e < _LEAST)
            e, at = e << (n << np.uint64(4)) | np.uint64(words[at]) & (np.uint64(0) - n), at + n
            n = np.uint64(f < _LEAST)
            f, at = f << (n << np.uint64(4)) | np.uint64(words[at]) & (np.uint64(0) - n), at + n
            n = np.uint64(g < _LEAST)
            g, at = g << (n << np.uint64(4)) | np.uint64(words[at]) & (np.uint64(0) - n), at + n
            n = np.uint64(h < _LEAST)
            h, at = h << (n << np.uint64(4)) | np.uint64(words[at]) & (np.uint64(0) - n), at + n
    states[0], states[1], states[2], states[3] = a, b, c, d
    states[4], states[5], states[6], states[7] = e, f, g, h
    return at, done
