"""1-D k-means under pytest-benchmark, peers in the same run where they are installed, one thread.

OMP_NUM_THREADS=1 pytest benchmarks/test_kmeans.py --benchmark-only
"""

import numpy as np
import pytest

from benchmarks import kmeans as bench
from dwindle.share.assign import assign


@pytest.mark.parametrize("init", ["linear", "density", "forgy", "optimal"])
def test_kmeans(benchmark, init):
    values = bench.laplace(bench.LLOYD_WEIGHTS)
    bench.ours(values[:20_000], init)
    centroids = benchmark.pedantic(bench.ours, (values, init), rounds=3)
    assert len(centroids) == bench.CLUSTERS


def test_assign(benchmark):
    values = bench.laplace(bench.LLOYD_WEIGHTS)
    centroids = np.linspace(-8, 8, 256, dtype=np.float32)
    assign(values[:10], centroids)
    indices = benchmark.pedantic(assign, (values, centroids), rounds=3)
    assert indices.max() == 255


def test_sklearn(benchmark):
    pytest.importorskip("sklearn")
    values = bench.laplace(bench.LLOYD_WEIGHTS)
    theirs = benchmark.pedantic(bench.sklearn_lloyd, (values,), rounds=1)
    own = bench.ours(values, "linear")
    values.sort()
    assert bench.mean_squared_error(values, own) <= bench.mean_squared_error(values, theirs)


def test_kmeans1d(benchmark):
    pytest.importorskip("kmeans1d")
    values = bench.laplace(bench.OPTIMAL_WEIGHTS)
    theirs = benchmark.pedantic(bench.kmeans1d_optimum, (values,), rounds=1)
    own = bench.ours(values, "optimal")
    values.sort()
    assert bench.mean_squared_error(values, own) <= 1.001 * bench.mean_squared_error(values, theirs)
