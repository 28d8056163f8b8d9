"""Entropy-constrained clustering: never dearer than levels, zeros kept, the slope it is made for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dwindle.share.allocate import entropy
from dwindle.share.entropy import entropy_constrained, price
from dwindle.share.layer import squared_error
from dwindle.share.levels import from_levels, to_levels


def cost(weights, book, step):
    return squared_error(weights, *book) + price(step) * entropy(np.bincount(book[1]))


def laplace(n, seed=0):
    return np.random.default_rng(seed).laplace(size=n).astype(np.float32)


@given(
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3), elements=st.floats(-4, 4, width=32)),
    st.floats(0.05, 8),
)
def test_never_dearer_than_levels_and_zeros_stay(weights, step):
    codebook, indices = entropy_constrained(weights, step, "float32")
    assert codebook.dtype == np.float32
    assert (np.diff(codebook) > 0).all()
    assert indices.shape == (weights.size,)
    assert not codebook[indices][weights.reshape(-1) == 0].any()
    levels = from_levels(to_levels(weights, step), step, "float32")
    assert cost(weights, (codebook, indices), step) <= cost(weights, levels, step) * (1 + 1e-6) + 1e-9


@pytest.mark.parametrize(("step", "least"), [(1.0, 0.01), (2.0, 0.05), (4.0, 0.18)])
def test_it_saves_the_more_the_coarser(step, least):
    weights = laplace(200_000)
    found = cost(weights, entropy_constrained(weights, step, "float32"), step)
    assert found < (1 - least) * cost(weights, from_levels(to_levels(weights, step), step, "float32"), step)


def test_it_beats_levels_of_the_same_entropy():
    weights = laplace(200_000)
    book = entropy_constrained(weights, 2.0, "float32")
    bits = entropy(np.bincount(book[1]))
    levels = [from_levels(to_levels(weights, step), step, "float32") for step in np.linspace(1.5, 3.5, 41)]
    alike = min(levels, key=lambda other: abs(entropy(np.bincount(other[1])) - bits))
    assert squared_error(weights, *book) < 0.97 * squared_error(weights, *alike)


def test_small_weights_are_pruned():
    weights = laplace(50_000)
    codebook, indices = entropy_constrained(weights, 2.0, "float32")
    pruned = np.abs(weights[codebook[indices] == 0])
    assert pruned.max() > 1.05  # levels prune up to half a step


def test_every_entry_is_in_use_and_short():
    codebook, indices = entropy_constrained(laplace(10_000), 1.5, "float32")
    assert set(indices.tolist()) == set(range(len(codebook)))
    fraction = np.frexp(codebook)[0] * 256
    assert (fraction == np.rint(fraction)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_entries_are_of_the_dtype(dtype):
    weights = laplace(5000).astype(np.float64 if dtype == "float64" else np.float32)
    codebook, _ = entropy_constrained(weights, 1.0, dtype)
    assert codebook.dtype == (np.float64 if dtype == "float64" else np.float32)


def test_fine_steps_are_levels():
    weights = laplace(5000)
    book, levels = (
        entropy_constrained(weights, 0.01, "float32"),
        from_levels(to_levels(weights, 0.01), 0.01, "float32"),
    )
    assert np.array_equal(book[0], levels[0])
    assert np.array_equal(book[1], levels[1])


@pytest.mark.parametrize("weights", [np.zeros(0), np.zeros(9), np.full(9, 3.0), np.array([2.0])])
def test_tensors_with_next_to_nothing_in_them(weights):
    weights = weights.astype(np.float32)
    codebook, indices = entropy_constrained(weights, 0.5, "float32")
    assert np.array_equal(codebook[indices], weights)
