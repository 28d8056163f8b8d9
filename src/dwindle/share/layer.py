"""One layer's weights as a codebook and indices, without a model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle import dtypes
from dwindle.errors import TensorError
from dwindle.share.assign import assign
from dwindle.share.kmeans import kmeans
from dwindle.share.sorted import Sorted
from dwindle.share.starts import Init
from dwindle.share.weighted import weighted_kmeans

CHUNK = 1 << 20
"""Weights whose errors are held at once."""


def assign_layer(
    weights: NDArray[Any],
    bits: int,
    *,
    init: Init = "linear",
    seed: int = 0,
    pruned: bool = False,
    kept: NDArray[np.bool_] | None = None,
    iterations: int = 100,
    dtype: str | None = None,
    sensitivity: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cluster the survivors of a layer; zeros are what was pruned, and stay zero.

    Takes 5.2 bytes a survivor and 2 a weight for float32, 9.2 and 2 for float64, result included (1 more a
    weight over 8 bits).

    Args:
        weights: float32 or float64, any shape, left as they are.
        bits: width of an index, 1 to 16: at most 2 ** bits entries, zero's included.
        init: see `kmeans`.
        seed: see `kmeans`.
        pruned: have an entry of zero even if no weight is zero (gaps may need one for fillers).
        kept: in the shape of `weights`; where it is false a weight counts as zero, at no copy's price.
        iterations: see `kmeans`.
        dtype: name of the dtype the codebook will be stored in, whose rounding it gets here; that of
            `weights` if None.
        sensitivity: what a squared error in each weight costs, in the shape of `weights`, 0 or more:
            centroids are then those of `weighted_kmeans`, whatever `init` says.

    Returns:
        The codebook, in the dtype of `weights`, shape (k,): first +0.0 where there are zeros or `pruned`,
        then the centroids ascending, none of them zero and all in use. And which entry each weight takes, C
        order, shape (n,), uint8 where k <= 256, else uint16.

    Raises:
        TensorError: if a weight is NaN or infinite, or the dtype is not float32 or float64.
        ValueError: if bits are out of range.
    """
    if not 1 <= bits <= 16:
        raise ValueError(f"expected 1 to 16 bits, got {bits}")
    alive = _alive(weights, kept)
    zero = pruned or not alive.all()
    if sensitivity is None:
        found = kmeans(
            _sorted(weights, alive), (1 << bits) - zero, init=init, seed=seed, iterations=iterations
        )
        used = found.centroids[found.counts > 0]
    else:
        left = weights[alive]
        means = weighted_kmeans(left, _like(sensitivity, weights)[alive], (1 << bits) - zero)
        used = means.astype(weights.dtype)
        # The nearest weights are not those a mean was taken of: it may be left with none.
        used = used[np.bincount(assign(left, used), minlength=len(used)) > 0] if left.size else used
    centroids = _rounded(used, dtype or str(weights.dtype))
    codebook = np.concatenate([np.zeros(int(zero), weights.dtype), centroids])
    if not len(centroids):
        return codebook, np.zeros(weights.size, np.uint8)
    indices = assign(weights, centroids, pruned=zero)
    if kept is not None:
        indices *= kept.reshape(-1)
    return codebook, indices


def survivors(weights: NDArray[Any], kept: NDArray[np.bool_] | None = None) -> Sorted:
    """The weights that are not zero, and `kept` if that is given, sorted.

    Raises:
        TensorError: if a weight is NaN or infinite, or the dtype is not float32 or float64.
    """
    return _sorted(weights, _alive(weights, kept))


def _alive(weights: NDArray[Any], kept: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    alive: NDArray[np.bool_] = weights != 0
    if kept is not None:
        alive &= kept
    return alive


def _sorted(weights: NDArray[Any], alive: NDArray[np.bool_]) -> Sorted:
    return Sorted.of(weights) if alive.all() else Sorted.of(weights[alive], overwrite=True)


def _like(sensitivity: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    if sensitivity.shape != weights.shape:
        expected, got = list(weights.shape), list(sensitivity.shape)
        raise TensorError(f"expected a sensitivity of shape {expected}, got {got}")
    return sensitivity


def squared_error(weights: NDArray[Any], codebook: NDArray[Any], indices: NDArray[Any]) -> float:
    """Sum of the squared differences between weights of any shape and their entries, in float64."""
    flat, total = weights.reshape(-1), 0.0
    for start in range(0, flat.size, CHUNK):
        part = slice(start, start + CHUNK)
        error = flat[part].astype(np.float64) - np.take(codebook, indices[part])
        total += float(error @ error)
    return total


def _rounded(centroids: NDArray[Any], dtype: str) -> NDArray[Any]:
    """The distinct values `centroids` have in `dtype`; none is zero, which would prune their weights."""
    stored = dtypes.to_float(dtypes.from_float(centroids, dtype), dtype).astype(centroids.dtype)
    least = np.finfo(np.float16 if dtype == "float16" else centroids.dtype).tiny
    return np.unique(np.where(stored == 0, least.astype(centroids.dtype), stored))
