"""1-D k-means against its peers: scikit-learn's KMeans, and kmeans1d's exact optimum.

    OMP_NUM_THREADS=1 python -m benchmarks.kmeans --json results/kmeans.json

Takes minutes: scikit-learn and kmeans1d are run once in full. Everything runs on one thread, in one process.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.share.kmeans import kmeans

SEED = 0
CLUSTERS = 32
ITERATIONS = 100
LLOYD_WEIGHTS = 16_000_000
OPTIMAL_WEIGHTS = 1_000_000
REPEATS = 5


def laplace(n: int) -> NDArray[np.float32]:
    """Weights such as a trained layer has."""
    return np.random.default_rng(SEED).laplace(size=n).astype(np.float32)


def mean_squared_error(values: NDArray[Any], centroids: NDArray[Any]) -> float:
    """Of any peer's centroids, in float64, by one and the same code."""
    centroids = np.sort(centroids.astype(np.float64))
    cuts = np.searchsorted(values, (centroids[:-1] + centroids[1:]) / 2, side="right")
    total = 0.0
    for part, centroid in zip(np.split(values, cuts), centroids, strict=True):
        error = part.astype(np.float64) - centroid
        total += float(error @ error)
    return total / len(values)


def ours(values: NDArray[np.float32], init: str, momentum: bool = True) -> NDArray[np.float32]:
    """Centroids of dwindle."""
    found = kmeans(values, CLUSTERS, init=init, iterations=ITERATIONS, seed=SEED, momentum=momentum)
    return found.centroids


def sklearn_lloyd(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centroids of scikit-learn, from the same linear start, the same iterations, one thread."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    start = np.linspace(values.min(), values.max(), CLUSTERS, dtype=np.float32)[:, None]
    peer = KMeans(CLUSTERS, init=start, n_init=1, max_iter=ITERATIONS, tol=0, algorithm="lloyd")
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer.fit(values[:, None])
    return peer.cluster_centers_[:, 0]


def kmeans1d_optimum(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Centroids of the exact optimum."""
    import kmeans1d

    return np.array(kmeans1d.cluster(values.astype(np.float64), CLUSTERS).centroids)


def timed(run: Callable[[], NDArray[Any]], repeats: int) -> tuple[float, NDArray[Any]]:
    """Least seconds of some runs, and the result."""
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        best = min(best, time.perf_counter() - start)
    return best, result


def compare(
    n: int, init: str, peer: Callable[[NDArray[np.float32]], NDArray[Any]], peer_name: str
) -> list[dict[str, Any]]:
    """Seconds and mean squared error of both, and their ratios: a row with momentum, and one without."""
    values = laplace(n)
    ours(values[:20_000], init)  # compiles
    runs = {flag: timed(lambda flag=flag: ours(values, init, flag), REPEATS) for flag in (True, False)}
    peer_seconds, peer_centroids = timed(lambda: peer(values), 1)
    values.sort()
    peer_mse = mean_squared_error(values, peer_centroids)
    rows = []
    for momentum, (seconds, centroids) in runs.items():
        mse = mean_squared_error(values, centroids)
        rows.append(
            {
                "weights": n,
                "clusters": CLUSTERS,
                "init": init,
                "momentum": momentum,
                "seconds": seconds,
                "mse": mse,
                "peer": peer_name,
                "peer_seconds": peer_seconds,
                "peer_mse": peer_mse,
                "times_faster": peer_seconds / seconds,
                "mse_ratio": mse / peer_mse,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    target = parser.parse_args().json
    rows = [
        *compare(LLOYD_WEIGHTS, "linear", sklearn_lloyd, "scikit-learn KMeans, lloyd, tol=0"),
        *compare(OPTIMAL_WEIGHTS, "optimal", kmeans1d_optimum, "kmeans1d"),
    ]
    result = {
        "command": f"OMP_NUM_THREADS=1 python -m benchmarks.kmeans --json {target}",
        "seed": SEED,
        "threads": 1,
        "iterations": ITERATIONS,
        "timing": f"least of {REPEATS} runs after compilation; the peer's one run",
        "note": "momentum False: the plain iterations of the paper, and of the peer",
        "distribution": "Laplace, float32",
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("dwindle", "numpy", "numba", "scikit-learn", "kmeans1d")
        }
        | {"python": platform.python_version()},
        "machine": platform.machine(),
        "rows": rows,
    }
    target.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
