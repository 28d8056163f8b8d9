"""k-means where errors in some values cost more than in others."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import dwindle
from dwindle.errors import TensorError
from dwindle.share import get_codebook, share
from dwindle.share.binned import Binned
from dwindle.share.kmeans import kmeans
from dwindle.share.layer import assign_layer
from dwindle.share.weighted import weighted_kmeans


def best_cost(values, weights, k):
    """The least weighted squared error of at most k clusters, by trying every split."""
    order = np.argsort(values)
    x, w = values[order].astype(np.float64), weights[order].astype(np.float64)
    n = len(x)

    def run(i, j):
        mean = np.average(x[i:j], weights=w[i:j])
        return float(w[i:j] @ (x[i:j] - mean) ** 2)

    best = np.full((k + 1, n + 1), np.inf)
    best[0, 0] = 0
    for j in range(1, k + 1):
        for end in range(1, n + 1):
            best[j, end] = min(best[j - 1, start] + run(start, end) for start in range(end))
    return best[1:, n].min()


def cost_of(values, weights, centroids):
    off = np.abs(values[:, None].astype(np.float64) - centroids).min(1)
    return float(weights.astype(np.float64) @ off**2)


@given(
    st.lists(
        st.tuples(st.floats(-100, 100, width=32), st.floats(0.125, 8, width=32)), min_size=1, max_size=14
    ),
    st.integers(1, 5),
)
def test_it_is_the_optimum(pairs, k):
    values, weights = (np.array(column, np.float32) for column in zip(*pairs, strict=True))
    centroids = weighted_kmeans(values, weights, k)
    assert (np.diff(centroids) >= 0).all()
    assert len(centroids) <= k
    found, best = cost_of(values, weights, centroids), best_cost(values, weights, k)
    assert found <= best * (1 + 1e-9) + 1e-6 * (1 + np.abs(values).max() ** 2)


def test_equal_weights_give_the_optimum_of_kmeans():
    values = np.random.default_rng(0).standard_t(4, 100_000).astype(np.float32)
    ones = np.ones_like(values)
    plain = kmeans(values, 8, init="optimal").centroids
    assert cost_of(values, ones, weighted_kmeans(values, ones, 8)) == pytest.approx(
        cost_of(values, ones, plain), rel=1e-3
    )


def test_centroids_go_where_errors_cost():
    rng = np.random.default_rng(1)
    values = rng.standard_normal(20_000).astype(np.float32)
    weights = np.where(values > 1, 100.0, 1.0).astype(np.float32)
    centroids = weighted_kmeans(values, weights, 8)
    assert (centroids > 1).sum() >= 4
    assert cost_of(values, weights, centroids) < 0.5 * cost_of(
        values, weights, kmeans(values, 8, init="optimal").centroids
    )


def test_weights_of_nothing_count_alike():
    values = np.arange(10, dtype=np.float32)
    assert np.allclose(weighted_kmeans(values, np.zeros(10), 2), [2, 7])


def test_values_that_cost_nothing_break_nothing():
    values = np.arange(20_000, dtype=np.float32)
    weights = np.zeros(20_000)
    weights[:100] = 1
    centroids = weighted_kmeans(values, weights, 4)
    assert np.isfinite(centroids).all()
    assert (centroids[:3] < 101).all()


def test_no_values():
    assert len(weighted_kmeans(np.zeros(0, np.float32), np.zeros(0, np.float32), 3)) == 0
    assert len(Binned.of(np.zeros(0, np.float32)).means) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_bad_weights_are_refused(bad):
    with pytest.raises(TensorError, match="0 or more"):
        weighted_kmeans(np.arange(3, dtype=np.float32), np.array([1.0, bad, 1.0]), 2)


def test_a_layer_keeps_its_zeros_and_uses_every_entry():
    rng = np.random.default_rng(2)
    weights = rng.standard_normal((40, 50)).astype(np.float32)
    weights[rng.random((40, 50)) < 0.5] = 0
    codebook, indices = assign_layer(weights, 3, sensitivity=rng.random((40, 50)))
    assert codebook[0] == 0
    assert set(indices.tolist()) == set(range(len(codebook)))
    assert np.array_equal(codebook[indices] == 0, weights.reshape(-1) == 0)
    with pytest.raises(TensorError, match=r"sensitivity of shape \[40, 50\], got \[50, 40\]"):
        assign_layer(weights, 3, sensitivity=rng.random((50, 40)))


def test_a_model_is_shared_by_sensitivity():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8))
    before = model[0].weight.detach().clone()
    matters = torch.where(before > 0, 1000.0, 1.0)
    share(model, bits=3, sensitivity={"0.weight": matters})
    assert (get_codebook(model, "0.weight").centroids > 0).sum() >= 6
    assert (get_codebook(model, "1.weight").centroids > 0).sum() < 6


def test_calibration_moves_codebooks(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
    scales = torch.logspace(-2, 1, 64)
    inputs = torch.randn(200, 64) * scales
    with torch.no_grad():
        model[0].weight /= scales  # the largest weights matter least
        before = model(inputs).log_softmax(1)

    def divergence(**how):
        result = dwindle.compress(model, tmp_path / "x.dwz", bits=2, min_elements=1, force=True, **how)
        with torch.no_grad():
            after = result.model(inputs).log_softmax(1)
        return float((before.exp() * (before - after)).sum(1).mean())

    assert divergence(calibrate=inputs.split(20)) < 0.5 * divergence(init="optimal")


def test_bad_sensitivities_are_refused_by_name(tmp_path):
    model = nn.Sequential(nn.Linear(64, 64))
    with pytest.raises(TensorError, match=r"0\.wieght"):
        share(model, bits=3, sensitivity={"0.wieght": torch.ones(64, 64)})
    with pytest.raises(
        TensorError, match=r"0\.weight: expected a sensitivity of shape \[64, 64\], got \[64\]"
    ):
        share(model, bits=3, sensitivity={"0.weight": torch.ones(64)})
    with pytest.raises(TensorError, match=r"0\.weight: expected finite weights"):
        share(model, bits=3, sensitivity={"0.weight": torch.full((64, 64), torch.nan)})
    with pytest.raises(ValueError, match="at most 1024 clusters by sensitivity, got 4096"):
        share(model, bits=12, sensitivity={"0.weight": torch.ones(64, 64)})
    assert get_codebook(model, "0.weight") is None
    share(model, bits=3, sensitivity={"0.weight": torch.ones(64, 64, dtype=torch.bfloat16)})
    assert get_codebook(model, "0.weight") is not None
