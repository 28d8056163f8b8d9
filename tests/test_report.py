import numpy as np
import pytest
import torch

from dwindle import Archive
from dwindle.code.plan import Coding
from dwindle.file import ledger, write
from dwindle.records import Raw, Shared, Tied
from dwindle.report import PAPER, figures, layer_table, total_row
from dwindle.report.run import versions

PNG = b"\x89PNG\r\n\x1a\n"


def indices(n, survivors):
    """Zeros with survivors at equal distances, their entries in turn."""
    found = np.zeros(n, np.uint8)
    places = np.arange(1, survivors + 1) * (n // (survivors + 1))
    found[places] = 1 + np.arange(survivors) % 3
    return found


@pytest.fixture
def table(tmp_path):
    def table(records, coding):
        path = tmp_path / "x.dwz"
        write(path, records, coding=coding, force=True)
        with Archive(path) as archive:
            book = ledger(archive)
            rows = layer_table(archive, book)
        return {row.name: row for row in rows}, total_row(rows, book), book

    return table


CODEBOOK = np.array([0.0, -1.0, 0.5, 2.0], np.float32)
RECORDS = {
    # 400 weights, 19 survivors 20 apart: a 3-bit gap spans 8, so two fillers before each.
    "sparse": Shared("float32", (20, 20), CODEBOOK, indices(400, 19)),
    # No zero: dense, 100 weights of 3 values take 2 bits.
    "dense": Shared("float32", (10, 10), CODEBOOK[1:], (np.arange(100) % 3).astype(np.uint8)),
    "bias": Raw("float32", (10,), bytes(range(40))),
    "again": Tied("dense"),
}


def test_rows_of_fixed_width_gaps_are_those_by_hand(table):
    rows, total, book = table(RECORDS, Coding("fixed", gap_bits=3))
    assert list(rows) == ["sparse", "dense"]
    sparse, dense = rows["sparse"], rows["dense"]
    assert (sparse.elements, sparse.survivors, sparse.density) == (400, 19, 19 / 400)
    assert sparse.entries == 19 + 2 * 19
    assert (sparse.original, sparse.pruned, sparse.shared) == (1600, 250, 36 + 16)  # 57 x 35, 57 x 5 bits
    assert sparse.index_bits == (2.0, pytest.approx(8 * 15 / 57))  # 114 bits in 15 bytes
    assert sparse.gap_bits == (3.0, pytest.approx(8 * 22 / 57))  # 171 bits in 22 bytes
    assert sparse.coded == book.size("sparse")
    assert (dense.elements, dense.survivors, dense.entries, dense.density) == (100, 100, 100, 1.0)
    assert (dense.original, dense.pruned, dense.shared) == (400, 400, 25 + 12)
    assert (dense.index_bits, dense.gap_bits) == ((2.0, 2.0), None)
    assert (total.name, total.elements, total.survivors, total.entries) == ("all", 500, 119, 157)
    assert total.original == 1600 + 400 + 40
    assert (total.pruned, total.shared) == (250 + 400 + 40, 52 + 37 + 40)
    assert total.coded == book.file_size
    assert total.index_bits == (2.0, pytest.approx(8 * (15 + 25) / 157))
    assert total.gap_bits is None


def test_rows_of_huffman_codes_count_what_is_in_the_file(table):
    rows, total, book = table(RECORDS, Coding("huffman", gap_bits=3))
    sparse = rows["sparse"]
    assert (sparse.pruned, sparse.shared) == (250, 52)  # do not depend on the code
    assert sparse.index_bits == (2.0, 8 * book.size("sparse", "indices") / 57)
    assert sparse.gap_bits == (3.0, 8 * book.size("sparse", "gaps") / 57)
    assert sparse.gap_bits[1] < 3
    assert sum(row.coded for row in rows.values()) < total.coded == book.file_size


@pytest.mark.parametrize("coder", ["csr", "csc"])
def test_rows_of_csr_and_csc_store_survivors_and_their_places(table, coder):
    rows, _, book = table(RECORDS, Coding(coder))
    sparse = rows["sparse"]
    pointers, places = 14, 12  # 21 pointers of 5 bits, 19 places of 5 bits
    assert (book.size("sparse", "pointers"), book.size("sparse", "places")) == (pointers, places)
    assert (sparse.entries, sparse.gap_bits) == (19, None)
    assert sparse.index_bits == (2.0, pytest.approx(8 * 5 / 19))  # 38 bits in 5 bytes
    assert sparse.pruned == 19 * 4 + pointers + places
    assert sparse.shared == 5 + pointers + places + 16


def test_empty_constant_and_all_pruned_tensors_have_rows(table):
    records = {
        "empty": Shared("float32", (0, 3), CODEBOOK[:0], np.zeros(0, np.uint8)),
        "constant": Shared("float16", (5, 5), np.ones(1, np.float16), np.zeros(25, np.uint8)),
        "pruned": Shared("float32", (5, 5), np.zeros(1, np.float32), np.zeros(25, np.uint8)),
    }
    rows, total, _ = table(records, Coding())
    assert (rows["empty"].density, rows["empty"].original, rows["empty"].shared) == (0.0, 0, 0)
    assert (rows["constant"].density, rows["constant"].shared) == (1.0, 2)
    assert (rows["pruned"].density, rows["pruned"].survivors) == (0.0, 0)
    assert total.original == 150


def test_a_file_without_shared_tensors_has_a_total(table):
    rows, total, book = table({"bias": RECORDS["bias"]}, Coding())
    assert rows == {}
    assert (total.original, total.pruned, total.shared, total.coded) == (40, 40, 40, book.file_size)
    assert (total.density, total.index_bits) == (0.0, (0.0, 0.0))


def matrices():
    before = np.diag(np.arange(10, 20)).astype(np.int64)
    before[2, 7] = 3
    after = before.copy()
    after[2, 7], after[4, 9], after[4, 4] = 1, 2, 12
    return before, after


FIGURES = {
    "confusion": lambda path: figures.confusion(path, matrices()[0], "before"),
    "difference": lambda path: figures.confusion_difference(path, *matrices(), "change"),
    "sensitivity": lambda path: figures.sensitivity(
        path, [0, 0.5, 0.9], {"a": [1, 2, 30], "b": [1, 1, 2]}, "s"
    ),
    "no errors": lambda path: figures.confusion(path, np.eye(10, dtype=np.int64), "perfect"),
    "no change": lambda path: figures.confusion_difference(path, matrices()[0], matrices()[0], "none"),
    "nothing": lambda path: figures.confusion(path, np.zeros((10, 10), np.int64), "empty"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_pngs_of_the_same_bytes_each_time(tmp_path, name):
    for path in (tmp_path / "a.png", tmp_path / "b.png"):
        FIGURES[name](path)
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(PNG)
    assert content == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_figures_leave_the_matrices_alone_and_differ_where_they_do(tmp_path):
    before, after = matrices()
    figures.confusion(tmp_path / "a.png", before, "t")
    figures.confusion(tmp_path / "b.png", after, "t")
    assert np.array_equal(before, matrices()[0])
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_the_papers_figures_are_of_our_layers():
    from dwindle.models import NAMES, build

    assert set(PAPER) == set(NAMES) - {"resnet-50"}
    for name, network in PAPER.items():
        with torch.device("meta"):
            model = build(name)
        assert list(network.layers) == [key for key, p in model.named_parameters() if p.ndim > 1]


def test_versions_name_what_results_rest_on():
    assert set(versions()) == {"dwindle", "python", "torch", "numpy", "numba"}
