"""The k-means kernels against plain NumPy."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwindle.kernels import kmeans as kernels

VALUES = st.lists(st.integers(-50, 50).map(lambda v: v / 8), min_size=1, max_size=40).map(np.sort)


def prefixes(values, shift):
    blocks = len(values) // kernels.BLOCK + 1
    sums, squares = np.empty(blocks), np.empty(blocks)
    kernels.block_sums(values, shift, sums, squares)
    return sums, squares


def sse(values):
    return float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 127, 128, 129, 1000])
def test_sums_before_every_position(n, dtype):
    values = np.sort(np.random.default_rng(n).normal(3, 1, n).astype(dtype))
    positions = np.arange(n + 1, dtype=np.uint64)
    out = np.empty((2, n + 1))
    kernels.sums_at(values, 2.5, *prefixes(values, 2.5), positions, out)
    moved = values.astype(np.float64) - 2.5
    np.testing.assert_allclose(out[0], np.append(0, np.cumsum(moved)), atol=1e-9)
    np.testing.assert_allclose(out[1], np.append(0, np.cumsum(moved**2)), atol=1e-9)


@given(
    values=VALUES,
    centroids=st.sets(st.integers(-50, 50), min_size=1, max_size=6).map(lambda s: np.array(sorted(s), float)),
)
def test_cuts_and_costs(values, centroids):
    k = len(centroids)
    cuts, means = np.empty(k + 1, np.uint64), np.empty(k)
    kernels.place_cuts(values, centroids, cuts)
    cost = kernels.measure(values, 0.5, *prefixes(values, 0.5), centroids, cuts, means)
    nearest = np.abs(values[:, None] - centroids).argmin(axis=1)
    clusters = np.split(values, cuts[1:-1].astype(int))
    # Halfway between two centroids is the lower one's: of equal distances argmin takes the first.
    assert [len(cluster) for cluster in clusters] == np.bincount(nearest, minlength=k).tolist()
    best = ((values - centroids[nearest]) ** 2).sum()
    assert cost == pytest.approx(best, abs=1e-9)
    assert kernels.squared_error(values, centroids, cuts) == pytest.approx(best, abs=1e-9)
    expected = [c.mean() if len(c) else centroids[j] for j, c in enumerate(clusters)]
    np.testing.assert_allclose(means, expected, atol=1e-12)


@given(values=VALUES, room=st.integers(1, 12))
def test_distinct_starts(values, room):
    starts = np.empty(room, np.uint64)
    found = kernels.distinct_starts(values, starts)
    expected = np.unique(values, return_index=True)[1]
    assert found == min(len(expected), room + 1)
    np.testing.assert_array_equal(starts[: min(found, room)], expected[:room])


@settings(deadline=None)
@given(
    bins=st.lists(st.tuples(st.integers(1, 5), st.integers(-20, 20)), min_size=1, max_size=9),
    k=st.integers(1, 5),
)
def test_partition_is_the_best_of_all(bins, k):
    """Every split of at most nine bins, tried."""
    bins = sorted(bins, key=lambda b: b[1])
    k = min(k, len(bins))
    values = np.repeat([float(v) for _, v in bins], [c for c, _ in bins])
    edges = np.append(0, np.cumsum([c for c, _ in bins]))
    sums = np.append(0.0, np.cumsum(values))[edges]
    back = np.zeros((k, len(edges)), np.uint16)
    kernels.partition(edges.astype(float), sums, np.zeros((2, len(edges))), back)
    cuts = [len(bins)]
    for row in back[::-1]:
        cuts.append(int(row[cuts[-1]]))
    cuts = cuts[::-1]
    assert cuts[0] == 0
    assert len(set(cuts)) == k + 1
    got = sum(sse(values[edges[a] : edges[b]]) for a, b in itertools.pairwise(cuts))
    best = min(
        sum(sse(values[edges[a] : edges[b]]) for a, b in itertools.pairwise((0, *inner, len(bins))))
        for inner in itertools.combinations(range(1, len(bins)), k - 1)
    )
    assert got == pytest.approx(best, abs=1e-9)


def test_lloyd_follows_the_textbook():
    """Iteration by iteration: assign, average; an empty cluster stays where it is."""
    values = np.sort(np.random.default_rng(1).laplace(size=700))
    start = np.array([-40.0, -1.0, 0.0, 0.5, 30.0])
    for iterations in (0, 1, 2, 7):
        oracle = start.copy()
        for _ in range(iterations):
            nearest = np.abs(values[:, None] - oracle).argmin(axis=1)
            oracle = np.array(
                [values[nearest == j].mean() if (nearest == j).any() else oracle[j] for j in range(5)]
            )
        got, history = start.copy(), np.empty(iterations + 1)
        sums, squares = prefixes(values, values[350])
        scratch, cuts = np.empty((4, 5)), np.empty(6, np.uint64)
        assert (
            kernels.lloyd(values, values[350], sums, squares, False, got, scratch, cuts, history)
            == iterations
        )
        np.testing.assert_allclose(got, oracle, atol=1e-12)
        assert got[0] == -40.0
        assert history[-1] == pytest.approx((np.abs(values[:, None] - oracle).min(axis=1) ** 2).sum())
