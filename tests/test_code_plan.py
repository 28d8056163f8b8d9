"""The choice of a plan: the fewest bytes of what the coding allows, from counts alone."""

import numpy as np
import pytest
from hypothesis import given, settings

import strategies as make
from dwindle.code import blocks, plan, sparse
from dwindle.code.plan import Coding, choose, count


def size(record, chosen):
    """Bytes of the blocks and their code tables under a plan."""
    elements, shape = len(record.indices), sparse.matrix_shape(record.shape)
    parts = [blocks.block_range(chosen, elements, b) for b in range(blocks.block_count(chosen, elements))]
    tables = sum(code.table_bytes for code in (chosen.index_code, chosen.gap_code) if code)
    return tables + sum(len(blocks.encode(record.indices[part], chosen, shape)) for part in parts)


def chosen(record, **coding):
    return choose(record, Coding(**coding), count(record))


@given(make.shareds())
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_the_streams(record):
    counts = count(record)
    entries = len(record.codebook)
    assert counts.indices.tolist() == np.bincount(record.indices, minlength=entries).tolist()
    assert (counts.zero is None) == (counts.distances is None)
    if counts.zero is not None:
        assert counts.distances.sum() == len(record.indices) - counts.indices[counts.zero]


@pytest.mark.parametrize("density", [0.01, 0.05, 0.2, 0.6, 0.95])
def test_no_allowed_width_is_smaller(density):
    record = make.pruned((200, 300), 32, density)
    automatic = size(record, chosen(record))
    forced = [size(record, chosen(record, gap_bits=width)) for width in range(1, 17)]
    assert automatic <= min(forced) + 16
    assert automatic <= size(record, chosen(record, coder="fixed"))


def test_wide_gaps_for_thin_tensors_and_none_for_full_ones():
    widths = [chosen(make.pruned((200, 300), 32, d), coder="fixed").gap_bits for d in (0.3, 0.05, 0.005)]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]
    assert chosen(make.pruned((200, 300), 32, 0.99)).arrangement == "dense"


@pytest.mark.parametrize("coder", plan.CODERS)
@pytest.mark.parametrize("codebook", [[1.0, 2.0], [0.0, 2.0]])
def test_tensors_without_zeros_are_dense(coder, codebook):
    record = make.shared([1] * 40, codebook) if codebook[0] == 0 else make.shared([0, 1] * 20, codebook)
    assert chosen(record, coder=coder).arrangement == "dense"


@pytest.mark.parametrize("coder", ["csr", "csc"])
def test_matrices_when_asked(coder):
    matrix = chosen(make.pruned((20, 30)), coder=coder)
    assert (matrix.arrangement, matrix.zero, matrix.index_code) == (coder, 0, None)


def test_huffman_codes_only_where_they_pay():
    assert chosen(make.shared(np.arange(64), np.arange(1, 65))).index_code is None
    assert chosen(make.shared([0] * 500 + [1, 2, 3], [1.0, 2, 3, 4])).index_code is not None
    assert chosen(make.pruned((300, 300), 32, 0.1), coder="fixed").index_code is None


def test_large_alphabets_get_no_code():
    record = make.shared(np.arange(plan.HUFFMAN_SYMBOLS + 1).repeat(3), np.arange(plan.HUFFMAN_SYMBOLS + 1))
    assert chosen(record).index_code is None


@pytest.mark.parametrize(
    ("entries", "bits"), [(0, 0), (1, 0), (2, 1), (3, 2), (32, 5), (33, 6), (256, 8), (1 << 16, 16)]
)
def test_index_bits(entries, bits):
    assert plan.index_bits(entries) == bits


@pytest.mark.parametrize("bad", [{"coder": "zip"}, {"gap_bits": 0}, {"gap_bits": 17}, {"dictionary": "all"}])
def test_codings_that_do_not_exist(bad):
    with pytest.raises(ValueError, match="expected"):
        Coding(**bad)


def test_one_code_for_several_streams():
    shared = plan.shared_code([np.array([9, 1]), np.array([0, 1, 1])], 4)
    assert (shared.lengths.tolist(), shared.shared) == ([1, 2, 2], 4)
    assert plan.shared_code([], 0) is None
    assert plan.shared_code([np.zeros(3, np.int64)], 0) is None


def test_few_decoding_tables_are_kept():
    """A table takes far more memory than its description."""
    codes = [plan.Code(np.array([1, 1], np.uint8)) for _ in range(100)]
    assert codes[0].table is codes[0].table
    for code in codes:
        assert code.table.highest == 1
    assert plan._table.cache_info().currsize <= 64
