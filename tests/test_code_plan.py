"""The choice of a plan: the fewest bytes of what the coding allows, from counts alone."""

import numpy as np
import pytest
from hypothesis import given, settings

import strategies as make
from dwindle import dtypes
from dwindle.code import blocks, plan, streams
from dwindle.code.compare import common_code
from dwindle.code.plan import Coding, book, choose, count


def size(record, chosen):
    """Bytes of the blocks and their code tables under a plan."""
    tables = sum(len(code.table) for code in (chosen.index_code, chosen.gap_code) if code)
    numbers = range(blocks.block_count(chosen, len(record.indices)))
    return tables + sum(
        len(blocks.encode(record.indices, chosen, book(record), record.shape, number)) for number in numbers
    )


def chosen(record, coder="huffman", **coding):
    return choose(Coding(coder, **coding), count(record))[0]


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
    assert (matrix.arrangement, matrix.index_code) == (coder, None)


def test_huffman_codes_only_where_they_pay():
    assert chosen(make.shared(np.arange(64), np.arange(1, 65))).index_code is None
    assert chosen(make.shared([0] * 500 + [1, 2, 3], [1.0, 2, 3, 4])).index_code is not None
    assert chosen(make.pruned((300, 300), 32, 0.1), coder="fixed").index_code is None


def test_large_alphabets_get_no_code():
    entries = streams.MOST_CODED + 1
    record = make.shared(np.arange(entries).repeat(3), np.arange(entries))
    assert chosen(record).index_code is None


@pytest.mark.parametrize(
    ("entries", "bits"), [(0, 0), (1, 0), (2, 1), (3, 2), (32, 5), (33, 6), (256, 8), (1 << 16, 16)]
)
def test_index_bits(entries, bits):
    assert streams.index_bits(entries) == bits


@pytest.mark.parametrize("bad", [{"coder": "zip"}, {"gap_bits": 0}, {"gap_bits": 17}, {"dictionary": "all"}])
def test_codings_that_do_not_exist(bad):
    with pytest.raises(ValueError, match="expected"):
        Coding(**bad)


def test_one_code_for_several_streams():
    shared = common_code([np.array([9, 1]), np.array([0, 1, 1])], 4)
    assert (streams._numbers(shared).tolist(), shared.shared) == ([1, 2, 2], 4)
    assert common_code([], 0) is None
    assert common_code([np.zeros(3, np.int64)], 0) is None


def test_few_decoding_tables_are_kept():
    """A table takes far more memory than its description."""
    codes = [streams.huffman_code(np.array([1, 1])) for _ in range(100)]
    assert codes[0].decoder is codes[0].decoder
    for code in codes:
        assert code.decoder.highest == 1
    assert streams._decoder.cache_info().currsize <= 64


@pytest.mark.parametrize("coder", ["huffman", "rans"])
def test_bits_are_counted_as_they_are_coded(coder):
    for record in (make.pruned((200, 300), 32, 0.2), make.shared([0, 1, 1, 3] * 9000, [1.0, 2.0, 3.0, 4.0])):
        found, bits = choose(Coding(coder), count(record))
        assert abs(size(record, found) - bits / 8) < 80


@given(make.shareds())
@settings(max_examples=60, deadline=None)
def test_ranks_are_the_order_of_the_values(record):
    found = book(record)
    assert sorted(found.ranks.tolist()) == list(range(len(record.codebook)))
    values = dtypes.to_float(record.codebook, record.dtype)
    order = values[np.argsort(found.ranks)]
    finite = order[~np.isnan(order)]
    assert (finite[1:] >= finite[:-1]).all()


def test_a_code_out_of_a_file_does_not_encode():
    made = streams.huffman_code(np.array([5, 3, 1]))
    read = streams.Code("huffman", made.alphabet, made.table)
    symbols = np.array([0, 1, 2, 0], np.uint8)
    out = np.empty(4, np.uint8)
    streams.decode(memoryview(streams.encode(symbols, made, 0)), read, 0, out)
    assert np.array_equal(out, symbols)
    with pytest.raises(ValueError, match="made here"):
        streams.encode(symbols, read, 0)
