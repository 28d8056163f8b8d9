"""Exact tensors in files: equal ones once, differences from a base, ranges of rows, extras, little memory."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

import strategies as make
from dwindle.checkpoints import compress_checkpoint
from dwindle.code.plan import Coding
from dwindle.errors import BaseError, TensorError
from dwindle.file import Archive, write
from dwindle.io import read_checkpoint, write_checkpoint
from dwindle.records import BLOCK, Raw, Shared, Tied, same, to_storage
from dwindle.share.levels import from_levels
from dwindle.share.trellis import to_path

RANDOM = np.random.default_rng(0)


def raw(array, dtype="float32"):
    return Raw(dtype, array.shape, np.ascontiguousarray(array).tobytes())


NORMAL = RANDOM.normal(size=(100, 90)).astype("<f4")


def size(path, records, **options):
    return write(path, records, force=True, **options).size


def test_equal_and_zero_tensors_are_stored_once(tmp_path):
    one = size(tmp_path / "1.dwz", {"a": raw(NORMAL)})
    records = {"a": raw(NORMAL), "b": raw(NORMAL), "t": Tied("a"), "z": raw(np.zeros((300, 300), "<f4"))}
    assert size(tmp_path / "2.dwz", records) < one + 60
    with Archive(tmp_path / "2.dwz") as archive:
        assert all(same(archive.record(name), record) for name, record in records.items())
        assert archive.ledger.original == 2 * 36_000 + 360_000


def test_a_tensor_that_does_not_shrink_is_stored(tmp_path):
    data = RANDOM.bytes(100_000)
    assert size(tmp_path / "a.dwz", {"x": Raw("uint8", (100_000,), data)}) < 100_040


def small_ones(path, records):
    write(path, records, force=True)
    with Archive(path) as archive:
        assert all(same(archive.record(name), record) for name, record in records.items())
        return {name for name in records if getattr(archive.header.entries[name], "form", "") == "small"}


def test_the_longest_of_many_small_tensors_are_blocks_where_all_are_exact(tmp_path):
    lengths = [1500, 129, 1500, 4097, *[128] * 40, 300]  # of 3,429 but for the few
    records = {str(at): raw(RANDOM.normal(size=n).astype("<f4")) for at, n in enumerate(lengths)}
    few = {name for name, record in records.items() if record.shape[0] <= 128}
    assert small_ones(tmp_path / "a.dwz", records) == few | {"0", "1", "2", "44"}
    records["more"] = raw(RANDOM.normal(size=668).astype("<f4"))  # one element too many
    assert small_ones(tmp_path / "a.dwz", records) == few | {"1", "44", "more"}
    records["shared"] = Shared("float32", (3,), np.zeros(1, "<f4"), np.zeros(3, np.uint8))
    assert small_ones(tmp_path / "a.dwz", records) == few | {"0", "1", "2", "44", "more"}


def test_differences_from_a_base(tmp_path):
    base = {"w": raw(NORMAL), "same": raw(NORMAL * 2), "b": raw(NORMAL[0])}
    tuned = {
        "w": raw(NORMAL * np.float32(1.00001)),
        "same": base["same"],
        "b": raw(NORMAL[1]),
        "new": raw(NORMAL[2]),
    }
    path = tmp_path / "a.dwz"
    assert size(path, tuned, base=base) < 0.4 * size(tmp_path / "alone.dwz", tuned)
    with Archive(path, base=base) as archive:
        assert all(same(archive.record(name), record) for name, record in tuned.items())
        assert same(archive.record("new"), tuned["new"])
    with Archive(path) as archive:
        assert same(archive.record("new"), tuned["new"])
        with pytest.raises(BaseError, match=r"a\.dwz: w: expected the base it was stored against, got none"):
            archive.record("w")
    for other, said in [
        ({}, "got none"),
        ({"w": raw(NORMAL.T)}, "float32"),
        ({"w": raw(-NORMAL)}, "got another"),
    ]:
        with Archive(path, base=other) as archive, pytest.raises(BaseError, match=said):
            archive.record("w")


def test_rows_are_those_of_the_whole(tmp_path):
    wide = (3 * BLOCK // 1000, 1000)
    records = {
        "exact": Raw("uint8", wide, RANDOM.bytes(wide[0] * wide[1])),
        "context": make.pruned((3000, 800), 16, 0.05),
        "small": raw(NORMAL[:, :20]),
        "cube": raw(RANDOM.normal(size=(9, 40, 30)).astype("<f4")),
        "tie": Tied("cube"),
    }
    write(tmp_path / "a.dwz", records, coding=Coding("huffman"))
    write(tmp_path / "csr.dwz", {"m": make.pruned((50, 60), 8, 0.1)}, coding=Coding("csr"))
    levels = to_path(RANDOM.normal(0, 4, (BLOCK // 1000 + 90, 1000)), 1.0)
    codebook, indices = from_levels(levels, 0.5, "float32")
    write(tmp_path / "path.dwz", {"p": Shared("float32", levels.shape, codebook, indices)})
    for path in (tmp_path / "a.dwz", tmp_path / "csr.dwz", tmp_path / "path.dwz"):
        with Archive(path) as archive:
            for name in archive:
                whole = np.array(archive[name])
                for start, stop in [(0, 0), (0, 1), (2, 7), (len(whole) - 1, len(whole)), (0, len(whole))]:
                    part = archive.rows(name, start, stop)
                    assert part.shape == whole[start:stop].shape
                    assert part.tobytes() == whole[start:stop].tobytes()
                with pytest.raises(IndexError, match="expected rows within"):
                    archive.rows(name, 0, len(whole) + 1)


def test_rows_touch_no_other_block(tmp_path):
    records = {"w": Raw("uint8", (4, BLOCK), RANDOM.bytes(4 * BLOCK))}
    path = tmp_path / "a.dwz"
    write(path, records)
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with Archive(path) as archive:
        expected = to_storage(records["w"])[1:3]
        assert archive.rows("w", 1, 3).tobytes() == expected.tobytes()
        with pytest.raises(Exception, match="CRC-32"):
            archive.rows("w", 3, 4)


def test_extras_are_kept_and_hidden(tmp_path):
    write(tmp_path / "a.dwz", {"w": raw(NORMAL)}, extras={"graph": b"x" * 9000, "": b""})
    with Archive(tmp_path / "a.dwz") as archive:
        assert list(archive) == ["w"]
        assert archive.extras == {"graph": b"x" * 9000, "": b""}
        archive.check()
    with pytest.raises(ValueError, match="NUL"):
        write(tmp_path / "b.dwz", {"\0w": raw(NORMAL)})


def test_lossless_checkpoints_and_bases_from_files(run, tmp_path):
    write_checkpoint(tmp_path / "base.safetensors", {"w": raw(NORMAL), "s": raw(NORMAL[0])}, {"by": "you"})
    tuned = {"w": raw(NORMAL * np.float32(1.0001)), "s": raw(NORMAL[3])}
    write_checkpoint(tmp_path / "tuned.safetensors", tuned)
    result = compress_checkpoint(tmp_path / "base.safetensors", tmp_path / "a.dwz", lossless=True)
    assert result.rate > 1.1
    options = ("--lossless", "--base", tmp_path / "base.safetensors", "-o", tmp_path / "d.dwz")
    assert run("compress", tmp_path / "tuned.safetensors", *options)[0] == 0
    base = ("--base", tmp_path / "base.safetensors")
    assert run("verify", tmp_path / "d.dwz", *base, "--against", tmp_path / "tuned.safetensors")[0] == 0
    assert run("decompress", tmp_path / "d.dwz", *base, "-o", tmp_path / "x.safetensors")[0] == 0
    found = read_checkpoint(tmp_path / "x.safetensors").records
    assert all(same(found[name], record) for name, record in tuned.items())
    status, _, error = run("verify", tmp_path / "d.dwz")
    assert (status, error.count("\n")) == (2, 1)
    assert "--base" in error


def test_diff_tells_how_far_apart(run, tmp_path):
    left = {"same": raw(NORMAL), "off": raw(NORMAL), "shape": raw(NORMAL), "gone": raw(NORMAL[0])}
    right = {
        "same": raw(NORMAL),
        "off": raw(NORMAL + np.float32(0.5)),
        "shape": raw(NORMAL.T),
        "new": raw(NORMAL[0]),
    }
    write(tmp_path / "a.dwz", left)
    write_checkpoint(tmp_path / "b.safetensors", right)
    status, printed, _ = run("diff", tmp_path / "a.dwz", tmp_path / "b.safetensors", "--json")
    found = {tensor["name"]: tensor for tensor in json.loads(printed)["tensors"]}
    assert status == 1
    kinds = {name: tensor["kind"] for name, tensor in found.items()}
    expected = {"same": "same", "off": "differs", "shape": "shape", "gone": "only left", "new": "only right"}
    assert kinds == expected
    assert found["off"]["distance"]["largest"] == pytest.approx(0.5, abs=1e-6)
    status, printed, _ = run("diff", tmp_path / "a.dwz", tmp_path / "a.dwz")
    assert (status, "4 of 4" in printed) == (0, True)


def test_memory_does_not_grow_with_the_checkpoint(tmp_path):
    """24 tensors of 8 MiB in and out again, with less than half of their bytes more than one of them
    takes."""
    code = f"""
import resource, sys
import numpy as np
from dwindle.file import Archive, write
from dwindle.io import read_checkpoint, write_checkpoint
from dwindle.records import Raw
random = np.random.default_rng(0)
def make(count, path):
    class Tensors(dict):
        def __getitem__(self, name):
            data = np.random.default_rng(int(name)).normal(size=1 << 21).astype("<f4").tobytes()
            return Raw("float32", (1 << 21,), data)
        def items(self):
            return ((name, self[name]) for name in self)
        def outline(self, name):
            return "float32", (1 << 21,)
    write_checkpoint(path, Tensors.fromkeys(map(str, range(count))))
def peak(path):
    checkpoint = read_checkpoint(path)
    write(path + ".dwz", checkpoint.records)
    with Archive(path + ".dwz", max_bytes=None) as archive:
        write_checkpoint(path + "2.safetensors", archive.records, force=True)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
make(2, {str(tmp_path / "a.safetensors")!r})
make(24, {str(tmp_path / "b.safetensors")!r})
small = peak({str(tmp_path / "a.safetensors")!r})
large = peak({str(tmp_path / "b.safetensors")!r})
print(large - small)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "b.safetensors2.safetensors").read_bytes()
    assert int(done.stdout) < 96 << 10


@pytest.mark.parametrize("shape", [(0, 1 << 50), (1,) * 65])
def test_shapes_over_the_limits_of_the_format_are_refused(tmp_path, shape):
    with pytest.raises(TensorError, match="a: expected at most 64 dimensions"):
        write(tmp_path / "x.dwz", {"a": Raw("uint8", shape, bytes(math.prod(shape)))})
    assert not list(tmp_path.iterdir())
