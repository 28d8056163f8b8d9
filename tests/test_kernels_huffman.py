"""The tables of a Huffman decoder, and a lane that is read in parts, against plain readings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwindle.code import entropy, huffman
from dwindle.code.lengths import code_lengths, write_lengths
from dwindle.errors import CorruptError
from dwindle.kernels import huffman_lanes, huffman_parts, huffman_tables

quick = settings(deadline=None, max_examples=60)

COUNTS = {
    "short": 0.8 ** np.arange(32),
    "very short": 0.3 ** np.arange(9),
    "one bit": [1, 1],
    "long": np.exp(-np.abs(np.arange(256) - 128) / 40),
    "equally long": [1] * 256,
    "wide": 1 / np.arange(1, 3000) ** 0.7,
    "wide, short": 1 / np.arange(1, 3000) ** 2,
}


def drawn(count, weights, seed=0):
    shares = np.asarray(weights, np.float64)
    symbols = np.random.default_rng(seed).choice(len(shares), count, p=shares / shares.sum())
    return symbols.astype(np.uint8 if len(shares) <= 256 else np.uint16)


@st.composite
def lengths_of_codes(draw):
    counts = np.array(draw(st.lists(st.integers(0, 10**6), min_size=2, max_size=300)), np.int64)
    counts[draw(st.integers(0, len(counts) - 1))] += 1
    counts[-1] += 1
    return code_lengths(counts, draw(st.sampled_from([9, 11, 14, 15])))


def codes_of(lengths):
    """{(bits of a code, first lowest; its length): symbol}, by RFC 1951, section 3.2.2."""
    found, code, previous = {}, 0, 0
    for length, symbol in sorted((int(b), s) for s, b in enumerate(lengths) if b):
        code <<= length - previous
        found[int(f"{code:0{length}b}"[::-1], 2), length] = symbol
        code, previous = code + 1, length
    return found


def first_of(codes, ahead, bits):
    """The symbol and the length of the code that `bits` bits begin with, if one is in them."""
    for length in range(1, bits + 1):
        if (ahead & (1 << length) - 1, length) in codes:
            return codes[ahead & (1 << length) - 1, length], length
    return None


@given(lengths_of_codes())
@quick
def test_tables_say_what_codes_do(lengths):
    table = huffman.decode_table(lengths)
    if table.only is not None:
        assert [table.only] == np.flatnonzero(lengths).tolist()
        return
    half, codes, longest = 4 * table.lookup.itemsize, codes_of(lengths), int(lengths.max())
    assert len(table.lookup) == 1 << longest
    for ahead, entry in enumerate(table.lookup.tolist()):
        assert (entry >> half, entry & (1 << half) - 1) == first_of(codes, ahead, longest)
    bits = len(table.runs).bit_length() - 1
    for ahead, entry in list(enumerate(table.runs.tolist()))[::7]:
        symbols, used = [], 0
        while len(symbols) < 48 // half and (found := first_of(codes, ahead >> used, bits - used)):
            symbols.append(found[0])
            used += found[1]
        stored = [entry >> 64 - half * (i + 1) & (1 << half) - 1 for i in range(len(symbols))]
        assert (entry & 0xFF, entry >> 8 & 0xFF, stored) == (used, len(symbols), symbols)


@given(lengths_of_codes())
@quick
def test_a_stored_table_is_read_as_it_is_made(lengths):
    stored = write_lengths(lengths)
    made, (read, size) = huffman.decode_table(lengths), huffman.read_table(stored + b"\7", len(lengths))
    assert size == len(stored)
    assert np.array_equal(read.lookup, made.lookup)
    assert np.array_equal(read.runs, made.runs)
    assert (read.lanes, read.only, read.highest) == (made.lanes, made.only, made.highest)
    with pytest.raises(CorruptError, match="complete prefix code"):
        huffman.read_table(stored[:-1], len(lengths))


def read_lane(data, table, count, parts):
    """Symbols, the bit after them, and how many were left after the parts."""
    out, lanes = np.full(count, 77, table.dtype), np.zeros((4, 8), np.uint64)
    lanes[:, 0] = 0, len(data), 0, count
    stored = np.frombuffer(data, np.uint8)
    if parts:
        huffman_parts.in_parts(stored, table.lookup, table.runs, out, lanes)
    left = lanes[3, 0]
    end = huffman_lanes.lane(stored, lanes[0, 0], table.lookup, table.runs, out, lanes[2, 0], left)
    return out, int(end), int(left)


@pytest.mark.parametrize("count", [511, 512, 2047, 2048, 5003, 16383])
@pytest.mark.parametrize("kind", COUNTS)
def test_parts_are_a_lane(kind, count):
    symbols = drawn(count, COUNTS[kind])
    lengths = code_lengths(entropy.counts(symbols, len(COUNTS[kind])) + 1, 14)
    table, data = huffman.decode_table(lengths), huffman.encode(symbols, lengths)
    out, end, left = read_lane(data, table, count, parts=True)
    assert np.array_equal(out, symbols)
    assert end == lengths[symbols].astype(int).sum()
    assert left == count or left < count / 4
    if count > huffman_parts.FROM_RUNS:
        assert left < count


@pytest.mark.parametrize("kind", COUNTS)
def test_parts_of_anything_are_read_as_a_lane_is(kind):
    """Too few bytes, too many, or others: the same symbols up to the same bit."""
    lengths = code_lengths((1e5 * np.asarray(COUNTS[kind])).astype(np.int64) + 1, 14)
    table, random = huffman.decode_table(lengths), np.random.default_rng(2)
    good = huffman.encode(drawn(6000, COUNTS[kind]), lengths)
    damaged = [good + random.bytes(3000), good[: len(good) // 2], bytes(len(good)), b"\xff" * len(good)]
    damaged += [random.bytes(size) for size in (0, 1, 9, 700, 5000)]
    for data in damaged:
        for count in (600, 3000, 6000, 16383):
            out, end, _ = read_lane(data, table, count, parts=True)
            plain, plain_end, _ = read_lane(data, table, count, parts=False)
            assert np.array_equal(out, plain)
            assert end == plain_end


def test_parts_of_different_statistics():
    symbols = np.concatenate([drawn(3000, np.eye(32)[i] * 99 + 0.1, i) for i in range(5)])
    lengths = code_lengths(np.array([1000, 100, 10, 1] + [1] * 28))
    data = huffman.encode(symbols, lengths)
    assert np.array_equal(read_lane(data, huffman.decode_table(lengths), 15_000, parts=True)[0], symbols)
    assert huffman_tables.make(lengths, np.empty(0, np.uint16))[2] == 6
