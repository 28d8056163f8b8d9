import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwindle.code import bits
from dwindle.errors import CorruptError


def plain_pack(values, width):
    number = sum(int(v) << (i * width) for i, v in enumerate(values))
    return number.to_bytes((len(values) * width + 7) // 8, "little")


@st.composite
def numbers(draw):
    width = draw(st.integers(0, 32))
    values = draw(st.lists(st.integers(0, (1 << width) - 1), max_size=70))
    fitting = [d for d in (np.uint8, np.uint16, np.uint32, np.uint64) if np.dtype(d).itemsize * 8 >= width]
    return width, np.array(values, draw(st.sampled_from(fitting)))


@given(numbers())
@settings(deadline=None)  # the first call compiles
def test_packs_as_one_long_number_and_reads_back(case):
    width, values = case
    data = bits.pack(values, width)
    assert data == plain_pack(values, width)
    back = bits.unpack(memoryview(data), len(values), width, values.dtype)
    assert back.dtype == values.dtype
    assert np.array_equal(back, values)


@pytest.mark.parametrize("width", [1, 5, 8, 19, 28, 29, 31, 32])
def test_many_values(width):
    rng = np.random.default_rng(width)
    values = rng.integers(0, 1 << width, 5001, np.uint64).astype(np.uint32)
    data = bits.pack(values, width)
    assert data == plain_pack(values, width)
    assert np.array_equal(bits.unpack(data, 5001, width, np.uint32), values)


def test_golden():
    assert bits.pack(np.array([1, 2, 3, 4, 5], np.uint8), 3) == bytes([0b11_010_001, 0b0_101_100_0])


def test_no_bits_no_bytes():
    assert bits.pack(np.zeros(9, np.uint8), 0) == b""
    assert bits.pack(np.zeros(0, np.uint8), 7) == b""
    assert bits.unpack(b"", 9, 0, np.uint8).tolist() == [0] * 9
    assert bits.unpack(b"", 0, 7, np.uint8).shape == (0,)


def test_packs_strided_values():
    values = np.arange(20, dtype=np.uint16)
    assert bits.pack(values[::-2], 5) == plain_pack(values[::-2], 5)


@pytest.mark.parametrize("width", [0, 1, 7])
def test_refuses_a_value_that_does_not_fit(width):
    with pytest.raises(ValueError, match=rf"under 2\*\*{width}"):
        bits.pack(np.array([0, 1 << width], np.uint8), width)


def test_refuses_impossible_arguments():
    with pytest.raises(ValueError, match="width"):
        bits.pack(np.zeros(1, np.uint64), 33)
    with pytest.raises(ValueError, match="width"):
        bits.unpack(b"", 1, -1, np.uint8)
    with pytest.raises(ValueError, match="9 bits or more"):
        bits.unpack(b"\0\0", 1, 9, np.uint8)
    with pytest.raises(ValueError, match="unsigned"):
        bits.pack(np.zeros(1, np.int64), 3)
    with pytest.raises(ValueError, match="1-D"):
        bits.pack(np.array(1, np.uint8), 3)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_refuses_another_number_of_bytes(size):
    with pytest.raises(CorruptError, match=f"expected 2 bytes .* got {size}"):
        bits.unpack(bytes(size), 3, 5, np.uint8)
    with pytest.raises(CorruptError, match="expected 0 bytes"):
        bits.unpack(b"\0", 3, 0, np.uint8)


def test_refuses_padding_that_is_not_zero():
    assert bits.unpack(b"\xff\x7f", 3, 5, np.uint8).tolist() == [31, 31, 31]
    with pytest.raises(CorruptError, match="1 zero bits"):
        bits.unpack(b"\xff\xff", 3, 5, np.uint8)
