"""k-means in one dimension: a layer's weights to the values of its codebook.

Values are sorted once. Clusters are then intervals, and every iteration of Lloyd is exact at the price of k
binary searches, however many values there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.kernels import kmeans as kernels
from dwindle.records import MAX_ENTRIES
from dwindle.share import starts
from dwindle.share.sorted import Sorted
from dwindle.share.starts import INITS, Init

__all__ = ["INITS", "OPTIMAL_MAX", "Clustering", "Init", "kmeans"]

OPTIMAL_MAX = 1024
"""Most clusters of `init="optimal"`: its table takes 2 * k * BINS bytes."""


@dataclass(frozen=True, eq=False)
class Clustering:
    """What k-means found.

    Attributes:
        centroids: ascending, shape (k,), in the dtype of the values; fewer than asked for where there are
            fewer distinct values.
        counts: values nearest each centroid, int64, shape (k,).
        mse: mean squared error of the values against their nearest of `centroids`; 0 where there are none.
        history: mean squared error at the start and after each iteration that lowered it, of centroids in
            float64.
    """

    centroids: NDArray[Any]
    counts: NDArray[np.int64]
    mse: float
    history: tuple[float, ...]


def kmeans(
    values: NDArray[Any] | Sorted,
    k: int,
    *,
    init: Init = "linear",
    iterations: int = 100,
    seed: int = 0,
    momentum: bool = True,
) -> Clustering:
    """Cluster values of any shape about `k` centroids.

    The result depends on the multiset of values and the arguments alone: not on their order nor on threads.
    Clusters the start leaves empty, as a linear one does in the gap that pruning leaves about zero, go where
    the error is greatest; one that loses its values later keeps its centroid. The cost never rises:
    iterations end when one does not lower it.

    Args:
        values: float32 or float64, left as they are: sorted in a copy, 4.2 bytes a value for float32, 8.2 for
            float64; or already `Sorted`.
        k: most centroids, 1 to 65,536.
        init: "linear": equal steps from the least to the greatest value. "density": equal steps of the
            cumulative distribution. "forgy": values drawn at random. "optimal": the global optimum over at
            most `BINS` bins, which the iterations then polish on the values; k at most 1,024, 2 * k * `BINS`
            bytes more.
        iterations: most iterations of Lloyd, 0 or more: assignments of all values.
        seed: of "forgy".
        momentum: carry the centroids beyond their means while that lowers the cost: a hundred such iterations
            end about where thousands of plain ones (False, as in the paper) would.

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
    distinct = data.distinct(k)
    if distinct is not None:
        cuts = np.append(distinct, np.uint64(n))
        return Clustering(data.values[distinct] + data.values.dtype.type(0), _counts(cuts), 0.0, (0.0,))
    centroids = starts.start(data, k, init, seed).astype(np.float64)
    scratch, cuts = np.empty((4, len(centroids))), np.empty(len(centroids) + 1, np.uint64)
    kernels.place_cuts(data.values, centroids, cuts)
    centroids = starts.fill(data, centroids, cuts)
    history = np.empty(iterations + 1)
    prefix = (data.values, data.shift, data.sums, data.squares)
    steps = int(kernels.lloyd(*prefix, momentum, centroids, scratch, cuts, history))
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
