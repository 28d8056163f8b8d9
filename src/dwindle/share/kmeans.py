"""k-means in one dimension: a layer's weights to the values of its codebook.

Values are sorted once. Clusters are then intervals, and every iteration of Lloyd is exact at the price of k
binary searches, however many values there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dwindle.errors import TensorError
from dwindle.kernels import kmeans as kernels
from dwindle.records import MAX_ENTRIES

Init = Literal["linear", "density", "forgy", "optimal"]
INITS: tuple[str, ...] = get_args(Init)

BINS = 8192
"""Most bins the optimal partition is searched over; with no more distinct values it is exact."""

OPTIMAL_MAX = 1024
"""Most clusters of `init="optimal"`: its table takes 2 * k * BINS bytes."""

ROUNDS = 4
"""Times the bins are refined where their error is greatest."""

LARGEST = 1e150
"""Greatest magnitude of a value: the squares of greater ones leave float64."""


@dataclass(frozen=True, eq=False)
class Clustering:
    """What k-means found.

    Attributes:
        centroids: ascending, shape (k,), in the dtype of the values; fewer than asked for where there are
            fewer distinct values.
        counts: values nearest each centroid, int64, shape (k,).
        mse: mean squared error of the values against their nearest of `centroids`; 0 where there are none.
        history: mean squared error at the start and after each iteration, strictly falling, of centroids in
            float64.
    """

    centroids: NDArray[Any]
    counts: NDArray[np.int64]
    mse: float
    history: tuple[float, ...]


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


def kmeans(
    values: NDArray[Any] | Sorted, k: int, *, init: Init = "linear", iterations: int = 100, seed: int = 0
) -> Clustering:
    """Cluster values of any shape about `k` centroids.

    The result depends on the multiset of values and the arguments alone: not on their order nor on threads. A
    cluster that loses all its values keeps its centroid. The cost never rises: iterations end with the first
    that does not lower it.

    Args:
        values: float32 or float64, left as they are: sorted in a copy, 4.2 bytes a value for float32, 8.2 for
            float64; or already `Sorted`.
        k: most centroids, 1 to 65,536.
        init: "linear": equal steps from the least to the greatest value. "density": equal steps of the
            cumulative distribution. "forgy": values drawn at random. "optimal": the global optimum over at
            most `BINS` bins, which the iterations then polish on the values; k at most 1,024, 2 * k * `BINS`
            bytes more.
        iterations: most iterations of Lloyd, 0 or more.
        seed: of "forgy".

    Raises:
        TensorError: if a value is NaN, infinite or over 1e150 in magnitude, or the dtype another one.
        ValueError: if k, init or iterations are out of range.

    Han et al. 2016, section 3; "optimal": Wang and Song 2011 (Ckmeans.1d.dp), on bins, by divide and conquer.
    """
    _check(k, init, iterations)
    data = values if isinstance(values, Sorted) else Sorted.of(values)
    n = len(data.values)
    if not n:
        return Clustering(data.values[:0].copy(), np.zeros(0, np.int64), 0.0, (0.0,))
    starts = data.distinct(k)
    if starts is not None:
        cuts = np.append(starts, np.uint64(n))
        return Clustering(data.values[starts] + data.values.dtype.type(0), _counts(cuts), 0.0, (0.0,))
    centroids = _start(data, k, init, seed).astype(np.float64)
    scratch, cuts = np.empty((2, len(centroids))), np.empty(len(centroids) + 1, np.uint64)
    history = np.empty(iterations + 1)
    prefix = (data.values, data.shift, data.sums, data.squares)
    steps = int(kernels.lloyd(*prefix, centroids, scratch, cuts, history))
    # Adding zero turns -0.0 into 0.0.
    rounded = np.sort(centroids.astype(data.values.dtype) + data.values.dtype.type(0))
    exact = rounded.astype(np.float64)
    kernels.place_cuts(data.values, exact, cuts)
    mse = kernels.squared_error(data.values, exact, cuts) / n
    return Clustering(rounded, _counts(cuts), mse, tuple((history[: steps + 1] / n).tolist()))


def _check(k: int, init: str, iterations: int) -> None:
    if init not in INITS:
        raise ValueError(f"expected init to be one of {', '.join(INITS)}, got {init!r}")
    most = OPTIMAL_MAX if init == "optimal" else MAX_ENTRIES
    if not 1 <= k <= most:
        raise ValueError(f"expected 1 to {most} clusters with init={init!r}, got {k}")
    if iterations < 0:
        raise ValueError(f"expected 0 or more iterations, got {iterations}")


def _counts(cuts: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (cuts[1:] - cuts[:-1]).astype(np.int64)


def _start(data: Sorted, k: int, init: Init, seed: int) -> NDArray[Any]:
    """Centroids to start from, ascending; there are more than k distinct values."""
    n = len(data.values)
    if init == "linear":
        return np.linspace(float(data.values[0]), float(data.values[-1]), k)
    if init == "density":
        return data.values[((np.arange(k) + 0.5) * (n / k)).astype(np.int64)]
    if init == "forgy":
        return np.sort(data.values[np.random.default_rng(seed).choice(n, k, replace=False)])
    return _optimal(data, k)


def _optimal(data: Sorted, k: int) -> NDArray[np.float64]:
    """Means of the optimal split of the bins."""
    edges = _bins(data)
    sums = data.sums_at(edges)[0]
    counts = edges.astype(np.float64)
    k = min(k, len(edges) - 1)
    back = np.zeros((k, len(edges)), np.uint16)
    kernels.partition(counts, sums, np.zeros((2, len(edges))), back)
    cuts = [len(edges) - 1]
    for row in reversed(back):
        cuts.append(int(row[cuts[-1]]))
    ends = np.array(cuts[::-1])
    return np.sort(np.diff(sums[ends]) / np.diff(counts[ends]) + data.shift)


def _bins(data: Sorted) -> NDArray[np.uint64]:
    """Edges of at most `BINS` bins that hold about the same error each: ascending positions, from 0 to n.

    Every round cuts each bin into equal widths, as many as the cube root of its squared error asks for: the
    share that leaves the least error in all. No two bins hold equal values.
    """
    n = len(data.values)
    starts = data.distinct(BINS)
    if starts is not None:
        return np.append(starts, np.uint64(n))
    edges = np.array([0, n], np.uint64)
    for _ in range(ROUNDS):
        sums, squares = np.diff(data.sums_at(edges))
        share = np.cbrt(np.maximum(squares - sums * sums / np.diff(edges), 0.0))
        parts = (share * (BINS // ROUNDS / max(share.sum(), np.finfo(float).tiny))).astype(np.int64)
        owner = np.repeat(np.arange(len(parts)), parts)
        step = np.arange(len(owner)) - np.repeat(np.cumsum(parts) - parts, parts) + 1
        low = data.values[edges[:-1]].astype(np.float64)
        width = data.values[edges[1:] - np.uint64(1)] - low
        cuts = low[owner] + width[owner] * step / (parts[owner] + 1)
        found = np.searchsorted(data.values, cuts.astype(data.values.dtype))
        edges = np.union1d(edges, found.astype(np.uint64))
    return edges
