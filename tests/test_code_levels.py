"""Blocks coded as levels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwindle.code import levels
from dwindle.errors import CorruptError
from dwindle.kernels import levels as kernels


def back(ranks, start=0, columns=7, tracked=None, centre=0):
    place = start, columns, columns if tracked is None else tracked, centre
    data = levels.encode(ranks, *place)
    out = np.full(len(ranks), 999, np.uint16)
    levels.decode(memoryview(data), out, *place)
    assert np.array_equal(out, ranks)
    return data


def laplace(n, scale, seed=0, centre=3000):
    found = np.round(np.random.default_rng(seed).laplace(size=n) * scale) + centre
    return np.clip(found, 0, 65535).astype(np.uint16)


@given(
    st.lists(st.one_of(st.integers(0, 3), st.integers(0, 65535)), min_size=1, max_size=200),
    st.integers(0, 65535),
    st.integers(1, 50),
    st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None)
def test_any_ranks_come_back(ranks, centre, columns, start):
    back(np.array(ranks, np.uint16), start, columns, max(columns // 2, 1), centre)


@pytest.mark.parametrize("scale", [0.2, 1, 30, 3000])
@pytest.mark.parametrize("n", [1, levels.SPLIT - 1, levels.SPLIT, 1 << 16])
def test_long_blocks_come_back(n, scale):
    back(laplace(n, scale), columns=100, centre=3000)


def test_all_levels_zero_is_one_byte():
    assert back(np.full(100_000, 5, np.uint16), centre=5) == b"\1"


def test_every_magnitude_has_a_token():
    magnitudes = np.arange(1 << 16)
    tokens = np.searchsorted(kernels.TOKENS >> 5, magnitudes, side="right") - 1
    least, width = kernels.TOKENS[tokens] >> 5, kernels.TOKENS[tokens] & 31
    assert (least <= magnitudes).all()
    assert (magnitudes < least + (1 << width)).all()
    back(np.arange(1 << 16).astype(np.uint16), columns=256, centre=0)


def test_octaves():
    steps = [int(kernels.octaves(np.uint64(mean))) for mean in range(1, 1 << 12)]
    assert steps[:8] == [1, 2, 3, 4, 4, 5, 5, 6]
    assert sorted(steps) == steps
    assert int(kernels.octaves(np.uint64(0))) == 0
    assert int(kernels.octaves(np.uint64(64 * 65535))) == 43


def test_known_bytes():
    """The smallest of blocks, by hand.

    A mean of 1 has the code of half octave 12, whose mean is 80/64: a magnitude goes on with a chance of
    80/144. So the two tokens begin with 227 + 1 and 126 + 1, and the second gets 127 * 4094 // 355 + 1 = 1465
    slots, the last of 4,096. The state takes it in. Its sign is a bit of 1.
    """
    state = (32768 // 1465 << 12) + 32768 % 1465 + 4096 - 1465
    assert back(np.array([6], np.uint16), centre=7) == bytes([2, 4]) + state.to_bytes(4, "little") + b"\1"


def test_bytes_stay_near_the_entropy_of_each_row():
    scales = np.geomspace(0.5, 100, 150)
    random = np.random.default_rng(2)
    rows = [np.round(random.laplace(size=800) * scale).astype(int) for scale in scales]
    bound = 0.0
    for row, scale in zip(rows, scales, strict=True):
        tails = 0.5 * np.exp(-np.abs(np.arange(-3000, 3002) - 0.5) / scale)
        cumulative = np.append(tails[:3001], 1 - tails[3001:])
        bound -= np.log2(np.diff(cumulative)[row + 3000]).sum() / 8
    data = back((np.concatenate(rows) + 3000).astype(np.uint16), columns=800, centre=3000)
    assert len(data) < 1.012 * bound


def test_truncated_and_flipped_blocks_are_refused_or_decode():
    ranks = laplace(400, 9)
    data = levels.encode(ranks, 0, 20, 20, 3000)
    out = np.empty_like(ranks)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        for mutant in (bytes(flipped), data[: bit // 8], data + b"\0"):
            try:
                levels.decode(memoryview(mutant), out, 0, 20, 20, 3000)
            except CorruptError:
                continue
            assert mutant == bytes(flipped)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0", "1 to 64 tokens"),
        (b"\x41", "1 to 64 tokens"),
        (b"\1\0", "expected"),
        (b"\2\5" + bytes(5), "states and at most 10 words"),
        (b"\2\4" + bytes(4), "states from"),
        (b"\2\4" + bytes.fromhex("00800080"), "states from"),
        (b"\2\6" + bytes.fromhex("00800000 0000"), "last word"),
    ],
)
def test_each_defect_is_named(data, message):
    with pytest.raises(CorruptError, match=message):
        levels.decode(memoryview(data), np.empty(10, np.uint16), 0, 5, 5, 0)


def test_bits_after_the_last_level_are_refused():
    ranks = laplace(300, 9)
    data = levels.encode(ranks, 0, 20, 20, 3000)
    for mutant in (data + b"\1", data[:-1] + bytes([data[-1] | 0x80])):
        if mutant != data:
            with pytest.raises(CorruptError, match="zeros up to a byte"):
                levels.decode(memoryview(mutant), np.empty_like(ranks), 0, 20, 20, 3000)
