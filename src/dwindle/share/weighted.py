"""k-means in one dimension where errors in some values cost more than in others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.share.binned import Binned
from dwindle.share.kmeans import OPTIMAL_MAX
from dwindle.share.starts import best_means


def weighted_kmeans(values: NDArray[Any], weights: NDArray[Any], k: int) -> NDArray[np.float64]:
    """Centroids that leave the least weighted squared error.

    It is the global optimum over at most `starts.BINS` bins: there is no start to choose.

    Args:
        values: float32 or float64, any shape.
        weights: what a squared error in each value costs, 0 or more, in the shape of `values`.
        k: most centroids, at most `kmeans.OPTIMAL_MAX`.

    Returns:
        Ascending, shape (k,), or fewer where there are fewer distinct values.

    Raises:
        TensorError: if a value or a weight is NaN or infinite, a weight negative, or the shapes differ.
        ValueError: if k is out of range.

    Choi, El-Khamy, Lee 2017, "Towards the limit of network quantization", section 3, with the diagonal of the
    Hessian as weights; the partition as in `starts`.
    """
    if not 0 <= k <= OPTIMAL_MAX:
        raise ValueError(f"expected at most {OPTIMAL_MAX} clusters by sensitivity, got {k}")
    binned = Binned.of(values, weights)
    if not len(binned.counts):
        return np.zeros(0)
    # Sums about a value in the middle lose no digits where all are far from zero.
    shift = float(binned.means[len(binned.means) // 2])
    masses = np.concatenate([[0.0], np.cumsum(binned.masses)])
    sums = np.concatenate([[0.0], np.cumsum(binned.masses * (binned.means - shift))])
    return best_means(masses, sums, k) + shift
