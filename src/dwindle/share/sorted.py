"""Values in order, and the sums of any run of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.errors import TensorError
from dwindle.kernels import kmeans as kernels

LARGEST = 1e150
"""Greatest magnitude of a value: the squares of greater ones leave float64."""


@dataclass(frozen=True, eq=False)
class Sorted:
    """Values in order with prefix sums, to cluster the same values more than once.

    Attributes:
        values: ascending, float32 or float64, shape (n,).
        shift: what the sums subtract from each value.
        sums: sum of (value - shift) before each `kernels.BLOCK`-th position.
        squares: sum of (value - shift) ** 2, likewise.
    """

    values: NDArray[Any]
    shift: float
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[Any], *, overwrite: bool = False) -> Sorted:
        """Sort a copy of `values`, of any shape: float32 takes 4.2 bytes a value in all, float64 8.2.

        Args:
            values: float32 or float64.
            overwrite: sort `values` themselves, which must be 1-D, and make no copy.

        Raises:
            TensorError: if a value is NaN, infinite or over 1e150 in magnitude, or the dtype another one.
        """
        if values.dtype not in (np.float32, np.float64):
            raise TensorError(f"expected float32 or float64 values, got {values.dtype}")
        if overwrite:
            values.sort()
        else:
            values = np.sort(values, axis=None)
        # NaN sorts last, so the two ends speak for all values.
        low, high = (float(values[0]), float(values[-1])) if len(values) else (0.0, 0.0)
        if not (low >= -LARGEST and high <= LARGEST):
            end = low if low < -LARGEST and not np.isnan(high) else high
            raise TensorError(f"expected finite values of magnitude at most {LARGEST:g}, got {end:g}")
        shift = float(values[len(values) // 2]) if len(values) else 0.0
        sums, squares = np.empty((2, len(values) // kernels.BLOCK + 1))
        kernels.block_sums(values, shift, sums, squares)
        return cls(values, shift, sums, squares)

    def sums_at(self, positions: NDArray[np.uint64]) -> NDArray[np.float64]:
        """Sum of (value - shift), and of its square, before each position: shape (2, len(positions))."""
        out = np.empty((2, len(positions)))
        kernels.sums_at(self.values, self.shift, self.sums, self.squares, positions, out)
        return out

    def distinct(self, limit: int) -> NDArray[np.uint64] | None:
        """First position of each distinct value; None if there are more than `limit`."""
        starts = np.empty(min(limit, len(self.values)), np.uint64)
        found = int(kernels.distinct_starts(self.values, starts))
        return starts[:found] if found <= len(starts) else None
