"""One block of a shared tensor to bytes and back, given the tensor's plan and codebook."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.code import bits, context, gaps, sparse, streams, trellis
from dwindle.code.cursor import Cursor, varint
from dwindle.code.parts import Part
from dwindle.code.plan import Book, Plan
from dwindle.code.streams import index_bits
from dwindle.errors import CorruptError
from dwindle.records import BLOCK

Symbols = NDArray[np.unsignedinteger[Any]]


def block_count(plan: Plan, elements: int) -> int:
    """Blocks a tensor is cut into; CSR and CSC tensors are one."""
    if plan.arrangement in ("csr", "csc"):
        return min(elements, 1)
    return -(-elements // BLOCK)


def block_range(plan: Plan, elements: int, block: int) -> slice:
    """The elements that a block holds."""
    if plan.arrangement in ("csr", "csc"):
        return slice(0, elements)
    return slice(block * BLOCK, min(elements, (block + 1) * BLOCK))


def encode(indices: Symbols, plan: Plan, book: Book, shape: tuple[int, ...], block: int) -> bytes:
    """The bytes of one block.

    Args:
        indices: the index map of the whole tensor, shape (n,).
        plan: how the tensor is coded.
        book: its codebook.
        shape: of the tensor.
        block: which block.
    """
    part = indices[block_range(plan, len(indices), block)]
    if plan.arrangement == "context":
        return context.encode(part, block * BLOCK, shape, book.ranks, book.zero)
    if plan.arrangement == "trellis":
        return trellis.encode(part, block * BLOCK, shape, book.zero)
    if not plan.sparse:
        return streams.encode(part, plan.index_code, index_bits(plan.entries))
    zero = _zero(book)
    if plan.arrangement == "gaps":
        return _encode_gaps(part, plan, zero)
    matrix_shape = sparse.matrix_shape(shape)
    if plan.arrangement == "csc":
        part, matrix_shape = sparse.transpose(part, matrix_shape), matrix_shape[::-1]
    matrix = sparse.compress(part, zero, matrix_shape)
    survivors = len(matrix.places)
    return (
        varint(survivors)
        + bits.pack(matrix.pointers, survivors.bit_length())
        + bits.pack(matrix.places, index_bits(matrix_shape[1]))
        + bits.pack(matrix.symbols, index_bits(plan.entries))
    )


def decode(
    data: memoryview, plan: Plan, book: Book, shape: tuple[int, ...], block: int, out: Symbols
) -> list[Part]:
    """Fill `out` with a block's part of the index map.

    Returns:
        What the bytes of the block were, in order, adding up to all of them.

    Raises:
        CorruptError: if they are not a block of this plan.
    """
    if plan.arrangement == "context":
        context.decode(data, out, block * BLOCK, shape, book.ranks, book.zero)
        return [Part("indices", len(data))]
    if plan.arrangement == "trellis":
        trellis.decode(data, out, block * BLOCK, shape, plan.entries, book.zero)
        return [Part("indices", len(data))]
    if not plan.sparse:
        _indices(data, plan, out)
        return [Part("indices", len(data))]
    if plan.arrangement == "gaps":
        return _decode_gaps(Cursor(data), plan, _zero(book), out)
    return _decode_sparse(data, plan, _zero(book), sparse.matrix_shape(shape), out)


def _zero(book: Book) -> int:
    if book.zero is None:
        raise CorruptError("expected an entry of 0.0 where only survivors are stored")
    return book.zero


def _encode_gaps(indices: Symbols, plan: Plan, zero: int) -> bytes:
    stored, symbols = gaps.split(indices, zero, plan.gap_bits)
    gap_stream = streams.encode(stored, plan.gap_code, plan.gap_bits)
    index_stream = streams.encode(symbols, plan.index_code, index_bits(plan.entries))
    length = varint(len(gap_stream)) if plan.gap_code else b""
    return varint(len(stored)) + length + gap_stream + index_stream


def _decode_gaps(cursor: Cursor, plan: Plan, zero: int, out: Symbols) -> list[Part]:
    entries = cursor.varint(len(out), "a number of survivors and fillers")
    if plan.gap_code:
        gap_size = cursor.varint(len(cursor.data), "the length of the gaps")
    else:
        gap_size = bits.packed_size(entries, plan.gap_bits)
    head = cursor.offset
    stored: Symbols = np.empty(entries, np.uint8 if plan.gap_bits <= 8 else np.uint16)
    streams.decode(cursor.take(gap_size), plan.gap_code, plan.gap_bits, stored)
    _check_under(1 << plan.gap_bits, stored, "gaps")
    index_size = len(cursor.data) - cursor.offset
    symbols = np.empty(entries, out.dtype)
    _indices(cursor.take(index_size), plan, symbols)
    gaps.join(stored, symbols, zero, out)
    return [Part("counts", head), Part("gaps", gap_size), Part("indices", index_size)]


def _decode_sparse(
    data: memoryview, plan: Plan, zero: int, shape: tuple[int, int], out: Symbols
) -> list[Part]:
    cursor = Cursor(data)
    if plan.arrangement == "csc":
        shape = shape[1], shape[0]
    survivors = cursor.varint(len(out), "a number of survivors")
    head = cursor.offset

    if not survivors:  # no bytes at all, however many rows there are
        cursor.end()
        out[:] = zero
        return [Part("counts", head)]

    def numbers(count: int, width: int) -> NDArray[Any]:
        if width > 32:
            raise CorruptError(f"expected numbers of at most 32 bits, got {width}")
        return bits.unpack(cursor.take(bits.packed_size(count, width)), count, width, np.uint32)

    pointers = numbers(shape[0] + 1, survivors.bit_length())
    at_places = cursor.offset
    places = numbers(survivors, index_bits(shape[1]))
    at_symbols = cursor.offset
    symbols = np.empty(survivors, out.dtype)
    _indices(cursor.take(len(data) - at_symbols), plan, symbols)
    indices = sparse.expand(sparse.Compressed(pointers, places, symbols), zero, shape)
    out[:] = sparse.transpose(indices, shape) if plan.arrangement == "csc" else indices
    return [
        Part("counts", head),
        Part("pointers", at_places - head),
        Part("places", at_symbols - at_places),
        Part("indices", cursor.offset - at_symbols),
    ]


def _indices(data: memoryview, plan: Plan, out: Symbols) -> None:
    """Read codebook indices, shape (n,), in the dtype a record holds them."""
    streams.decode(data, plan.index_code, index_bits(plan.entries), out)
    _check_under(plan.entries, out, "indices")


def _check_under(limit: int, symbols: Symbols, what: str) -> None:
    if len(symbols) and int(symbols.max()) >= limit:
        raise CorruptError(f"expected {what} under {limit}, got {int(symbols.max())}")
