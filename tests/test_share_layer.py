"""One layer's weights as codebook and indices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwindle import dtypes
from dwindle.errors import TensorError
from dwindle.share.layer import assign_layer, squared_error
from dwindle.share.rate import rate
from dwindle.share.starts import INITS


def sparse(shape, density=0.3, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return (rng.laplace(size=shape) * (rng.random(shape) < density)).astype(dtype)


def test_rate_of_the_papers_example():
    assert rate(16, 32, 4) == 3.2
    assert rate(10**9, 32, 32) == pytest.approx(32 / 5, rel=1e-6)
    with pytest.raises(ValueError, match="1 or more"):
        rate(0, 32, 4)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("bits", [1, 2, 5, 8, 9])
def test_zeros_have_an_entry_of_their_own(bits, init):
    weights = sparse((40, 50))
    weights.flags.writeable = False
    codebook, indices = assign_layer(weights, bits, init=init)
    assert codebook.dtype == np.float32
    assert len(codebook) <= 1 << bits
    assert codebook[0] == 0
    assert (np.diff(codebook[1:]) > 0).all()
    assert indices.shape == (2000,)
    assert indices.dtype == (np.uint8 if len(codebook) <= 256 else np.uint16)
    np.testing.assert_array_equal(indices == 0, weights.reshape(-1) == 0)
    assert (codebook[1:] != 0).all()
    assert len(np.unique(indices)) == len(codebook)
    alive = weights.reshape(-1)[indices > 0]
    nearest = np.abs(alive[:, None] - codebook[1:]).argmin(axis=1) + 1
    np.testing.assert_array_equal(indices[indices > 0], nearest)


def test_without_zeros_all_entries_are_values():
    weights = np.random.default_rng(1).laplace(size=3000)
    codebook, indices = assign_layer(weights, 3, init="optimal")
    assert (len(codebook), codebook.dtype) == (8, np.float64)
    assert (codebook != 0).all()
    filler, shifted = assign_layer(weights, 3, init="optimal", pruned=True)
    assert (len(filler), filler[0], shifted.min()) == (8, 0, 1)
    assert squared_error(weights, codebook, indices) < squared_error(weights, filler, shifted)


def test_squared_error_in_chunks(monkeypatch):
    monkeypatch.setattr("dwindle.share.layer.CHUNK", 7)
    weights = sparse((5, 9), 0.9)
    codebook, indices = assign_layer(weights, 2)
    expected = ((weights.astype(np.float64).reshape(-1) - codebook[indices]) ** 2).sum()
    assert squared_error(weights, codebook, indices) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (np.zeros((3, 2), np.float32), ([0.0], [0] * 6)),
        (np.zeros((0, 4), np.float32), ([], [])),
        (np.array(1.5), ([1.5], [0])),
        (np.array(-0.0), ([0.0], [0])),
        (np.full(3, -2, np.float32), ([-2.0], [0, 0, 0])),
        (np.array([0, 3, 0, -3], np.float32), ([0, -3, 3], [0, 2, 0, 1])),
    ],
)
def test_degenerate(weights, expected):
    codebook, indices = assign_layer(weights, 4)
    assert (codebook.tolist(), indices.tolist()) == expected
    assert not np.signbit(codebook[codebook == 0]).any()


def test_empty_with_a_filler():
    codebook, indices = assign_layer(np.zeros(0, np.float32), 4, pruned=True)
    assert (codebook.tolist(), indices.tolist()) == ([0.0], [])


def test_survivors_are_never_sent_to_zero():
    """The mean of -1 and 1 is zero, and zero means pruned."""
    codebook, indices = assign_layer(np.array([-1, 1, 0], np.float32), 1)
    assert indices.tolist() == [1, 1, 0]
    assert codebook[1] == np.finfo(np.float32).tiny


@pytest.mark.parametrize("dtype", dtypes.SHAREABLE)
def test_entries_are_values_of_the_stored_dtype(dtype):
    weights = sparse((60, 60), dtype=np.float64 if dtype == "float64" else np.float32)
    weights = dtypes.to_float(dtypes.from_float(weights, dtype), dtype)
    codebook, indices = assign_layer(weights, 8, dtype=dtype)
    stored = dtypes.to_float(dtypes.from_float(codebook, dtype), dtype)
    np.testing.assert_array_equal(stored, codebook)
    assert (np.diff(codebook[1:]) > 0).all()
    np.testing.assert_array_equal(indices == 0, weights.reshape(-1) == 0)
    tiny, _ = assign_layer(np.array([1e-6, -1e-6, 3e-7], np.float32), 1, dtype="float16")
    assert (tiny != 0).all()


@settings(deadline=None)
@given(
    st.lists(st.floats(-100, 100, width=32) | st.just(0.0), max_size=50),
    st.integers(1, 9),
    st.sampled_from(INITS),
    st.booleans(),
)
def test_any_layer(weights, bits, init, pruned):
    weights = np.array(weights, np.float32)
    codebook, indices = assign_layer(weights, bits, init=init, pruned=pruned)
    zeros = weights == 0
    assert len(codebook) <= 1 << bits
    np.testing.assert_array_equal(codebook[indices] == 0, zeros)
    if pruned or zeros.any():
        assert codebook[0] == 0
    if len(np.unique(weights[~zeros])) + (pruned or zeros.any()) <= 1 << bits:
        np.testing.assert_array_equal(codebook[indices], weights)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-100, 100, width=32), st.booleans()), max_size=50), st.integers(1, 9))
def test_weights_not_kept_count_as_zero(pairs, bits):
    weights = np.array([weight for weight, _ in pairs], np.float32).reshape(-1, 1)
    kept = np.array([keep for _, keep in pairs], np.bool_).reshape(-1, 1)
    before = weights.copy()
    codebook, indices = assign_layer(weights, bits, kept=kept)
    expected = assign_layer(np.where(kept, weights, np.float32(0)), bits)
    np.testing.assert_array_equal(codebook, expected[0])
    np.testing.assert_array_equal(indices, expected[1])
    assert indices.dtype == expected[1].dtype
    np.testing.assert_array_equal(weights, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses(bad):
    with pytest.raises(TensorError, match="expected finite values"):
        assign_layer(np.array([1, 0, bad], np.float32), 4)
    for bits in (0, 17):
        with pytest.raises(ValueError, match="expected 1 to 16 bits"):
            assign_layer(np.ones(3, np.float32), bits)
    with pytest.raises(TensorError, match="float16"):
        assign_layer(np.ones(3, np.float16), 4)
