"""Index maps whose entries, counted from the one that is 0.0, follow a trellis (`kernels.trellis`).

A block is coded as levels are (`levels`), by the numbers of the levels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.code import levels
from dwindle.errors import CorruptError
from dwindle.kernels import trellis as kernels
from dwindle.records import BLOCK

COLUMNS = 1 << 20
"""Most elements of a row: each column has a state."""

Symbols = NDArray[np.unsignedinteger[Any]]


def number_counts(
    indices: NDArray[np.integer[Any]], shape: tuple[int, ...], zero: int | None
) -> NDArray[np.int64] | None:
    """How often each number occurs in states of even levels and of odd ones.

    Args:
        indices: of the whole tensor, shape (n,); levels where `zero` is 0.
        shape: of the tensor: the first dimension counts rows.
        zero: the entry that is 0.0, or None.

    Returns:
        Shape (2, k); None where the map does not follow a trellis down each column, from state 0 at the start
        of each block on, or has no elements.
    """
    columns = columns_of(shape)
    if zero is None or columns > COLUMNS or not indices.size:
        return None
    most = max(int(indices.max()) - zero, zero - int(indices.min()))
    counts = np.zeros((2, most + 1 | 1), np.int64)
    for start in range(0, indices.size, BLOCK):
        part = indices[start : start + BLOCK].astype(np.int32) - np.int32(zero)
        if not kernels.count_numbers(part, np.int64(start), np.int64(columns), counts):
            return None
    return counts


def encode(indices: Symbols, start: int, shape: tuple[int, ...], zero: int | None) -> bytes:
    """Code a block of an index map that follows a trellis (`number_counts` tells).

    Args:
        indices: shape (n,), n at least 1.
        start: place of the first of them in the flattened tensor.
        shape: of the tensor.
        zero: the entry that is 0.0.
    """
    columns = columns_of(shape)
    return levels.encode(indices.astype(np.uint16), start, columns, columns, _centre(zero), trellis=True)


def decode(
    data: memoryview, out: Symbols, start: int, shape: tuple[int, ...], entries: int, zero: int | None
) -> None:
    """Fill `out`, shape (n,), n at least 1, with what `encode` was given.

    Raises:
        CorruptError: if the bytes are no such block.
    """
    columns, centre = columns_of(shape), _centre(zero)
    if columns > COLUMNS:
        raise CorruptError(f"expected rows of at most {COLUMNS} elements along a trellis, got {columns}")
    found = np.empty(len(out), np.uint16)
    levels.decode(data, found, start, columns, columns, centre, trellis=True)
    if int(found.max()) >= entries:
        raise CorruptError(f"expected indices under {entries}, got {int(found.max())}")
    out[:] = found


def _centre(zero: int | None) -> int:
    if zero is None:
        raise CorruptError("expected an entry of 0.0 where levels follow a trellis")
    return zero


def columns_of(shape: tuple[int, ...]) -> int:
    """Elements of a row; a vector or a scalar is one row."""
    return max(math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape), 1)
