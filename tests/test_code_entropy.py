import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwindle.code.entropy import counts, entropy_bytes


@given(
    st.lists(st.integers(0, 99)), st.sampled_from([np.uint8, np.uint16]), st.sampled_from([100, 256, 1 << 16])
)
@settings(deadline=None)  # the first call compiles
def test_counts_as_bincount_does(values, dtype, alphabet):
    symbols = np.array(values, dtype)
    result = counts(symbols, alphabet)
    assert result.dtype == np.int64
    assert np.array_equal(result, np.bincount(symbols, minlength=alphabet))


def test_counts_strided_symbols():
    symbols = np.random.default_rng(0).integers(0, 1 << 16, 5001).astype(np.uint16)
    assert np.array_equal(counts(symbols[::3], 1 << 16), np.bincount(symbols[::3], minlength=1 << 16))


def test_refuses_symbols_outside_the_alphabet():
    with pytest.raises(ValueError, match="under 5, got 7"):
        counts(np.array([1, 7, 5], np.uint8), 5)
    with pytest.raises(ValueError, match="under 0, got 0"):
        counts(np.array([0], np.uint8), 0)
    with pytest.raises(ValueError, match="uint8 or uint16"):
        counts(np.array([0]), 5)
    with pytest.raises(ValueError, match="uint8 or uint16"):
        counts(np.array(0, np.uint8), 5)


def test_entropy():
    assert entropy_bytes(np.zeros(0, np.int64)) == 0
    assert entropy_bytes(np.array([0, 9, 0])) == 0
    assert entropy_bytes(np.array([8, 8])) == 2
    assert entropy_bytes(np.array([4, 0, 2, 1, 1])) == 14 / 8
