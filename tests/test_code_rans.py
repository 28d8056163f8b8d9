"""rANS streams and tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwindle.code import entropy, rans
from dwindle.errors import CorruptError
from dwindle.kernels import tables

quick = settings(max_examples=80, deadline=None)
counts = st.lists(st.one_of(st.just(0), st.integers(1, 9), st.integers(1, 1 << 40)), max_size=400)


def code(symbols, alphabet):
    return rans.frequencies(entropy.counts(symbols, alphabet))


def read_weights(data, alphabet):
    """The weights that a table says, and its bytes, as the reader of files takes it."""
    _, size = rans.read_table(data, alphabet)
    weights = np.empty(alphabet, np.uint8)
    assert tables.get(np.frombuffer(data, np.uint8), weights, rans.LARGEST, False, rans.WIDTH) == size
    return weights, size


def decode(data, count, table, dtype):
    out = np.full(count, 77, dtype)
    rans.decode(data, table, out)
    return out


@given(counts)
@quick
def test_tables_come_back_and_share_out_all_slots(found):
    weights = rans.frequencies(np.array(found, np.int64))
    assert ((weights > 0) == (np.array(found, np.int64) > 0)).all()
    table = rans.write_frequencies(weights)
    read, end = read_weights(memoryview(b"xy" + table + b"z")[2:], len(weights))
    assert (read.tolist(), end) == (weights.tolist(), len(table))
    slots, bits = rans.slot_counts(weights)
    if any(found):
        assert slots.sum() == 1 << bits
        assert (slots[weights > 0] > 0).all()
        assert not slots[weights == 0].any()


@given(st.binary(max_size=40), st.integers(0, 300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_no_table_or_the_one_that_is_written(data, alphabet):
    try:
        weights, end = read_weights(data, alphabet)
    except CorruptError:
        return
    assert rans.write_frequencies(weights) == data[:end]


@given(st.integers(1, 700), st.integers(0, 3000), st.integers(0, 99), st.sampled_from([np.uint8, np.uint16]))
@quick
def test_symbols_come_back(alphabet, n, seed, dtype):
    alphabet = min(alphabet, 256) if dtype == np.uint8 else alphabet
    random = np.random.default_rng(seed)
    symbols = (random.integers(0, alphabet, n) * random.integers(0, 2, n)).astype(dtype)
    weights = code(symbols, alphabet)
    data = rans.encode(symbols, weights)
    assert decode(data, n, rans.decode_table(weights), dtype).tolist() == symbols.tolist()


@pytest.mark.parametrize("n", [rans.SPLIT - 1, rans.SPLIT, rans.SPLIT + 5, 100_003])
@pytest.mark.parametrize("spread", [0.4, 3.0, 40.0])
def test_long_streams_stay_within_half_a_percent_of_the_entropy(n, spread):
    levels = np.random.default_rng(n).laplace(size=n, scale=spread)
    symbols = np.clip(np.round(levels) + 128, 0, 255).astype(np.uint8)
    found = entropy.counts(symbols, 256)
    weights = rans.frequencies(found)
    data = rans.encode(symbols, weights)
    assert np.array_equal(decode(data, n, rans.decode_table(weights), np.uint8), symbols)
    size = len(data) + len(rans.write_frequencies(weights))
    assert size <= 1.005 * entropy.entropy_bytes(found) + 150
    assert abs(rans.coded_bits(found, weights) / 8 - len(data)) < 40


def plain_table(weights):
    """The symbol of each place, and the state before but for its low bits."""
    slots, bits = rans.slot_counts(weights)
    places, place = [0] * (1 << bits), 0
    for symbol, count in enumerate(slots.tolist()):
        for _ in range(count):
            places[place] = symbol
            place = (place + 5 * (1 << bits) // 8 + 3) % (1 << bits)
    following, table = slots.tolist(), []
    for symbol in places:
        table.append((symbol, following[symbol]))
        following[symbol] += 1
    return table, bits


def plain_decode(data, count, weights):
    """One symbol after the other, in Python's numbers; each run of bits as one number."""
    table, bits = plain_table(weights)
    runs = [data]
    if count >= rans.SPLIT:
        size, at = (data[0], 1) if data[0] < 128 else (data[0] & 127 | data[1] << 7, 2)
        runs = [data[at : at + size], data[at + size :]]
    numbers = [int.from_bytes(run, "little") for run in runs]
    numbers = [number >> (number & -number).bit_length() for number in numbers]

    def take(run, width):
        value = numbers[run] & ((1 << width) - 1)
        numbers[run] >>= width
        return value

    lanes = 8 if count >= rans.SPLIT else 1
    states = [0] * lanes
    for lane in reversed(range(lanes)):
        states[lane] = take(lane // 4, bits)
    out = []
    for i in reversed(range(count)):
        symbol, state = table[states[i % lanes]]
        out.append(symbol)
        read = bits + 1 - state.bit_length()
        states[i % lanes] = (state << read) + take(i % lanes // 4, read) - (1 << bits)
    assert not any(states)
    assert not any(numbers)
    return out[::-1]


@pytest.mark.parametrize("n", [1, 1000, *range(rans.SPLIT, rans.SPLIT + 8)])
@pytest.mark.parametrize("alphabet", [64, 1000])
def test_the_kernels_decode_as_plain_python_does(n, alphabet):
    symbols = np.random.default_rng(1).geometric(4 / alphabet, n + 1).clip(0, alphabet - 1)[1:]
    symbols = symbols.astype(np.uint8 if alphabet <= 256 else np.uint16)
    weights = rans.frequencies(entropy.counts(symbols, alphabet) + 1)
    data = rans.encode(symbols, weights)
    assert plain_decode(data, n, weights) == symbols.tolist()


@pytest.mark.parametrize("n", [300, rans.SPLIT + 8])
def test_damaged_streams_are_refused_or_decode(n):
    symbols = np.random.default_rng(2).integers(0, 9, n).astype(np.uint8)
    weights = code(symbols, 9)
    table, data = rans.decode_table(weights), rans.encode(symbols, weights)
    for size in range(0, len(data), max(len(data) // 97, 1)):
        with pytest.raises(CorruptError):
            decode(data[:size], n, table, np.uint8)
    with pytest.raises(CorruptError):
        decode(data + b"\0\0", n, table, np.uint8)
    for bit in range(0, 8 * len(data), max(len(data) // 50, 1)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            other = decode(bytes(flipped), n, table, np.uint8)
        except CorruptError:
            continue
        # There is one code for any symbols: it is that of others.
        assert rans.encode(other, weights) == bytes(flipped)


def test_nothing_to_choose_takes_no_bytes():
    weights = code(np.full(50, 3, np.uint8), 5)
    assert rans.encode(np.full(50, 3, np.uint8), weights) == b""
    assert decode(b"", 50, rans.decode_table(weights), np.uint8).tolist() == [3] * 50
    with pytest.raises(CorruptError):
        decode(b"x", 50, rans.decode_table(weights), np.uint8)
    with pytest.raises(CorruptError):
        decode(b"", 1, rans.decode_table(np.zeros(4, np.uint8)), np.uint8)


def test_symbols_without_a_code_and_too_many_of_them_are_refused():
    with pytest.raises(ValueError, match="have a code"):
        rans.encode(np.array([0, 1, 2], np.uint8), code(np.array([0, 1], np.uint8), 3))
    with pytest.raises(ValueError, match="have a code"):
        rans.encode(np.arange(5, dtype=np.uint8).repeat(9000), code(np.array([0, 1], np.uint8), 3))
    with pytest.raises(ValueError, match="at most 4096"):
        rans.frequencies(np.ones(5000, np.int64))


def test_a_stored_table_is_read_as_it_is_made():
    for counts in ([5, 0, 3, 1], np.arange(200), np.ones(300), [0, 7], [0, 0], []):
        weights = rans.frequencies(np.asarray(counts, np.int64))
        stored = rans.write_frequencies(weights)
        made, (read, size) = rans.decode_table(weights), rans.read_table(stored + b"\7", len(weights))
        assert size == len(stored)
        assert np.array_equal(read.table, made.table)
        assert (read.bits, read.only, read.highest) == (made.bits, made.only, made.highest)
        with pytest.raises(CorruptError, match="expected a table"):
            rans.read_table(stored[:-1], len(weights))
