import heapq
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwindle.code import huffman
from dwindle.code.lengths import MAX_LENGTH, WIDTH, check_lengths, code_lengths, write_lengths
from dwindle.errors import CorruptError
from dwindle.kernels import tables


def read_lengths(data, offset, alphabet):
    """The lengths that a table says, and where it ends, as the reader of files takes it."""
    _, size = huffman.read_table(data[offset:], alphabet)
    lengths = np.empty(alphabet, np.uint8)
    stored = np.frombuffer(data[offset:], np.uint8)
    assert tables.get(stored, lengths, np.int64(MAX_LENGTH), True, WIDTH) == size
    return lengths, offset + size


def lengths_of(counts, limit=15):
    return code_lengths(np.array(counts, np.int64), limit)


def cost(counts, lengths):
    return sum(int(c) * int(b) for c, b in zip(counts, lengths, strict=True))


def huffman_cost(counts):
    heap = [c for c in counts if c]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        pair = heapq.heappop(heap) + heapq.heappop(heap)
        total += pair
        heapq.heappush(heap, pair)
    return total


def limited_cost(counts, limit):
    """Cheapest complete code by trying every multiset of lengths."""
    frequent = sorted((c for c in counts if c), reverse=True)
    complete = (
        code
        for code in itertools.combinations_with_replacement(range(1, limit + 1), len(frequent))
        if sum(1 << (limit - b) for b in code) == 1 << limit
    )
    return min(sum(c * b for c, b in zip(frequent, code, strict=True)) for code in complete)


some_counts = st.lists(st.one_of(st.integers(0, 3), st.integers(0, 10**9)), min_size=2, max_size=40).filter(
    lambda c: sum(map(bool, c)) > 1
)


@given(some_counts)
def test_as_cheap_as_huffman(counts):
    lengths = lengths_of(counts, MAX_LENGTH)
    check_lengths(lengths)
    assert [bool(b) for b in lengths] == [bool(c) for c in counts]
    if int(lengths.max()) < MAX_LENGTH:  # else the limit may have cost something
        assert cost(counts, lengths) == huffman_cost(counts)
    assert cost(counts, lengths) >= huffman_cost(counts)


@given(st.lists(st.integers(0, 200), min_size=2, max_size=7).filter(lambda c: sum(map(bool, c)) > 1))
def test_as_cheap_as_any_limited_code(counts):
    for limit in range(3, 6):
        lengths = lengths_of(counts, limit)
        check_lengths(lengths)
        assert int(lengths.max()) <= limit
        assert cost(counts, lengths) == limited_cost(counts, limit)


@given(some_counts)
def test_of_equals_the_earlier_is_never_longer(counts):
    lengths = lengths_of(counts)
    for left, right in itertools.combinations(range(len(counts)), 2):
        if counts[left] == counts[right]:
            assert lengths[left] <= lengths[right]
        elif 0 < counts[left] < counts[right]:
            assert lengths[left] >= lengths[right]


def test_ties_are_pinned():
    assert lengths_of([1, 1, 1]).tolist() == [1, 2, 2]
    assert lengths_of([2, 1, 1, 1, 1]).tolist() == [2, 2, 2, 3, 3]
    assert lengths_of([0, 5, 0, 5, 5, 5, 5]).tolist() == [0, 2, 0, 2, 2, 3, 3]


def test_fibonacci_counts_meet_the_limit():
    counts = [1, 1]
    while len(counts) < 30:
        counts.append(counts[-1] + counts[-2])
    for limit in (5, 6, 12, MAX_LENGTH):
        lengths = lengths_of(counts, limit)
        check_lengths(lengths)
        assert int(lengths.max()) == limit


def test_degenerate_alphabets():
    assert lengths_of([]).tolist() == []
    assert lengths_of([0, 0]).tolist() == [0, 0]
    assert lengths_of([0, 7, 0]).tolist() == [0, 1, 0]
    assert lengths_of([9, 0, 1]).tolist() == [1, 0, 1]


def test_as_many_symbols_as_the_limit_allows():
    assert lengths_of([5, 1, 1, 1], 2).tolist() == [2, 2, 2, 2]
    with pytest.raises(ValueError, match=r"at most 4 symbols .* got 5"):
        lengths_of([1] * 5, 2)
    with pytest.raises(ValueError, match="limit"):
        lengths_of([1, 1], 0)
    with pytest.raises(ValueError, match="limit"):
        lengths_of([1, 1], MAX_LENGTH + 1)
    with pytest.raises(ValueError, match="at least 0"):
        lengths_of([1, -1])


def test_65536_symbols_of_which_as_many_occur_as_may():
    assert (code_lengths(np.ones(1 << 15, np.int64)) == 15).all()
    random = np.random.default_rng(0)
    for occurring in (1 << 14, 1 << 15):
        counts = random.zipf(1.3, 1 << 16).clip(max=10**6)
        counts[random.permutation(1 << 16)[occurring:]] = 0
        lengths = code_lengths(counts)
        check_lengths(lengths)
        table = write_lengths(lengths)
        back, end = read_lengths(memoryview(table), 0, 1 << 16)
        assert np.array_equal(back, lengths)
        assert end == len(table)


@pytest.mark.parametrize("lengths", [[1, 1, 1], [1, 2], [2], [0, 2, 2], [16] * 2, [1, 2, 3, 3, 15]])
def test_refuses_what_is_no_complete_code(lengths):
    with pytest.raises(ValueError, match="expected"):
        check_lengths(np.array(lengths, np.uint8))
    with pytest.raises(ValueError, match="expected"):
        write_lengths(np.array(lengths, np.uint8))


@given(st.lists(st.integers(0, 50), max_size=80), st.integers(7, MAX_LENGTH), st.binary(max_size=3))
def test_tables_read_back(counts, limit, before):
    lengths = lengths_of(counts, limit)
    table = write_lengths(lengths)
    back, end = read_lengths(memoryview(before + table + b"\xff"), len(before), len(lengths))
    assert np.array_equal(back, lengths)
    assert back.dtype == np.uint8
    assert end == len(before) + len(table)
    for size in range(len(table)):
        with pytest.raises(CorruptError):
            read_lengths(memoryview(table[:size]), 0, len(lengths))


@given(st.binary(min_size=1, max_size=24), st.integers(0, 70))
def test_one_table_per_code(data, alphabet):
    """Whatever the reader accepts is complete, and what the writer makes of it."""
    try:
        lengths, end = read_lengths(memoryview(data), 0, alphabet)
    except CorruptError:
        return
    check_lengths(lengths)
    assert write_lengths(lengths) == data[:end]


@given(st.lists(st.integers(0, 50), min_size=2, max_size=40), st.data())
def test_a_flipped_bit_is_another_code_or_an_error(counts, data):
    lengths = lengths_of(counts)
    table = bytearray(write_lengths(lengths))
    bit = data.draw(st.integers(0, 8 * len(table) - 1))
    table[bit // 8] ^= 1 << bit % 8
    try:
        back, _ = read_lengths(memoryview(bytes(table)), 0, len(lengths))
    except CorruptError:
        return
    assert not np.array_equal(back, lengths)


def test_golden_tables():
    # From the lowest bit: Rice parameter 0 (00), all present (1), then the differences 2 -> 1 (10),
    # 1 -> 2 (110); the third symbol's length completes the code.
    assert write_lengths(np.array([1, 2, 2], np.uint8)) == bytes([0b011_01_1_00])
    # Runs: gamma(2) = 10 0, one present; gamma(2) = 10 0, two absent; gamma(2) = 10 0, two present.
    # Differences: 2 -> 1 (10), 1 -> 2 (110).
    assert write_lengths(np.array([1, 0, 0, 2, 2], np.uint8)) == bytes([0b01_001_0_00, 0b11_01_001_0, 0])
    assert write_lengths(np.zeros(0, np.uint8)) == bytes([0b1_00])
    assert write_lengths(np.array([1], np.uint8)) == bytes([0b1_00])


def test_typical_tables_are_small():
    rng = np.random.default_rng(0)
    gaps = np.bincount(np.minimum(rng.geometric(0.08, 20000) - 1, 31), minlength=32)
    weights = np.histogram(rng.laplace(size=20000), np.linspace(-5, 5, 65))[0]
    assert len(write_lengths(code_lengths(gaps))) <= 8
    assert len(write_lengths(code_lengths(weights))) <= 20


def test_hostile_tables_end_early():
    everything = memoryview(b"\xff" * 100_000)
    with pytest.raises(CorruptError):
        read_lengths(everything, 0, 1 << 16)
    with pytest.raises(CorruptError):
        read_lengths(memoryview(bytes(1_000)), 0, 1 << 16)
    with pytest.raises(CorruptError):
        read_lengths(memoryview(b""), 0, 0)
