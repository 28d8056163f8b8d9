"""Blocks of exact tensors: every bit back, nothing much larger than it was, no surprise from any bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwindle import dtypes
from dwindle.code import exact
from dwindle.errors import CorruptError

quick = settings(max_examples=60, deadline=None)
names = st.sampled_from(sorted(dtypes.STORAGE))
RANDOM = np.random.default_rng(0)


def back(data, dtype, base=None):
    coded = exact.encode(data, dtype, base)
    out = np.empty(len(data), np.uint8)
    parts = exact.decode(memoryview(coded), dtype, out, None if base is None else memoryview(base))
    assert out.tobytes() == bytes(data)
    assert sum(part.size for part in parts) == len(coded)
    assert len(coded) <= len(data) + 1
    return coded


@st.composite
def blocks(draw):
    dtype, n = draw(names), draw(st.integers(0, 300))
    kind = draw(st.sampled_from(["random", "constant", "steps", "zeros", "normal"]))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    size = dtypes.itemsize(dtype)
    if kind == "constant":
        return dtype, random.bytes(size) * n
    if kind == "steps":
        return dtype, b"".join((7 + 3 * i).to_bytes(16, "little")[:size] for i in range(n))
    data = bytearray(random.bytes(size * n))
    if kind == "normal" and dtype in dtypes.SHAREABLE:
        data = bytearray(dtypes.from_float(random.normal(size=n).astype(np.float32), dtype).tobytes())
    if kind == "zeros":
        for i in range(n):
            if random.random() < 0.8:
                data[i * size : (i + 1) * size] = bytes(size)
    return dtype, bytes(data)


@given(blocks())
@quick
def test_any_block_comes_back(block):
    back(block[1], block[0])


@given(blocks(), st.integers(0, 100))
@quick
def test_any_block_comes_back_against_a_base(block, seed):
    dtype, data = block
    random = np.random.default_rng(seed)
    near = bytearray(data)
    for at in random.integers(0, max(len(data), 1), len(data) // 9):
        near[at] ^= 1
    for base in (bytes(near), random.bytes(len(data)), data):
        assert len(back(data, dtype, base)) <= len(exact.encode(data, dtype))


MODES = {
    exact.STORED: ("uint8", RANDOM.bytes(5000)),
    exact.CONSTANT: ("complex64", bytes(range(8)) * 900),
    exact.PLANES: ("float32", RANDOM.normal(size=5000).astype("<f4").tobytes()),
    exact.STEPS: ("int32", (np.arange(5000, dtype="<i4") * 3).tobytes()),
    exact.SPARSE: (
        "float32",
        np.where(RANDOM.random(9000) < 0.1, RANDOM.normal(size=9000), 0).astype("<f4").tobytes(),
    ),
    exact.DEFLATED: ("uint8", b"what is said twice is said in fewer bytes; " * 200),
}


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_is_chosen_where_it_should_be(mode):
    dtype, data = MODES[mode]
    assert back(data, dtype)[0] == mode


def test_a_small_change_of_the_base_costs_little():
    base = RANDOM.normal(size=20_000).astype("<f4")
    tuned = (base * np.float32(1 + 1e-6)).tobytes()
    coded = back(tuned, "float32", base.tobytes())
    assert coded[0] == exact.CHANGE
    assert len(coded) < 0.25 * len(tuned)
    assert len(back(base.tobytes(), "float32", base.tobytes())) < 20


def test_nan_payloads_infinities_and_negative_zeros():
    words = np.array(
        [0x7F800001, 0xFFC12345, 0x7F800000, 0xFF800000, 0x80000000, 0, 1, 0x80000001] * 50, "<u4"
    )
    back(words.tobytes(), "float32")
    back(words.tobytes(), "float32", words[::-1].tobytes())


def test_floats_cast_from_shorter_ones_cost_as_much_as_these():
    short = dtypes.from_float(RANDOM.normal(size=50_000).astype("<f4"), "bfloat16")
    long = dtypes.to_float(short, "bfloat16").tobytes()
    assert len(back(long, "float32")) < 1.03 * len(back(short.tobytes(), "bfloat16")) + 100


@pytest.mark.parametrize("mode", [m for m in MODES if m != exact.STORED])
def test_truncated_and_flipped_blocks_are_refused_or_decode(mode):
    dtype, data = MODES[mode]
    coded = bytes(exact.encode(data, dtype))
    out = np.empty(len(data), np.uint8)
    for size in [*range(min(len(coded), 200)), len(coded) - 1]:
        with pytest.raises(CorruptError):
            exact.decode(memoryview(coded)[:size], dtype, out)
    with pytest.raises(CorruptError):
        exact.decode(memoryview(coded + b"\0"), dtype, out)
    for bit in range(min(8 * len(coded), 1500)):
        flipped = bytearray(coded)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            exact.decode(memoryview(bytes(flipped)), dtype, out)
        except CorruptError:
            continue


@given(st.binary(max_size=60), names, st.integers(0, 40))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_refused_or_decode(data, dtype, n):
    out = np.empty(n * dtypes.itemsize(dtype), np.uint8)
    try:
        parts = exact.decode(memoryview(data), dtype, out, memoryview(bytes(len(out))))
    except CorruptError:
        return
    assert sum(part.size for part in parts) == len(data)
