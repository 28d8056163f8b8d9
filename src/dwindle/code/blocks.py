"""One block of a shared tensor to bytes and back, given the tensor's plan."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dwindle.code import bits, gaps, huffman, sparse
from dwindle.code.cursor import Cursor, varint
from dwindle.code.parts import Part
from dwindle.code.plan import BLOCK, Code, Plan, index_bits
from dwindle.errors import CorruptError
from dwindle.records import index_dtype

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


def encode(indices: Symbols, plan: Plan, shape: tuple[int, int]) -> bytes:
    """The bytes of one block.

    Args:
        indices: the block's part of the index map.
        plan: how the tensor is coded.
        shape: rows and columns of the tensor, which CSR and CSC need.
    """
    if plan.zero is None:
        return _write(indices, plan.index_code, index_bits(plan.entries))
    if plan.arrangement == "gaps":
        return _encode_gaps(indices, plan, plan.zero)
    if plan.arrangement == "csc":
        indices, shape = sparse.transpose(indices, shape), (shape[1], shape[0])
    matrix = sparse.compress(indices, plan.zero, shape)
    survivors = len(matrix.places)
    return (
        varint(survivors)
        + bits.pack(matrix.pointers, survivors.bit_length())
        + bits.pack(matrix.places, index_bits(shape[1]))
        + bits.pack(matrix.symbols, index_bits(plan.entries))
    )


def decode(data: memoryview, plan: Plan, shape: tuple[int, int], out: Symbols) -> list[Part]:
    """Fill `out` with the block's part of the index map.

    Returns:
        What the bytes of the block were, in order, adding up to all of them.

    Raises:
        CorruptError: if they are not a block of this plan.
    """
    if plan.zero is None:
        out[:] = _indices(data, len(out), plan)
        return [Part("indices", len(data))]
    if plan.arrangement == "gaps":
        return _decode_gaps(Cursor(data), plan, plan.zero, out)
    return _decode_sparse(data, plan, plan.zero, shape, out)


def _encode_gaps(indices: Symbols, plan: Plan, zero: int) -> bytes:
    stored, symbols = gaps.split(indices, zero, plan.gap_bits)
    gap_stream = _write(stored, plan.gap_code, plan.gap_bits)
    index_stream = _write(symbols, plan.index_code, index_bits(plan.entries))
    length = varint(len(gap_stream)) if plan.gap_code else b""
    return varint(len(stored)) + length + gap_stream + index_stream


def _decode_gaps(cursor: Cursor, plan: Plan, zero: int, out: Symbols) -> list[Part]:
    entries = cursor.varint(len(out), "a number of survivors and fillers")
    if plan.gap_code:
        gap_size = cursor.varint(len(cursor.data), "the length of the gaps")
    else:
        gap_size = bits.packed_size(entries, plan.gap_bits)
    head = cursor.offset
    stored = _read(cursor.take(gap_size), entries, plan.gap_code, plan.gap_bits, np.uint16)
    _check_under(1 << plan.gap_bits, stored, "gaps")
    index_size = len(cursor.data) - cursor.offset
    symbols = _indices(cursor.take(index_size), entries, plan)
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
        return bits.unpack(cursor.take(bits.packed_size(count, width)), count, width, np.uint32)

    pointers = numbers(shape[0] + 1, survivors.bit_length())
    at_places = cursor.offset
    places = numbers(survivors, index_bits(shape[1]))
    at_symbols = cursor.offset
    symbols = _indices(cursor.take(len(data) - at_symbols), survivors, plan)
    indices = sparse.expand(sparse.Compressed(pointers, places, symbols), zero, shape)
    out[:] = sparse.transpose(indices, shape) if plan.arrangement == "csc" else indices
    return [
        Part("counts", head),
        Part("pointers", at_places - head),
        Part("places", at_symbols - at_places),
        Part("indices", cursor.offset - at_symbols),
    ]


def _write(symbols: NDArray[Any], code: Code | None, width: int) -> bytes:
    return huffman.encode(symbols, code.lengths) if code else bits.pack(symbols, width)


def _indices(data: memoryview, count: int, plan: Plan) -> Symbols:
    """Codebook indices, in the dtype a record holds them."""
    target = index_dtype(plan.entries)
    # A code shared with larger codebooks may hold symbols that do not fit the dtype.
    wide = plan.index_code is not None and plan.index_code.table.highest > np.iinfo(target).max
    indices = _read(
        data, count, plan.index_code, index_bits(plan.entries), np.dtype(np.uint16) if wide else target
    )
    _check_under(plan.entries, indices, "indices")
    return indices.astype(target, copy=False)


def _check_under(limit: int, symbols: Symbols, what: str) -> None:
    if len(symbols) and int(symbols.max()) >= limit:
        raise CorruptError(f"expected {what} under {limit}, got {int(symbols.max())}")


def _read(data: memoryview, count: int, code: Code | None, width: int, dtype: DTypeLike) -> NDArray[Any]:
    if code:
        return huffman.decode(data, count, code.table, dtype)
    return bits.unpack(data, count, width, dtype)
