"""Where k-means starts: the paper's three ways, and the global optimum over bins."""

from __future__ import annotations

import heapq
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dwindle.kernels import kmeans as kernels
from dwindle.share.sorted import Sorted

Init = Literal["linear", "density", "forgy", "optimal"]
INITS: tuple[str, ...] = get_args(Init)

BINS = 8192
"""Most bins the optimal partition is searched over; with no more distinct values it is exact."""

ROUNDS = 4
"""Times the bins are refined where their error is greatest."""


def start(data: Sorted, k: int, init: Init, seed: int) -> NDArray[Any]:
    """Centroids to start from, ascending; there are more than k distinct values."""
    n = len(data.values)
    if init == "linear":
        return np.linspace(float(data.values[0]), float(data.values[-1]), k)
    if init == "density":
        return data.values[((np.arange(k) + 0.5) * (n / k)).astype(np.int64)]
    if init == "forgy":
        return np.sort(data.values[np.random.default_rng(seed).choice(n, k, replace=False)])
    return _optimal(data, k)


def fill(data: Sorted, centroids: NDArray[np.float64], cuts: NDArray[np.uint64]) -> NDArray[np.float64]:
    """`centroids`, each of an empty cluster spent on splitting, at its mean, the one of greatest error."""
    counts = cuts[1:] - cuts[:-1]
    kept = np.flatnonzero(counts)
    if len(kept) == len(counts):
        return centroids
    parts = [(*_part(data, int(cuts[j]), int(cuts[j + 1]))[:3], float(centroids[j])) for j in kept]
    single: list[float] = []
    heapq.heapify(parts)
    while len(parts) + len(single) < len(counts) and parts:
        _, start, end, centroid = heapq.heappop(parts)
        _, _, _, mean = _part(data, start, end)
        run = data.values[start:end]
        middle = start + int(np.searchsorted(run, run.dtype.type(mean), side="right"))
        if middle == end:  # the mean was rounded up to the last value
            middle = start + int(np.searchsorted(run, run[-1]))
        if middle == start:
            single.append(centroid)
            continue
        heapq.heappush(parts, _part(data, start, middle))
        heapq.heappush(parts, _part(data, middle, end))
    return np.sort([*single, *(part[3] for part in parts)])


def _part(data: Sorted, start: int, end: int) -> tuple[float, int, int, float]:
    """Squared error (negative, so that a heap starts with the greatest), bounds and mean of some values."""
    (total,), (squares,) = np.diff(data.sums_at(np.array([start, end], np.uint64))).tolist()
    mean = total / (end - start) + data.shift
    low, high = float(data.values[start]), float(data.values[end - 1])
    return -max(squares - total * total / (end - start), 0.0), start, end, min(max(mean, low), high)


def _optimal(data: Sorted, k: int) -> NDArray[np.float64]:
    """Means of the optimal split of the bins."""
    edges = bins(data)
    return best_means(edges.astype(np.float64), data.sums_at(edges)[0], k) + data.shift


def best_means(masses: NDArray[np.float64], sums: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Means of the runs of bins whose squared error is least.

    Args:
        masses: of all bins before each, from 0 and strictly rising, shape (m + 1,), m at most 65,535.
        sums: of mass times value, likewise, shape (m + 1,).
        k: most runs.

    Returns:
        Ascending, shape (min(k, m),).
    """
    back = np.zeros((min(k, len(masses) - 1), len(masses)), np.uint16)
    kernels.partition(masses, sums, np.zeros((2, len(masses))), back)
    cuts = [len(masses) - 1]
    for row in reversed(back):
        cuts.append(int(row[cuts[-1]]))
    ends = np.array(cuts[::-1])
    means: NDArray[np.float64] = np.diff(sums[ends]) / np.diff(masses[ends])
    return np.sort(means)


def bins(data: Sorted) -> NDArray[np.uint64]:
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
