"""Exact tensors, a block at a time: bytes of equal place, such as exponents, are coded apart from the others.

A block begins with a byte that says what follows:

- 0, stored: the elements.
- 1, constant: one element, which all others equal to the bit.
- 2, planes: each element, taken as one word, is cut into bytes. Floats are turned left by one bit first, so
  that
  the exponent of a float32 or bfloat16 is a byte of its own. All first bytes are a plane, coded alone, and
  so on.
- 3, steps: planes of the difference of each word to the one before, the first to 0, folded (below). For
  integers.
- 4, change: planes of the difference of each word to that of the base, folded. Words of floats are put in
  the order
  of their values first: all bits of negative ones are turned over, the highest bit of the others.
- 5, sparse: a plane that has a bit for each element, lowest first, set where it is not zero; then a block
  of those
  elements, of a mode 0 to 2.
- 6, deflated: the elements as a zlib stream (RFC 1950).

Folded: a difference d, modulo 2 to the width, is 2d for d < half of that, else 2 (-d) - 1: small numbers
either way.

A plane comes in pieces of 2**16 bytes, so that a code fits the rows it is for. A piece is a byte and what it
announces: 0 the bytes as they are; 1 one byte, which all are; 2 a rANS code: the size
of the table as a varint, the table, the size of the stream as a varint, the stream.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle import dtypes
from dwindle.code import entropy, rans
from dwindle.code.cursor import Cursor, prefixed
from dwindle.code.parts import Part
from dwindle.errors import CorruptError
from dwindle.kernels import planes as kernels

STORED, CONSTANT, PLANES, STEPS, CHANGE, SPARSE, DEFLATED = range(7)
RAW_PIECE, ONE_BYTE, CODED = range(3)

PIECE = 1 << 16
"""Bytes of a plane that are coded alone."""

HOPELESS = 0.998
"""Entropy of a piece, as a share of its bytes, from which on it is not coded."""

SPARSE_FROM = 1 / 32
"""Share of zeros from which on they are left out."""

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
PART_WIDTH = {"complex64": 4, "complex128": 8}

Words = NDArray[Any]


def encode(data: memoryview | bytes, dtype: str, base: memoryview | bytes | None = None) -> bytes:
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
        return b""
    if _constant(data, dtype):
        return bytes([CONSTANT]) + bytes(memoryview(data)[: dtypes.itemsize(dtype)])
    found = bytes([PLANES]) + _planes(words, dtype in FLOATS)
    zeros = len(words) - int(np.count_nonzero(words))
    if zeros > SPARSE_FROM * len(words):
        found = min(found, _sparse(words, dtype), key=len)
    if dtype not in FLOATS:
        steps = _fold(np.diff(words, prepend=words.dtype.type(0)))
        found = min(found, bytes([STEPS]) + _planes(steps, False), key=len)
        if len(data) <= DEFLATE_FROM:
            found = min(found, bytes([DEFLATED]) + zlib.compress(data, 6), key=len)
    if base is not None:
        change = _fold(_ordered(words, dtype) - _ordered(_words(base, dtype), dtype))
        coded = _one_word(change) or _planes(change, False)
        found = min(found, bytes([CHANGE]) + coded, key=len)
    return found if len(found) <= len(data) else bytes([STORED]) + bytes(data)


def decode(
    data: memoryview, dtype: str, out: NDArray[np.uint8], base: memoryview | None = None
) -> list[Part]:
    """Fill `out` with the bytes of a block's elements.

    Returns:
        What the coded bytes were, in order, adding up to all of them.

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
        parts += _read_planes(cursor, words, dtype in FLOATS)
    elif mode == STEPS:
        parts += _read_planes(cursor, words, False)
        np.cumsum(_unfold(words), dtype=words.dtype, out=words)
    elif mode == CHANGE and base is not None:
        parts += _read_planes(cursor, words, False)
        words[:] = _disordered(_ordered(_words(base, dtype), dtype) + _unfold(words), dtype)
    elif mode == SPARSE:
        parts += _read_sparse(cursor, words, dtype)
    elif mode == DEFLATED:
        out[:] = np.frombuffer(_inflate(cursor.take(len(data) - 1), len(out)), np.uint8)
        parts.append(Part("deflated", len(data) - 1))
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
    return view[:size] == view[-size:] and view[size:] == view[:-size]


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


def _one_word(words: Words) -> bytes | None:
    """The planes of words that are all 0, without looking at each."""
    return None if words.any() else bytes([ONE_BYTE, 0]) * (words.itemsize * -(-len(words) // PIECE))


def _planes(words: Words, turned: bool) -> bytes:
    out = np.empty((words.itemsize, len(words)), np.uint8)
    kernels.split(np.ascontiguousarray(words), turned, out)
    return b"".join(_plane(plane) for plane in out)


def _plane(plane: NDArray[np.uint8]) -> bytes:
    return b"".join(_piece(plane[start : start + PIECE]) for start in range(0, len(plane), PIECE))


def _piece(piece: NDArray[np.uint8]) -> bytes:
    counts = entropy.counts(piece, 256)
    if int(counts.max()) == len(piece):
        return bytes([ONE_BYTE, int(piece[0])])
    if entropy.entropy_bytes(counts) < HOPELESS * len(piece):
        weights = rans.frequencies(counts)
        table, stream = rans.write_frequencies(weights), rans.encode(piece, weights)
        coded = bytes([CODED]) + prefixed(table) + prefixed(stream)
        if len(coded) <= len(piece):
            return coded
    return bytes([RAW_PIECE]) + piece.tobytes()


def _read_planes(cursor: Cursor, words: Words, turned: bool) -> list[Part]:
    """Fill `words`."""
    found, parts = [], []
    for number in range(words.itemsize):
        start = cursor.offset
        found.append(_read_plane(cursor, len(words)))
        kind = "bytes" if not turned else "exponents" if number == 0 else "mantissas"
        parts.append(Part(kind, cursor.offset - start))
    if len(found) == 1:
        words[:] = found[0] >> 1 | found[0] << 7 if turned else found[0]
    elif len(found) == 2:
        kernels.merge2(found[0], found[1], turned, words)
    elif len(found) == 4:
        kernels.merge4(found[0], found[1], found[2], found[3], turned, words)
    else:
        kernels.merge(np.stack(found), turned, words)
    return parts


def _read_plane(cursor: Cursor, count: int) -> NDArray[np.uint8]:
    plane = np.empty(count, np.uint8)
    for start in range(0, count, PIECE):
        _read_piece(cursor, plane[start : start + PIECE])
    return plane


def _read_piece(cursor: Cursor, out: NDArray[np.uint8]) -> None:
    kind = cursor.byte()
    if kind == RAW_PIECE:
        out[:] = np.frombuffer(cursor.take(len(out)), np.uint8)
    elif kind == ONE_BYTE:
        out[:] = cursor.byte()
    elif kind == CODED:
        table = cursor.prefixed()
        weights, end = rans.read_frequencies(table, 0, 256)
        if end != len(table):
            raise CorruptError(f"expected a table of {end} bytes, got {len(table)}")
        out[:] = rans.decode(cursor.prefixed(), len(out), rans.decode_table(weights), np.uint8)
    else:
        raise CorruptError(f"expected a piece of kind 0 to 2, got {kind}")


def _sparse(words: Words, dtype: str) -> bytes:
    kept = words != 0
    survivors: Words = words[kept]
    body: bytes = bytes([STORED]) + survivors.tobytes()
    if len(survivors):
        body = min(body, bytes([PLANES]) + _planes(survivors, dtype in FLOATS), key=len)
    return bytes([SPARSE]) + _plane(np.packbits(kept, bitorder="little")) + body


def _read_sparse(cursor: Cursor, words: Words, dtype: str) -> list[Part]:
    start = cursor.offset
    bits = np.unpackbits(_read_plane(cursor, -(-len(words) // 8)), bitorder="little")
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
        parts = _read_planes(cursor, survivors, dtype in FLOATS)
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
