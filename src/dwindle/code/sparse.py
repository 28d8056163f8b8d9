"""Compressed sparse rows and columns: 2a + n + 1 numbers for a survivors in n rows (columns).

Han et al. 2016, section 2. An element is stored by its place in its row (column); pointers say where each row
(column) begins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.errors import CorruptError

Symbols = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, eq=False)
class Compressed:
    """A sparse matrix of symbols by rows.

    Attributes:
        pointers: where each row begins and the last one ends, shape (rows + 1,).
        places: the column of each survivor, shape (a,).
        symbols: the symbol of each survivor, shape (a,).
    """

    pointers: NDArray[np.uint32]
    places: NDArray[np.uint32]
    symbols: Symbols


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns a tensor is read as: the first dimension by all others; a vector is one row."""
    if len(shape) < 2:
        return 1, math.prod(shape)
    return shape[0], math.prod(shape[1:])


def compress(indices: Symbols, zero: int, shape: tuple[int, int]) -> Compressed:
    """The elements of an index map of shape (rows * columns,) that are not `zero`, by rows.

    Raises:
        ValueError: if rows or columns need more than 32 bits.
    """
    rows, columns = shape
    if max(rows, columns, len(indices)) >= 1 << 32:
        raise ValueError(f"expected fewer than 2**32 elements, got {rows} x {columns}")
    matrix = indices.reshape(rows, columns)
    kept = matrix != zero
    pointers = np.zeros(rows + 1, np.uint32)
    np.cumsum(np.count_nonzero(kept, axis=1), out=pointers[1:])
    places = np.flatnonzero(kept)
    places %= max(columns, 1)
    return Compressed(pointers, places.astype(np.uint32), matrix[kept])


def expand(sparse: Compressed, zero: int, shape: tuple[int, int]) -> Symbols:
    """Undo `compress`: the index map, shape (rows * columns,).

    Raises:
        CorruptError: if pointers fall or do not span the survivors, or a row's columns do not rise or fit.
    """
    rows, columns = shape
    pointers, places = sparse.pointers, sparse.places
    if pointers[0] != 0 or pointers[-1] != len(places) or (pointers[1:] < pointers[:-1]).any():
        raise CorruptError(f"expected row pointers rising from 0 to {len(places)}")
    row = np.repeat(np.arange(rows, dtype=np.uint32), np.diff(pointers))
    positions = row * np.int64(columns) + places
    if (places >= columns).any() or (np.diff(positions) <= 0).any():
        raise CorruptError(f"expected rising places under {columns} in every row")
    out = np.full_like(sparse.symbols, zero, shape=rows * columns)
    out[positions] = sparse.symbols
    return out


def transpose(indices: Symbols, shape: tuple[int, int]) -> Symbols:
    """The index map read column by column, so that rows of the result are columns of the matrix."""
    return np.ascontiguousarray(indices.reshape(shape).T).reshape(-1)
