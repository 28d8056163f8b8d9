"""What goes into a `.dwz` file comes out of it, bit for bit, by dwindle and by the reference decoder."""

from __future__ import annotations

import importlib.util
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import strategies as make
from dwindle import dtypes
from dwindle.code.plan import BLOCK, CODERS, Coding
from dwindle.errors import OutputError
from dwindle.file import Archive, write
from dwindle.records import Raw, Record, Shared, Tied, same, to_storage

DECODER = Path(__file__).parent.parent / "docs" / "reference_decoder.py"
CODINGS = [Coding(c) for c in CODERS] + [Coding("huffman", dictionary="network"), Coding("huffman", 5)]
QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def load_decoder():
    spec = importlib.util.spec_from_file_location("reference_decoder", DECODER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load_decoder()


def check(path: Path, records: dict[str, Record], *, by_reference: bool = True) -> None:
    """Decode `path` and compare with `records`, names in order."""
    with Archive(path) as archive:
        assert list(archive) == list(records)
        for name, record in records.items():
            assert same(archive.record(name), record), name
        tensors = {name: np.array(archive[name]) for name in archive}
        metadata = archive.metadata
    for name, record in records.items():
        owner = records[record.to] if isinstance(record, Tied) else record
        assert tensors[name].shape == owner.shape
        assert tensors[name].tobytes() == to_storage(owner).tobytes()
    if by_reference:
        expected, expected_metadata = reference.read(path.read_bytes())
        assert list(expected) == list(tensors)
        assert expected_metadata == metadata
        for name, values in expected.items():
            assert (values.dtype, values.shape) == (tensors[name].dtype, tensors[name].shape)
            assert values.tobytes() == tensors[name].tobytes(), name


@QUICK
@given(make.archives(), make.codings, make.metadata)
def test_any_records_come_back(records, coding, metadata):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.dwz"
        written = write(path, records, coding=coding, metadata=metadata, threads=1)
        assert written.size == path.stat().st_size
        check(path, records)
        with Archive(path) as archive:
            assert archive.metadata == metadata


ODD = {
    "no survivor": make.shared([0] * 50, [0.0, 1.0, 2.0]),
    "no survivor, one entry": make.shared([0] * 50, [0.0]),
    "one survivor": make.shared([0] * 49 + [1], [0.0, 1.0]),
    "one survivor far off": make.shared([0] * 5000 + [1], [0.0, 1.0]),
    "one symbol": make.shared([2] * 50, [0.0, 1.0, 2.0]),
    "constant": make.shared([0] * 50, [3.0]),
    "every weight survives": make.shared([1, 2] * 25, [0.0, 1.0, 2.0]),
    "empty": make.shared([], [0.0, 1.0], (0, 5)),
    "empty, empty codebook": make.shared([], [], (3, 0)),
    "0-d": make.shared([1], [0.0, 1.0], ()),
    "0-d zero": make.shared([0], [0.0, 1.0], ()),
    "minus zero": make.shared([0, 1, 2, 1, 1], [-0.0, 0.0, 1.0]),
    "two zeros": make.shared([0, 1, 2, 1, 1], [0.0, 0.0, 1.0]),
    "NaN and infinity": make.shared([0, 1, 2, 3], [np.nan, np.inf, -np.inf, 0.0]),
    "column": make.pruned((300, 1)),
    "row": make.pruned((1, 300)),
    "wide codebook": make.pruned((40, 50), 5000, 0.5),
    "largest codebook": make.shared([0, 65535, 3] * 9, np.arange(65536)),
    "double": make.pruned((20, 30), dtype="float64"),
    "half": make.pruned((20, 30), dtype="float16"),
    "brain": make.pruned((20, 30), dtype="bfloat16"),
    "convolution": make.pruned((8, 4, 5, 5), 256, 0.6),
}


@pytest.mark.parametrize("coding", CODINGS, ids=lambda c: f"{c.coder}-{c.dictionary}-{c.gap_bits}")
def test_degenerate_tensors_alone_and_together(tmp_path, coding):
    for number, (name, record) in enumerate(ODD.items()):
        path = tmp_path / f"{number}.dwz"
        write(path, {name: record}, coding=coding, threads=1)
        check(path, {name: record}, by_reference=False)
    # Plain Python takes long over 65,536 floats.
    together = {name: record for name, record in ODD.items() if len(record.codebook) < 1000}
    write(tmp_path / "all.dwz", together, coding=coding, threads=1)
    check(tmp_path / "all.dwz", together)


def test_exact_tensors_of_every_dtype(tmp_path):
    random = np.random.default_rng(0)
    records = {}
    for dtype in dtypes.STORAGE:
        for shape in [(), (0,), (3,), (2, 0, 4), (2, 3, 4)]:
            data = random.bytes(math.prod(shape) * dtypes.itemsize(dtype))
            records[f"{dtype} {shape}"] = Raw(dtype, shape, data)
    write(tmp_path / "a.dwz", records)
    check(tmp_path / "a.dwz", records)


def test_ties_metadata_and_names(tmp_path):
    records = {
        "second.weight": Tied("first.weight"),
        "first.weight": make.pruned((30, 40)),
        "third.weight": Tied("first.weight"),
        "naïve/名前\t\n": Raw("int64", (), bytes(8)),
        "": Tied("naïve/名前\t\n"),
    }
    metadata = {"z": "last", "a": "first", "schlüssel": "wert\n", "": ""}
    write(tmp_path / "a.dwz", records, metadata=metadata)
    check(tmp_path / "a.dwz", records)
    with Archive(tmp_path / "a.dwz") as archive:
        assert archive.metadata == metadata
        assert same(archive.resolved("third.weight"), records["first.weight"])


@pytest.mark.parametrize("other", ["missing", "tie", "self"])
def test_ties_that_lead_nowhere_are_refused(tmp_path, other):
    records = {"a": Raw("int8", (), b"1"), "tie": Tied("a"), "self": Tied(other)}
    with pytest.raises(ValueError, match=r"^self: expected a tie"):
        write(tmp_path / "a.dwz", records)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("coder", CODERS)
def test_tensors_of_several_blocks(tmp_path, coder):
    big = make.pruned((3, BLOCK // 2 + 7), 16, 0.02)
    boundary = np.zeros(2 * BLOCK + 1, np.uint8)
    boundary[[0, BLOCK - 1, BLOCK, 2 * BLOCK]] = [1, 2, 1, 2]
    records = {
        "big": big,
        "boundary": make.shared(boundary, [0.0, 1.0, 2.0]),
        "whole blocks": make.shared(np.tile([0, 1], BLOCK), [1.0, 2.0]),
        "exact": Raw("int8", (BLOCK + 5,), np.random.default_rng(1).bytes(BLOCK + 5)),
    }
    write(tmp_path / "a.dwz", records, coding=Coding(coder))
    check(tmp_path / "a.dwz", records, by_reference=False)


def test_the_reference_decoder_reads_several_blocks_and_many_streams(tmp_path):
    steps = np.arange(3 * 9000, dtype="<u4").tobytes()
    records = {
        "big": make.shared(np.tile([0, 1, 1, 1], (BLOCK + 8) // 4), [1.0, 2.0]),
        "exact": Raw("uint8", (BLOCK + 5,), np.random.default_rng(1).bytes(BLOCK + 5)),
        "steps": Raw("uint32", (3, 9000), steps),
    }
    write(tmp_path / "a.dwz", records, coding=Coding("fixed"))
    check(tmp_path / "a.dwz", records)
    many = {"w": make.pruned((20_000,), 8, 0.9), "b": Raw("float32", (70, 300), NORMAL)}
    for coder in ("huffman", "rans"):
        write(tmp_path / f"{coder}.dwz", many, coding=Coding(coder))
        check(tmp_path / f"{coder}.dwz", many)


NORMAL = np.random.default_rng(2).normal(size=21_000).astype("<f4").tobytes()


def test_a_dictionary_for_codebooks_of_different_widths(tmp_path):
    records = {"narrow": make.pruned((50, 60), 16, 0.2), "wide": make.pruned((70, 80), 600, 0.9)}
    write(tmp_path / "a.dwz", records, coding=Coding(dictionary="network"))
    check(tmp_path / "a.dwz", records)


@pytest.mark.parametrize("coding", CODINGS, ids=lambda c: f"{c.coder}-{c.dictionary}-{c.gap_bits}")
def test_the_same_bytes_from_any_number_of_threads(tmp_path, coding):
    records = {f"{i}": make.pruned((100 + i, 700), 32, 0.1, seed=i) for i in range(4)}
    for threads in (1, 2, 5):
        write(tmp_path / f"{threads}.dwz", records, coding=coding, threads=threads)
    files = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(files) == 1


def test_layouts_in_memory_do_not_matter(tmp_path):
    record = make.pruned((40, 50), 32)
    wide = np.repeat(record.indices, 2)[::2]
    codebook = np.repeat(record.codebook, 3)[::3]
    assert not wide.flags.c_contiguous
    write(tmp_path / "a.dwz", {"a": record})
    write(tmp_path / "b.dwz", {"a": Shared("float32", (40, 50), codebook, wide)})
    write(tmp_path / "c.dwz", {"a": Raw("int16", (3,), memoryview(b"abcdef"))})
    assert (tmp_path / "a.dwz").read_bytes() == (tmp_path / "b.dwz").read_bytes()
    check(tmp_path / "c.dwz", {"a": Raw("int16", (3,), b"abcdef")})


def test_an_existing_file_is_kept_without_force(tmp_path):
    path = tmp_path / "a.dwz"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError):
        write(path, {})
    assert path.read_bytes() == b"mine"
    write(path, {}, force=True)
    check(path, {})


def test_one_tensor_is_read_without_the_others(tmp_path):
    records = {"a": make.pruned((30, 40)), "b": make.pruned((30, 40), seed=1)}
    path = tmp_path / "a.dwz"
    write(path, records)
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # in b's only block
    path.write_bytes(data)
    with Archive(path) as archive:
        assert same(archive.record("a"), records["a"])


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_closing_lets_go_of_the_file(tmp_path):
    path = tmp_path / "closed.dwz"
    write(path, {"a": make.pruned((30, 40)), "b": Raw("int8", (3,), b"abc")})
    with Archive(path) as archive:
        kept = archive["a"], archive["b"], archive.record("b")
        assert str(path) in Path("/proc/self/maps").read_text()
    assert str(path) not in Path("/proc/self/maps").read_text()
    assert kept[2].data == b"abc"
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        Archive(path).close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@given(st.integers(0, 3))
@settings(max_examples=4, deadline=None)
def test_the_decoder_as_a_command(number):
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "a.dwz", Path(folder) / "a.npz"
        records = {"file": make.pruned((5, 6), seed=number), "half": make.pruned((4,), dtype="bfloat16")}
        write(path, records, threads=1)
        old, sys.argv = sys.argv, ["reference_decoder.py", str(path), "-o", str(out)]
        try:
            reference.main()
        finally:
            sys.argv = old
        with np.load(out) as arrays:
            assert arrays["file"].tobytes() == to_storage(records["file"]).tobytes()
            assert arrays["half"].dtype == np.uint16
