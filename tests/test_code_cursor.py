"""Varints and the cursor that reads untrusted bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwindle.code.cursor import MAX_VARINT, Cursor, prefixed, varint
from dwindle.errors import CorruptError


@given(st.integers(0, MAX_VARINT), st.binary(max_size=3))
def test_varints_read_back(value, after):
    data = varint(value)
    assert len(data) == max(1, -(-value.bit_length() // 7))
    cursor = Cursor(memoryview(data + after))
    assert cursor.varint() == value
    assert cursor.offset == len(data)
    for size in range(len(data)):
        with pytest.raises(CorruptError, match="more bytes"):
            Cursor(memoryview(data[:size])).varint()


@pytest.mark.parametrize(
    ("value", "data"),
    [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (MAX_VARINT, "ffffffffffffffff7f")],
)
def test_varints_byte_for_byte(value, data):
    assert varint(value).hex() == data


@pytest.mark.parametrize("value", [-1, MAX_VARINT + 1])
def test_varints_have_63_bits(value):
    with pytest.raises(ValueError, match="63 bits"):
        varint(value)


@pytest.mark.parametrize("data", ["8000", "ff00", "808000"])
def test_varints_have_one_form(data):
    with pytest.raises(CorruptError, match="shortest form"):
        Cursor(memoryview(bytes.fromhex(data))).varint()


@pytest.mark.parametrize("data", ["80" * 9 + "01", "ff" * 20])
def test_longer_varints_are_refused(data):
    with pytest.raises(CorruptError, match="at most 63 bits"):
        Cursor(memoryview(bytes.fromhex(data))).varint()


def test_limits_name_what_they_limit():
    assert Cursor(memoryview(b"\x05")).varint(5) == 5
    with pytest.raises(CorruptError, match="expected a size of at most 4, got 5"):
        Cursor(memoryview(b"\x05")).varint(4, "a size")


@given(st.binary(max_size=300))
def test_prefixed_bytes_read_back(data):
    cursor = Cursor(memoryview(prefixed(data)))
    assert cursor.prefixed() == data
    cursor.end()


def test_never_past_the_end():
    cursor = Cursor(memoryview(b"abc"), 1)
    assert cursor.take(0) == b""
    assert cursor.take(2) == b"bc"
    with pytest.raises(CorruptError, match="expected 1 more bytes, got 0"):
        cursor.byte()
    with pytest.raises(CorruptError, match="expected 5 more bytes, got 1"):
        Cursor(memoryview(b"\x05a")).prefixed()
    with pytest.raises(CorruptError, match="no more bytes, got 2"):
        Cursor(memoryview(b"abc"), 1).end()
