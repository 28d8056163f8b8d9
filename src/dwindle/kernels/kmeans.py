"""k-means in one dimension: Lloyd on sorted values, the optimal partition of bins, nearest centroids.

In one dimension clusters are intervals, so of sorted values only the cuts between clusters move. Sums kept
at every `BLOCK`-th position make the sums of any interval cost at most two blocks of additions: an iteration
reads k cuts, not n values. Callers check lengths; nothing is checked here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

BLOCK = 128
"""Values between two stored prefix sums."""


@njit(cache=True, nogil=True)
def block_sums(values: NDArray[Any], shift: float, sums: NDArray[Any], squares: NDArray[Any]) -> None:
    """Prefix sums of (value - shift) and its square at each multiple of `BLOCK`.

    Args:
        values: float32 or float64, shape (n,).
        shift: subtracted first, so that values far from zero lose no digits.
        sums: float64, shape (n // BLOCK + 1,), written.
        squares: as `sums`.
    """
    sum1 = 0.0
    sum2 = 0.0
    sums[0] = 0.0
    squares[0] = 0.0
    block = np.uint64(BLOCK)
    for b in range(np.uint64(1), np.uint64(len(sums))):
        part1 = 0.0
        part2 = 0.0
        for i in range((b - np.uint64(1)) * block, b * block):
            value = np.float64(values[i]) - shift
            part1 += value
            part2 += value * value
        sum1 += part1
        sum2 += part2
        sums[b] = sum1
        squares[b] = sum2


@njit(cache=True, nogil=True)
def sums_before(
    values: NDArray[Any], shift: float, sums: NDArray[Any], squares: NDArray[Any], position: np.uint64
) -> tuple[float, float]:
    """Sum of (value - shift) and of its square over values[:position]."""
    block = position // np.uint64(BLOCK)
    part1 = 0.0
    part2 = 0.0
    for i in range(block * np.uint64(BLOCK), position):
        value = np.float64(values[i]) - shift
        part1 += value
        part2 += value * value
    return sums[block] + part1, squares[block] + part2


@njit(cache=True, nogil=True)
def sums_at(
    values: NDArray[Any],
    shift: float,
    sums: NDArray[Any],
    squares: NDArray[Any],
    positions: NDArray[np.uint64],
    out: NDArray[np.float64],
) -> None:
    """`sums_before` each of `positions`, into the two rows of `out`."""
    for j in range(np.uint64(len(positions))):
        out[0, j], out[1, j] = sums_before(values, shift, sums, squares, positions[j])


@njit(cache=True, nogil=True)
def place_cuts(values: NDArray[Any], centroids: NDArray[np.float64], cuts: NDArray[np.uint64]) -> None:
    """Where each cluster of sorted values begins; a value halfway between two centroids is the lower one's.

    Args:
        values: ascending, shape (n,).
        centroids: ascending, shape (k,).
        cuts: shape (k + 1,), written: cluster j is values[cuts[j] : cuts[j + 1]].
    """
    one = np.uint64(1)
    k = np.uint64(len(centroids))
    cuts[0] = np.uint64(0)
    cuts[k] = np.uint64(len(values))
    for j in range(one, k):
        border = 0.5 * (centroids[j - one] + centroids[j])
        low = cuts[j - one]
        high = cuts[k]
        while low < high:
            middle = (low + high) >> one
            if np.float64(values[middle]) > border:
                high = middle
            else:
                low = middle + one
        cuts[j] = low


@njit(cache=True, nogil=True)
def measure(
    values: NDArray[Any],
    shift: float,
    sums: NDArray[Any],
    squares: NDArray[Any],
    centroids: NDArray[np.float64],
    cuts: NDArray[np.uint64],
    means: NDArray[np.float64],
) -> float:
    """Squared error of the clusters between `cuts`, and their means; an empty cluster's is its centroid."""
    cost = 0.0
    left1 = 0.0
    left2 = 0.0
    for j in range(np.uint64(len(centroids))):
        right1, right2 = sums_before(values, shift, sums, squares, cuts[j + np.uint64(1)])
        count = np.float64(cuts[j + np.uint64(1)] - cuts[j])
        means[j] = centroids[j]
        if count > 0.0:
            centroid = centroids[j] - shift
            error = (right2 - left2) - centroid * (2.0 * (right1 - left1) - count * centroid)
            cost += max(error, 0.0)
            # Between its ends whatever the rounding of the sums, so that means ascend.
            low = np.float64(values[cuts[j]])
            high = np.float64(values[cuts[j + np.uint64(1)] - np.uint64(1)])
            means[j] = min(max((right1 - left1) / count + shift, low), high)
        left1 = right1
        left2 = right2
    return cost


@njit(cache=True, nogil=True)
def extrapolate(
    centroids: NDArray[np.float64],
    means: NDArray[np.float64],
    older: NDArray[np.float64],
    ahead: float,
    trial: NDArray[np.float64],
) -> bool:
    """Means carried on by `ahead` times their last move, into `trial`; whether they still ascend.

    A centroid at its mean already, as that of an empty cluster always is, stays.
    """
    ascending = True
    for j in range(np.uint64(len(means))):
        trial[j] = means[j]
        if means[j] != centroids[j]:
            trial[j] += ahead * (means[j] - older[j])
        if j > np.uint64(0):
            ascending &= trial[j - np.uint64(1)] <= trial[j]
    return ascending


@njit(cache=True, nogil=True)
def lloyd(
    values: NDArray[Any],
    shift: float,
    sums: NDArray[Any],
    squares: NDArray[Any],
    momentum: bool,
    centroids: NDArray[np.float64],
    scratch: NDArray[np.float64],
    cuts: NDArray[np.uint64],
    history: NDArray[np.float64],
) -> np.uint64:
    """Lloyd's iterations, for as long as they lower the cost.

    Args:
        values: ascending, shape (n,).
        shift: the one of the prefix sums.
        sums: from `block_sums`.
        squares: from `block_sums`.
        momentum: go beyond the means, the farther the longer that has lowered the cost (Nesterov's sequence),
            and start over from the means when it has not. The failed iteration counts.
        centroids: ascending, shape (k,), replaced by the last that lowered the cost.
        scratch: shape (4, k).
        cuts: scratch, shape (k + 1,).
        history: shape (iterations + 1,), written: the squared error at the start and after each iteration
            that lowered it.

    Returns:
        How many iterations lowered the cost.
    """
    means, older, trial, fresh = scratch[0], scratch[1], scratch[2], scratch[3]
    place_cuts(values, centroids, cuts)
    history[0] = measure(values, shift, sums, squares, centroids, cuts, means)
    older[:] = means
    lowered = np.uint64(0)
    streak = 0.0
    for _ in range(len(history) - 1):
        ahead = streak / (streak + 3.0)
        if not extrapolate(centroids, means, older, ahead, trial):
            streak = 0.0
            trial[:] = means
        place_cuts(values, trial, cuts)
        cost = measure(values, shift, sums, squares, trial, cuts, fresh)
        if cost < history[lowered]:
            older[:] = means
            means[:] = fresh
            centroids[:] = trial
            lowered += np.uint64(1)
            history[lowered] = cost
            streak += np.float64(momentum)
        elif streak == 0.0:
            return lowered
        else:
            streak = 0.0
    return lowered


@njit(cache=True, nogil=True)
def squared_error(values: NDArray[Any], centroids: NDArray[np.float64], cuts: NDArray[np.uint64]) -> float:
    """Squared error of the clusters between `cuts`, value by value: no digits lost to differences of sums."""
    total = 0.0
    for j in range(np.uint64(len(centroids))):
        part = 0.0
        for i in range(cuts[j], cuts[j + np.uint64(1)]):
            error = np.float64(values[i]) - centroids[j]
            part += error * error
        total += part
    return total


@njit(cache=True, nogil=True)
def distinct_starts(values: NDArray[Any], starts: NDArray[np.uint64]) -> np.uint64:
    """First position of each distinct value of ascending `values`, up to as many as `starts` holds.

    Returns:
        How many distinct values there are; len(starts) + 1 if more than `starts` holds.
    """
    found = np.uint64(0)
    for i in range(np.uint64(len(values))):
        if i == np.uint64(0) or values[i] != values[i - np.uint64(1)]:
            if found == np.uint64(len(starts)):
                return found + np.uint64(1)
            starts[found] = i
            found += np.uint64(1)
    return found


@njit(cache=True, nogil=True)
def partition(
    counts: NDArray[np.float64], sums: NDArray[np.float64], gains: NDArray[np.float64], back: NDArray[Any]
) -> None:
    """The best split of m ordered bins into 1 to k runs, by dynamic programming.

    The squared error of a run about its mean is its sum of squares less sum ** 2 / count; the first adds up
    to the same total for every split, so the best split has the greatest sum of the second (the gain). The
    best last cut never moves left as bins are added, so each row is filled from coarse to fine strides, every
    search bounded by its neighbours: O(k m log m).

    Args:
        counts: values before each bin, shape (m + 1,), strictly increasing from 0.
        sums: sum of (value - shift) before each bin, shape (m + 1,).
        gains: scratch, shape (2, m + 1).
        back: unsigned, shape (k, m + 1), written: back[j, i] is where the last of j + 1 runs of the first i
            bins starts, for i > j.
    """
    one = np.uint64(1)
    m = np.uint64(len(counts) - 1)
    k = np.uint64(len(back))
    for i in range(one, m + one):
        gains[0, i] = sums[i] * sums[i] / counts[i]
        back[0, i] = 0
    for j in range(one, k):
        before = gains[(j - one) & one]
        after = gains[j & one]
        stride = one
        while stride <= m - j:
            stride <<= one
        while stride > np.uint64(0):
            for q in range(stride, m - j + one, stride << one):
                i = j + q
                low = j if q == stride else np.uint64(back[j, i - stride])
                high = i - one if i + stride > m else min(np.uint64(back[j, i + stride]), i - one)
                best = -1.0
                for start in range(low, high + one):
                    run = sums[i] - sums[start]
                    gain = before[start] + run * run / (counts[i] - counts[start])
                    if gain > best:
                        best = gain
                        back[j, i] = start
                after[i] = best
            stride >>= one


@njit(cache=True, nogil=True)
def assign(
    values: NDArray[Any],
    bits: NDArray[Any],
    shift: np.uint64,
    table: NDArray[np.uint32],
    borders: NDArray[Any],
    pruned: bool,
    indices: NDArray[Any],
) -> bool:
    """How many borders each value lies above, by a table over its first 16 bits and a search of what is left.

    Args:
        values: shape (n,).
        bits: `values` viewed as unsigned integers.
        shift: leaves the first 16 bits: 16 for float32, 48 for float64.
        table: of the values that share their first 16 bits, the borders under the least (low half) and under
            the greatest (high half), shape (65536,).
        borders: ascending, of the dtype of `values`.
        pruned: give every zero index 0, and shift the others up by one.
        indices: unsigned, shape (n,), written.

    Returns:
        Whether all values are finite.
    """
    one = np.uint64(1)
    finite = True
    for i in range(np.uint64(len(values))):
        value = values[i]
        finite &= value - value == 0
        entry = np.uint64(table[np.uint64(bits[i]) >> shift])
        low = entry & np.uint64(0xFFFF)
        high = entry >> np.uint64(16)
        while low < high:
            middle = (low + high) >> one
            if value > borders[middle]:
                low = middle + one
            else:
                high = middle
        if pruned:
            low = (low + one) * np.uint64(value != 0)
        indices[i] = low
    return finite
