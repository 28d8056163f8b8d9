import contextlib
import ctypes
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwindle.code import entropy, huffman
from dwindle.code.lengths import code_lengths
from dwindle.errors import CorruptError

compiles = settings(deadline=None, max_examples=60)


def plain_codes(lengths):
    """RFC 1951, section 3.2.2: {(length, code): symbol}."""
    codes, code, previous = {}, 0, 0
    for length, symbol in sorted((int(b), s) for s, b in enumerate(lengths) if b):
        code <<= length - previous
        codes[length, code] = symbol
        code, previous = code + 1, length
    return codes


def plain_lane(data, count, codes):
    """Decode one lane bit by bit."""
    symbols, length, code = [], 0, 0
    for position in range(8 * len(data)):
        code = code << 1 | (data[position // 8] >> position % 8 & 1)
        length += 1
        if (length, code) in codes:
            symbols.append(codes[length, code])
            length = code = 0
            if len(symbols) == count:
                assert position // 8 == len(data) - 1
                assert data[-1] >> position % 8 >> 1 == 0
                return symbols
    assert count == len(symbols) == len(data) == 0
    return symbols


def plain_varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def plain_decode(data, count, lengths):
    if np.count_nonzero(lengths) < 2:
        assert data == b""
        return [int(np.flatnonzero(lengths)[0])] * count if count else []
    codes = plain_codes(lengths)
    if count < 1 << 14:
        return plain_lane(data, count, codes)[::-1]
    expected = sum(int(b) / 2 ** int(b) for b in lengths if b)
    many, at, counts, sizes = 6 if expected < 6 else 8, 0, [], []
    for lane in range(many - 1):
        number, at = plain_varint(data, at) if many == 6 else (-(-(count - lane) // 8), at)
        size, at = plain_varint(data, at)
        counts.append(number)
        sizes.append(size)
    counts.append(count - sum(counts))
    sizes.append(len(data) - at - sum(sizes))
    lanes = []
    for number, size in zip(counts, sizes, strict=True):
        lanes.append(plain_lane(data[at : at + size], number, codes)[::-1])
        at += size
    if many == 6:
        return [symbol for lane in lanes[::-1] for symbol in lane]
    return [lanes[i % 8][i // 8] for i in range(count)]


def draw(count, counts, dtype, seed=0):
    """Symbols with about these relative counts, and a code for them."""
    weights = np.asarray(counts, np.float64)
    symbols = np.random.default_rng(seed).choice(len(weights), count, p=weights / weights.sum()).astype(dtype)
    return symbols, entropy.counts(symbols, len(weights))


def decode(data, count, lengths, dtype):
    out = np.full(count, 77, dtype)
    huffman.decode(data, lengths, out)
    return out


def check(symbols, lengths, oracle=True):
    data = huffman.encode(symbols, lengths)
    assert np.array_equal(decode(data, len(symbols), lengths, symbols.dtype), symbols)
    if oracle:
        assert plain_decode(data, len(symbols), lengths) == symbols.tolist()
    return data


FIBONACCI = [1, 1]
while len(FIBONACCI) < 22:
    FIBONACCI.append(FIBONACCI[-1] + FIBONACCI[-2])

SPREADS = {
    "two": ([3, 1], 15, np.uint8),
    "even": ([1] * 32, 15, np.uint8),
    "geometric": (0.9 ** np.arange(32), 11, np.uint8),
    "geometric, long codes": (0.9 ** np.arange(64), 14, np.uint8),
    "longest codes": (FIBONACCI, 15, np.uint8),
    "8 bits": (np.exp(-np.abs(np.arange(256) - 128) / 40), 11, np.uint8),
    "8 bits, long codes": (np.exp(-np.abs(np.arange(256) - 128) / 25), 14, np.uint8),
    "8 bits, longest codes": (np.exp(-np.abs(np.arange(256) - 128) / 16), 15, np.uint8),
    "wide": (1 / np.arange(1, 3000) ** 0.7, 14, np.uint16),
    "wide, short codes": (1 / np.arange(1, 3000) ** 2, 14, np.uint16),
    "wide, longest codes": (1 / np.arange(1, 3000) ** 0.7, 15, np.uint16),
    "wide dtype, few symbols": (0.8 ** np.arange(20), 15, np.uint16),
}


@given(st.lists(st.integers(0, 300), max_size=200), st.integers(9, 15))
@compiles
def test_any_symbols(values, limit):
    symbols = np.array(values, np.uint16)
    check(symbols, code_lengths(entropy.counts(symbols, 301), limit))


@pytest.mark.parametrize("spread", SPREADS)
def test_several_lanes(spread):
    counts, limit, dtype = SPREADS[spread]
    symbols, occurrences = draw(60_001, counts, dtype)
    lengths = code_lengths(occurrences + 1, limit)  # every symbol has a code
    data = check(symbols, lengths)
    assert len(data) <= (int((occurrences * lengths).sum()) + 7) // 8 + 6 * 5 + 8


def test_the_spreads_use_every_loop():
    """By lanes, and by how many codes surely are in a word."""
    seen = set()
    for counts, limit, dtype in SPREADS.values():
        lengths = code_lengths(draw(60_001, counts, dtype)[1] + 1, limit)
        table = huffman.decode_table(lengths)
        longest = int(lengths.max())
        seen.add((table.lanes, table.dtype.itemsize, (longest > 11) + (longest > 14)))
    assert {(lanes, 1, loop) for lanes in (6, 8) for loop in range(3)} <= seen
    assert {(8, 2, 1), (8, 2, 2), (6, 2, 1)} <= seen


@pytest.mark.parametrize("count", [0, 1, 2, 16383, *range(16384, 16393)])
@pytest.mark.parametrize("alphabet", [5, 200])
def test_around_the_split(count, alphabet):
    symbols, _ = draw(count, np.arange(1, alphabet + 1), np.uint8)
    check(symbols, code_lengths(np.arange(1, alphabet + 1)))


def test_lanes_of_different_statistics():
    """Lanes hold as many bits, not as many symbols, and end at different times all the same."""
    parts = [draw(10_000, np.eye(32)[i] * 99 + 0.1, np.uint8, i)[0] for i in range(4)]
    symbols = np.concatenate(parts)
    weights = np.array([1000, 100, 10, 1] + [1] * 28)
    check(symbols, code_lengths(weights))


def test_golden_bytes():
    # Codes: 0 -> 0, 1 -> 10, 2 -> 11, stored first bit lowest, the last symbol's first: 10 0 10 11 (read from
    # the right: 1 2 0 1 backwards).
    lengths = np.array([1, 2, 2], np.uint8)
    assert huffman.encode(np.array([1, 0, 1, 2], np.uint8), lengths) == bytes([0b01_0_01_11])
    assert huffman.encode(np.array([1, 2, 2, 2, 2], np.uint8), lengths) == bytes([0xFF, 0b01])
    # Six lanes of 4096 codes of one bit, the end of the symbols first: a count (80 20) and a size (80 04) of
    # each but the last, then the lanes.
    ones = np.repeat(np.array([0, 0, 0, 1, 0, 1], np.uint8), 4096)
    lanes = [b"\xff" * 512, bytes(512)] * 2 + [bytes(512)] * 2
    golden = bytes([0x80, 0x20, 0x80, 0x04] * 5) + b"".join(lanes)
    assert huffman.encode(ones, np.array([1, 1], np.uint8)) == golden
    # Eight lanes of 2048 codes of eight bits: lane i has every eighth symbol from i on.
    codes = np.full(256, 8, np.uint8)
    golden = bytes([0x80, 0x10] * 7) + b"".join(
        bytes([i]) * 2048 for i in (0, 128, 64, 192, 32, 160, 96, 224)
    )
    assert huffman.encode(np.tile(np.arange(8, dtype=np.uint8), 2048), codes) == golden


@pytest.mark.parametrize("count", [0, 1, 5, 20_000])
def test_one_symbol_takes_no_bytes(count):
    lengths = np.array([0, 0, 1], np.uint8)
    assert check(np.full(count, 2, np.uint8), lengths) == b""
    with pytest.raises(CorruptError, match="no bytes"):
        decode(b"\0", count, lengths, np.uint8)


def test_no_symbol():
    for lengths in (np.zeros(0, np.uint8), np.zeros(4, np.uint8)):
        assert check(np.zeros(0, np.uint8), lengths) == b""
        with pytest.raises(CorruptError, match="expected no bytes"):
            decode(b"", 1, lengths, np.uint8)


def test_32768_symbols():
    symbols = np.random.default_rng(0).permutation(1 << 16).astype(np.uint16)
    symbols &= 0x7FFF  # as many as may have a code
    assert len(check(symbols, np.full(1 << 15, 15, np.uint8), oracle=False)) == 15 * (1 << 16) // 8 + 7 * 2
    counts = np.random.default_rng(1).zipf(1.2, 1 << 15).clip(max=10**6)
    check(symbols, code_lengths(counts), oracle=False)


def test_encodes_strided_symbols_and_narrow_ones_into_wide():
    lengths = code_lengths(np.array([4, 3, 2, 1]))
    symbols = np.array([0, 1, 2, 3, 2, 1, 0], np.uint8)
    data = huffman.encode(symbols[::-2], lengths)
    assert data == huffman.encode(symbols[::-2].astype(np.uint16), lengths)
    assert decode(memoryview(data), 4, lengths, np.uint16).tolist() == [0, 2, 2, 0]


def test_a_wide_alphabet_of_narrow_symbols():
    """A code shared with a larger alphabet: tables are of wide symbols, what is read fits narrow ones."""
    lengths = np.zeros(400, np.uint8)
    lengths[[0, 3, 200]] = 1, 2, 2
    for count in (100, 3000, 17_000):
        symbols = np.random.default_rng(count).choice(np.array([0, 3, 200], np.uint8), count)
        assert np.array_equal(decode(huffman.encode(symbols, lengths), count, lengths, np.uint8), symbols)


def test_refuses_what_has_no_code():
    lengths = np.array([1, 0, 1], np.uint8)
    for stranger in (1, 3, 255):
        for count in (3, 30_000):
            symbols = np.zeros(count, np.uint8)
            symbols[count // 2] = stranger
            with pytest.raises(ValueError, match="have a code"):
                huffman.encode(symbols, lengths)
            with pytest.raises(ValueError, match="have a code"):
                huffman.encode(symbols, np.array([1], np.uint8))
    with pytest.raises(ValueError, match="complete prefix code"):
        huffman.encode(np.zeros(1, np.uint8), np.array([1, 2], np.uint8))
    with pytest.raises(ValueError, match="complete prefix code"):
        decode(b"", 0, np.array([1, 2], np.uint8), np.uint8)
    with pytest.raises(ValueError, match="uint8 or uint16"):
        huffman.encode(np.zeros(1, np.int64), lengths)
    with pytest.raises(ValueError, match="uint8 or uint16 for symbols up to 300"):
        decode(b"", 0, np.repeat(np.array([0, 1], np.uint8), [299, 2]), np.uint8)


def test_refuses_the_wrong_number_of_bytes():
    symbols, counts = draw(500, [5, 4, 3, 2, 1], np.uint8)
    lengths = code_lengths(counts)
    data = huffman.encode(symbols, lengths)
    for size in range(len(data)):
        with pytest.raises(CorruptError):
            decode(data[:size], 500, lengths, np.uint8)
    with pytest.raises(CorruptError, match="last code"):
        decode(data + b"\0", 500, lengths, np.uint8)
    with pytest.raises(CorruptError, match="at most"):
        decode(data, 1 << 20, lengths, np.uint8)


def test_refuses_padding_that_is_not_zero():
    lengths = np.array([1, 2, 2], np.uint8)
    assert decode(b"\x01", 1, lengths, np.uint8).tolist() == [1]
    with pytest.raises(CorruptError, match="zero bits"):
        decode(b"\x05", 1, lengths, np.uint8)


@pytest.mark.parametrize("count", [6_001, 20_003])
@pytest.mark.parametrize("spread", SPREADS)
def test_damaged_streams_are_refused_or_another_text(spread, count):
    counts, limit, dtype = SPREADS[spread]
    symbols, occurrences = draw(count, counts, dtype)
    lengths = code_lengths(occurrences + 1, limit)
    table = huffman.decode_table(lengths)
    data = huffman.encode(symbols, lengths)
    rng = np.random.default_rng(1)
    damaged = [data[:size] for size in (0, 1, 2, 5, 8, 9, 12, 20, len(data) // 2, len(data) - 1)]
    for position in [*range(48), *rng.integers(0, 8 * len(data), 200).tolist()]:
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        damaged.append(bytes(flipped))
    damaged += [rng.bytes(len(data)), bytes(len(data)), b"\xff" * len(data)]
    refused = 0
    for bad in damaged:
        try:
            back = decode(bad, len(symbols), table, symbols.dtype)
        except CorruptError:
            refused += 1
        else:
            assert back.shape == symbols.shape
            assert not np.array_equal(back, symbols)
    assert refused >= 10  # the truncated ones at least


@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
@pytest.mark.parametrize("count", [6_001, 20_003])
@pytest.mark.parametrize("spread", SPREADS)
def test_reads_nothing_after_the_data(spread, count):
    """The bytes end where memory ends: reading one more would kill the process."""
    counts, limit, dtype = SPREADS[spread]
    symbols, occurrences = draw(count, counts, dtype)
    lengths = code_lengths(occurrences + 1, limit)
    table = huffman.decode_table(lengths)
    data = huffman.encode(symbols, lengths)
    size = -(-len(data) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    guard = ctypes.c_void_p(start + size), ctypes.c_size_t(mmap.PAGESIZE)
    assert libc.mprotect(*guard, 0) == 0
    try:
        rng = np.random.default_rng(2)
        for tail in (
            data,
            data[:-1],
            data[:9],
            data[:3],
            data[: len(data) // 3],
            data[:6] + rng.bytes(len(data) // 2),
        ):
            memory[size - len(tail) : size] = tail
            view = memoryview(memory)[size - len(tail) : size]
            if tail is data:
                assert np.array_equal(decode(view, len(symbols), table, dtype), symbols)
            else:
                with pytest.raises(CorruptError):
                    decode(view, len(symbols), table, dtype)
            view.release()
    finally:
        assert libc.mprotect(*guard, 3) == 0


@pytest.mark.parametrize("count", [6_001, 20_000])
@pytest.mark.parametrize("spread", SPREADS)
def test_writes_nothing_outside(spread, count):
    """The symbols are kept between marks, whatever the bytes say."""
    counts, limit, dtype = SPREADS[spread]
    symbols, occurrences = draw(count, counts, dtype)
    lengths = code_lengths(occurrences + 1, limit)
    table = huffman.decode_table(lengths)
    good = huffman.encode(symbols, lengths)
    rng = np.random.default_rng(3)
    for data in (good, rng.bytes(len(good)), good[:30] + rng.bytes(len(good) - 30), bytes(len(good))):
        room = np.full(len(symbols) + 40, np.iinfo(dtype).max, dtype)
        with contextlib.suppress(CorruptError):
            huffman.decode(data, table, room[20:-20])
        assert (room[:20] == np.iinfo(dtype).max).all()
        assert (room[-20:] == np.iinfo(dtype).max).all()


def test_table_is_built_once_for_many_streams():
    lengths = code_lengths(np.array([5, 4, 3, 2, 1]))
    table = huffman.decode_table(lengths)
    for seed in range(3):
        symbols, _ = draw(17_000, [5, 4, 3, 2, 1], np.uint8, seed)
        data = huffman.encode(symbols, lengths)
        assert np.array_equal(decode(data, 17_000, table, np.uint8), symbols)


@pytest.mark.slow
def test_kernels_stay_inside_their_arrays(tmp_path):
    """Once more with numba's own bounds checks."""
    chosen = "several_lanes or damaged or around_the_split or any_symbols or many_values or parts or tables"
    files = ["tests/test_code_huffman.py", "tests/test_code_bits.py", "tests/test_kernels_huffman.py"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", chosen, *files]
    checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, env=os.environ | checked, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
