"""One block to bytes and back, and what its bytes were."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies as make
from dwindle.code import blocks, streams
from dwindle.code.plan import ARRANGEMENTS, BLOCK, Book, Coding, Plan, book, choose, count
from dwindle.errors import CorruptError


def decode(data, plan, record):
    out = np.empty_like(record.indices)
    return out, blocks.decode(memoryview(data), plan, book(record), record.shape, 0, out)


@given(make.shareds(), make.codings)
@settings(max_examples=80, deadline=None)
def test_any_block(record, coding):
    plan, _ = choose(coding, count(record))
    if not blocks.block_count(plan, len(record.indices)):
        return
    data = blocks.encode(record.indices, plan, book(record), record.shape, 0)
    out, parts = decode(data, plan, record)
    assert np.array_equal(out, record.indices)
    assert sum(part.size for part in parts) == len(data)
    for size in range(len(data)):
        with pytest.raises(CorruptError):
            decode(data[:size], plan, record)
    with pytest.raises(CorruptError):
        decode(data + b"\x00", plan, record)


@given(st.binary(max_size=40), st.sampled_from(ARRANGEMENTS), st.booleans(), st.integers(1, 16))
@settings(max_examples=300, deadline=None)
def test_any_bytes(data, arrangement, coded, width):
    """Whatever the bytes, the result is an error or indices within the codebook."""
    able = coded and arrangement in ("dense", "gaps")
    code = streams.huffman_code(np.array([2, 2, 2, 1, 1])) if able else None
    plan = Plan(arrangement, 3, width if arrangement == "gaps" else 0, code, code)
    values = Book(np.array([0, 1, 2], "<f4"), "float32")
    out = np.full(24, 99, np.uint8)
    try:
        parts = blocks.decode(memoryview(data), plan, values, (4, 6), 0, out)
    except CorruptError:
        return
    assert int(out.max()) < 3
    assert sum(part.size for part in parts) == len(data)


def test_parts_by_arrangement():
    kinds = {}
    for arrangement in ARRANGEMENTS:
        record = make.on_trellis((20, 30), 8) if arrangement == "trellis" else make.pruned((20, 30), 8, 0.2)
        gap_bits = 4 if arrangement == "gaps" else 0
        plan = Plan(arrangement, len(record.codebook), gap_bits)
        out, parts = decode(blocks.encode(record.indices, plan, book(record), (20, 30), 0), plan, record)
        assert np.array_equal(out, record.indices)
        kinds[arrangement] = [part.kind for part in parts]
    matrix = ["counts", "pointers", "places", "indices"]
    assert kinds == {
        "dense": ["indices"],
        "gaps": ["counts", "gaps", "indices"],
        "csr": matrix,
        "csc": matrix,
        "context": ["indices"],
        "trellis": ["indices"],
    }


def test_where_tensors_are_cut():
    dense, csr = Plan("dense", 2), Plan("csr", 2)
    sizes = {0: 0, 1: 1, BLOCK: 1, BLOCK + 1: 2, 3 * BLOCK: 3}
    assert {n: blocks.block_count(dense, n) for n in sizes} == sizes
    assert [blocks.block_count(csr, n) for n in (0, 1, 3 * BLOCK)] == [0, 1, 1]
    assert blocks.block_range(dense, BLOCK + 5, 1) == slice(BLOCK, BLOCK + 5)
    assert blocks.block_range(csr, BLOCK + 5, 0) == slice(0, BLOCK + 5)


def test_coding_is_what_a_user_asked():
    record = make.pruned((50, 60), 8, 0.1)
    plan, _ = choose(Coding("fixed", gap_bits=4), count(record))
    assert (plan.arrangement, plan.gap_bits, plan.gap_code) == ("gaps", 4, None)


@pytest.mark.parametrize("arrangement", ["csr", "csc"])
def test_matrices_with_more_columns_than_places_have_bits(arrangement):
    plan, codebook = Plan(arrangement, 2), Book(np.array([0, 1], np.float32), "float32")
    out, shape = np.empty(8, np.uint8), (1 << 33,)
    with pytest.raises(CorruptError, match=r"32 bits|more bytes"):
        blocks.decode(memoryview(bytes([1]) + bytes(20)), plan, codebook, shape, 0, out)
