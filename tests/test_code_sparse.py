"""CSR and CSC against a dense matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwindle.code import sparse
from dwindle.errors import CorruptError


def plain(matrix, zero):
    pointers, places, symbols = [0], [], []
    for row in matrix.tolist():
        for column, symbol in enumerate(row):
            if symbol != zero:
                places.append(column)
                symbols.append(symbol)
        pointers.append(len(places))
    return pointers, places, symbols


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 99), st.sampled_from([np.uint8, np.uint16]))
@settings(deadline=None)
def test_any_matrix(rows, columns, seed, dtype):
    matrix = np.random.default_rng(seed).integers(0, 3, (rows, columns)).astype(dtype)
    for zero in (0, 2):
        compressed = sparse.compress(matrix.reshape(-1), zero, (rows, columns))
        got = (compressed.pointers.tolist(), compressed.places.tolist(), compressed.symbols.tolist())
        assert got == plain(matrix, zero)
        back = sparse.expand(compressed, zero, (rows, columns))
        assert back.dtype == dtype
        assert np.array_equal(back, matrix.reshape(-1))
        survivors = np.count_nonzero(matrix != zero)
        assert sum(map(len, got)) == 2 * survivors + rows + 1  # the paper's 2a + n + 1


def test_transposed():
    matrix = np.arange(6, dtype=np.uint8)
    assert sparse.transpose(matrix, (2, 3)).tolist() == [0, 3, 1, 4, 2, 5]
    assert sparse.transpose(sparse.transpose(matrix, (2, 3)), (3, 2)).tolist() == matrix.tolist()


@pytest.mark.parametrize(
    ("shape", "matrix"),
    [
        ((), (1, 1)),
        ((5,), (1, 5)),
        ((0,), (1, 0)),
        ((3, 4), (3, 4)),
        ((8, 4, 5, 5), (8, 100)),
        ((0, 4), (0, 4)),
    ],
)
def test_tensors_read_as_matrices(shape, matrix):
    assert sparse.matrix_shape(shape) == matrix


@pytest.mark.parametrize(
    ("pointers", "places", "text"),
    [
        ([1, 1, 2], [0, 1], "pointers"),
        ([0, 1, 1], [0, 1], "pointers"),
        ([0, 3, 2], [0, 1], "pointers"),
        ([0, 1, 2], [0, 3], "places under 3"),
        ([0, 2, 2], [1, 1], "places"),
        ([0, 2, 2], [1, 0], "places"),
        ([0, 1, 2], [3, 0], "places"),
    ],
)
def test_what_is_no_matrix(pointers, places, text):
    broken = sparse.Compressed(np.uint32(pointers), np.uint32(places), np.ones(2, np.uint8))
    with pytest.raises(CorruptError, match=text):
        sparse.expand(broken, 0, (2, 3))
