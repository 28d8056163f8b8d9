"""Blocks coded by context."""

import numpy as np
import pytest
from hypothesis import given, settings

import strategies as make
from dwindle.code import context, entropy
from dwindle.code.plan import book
from dwindle.errors import CorruptError
from dwindle.records import Shared


def back(record, start=0, way=None):
    values = book(record)
    data = context.encode(record.indices, start, record.shape, values.ranks, values.zero, way)
    out = np.empty_like(record.indices)
    context.decode(memoryview(data), out, start, record.shape, values.ranks, values.zero)
    assert np.array_equal(out, record.indices)
    return data


@given(make.shareds())
@settings(max_examples=60, deadline=None)
def test_any_index_map_comes_back(record):
    back(record)
    back(record, start=5)


@pytest.mark.parametrize("way", context.WAYS)
@given(record=make.shareds())
@settings(max_examples=60, deadline=None)
def test_both_ways_hold_any_index_map(way, record):
    data = back(record, way=way)
    assert not data or context.WAYS[data[0]] == way


def test_dead_rows_and_columns_pay():
    random = np.random.default_rng(0)
    alive = (random.random((200, 1)) < 0.4) & (random.random((1, 300)) < 0.5)
    indices = np.where(alive & (random.random((200, 300)) < 0.4), random.integers(1, 8, (200, 300)), 0)
    record = make.shared(indices.reshape(-1), np.arange(8), (200, 300))
    bound = entropy.entropy_bytes(entropy.counts(record.indices, 8))
    assert len(back(record)) < 0.9 * bound


def test_rows_of_different_scale_pay():
    random = np.random.default_rng(1)
    levels = np.round(random.laplace(size=(120, 500)) * np.geomspace(0.5, 60, 120)[:, None])
    indices = np.clip(levels, -400, 400).astype(int) + 400
    record = make.shared(indices.reshape(-1), np.arange(-400, 401), (120, 500))
    data = back(record)
    assert context.WAYS[data[0]] == "levels"
    assert len(data) < 0.9 * entropy.entropy_bytes(entropy.counts(record.indices, 801))


def test_random_levels_cost_little_more_than_their_entropy():
    record = make.pruned((300, 500), 32, 0.1)
    bound = entropy.entropy_bytes(entropy.counts(record.indices, 32))
    assert len(back(record)) < 1.01 * bound


def test_truncated_and_flipped_blocks_are_refused_or_decode():
    record = make.pruned((20, 30), 8, 0.3)
    values = book(record)
    data = back(record)
    out = np.empty_like(record.indices)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        for mutant in (bytes(flipped), data[: bit // 8]):
            try:
                context.decode(memoryview(mutant), out, 0, record.shape, values.ranks, values.zero)
            except CorruptError:
                continue
            assert int(out.max()) < 8


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("shape", [(), (500,), (10, 50), (5, 2, 5, 10), (1, 500), (500, 1)])
def test_any_bytes_decode_to_something(mode, shape):
    random = np.random.default_rng(3)
    ranks = np.arange(700, dtype=np.uint16)
    for seed in range(40):
        data = bytes([mode]) + random.bytes(seed * 20) + b"\xff"
        out = np.empty(500, np.uint16)
        try:
            context.decode(memoryview(data), out, (1 << 20) * (seed % 2), shape, ranks, seed % 3 or None)
        except CorruptError:
            continue
        assert int(out.max()) < 700


def test_huge_rows_need_no_memory_for_each_column():
    record = Shared("float32", (1, 3000), np.arange(4, dtype="<f4"), np.arange(3000, dtype=np.uint8) % 4)
    values = book(record)
    shape = (2, 1 << 40)
    data = context.encode(record.indices, 0, shape, values.ranks, values.zero)
    out = np.empty_like(record.indices)
    context.decode(memoryview(data), out, 0, shape, values.ranks, values.zero)
    assert np.array_equal(out, record.indices)
    assert context.COLUMNS == 1 << 20
