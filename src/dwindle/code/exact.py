"""Exact tensors, a block at a time: bytes of equal place, such as exponents, are coded apart from the others.

A block begins with a byte that says what follows:

- 0, stored: the elements.
- 1, constant: one element, which all others equal to the bit.
- 2, planes: each element, taken as one word, is cut into bytes, and each plane of bytes is coded where that
  pays, piece by piece (`kernels.planes`). Floats are turned left first, so that the sign leaves the exponent:
  those with exponents of eight bits by two, so that a byte has the seven lower ones and the first bit of the
  mantissa. The highest bit of an exponent hardly ever says anything, and it is the lowest of the last plane
  then.
- 3, steps: planes of the difference of each word to the one before, the first to 0, folded (below). For
  integers.
- 4, change: planes of the difference of each word to that of the base, folded. Words of floats are put in the
  order of their values first: all bits of negative ones are turned over, the highest bit of the others.
- 5, sparse: a plane that has a bit for each element, lowest first, set where it is not zero; then a block of
  those elements, of a mode 0 or 2.
- 6, deflated: the elements as a zlib stream (RFC 1950).

Folded: a difference d, modulo 2 to the width, is 2d for d < half of that, else 2 (-d) - 1: small numbers
either way.
"""

from __future__ import annotations

import threading
import zlib
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle import dtypes
from dwindle.code.cursor import Cursor
from dwindle.code.parts import Part
from dwindle.errors import CorruptError
from dwindle.kernels import pieces_decode, pieces_encode
from dwindle.kernels.words import BROKEN
from dwindle.records import same_bytes

STORED, CONSTANT, PLANES, STEPS, CHANGE, SPARSE, DEFLATED = range(7)

SPARSE_FROM = 1 / 32
"""Share of zeros from which on they are left out."""

LOOK = 1009
"""Of longer blocks every so many elements one is looked at before all zeros are counted."""

DEFLATE_FROM = 1 << 22
"""Most bytes of a block of integers that zlib is tried on: it is slow."""

FLOATS = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "complex64",
    "complex128",
)
SHORT_EXPONENTS = ("float32", "bfloat16", "complex64")
"""Types whose parts have an exponent of eight bits."""

PART_WIDTH = {"complex64": 4, "complex128": 8}

Words = NDArray[Any]


class _Kept(threading.local):
    """What the kernels write in, kept by each thread: a megabyte that is new to the process takes time."""

    def __init__(self) -> None:
        self.work = lru_cache(pieces_encode.work)
        self.room = lru_cache(pieces_decode.room)


_kept = _Kept()


def encode(data: memoryview | bytes, dtype: str, base: memoryview | bytes | None = None) -> memoryview:
    """Code the elements of a block.

    Args:
        data: their bytes.
        dtype: their type.
        base: the bytes of as many elements of the same type, which they are likely to be close to.

    Returns:
        At most a byte more than the elements.
    """
    words = _words(data, dtype)
    if not len(words):
        return memoryview(b"")
    if _constant(data, dtype):
        return memoryview(bytes([CONSTANT]) + bytes(memoryview(data)[: dtypes.itemsize(dtype)]))
    found = _planes(words, PLANES, _turn(dtype))
    if _sparse_enough(words):
        found = min(found, _sparse(words, dtype), key=len)
    if dtype not in FLOATS:
        steps = _fold(np.diff(words, prepend=words.dtype.type(0)))
        found = min(found, _planes(steps, STEPS, 0), key=len)
        if len(data) <= DEFLATE_FROM:
            found = min(found, memoryview(bytes([DEFLATED]) + zlib.compress(data, 6)), key=len)
    if base is not None:
        change = _fold(_ordered(words, dtype) - _ordered(_words(base, dtype), dtype))
        found = min(found, _planes(change, CHANGE, 0), key=len)
    return found if len(found) <= len(data) else memoryview(bytes([STORED]) + bytes(data))


def decode(
    data: memoryview, dtype: str, out: NDArray[np.uint8], base: memoryview | None = None
) -> list[Part]:
    """Fill `out` with the bytes of a block's elements.

    Returns:
        What the coded bytes were, adding up to all of them.

    Raises:
        CorruptError: if they are not a block of so many elements.
    """
    if not len(out):
        if len(data):
            raise CorruptError(f"expected no bytes for no elements, got {len(data)}")
        return []
    cursor = Cursor(data)
    mode = cursor.byte()
    parts = [Part("modes", 1)]
    words = out.view(f"<u{_width(dtype)}")
    if mode == STORED:
        out[:] = np.frombuffer(cursor.take(len(out)), np.uint8)
        parts.append(Part("raw", len(out)))
    elif mode == CONSTANT:
        size = dtypes.itemsize(dtype)
        out.reshape(-1, size)[:] = np.frombuffer(cursor.take(size), np.uint8)
        parts.append(Part("raw", size))
    elif mode == PLANES:
        parts += _read_planes(cursor, words, _turn(dtype))
    elif mode == STEPS:
        parts += _read_planes(cursor, words, 0)
        np.cumsum(_unfold(words), dtype=words.dtype, out=words)
    elif mode == CHANGE and base is not None:
        parts += _read_planes(cursor, words, 0)
        words[:] = _disordered(_ordered(_words(base, dtype), dtype) + _unfold(words), dtype)
    elif mode == SPARSE:
        parts += _read_sparse(cursor, words, dtype)
    elif mode == DEFLATED:
        out[:] = np.frombuffer(_inflate(cursor.take(len(data) - 1), len(out)), np.uint8)
        parts.append(Part("deflated", len(data) - 1))
    elif mode == CHANGE:
        raise CorruptError("expected a block of a tensor without a base, got a difference from one")
    else:
        raise CorruptError(f"expected a block of mode 0 to 6, got {mode}")
    cursor.end()
    return parts


def _width(dtype: str) -> int:
    """Bytes of a word."""
    return PART_WIDTH.get(dtype, dtypes.itemsize(dtype))


def _words(data: memoryview | bytes, dtype: str) -> Words:
    return np.frombuffer(data, f"<u{_width(dtype)}")


def _constant(data: memoryview | bytes, dtype: str) -> bool:
    size = dtypes.itemsize(dtype)
    view = memoryview(data)
    return view[:size] == view[-size:] and same_bytes(view[size:], view[:-size])


def _ordered(words: Words, dtype: str) -> Words:
    """Words of floats in the order of their values."""
    if dtype not in FLOATS:
        return words
    top = words.dtype.type(1 << (8 * words.itemsize - 1))
    ordered: Words = np.where(words & top, ~words, words | top)
    return ordered


def _disordered(words: Words, dtype: str) -> Words:
    """Undo `_ordered`."""
    if dtype not in FLOATS:
        return words
    top = words.dtype.type(1 << (8 * words.itemsize - 1))
    patterns: Words = np.where(words & top, words ^ top, ~words)
    return patterns


def _fold(words: Words) -> Words:
    top = words.dtype.type(8 * words.itemsize - 1)
    one = words.dtype.type(1)
    folded: Words = words << one ^ (words.dtype.type(0) - (words >> top))
    return folded


def _unfold(words: Words) -> Words:
    one = words.dtype.type(1)
    signed: Words = words >> one ^ (words.dtype.type(0) - (words & one))
    return signed


def _turn(dtype: str) -> int:
    """Bits that words are turned left by."""
    return 2 if dtype in SHORT_EXPONENTS else int(dtype in FLOATS)


def _planes(words: Words, mode: int, turn: int) -> memoryview:
    """A block of planes."""
    words = words.view()
    words.flags.writeable = False  # else the kernel would be compiled for either
    out = np.empty(1 + pieces_encode.capacity(words.itemsize, len(words)), np.uint8)
    out[0] = mode
    room = _kept.work(words.itemsize)
    return out[: int(pieces_encode.encode(words, np.uint64(turn), out, np.uint64(1), room))].data


def _read_planes(cursor: Cursor, words: Words, turn: int) -> list[Part]:
    """Fill `words`."""
    sizes = np.empty(2, np.uint64)
    end = pieces_decode.decode(
        np.frombuffer(cursor.data, np.uint8),
        np.uint64(cursor.offset),
        np.uint64(turn),
        words,
        _kept.room(words.itemsize),
        sizes,
    )
    if end == BROKEN:
        raise CorruptError(f"expected planes of {len(words)} words, got something else")
    cursor.take(int(end) - cursor.offset)
    kinds = ("exponents", "mantissas") if turn else ("bytes", "bytes")
    return [Part(kind, int(size)) for kind, size in zip(kinds, sizes, strict=True) if size]


def _sparse_enough(words: Words) -> bool:
    """Whether so many words are zero that it may pay to leave them out."""
    some = words[::LOOK] if len(words) > LOOK * LOOK // 8 else words
    if len(some) - np.count_nonzero(some) <= SPARSE_FROM / 2 * len(some):
        return False
    return bool(len(words) - np.count_nonzero(words) > SPARSE_FROM * len(words))


def _sparse(words: Words, dtype: str) -> memoryview:
    kept = words != 0
    survivors: Words = words[kept]
    body = memoryview(bytes([STORED]) + survivors.tobytes())
    if len(survivors):
        body = min(body, _planes(survivors, PLANES, _turn(dtype)), key=len)
    return memoryview(b"".join([_planes(np.packbits(kept, bitorder="little"), SPARSE, 0), body]))


def _read_sparse(cursor: Cursor, words: Words, dtype: str) -> list[Part]:
    start = cursor.offset
    places = np.empty(-(-len(words) // 8), np.uint8)
    _read_planes(cursor, places, 0)
    bits = np.unpackbits(places, bitorder="little")
    if bits[len(words) :].any():
        raise CorruptError("expected no bits after the last element")
    kept = bits[: len(words)].view(np.bool_)
    head = cursor.offset
    survivors = np.empty(int(np.count_nonzero(kept)), words.dtype)
    mode = cursor.byte()
    if mode == STORED:
        survivors[:] = np.frombuffer(cursor.take(survivors.nbytes), words.dtype)
        parts = [Part("raw", survivors.nbytes)]
    elif mode == PLANES and len(survivors):
        parts = _read_planes(cursor, survivors, _turn(dtype))
    else:
        raise CorruptError(f"expected survivors stored or in planes, got mode {mode}")
    words[:] = 0
    words[kept] = survivors
    return [Part("places", head - start), Part("modes", 1), *parts]


def _inflate(data: memoryview, size: int) -> bytes:
    machine = zlib.decompressobj()
    try:
        found = machine.decompress(data, size)
    except zlib.error as error:
        raise CorruptError(f"expected a zlib stream: {error}") from error
    if len(found) != size or not machine.eof or machine.unused_data or machine.decompress(b"", 1):
        raise CorruptError(f"expected a zlib stream of {size} bytes and nothing after it")
    return found
