"""The nearest centroid of every value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.errors import TensorError
from dwindle.kernels import kmeans as kernels
from dwindle.records import MAX_ENTRIES, index_dtype


def assign(
    values: NDArray[Any],
    centroids: NDArray[Any],
    *,
    pruned: bool = False,
    borders: NDArray[np.float64] | None = None,
) -> NDArray[Any]:
    """Index of the centroid nearest each value; halfway between two, of the lower one.

    Takes 1 byte a value (2 over 256 indices), the result.

    Args:
        values: float32 or float64, any shape.
        centroids: ascending, in the dtype of `values`, shape (k,), finite; of equal ones the lowest index is
            taken.
        pruned: give every value that is zero index 0, and the i-th centroid index i + 1.
        borders: the greatest value of each centroid but the last, ascending, shape (k - 1,), where it is not
            to be the middle.

    Returns:
        Shape (n,), C order; uint8 where there are at most 256 indices, else uint16.

    Raises:
        TensorError: if a value is NaN or infinite, or the dtypes differ.
        ValueError: if there are values and no centroid, or more than 65,536 indices.
    """
    if values.dtype not in (np.float32, np.float64) or centroids.dtype != values.dtype:
        got = f"{values.dtype} and {centroids.dtype}"
        raise TensorError(f"expected values and centroids both float32 or both float64, got {got}")
    entries = len(centroids) + pruned
    if entries > MAX_ENTRIES or (len(centroids) == 0 and np.any(values if pruned else values.size)):
        raise ValueError(f"expected 1 to {MAX_ENTRIES} indices, got {entries}")
    indices = np.empty(values.size, index_dtype(entries))
    flat = np.ascontiguousarray(values).reshape(-1)
    bits = flat.view(np.dtype(f"u{flat.itemsize}"))
    middles = 0.5 * (centroids[:-1].astype(np.float64) + centroids[1:].astype(np.float64))
    ends = _rounded_down(middles if borders is None else borders, centroids.dtype)
    shift = np.uint64(8 * flat.itemsize - 16)
    if not kernels.assign(flat, bits, shift, _first_bits(ends), ends, pruned, indices):
        raise TensorError("expected finite values, got NaN or infinity")
    return indices


def _rounded_down(borders: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The greatest values of a dtype that are not over the borders."""
    rounded = borders.astype(dtype)
    return np.where(rounded > borders, np.nextafter(rounded, dtype.type(-np.inf)), rounded)


def _first_bits(borders: NDArray[Any]) -> NDArray[np.uint32]:
    """Of the values with the same first 16 bits: borders under the least, and (<< 16) under the greatest."""
    word = np.dtype(f"u{borders.itemsize}")
    shift = word.type(8 * word.itemsize - 16)
    first = np.arange(1 << 16, dtype=word) << shift
    last = first | ((word.type(1) << shift) - word.type(1))
    near, far = first.view(borders.dtype), last.view(borders.dtype)
    negative = np.signbit(near)
    bounds = np.stack([np.where(negative, far, near), np.where(negative, near, far)])
    # Bits of NaN and infinity bound nothing; what is looked up for them is thrown away.
    bounds[:, ~np.isfinite(bounds).all(axis=0)] = 0
    least, greatest = np.searchsorted(borders, bounds).astype(np.uint32)
    table: NDArray[np.uint32] = least | (greatest << np.uint32(16))
    return table
