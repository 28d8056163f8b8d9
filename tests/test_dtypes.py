"""Element types: widths and bit patterns agree with torch, and bfloat16 rounds as torch does."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dwindle import dtypes


@pytest.mark.parametrize("name", dtypes.STORAGE)
def test_names_and_widths_are_torchs(name):
    dtype = getattr(torch, name)
    assert dtypes.itemsize(name) == dtype.itemsize
    assert dtypes.STORAGE[name].newbyteorder("<") == dtypes.STORAGE[name]
    assert set(dtypes.SHAREABLE) <= set(dtypes.STORAGE)


def every_pattern(dtype: np.dtype) -> np.ndarray:
    return np.arange(1 << 16, dtype=np.uint16).view(dtype)


def test_every_bfloat16_reads_as_torch_reads_it():
    bits = every_pattern(np.dtype("<u2"))
    ours = dtypes.to_float(bits, "bfloat16")
    theirs = torch.from_numpy(bits.view(np.int16).copy()).view(torch.bfloat16).float().numpy()
    assert ours.dtype == np.float32
    assert np.array_equal(ours.view(np.uint32), theirs.view(np.uint32))


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_every_16_bit_float_survives_widening_and_rounding(name):
    bits = every_pattern(dtypes.STORAGE[name])
    back = dtypes.from_float(dtypes.to_float(bits, name), name)
    number = ~np.isnan(dtypes.to_float(bits, name))
    assert number.sum() in (65536 - 2 * 127, 65536 - 2 * 1023)
    assert back.dtype == dtypes.STORAGE[name]
    assert np.array_equal(back.view(np.uint16)[number], bits.view(np.uint16)[number])
    assert np.isnan(dtypes.to_float(back, name)[~number]).all()


def assert_rounds_as_torch(words: np.ndarray) -> None:
    values = words.view(np.float32)
    ours = dtypes.from_float(values, "bfloat16")
    theirs = torch.from_numpy(values.copy()).bfloat16().view(torch.int16).numpy().view(np.uint16)
    number = ~np.isnan(values)
    assert np.array_equal(ours[number], theirs[number])
    # torch makes every NaN one NaN; what counts is that none becomes a number or an infinity.
    assert np.isnan(dtypes.to_float(ours, "bfloat16")[~number]).all()


def test_bfloat16_rounds_as_torch_does_at_every_tie_and_beside_it():
    high = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
    for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        assert_rounds_as_torch(high | np.uint32(low))


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_bfloat16_rounds_as_torch_does(words):
    assert_rounds_as_torch(np.array(words, np.uint32))


def test_bfloat16_of_doubles_and_of_strided_and_0d_arrays():
    values = np.array([[1.0, 2.0], [3.0, -0.0]])
    assert dtypes.from_float(values.T, "bfloat16").tolist() == [[0x3F80, 0x4040], [0x4000, 0x8000]]
    assert dtypes.from_float(np.array(1.0, np.float32), "bfloat16") == 0x3F80


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_wide_floats_are_not_copied(name):
    values = np.array([np.nan, -0.0], name)
    assert dtypes.to_float(values, name) is values
    assert dtypes.from_float(values, name) is values


@pytest.mark.parametrize("name", sorted(set(dtypes.STORAGE) - set(dtypes.SHAREABLE)))
def test_what_is_no_shareable_float_is_refused(name):
    if name not in dtypes.FLOAT8:
        with pytest.raises(ValueError, match=f"got {name}"):
            dtypes.to_float(np.zeros(1, dtypes.STORAGE[name]), name)
    with pytest.raises(ValueError, match=f"got {name}"):
        dtypes.from_float(np.zeros(1, np.float32), name)


@pytest.mark.parametrize("name", dtypes.FLOAT8)
def test_all_8_bit_floats_are_those_of_torch(name):
    bits = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(bits).view(getattr(torch, name)).float().numpy()
    assert np.array_equal(dtypes.to_float(bits, name), expected, equal_nan=True)
