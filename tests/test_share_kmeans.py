"""k-means in one dimension."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwindle.errors import TensorError
from dwindle.share.assign import assign
from dwindle.share.kmeans import kmeans
from dwindle.share.sorted import Sorted
from dwindle.share.starts import BINS, INITS

FLOATS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


def mse(values, centroids):
    distance = np.abs(values.astype(np.float64).reshape(-1, 1) - centroids.astype(np.float64))
    return float((distance.min(axis=1) ** 2).mean())


def optimum(values, k):
    """Exact least mean squared error, by the textbook's O(k n^2) dynamic program."""
    values = np.sort(values.astype(np.float64), axis=None)
    n = len(values)
    cost = np.zeros((n, n + 1))
    for i in range(n):
        run = values[i:]
        count = np.arange(1, n - i + 1)
        mean = np.cumsum(run) / count
        cost[i, i + 1 :] = np.maximum(np.cumsum((run - run[0]) ** 2) - count * (mean - run[0]) ** 2, 0)
    best = cost[0]
    for _ in range(k - 1):
        best = np.array(
            [0.0] + [min(best[i], min(best[j] + cost[j, i] for j in range(i))) for i in range(1, n + 1)]
        )
    return best[n] / n


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_finds_what_it_reports(init, dtype):
    values = np.random.default_rng(3).laplace(size=(50, 40)).astype(dtype)
    values.flags.writeable = False
    found = kmeans(values, 9, init=init, seed=5)
    assert found.centroids.dtype == dtype
    assert found.centroids.shape == (9,)
    assert (np.diff(found.centroids) > 0).all()
    assert found.mse == pytest.approx(mse(values, found.centroids), rel=1e-9)
    assert found.mse == pytest.approx(found.history[-1], rel=1e-5)
    indices = assign(values, found.centroids)
    np.testing.assert_array_equal(np.bincount(indices, minlength=9), found.counts)


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("init", INITS)
def test_cost_never_rises(init, momentum):
    """Measured from outside: stopping one iteration later never costs more."""
    values = np.random.default_rng(4).standard_t(3, 3000).astype(np.float32)
    found = [kmeans(values, 12, init=init, iterations=i, momentum=momentum) for i in range(40)]
    costs = [mse(values, clustering.centroids) for clustering in found]
    assert all(late <= early * (1 + 1e-6) for early, late in itertools.pairwise(costs))
    for i, (clustering, cost) in enumerate(zip(found, costs, strict=True)):
        assert clustering.history[-1] == pytest.approx(cost, rel=1e-5)
        assert len(clustering.history) <= i + 1
        assert list(clustering.history) == sorted(set(clustering.history), reverse=True)


def test_momentum_gets_further():
    values = np.random.default_rng(5).laplace(size=20_000).astype(np.float32)
    plain = kmeans(values, 32, momentum=False).mse
    patient = kmeans(values, 32, momentum=False, iterations=5000).mse
    assert kmeans(values, 32).mse < patient + 0.1 * (plain - patient)


def test_the_papers_starts():
    values = np.arange(100, dtype=np.float32) ** 2
    linear = kmeans(values, 4, init="linear", iterations=0)
    np.testing.assert_array_equal(linear.centroids, [0, 3267, 6534, 9801])
    density = kmeans(values, 4, init="density", iterations=0)
    np.testing.assert_array_equal(density.centroids, np.array([12, 37, 62, 87]) ** 2)
    forgy = [kmeans(values, 4, init="forgy", iterations=0, seed=s).centroids for s in (0, 0, 1)]
    assert set(forgy[0]) <= set(values)
    np.testing.assert_array_equal(forgy[0], forgy[1])
    assert not np.array_equal(forgy[0], forgy[2])


@settings(deadline=None, max_examples=60)
@given(st.lists(FLOATS, min_size=1, max_size=24), st.integers(1, 8))
def test_optimal_is_optimal(values, k):
    values = np.array(values, np.float32)
    found = kmeans(values.astype(np.float64), k, init="optimal")
    best = optimum(values, k)
    assert found.mse <= best + 1e-9 * values.astype(np.float64).var() + 1e-300


@pytest.mark.parametrize("k", [2, 7, 32])
@pytest.mark.parametrize("draw", ["laplace", "normal", "lognormal", "outlier"])
def test_optimal_over_bins_is_near_the_optimum(draw, k):
    """More distinct values than bins, against an exact solver."""
    kmeans1d = pytest.importorskip("kmeans1d")
    rng = np.random.default_rng(6)
    values = rng.laplace(size=20_000) if draw == "outlier" else getattr(rng, draw)(size=20_000)
    if draw == "outlier":
        values[:2] = 1e4, -3e3
    values = values.astype(np.float32).astype(np.float64)
    assert len(np.unique(values)) > BINS
    _, exact = kmeans1d.cluster(values, k)
    assert kmeans(values, k, init="optimal").mse <= 1.001 * mse(values, np.array(exact))


def test_order_and_layout_do_not_matter():
    values = np.random.default_rng(7).normal(size=(60, 50)).astype(np.float32)
    for init in INITS:
        first = kmeans(values, 10, init=init)
        for other in (values[::-1], values.T, np.asfortranarray(values), Sorted.of(values)):
            again = kmeans(other, 10, init=init)
            assert again.centroids.tobytes() == first.centroids.tobytes()
            assert again.history == first.history


@pytest.mark.parametrize("init", INITS)
def test_few_values(init):
    empty = kmeans(np.zeros((0, 3), np.float32), 4, init=init)
    assert (len(empty.centroids), len(empty.counts), empty.mse) == (0, 0, 0.0)
    constant = kmeans(np.full((), -2.5), 4, init=init)
    assert (constant.centroids.tolist(), constant.counts.tolist()) == ([-2.5], [1])
    few = kmeans(np.array([3, -0.0, 3, 0.0, 7], np.float32), 3, init=init)
    assert (few.centroids.tolist(), few.counts.tolist(), few.mse) == ([0, 3, 7], [2, 2, 1], 0.0)
    assert not np.signbit(few.centroids[0])
    one = kmeans(np.array([1, 2, 6.0]), 1, init=init)
    assert (one.centroids.tolist(), one.counts.tolist()) == ([3.0], [3])


def test_no_start_leaves_clusters_empty():
    values = np.array([0, 1, 2, 3, 100], np.float32)
    found = kmeans(values, 4, init="linear", iterations=0)
    assert sorted(found.counts.tolist()) == [1, 1, 1, 2]
    assert found.centroids[-1] == 100
    rng = np.random.default_rng(10)
    pruned = rng.normal(size=5000)
    pruned = pruned[np.abs(pruned) > 1.5].astype(np.float32)
    for init in INITS:
        assert kmeans(pruned, 31, init=init, iterations=0).counts.all()
        assert kmeans(np.append(pruned, np.repeat(pruned[:2], 999)), 31, init=init, iterations=0).counts.all()
    # The clusters that were not empty start where they always did.
    kept = np.linspace(pruned.min(), pruned.max(), 31)[[0, -1]]
    np.testing.assert_allclose(kmeans(pruned, 31, iterations=0).centroids[[0, -1]], kept, rtol=1e-6)


def test_neighbouring_floats_split():
    """The mean of two neighbours rounds to one of them."""
    ones = np.float32(1).view(np.uint32) + np.arange(6, dtype=np.uint32)
    values = np.append(ones.view(np.float32), np.float32(1e6))
    found = kmeans(values, 6, iterations=0)
    assert sorted(found.counts.tolist()) == [1, 1, 1, 1, 1, 2]


def test_heavy_ties():
    values = np.repeat(np.random.default_rng(8).normal(size=300), 1 + np.arange(300) ** 2 // 100)
    for init in INITS:
        found = kmeans(values, 20, init=init)
        assert found.mse == pytest.approx(mse(values, found.centroids))
    assert kmeans(values, 20, init="optimal").mse <= min(kmeans(values, 20, init=i).mse for i in INITS[:3])


@settings(deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=60), st.integers(1, 70), st.sampled_from(INITS))
def test_any_values(values, k, init):
    values = np.array(values, np.float32)
    found = kmeans(values, k, init=init)
    assert np.isfinite(found.centroids).all()
    assert (np.diff(found.centroids) >= 0).all()
    assert len(found.centroids) == min(k, len(np.unique(values)))
    assert found.counts.sum() == len(values)
    assert found.mse == pytest.approx(mse(values, found.centroids), rel=1e-6, abs=1e-30)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_what_is_not_finite(bad):
    values = np.array([1, bad, 2], np.float32)
    with pytest.raises(TensorError, match="expected finite values"):
        kmeans(values, 2)
    with pytest.raises(TensorError, match="expected finite values"):
        assign(values, np.array([1, 2], np.float32))


def test_refuses_other_arguments():
    values = np.ones(3, np.float32)
    with pytest.raises(TensorError, match="expected float32 or float64 values, got int64"):
        kmeans(np.ones(3, np.int64), 2)
    with pytest.raises(TensorError, match="1e\\+150"):
        kmeans(np.array([1e200, 1.0]), 1)
    for k, init in ((0, "linear"), (65537, "linear"), (1025, "optimal")):
        with pytest.raises(ValueError, match="clusters"):
            kmeans(values, k, init=init)
    with pytest.raises(ValueError, match="expected init to be one of linear"):
        kmeans(values, 2, init="random")
    with pytest.raises(ValueError, match="0 or more iterations"):
        kmeans(values, 2, iterations=-1)
    with pytest.raises(TensorError, match="got float32 and float64"):
        assign(values, np.ones(2))
    with pytest.raises(ValueError, match="expected 1 to 65536 indices, got 0"):
        assign(values, np.ones(0, np.float32))
    with pytest.raises(ValueError, match="got 65537"):
        assign(values, np.arange(65536, dtype=np.float32), pruned=True)


@settings(deadline=None)
@given(
    st.sampled_from([np.float32, np.float64]),
    st.lists(FLOATS, max_size=50),
    st.lists(FLOATS, min_size=1, max_size=300),
)
def test_assign_takes_the_nearest(dtype, values, centroids):
    values, centroids = np.array(values, dtype), np.unique(np.array(centroids, dtype))
    indices = assign(values, centroids)
    assert indices.dtype == (np.uint8 if len(centroids) <= 256 else np.uint16)
    # Not the index itself: near a tie, distances in float64 round either way.
    distance = np.abs(values.astype(np.float64)[:, None] - centroids)
    assert (
        distance[np.arange(len(values)), indices] <= distance.min(axis=1, initial=np.inf) * (1 + 1e-15)
    ).all()


def test_assign_ties_go_to_the_lower():
    centroids = np.array([-1, 0, 1, 4], np.float32)
    values = np.array([[-0.5, 0.5], [2.5, np.nextafter(np.float32(2.5), np.float32(3))]], np.float32)
    assert assign(values, centroids).tolist() == [0, 1, 2, 3]
    assert assign(values.T, centroids).tolist() == [0, 2, 1, 3]
    # Halfway between neighbouring floats lies no float: both are their own.
    close = np.array([1, np.nextafter(np.float32(1), np.float32(2))], np.float32)
    assert assign(close, close).tolist() == [0, 1]
    assert assign(-close, -close[::-1]).tolist() == [1, 0]


@pytest.mark.parametrize("k", [1, 2, 255, 256, 257, 65536])
def test_assign_many_centroids_close_together(k):
    """All within one sixteen-bit bucket for many k: the search is left to do all the work."""
    bits = np.float32(1).view(np.uint32) + np.arange(k, dtype=np.uint32)
    centroids = bits.view(np.float32)
    values = np.random.default_rng(9).permutation(centroids)
    np.testing.assert_array_equal(centroids[assign(values, centroids)], values)


def test_assign_pruned():
    values = np.array([0.0, -0.0, 1e-3, -3, 5], np.float32)
    assert assign(values, np.array([-3, 0.1, 5], np.float32), pruned=True).tolist() == [0, 0, 2, 1, 3]
    assert assign(values[:2], np.zeros(0, np.float32), pruned=True).tolist() == [0, 0]
    assert assign(values, np.arange(256, dtype=np.float32), pruned=True).dtype == np.uint16
