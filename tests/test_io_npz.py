"""NumPy archives: nothing is unpickled, nothing unpacks out of proportion, damage is noticed."""

import io
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from dwindle.errors import CheckpointError, UnsafeCheckpointError
from dwindle.io import npz_file, read_checkpoint, write_checkpoint
from dwindle.records import Raw


class Payload:
    """Would touch the file of the environment variable CANARY if it were ever unpickled."""

    def __reduce__(self):
        return os.system, ('touch "$CANARY"',)


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=True)
    return stream.getvalue()


def header(text, version=b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text


def archive(path, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def test_objects_are_never_unpickled(tmp_path, monkeypatch):
    monkeypatch.setenv("CANARY", str(tmp_path / "canary"))
    path = tmp_path / "x.npz"
    np.savez(path, w=np.zeros(2), evil=np.array([Payload()], object))
    with pytest.raises(UnsafeCheckpointError, match=r"'evil'.*pickle"):
        read_checkpoint(path)
    archive(path, {"w.npy": npy(np.array([(1, None)], [("a", "i4"), ("b", object)]))})
    with pytest.raises(UnsafeCheckpointError, match="'w'"):
        read_checkpoint(path)
    assert not (tmp_path / "canary").exists()


def test_what_is_no_tensor_is_listed(tmp_path):
    path = archive(
        tmp_path / "x.npz",
        {
            "w.npy": npy([1.0]),
            "notes.txt": b"hello",
            "labels.npy": npy(["cat", "dog"]),
            "raw.npy": npy([b"cat"]),
            "when.npy": npy(np.array(["2020-01-01"], "M8[D]")),
        },
    )
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.records) == ["w"]
    assert checkpoint.skipped == ("notes.txt", "labels", "raw", "when")


BAD_ARRAYS = {
    "long double": (npy(np.zeros(1, np.longdouble)), "dtype"),
    "structured": (npy(np.zeros(1, [("a", "f4")])), "dtype"),
    "bytes without a type": (npy(np.zeros(1, "V2")), "dtype"),
    "bytes missing": (npy(np.zeros(3))[:-1], "expected 24 bytes"),
    "bytes left over": (npy(np.zeros(3)) + b"a", "expected 24 bytes.*25"),
    "terabytes": (header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }"), "got 0"),
    "negative sizes": (
        header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1), }") + bytes(8),
        "negative",
    ),
    "65 dimensions": (
        header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }" % (b"1," * 65)) + bytes(8),
        "64",
    ),
    "no header": (b"", "header"),
    "wrong magic": (b"\x93NUMPX" + bytes(100), "header"),
    "header that is code": (header(b"__import__('os').abort()"), "header"),
    "header without end": (header(b"{'descr': '<f8"), "header"),
    "header of brackets": (header(b"(" * 9000), "header"),
    "unknown version": (header(b"{}", b"\x09\x00"), "9.0|header"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_refused_by_name(tmp_path, case):
    content, match = BAD_ARRAYS[case]
    path = archive(tmp_path / "x.npz", {"ok.npy": npy([1.0]), "w.npy": content})
    with pytest.raises(CheckpointError, match=match) as error:
        read_checkpoint(path)
    assert "'w'" in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_is_noticed(tmp_path, compression):
    weights = np.random.default_rng(0).normal(size=100)
    path = archive(tmp_path / "x.npz", {"w.npy": npy(weights)}, compression)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
    for position in range(200, 800, 50):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


def test_an_archive_that_unpacks_out_of_proportion(tmp_path, monkeypatch):
    monkeypatch.setattr(npz_file, "FREE_BYTES", 1 << 20)
    bomb = npy(np.zeros(10_000_000, np.uint8))
    path = archive(tmp_path / "x.npz", {"w.npy": bomb}, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="100 times its size"):
            read_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    monkeypatch.undo()
    assert read_checkpoint(path).records["w"].shape == (10_000_000,)


def test_entries_that_are_not_what_a_checkpoint_has(tmp_path):
    path = archive(tmp_path / "x.npz", {"w.npy": npy([1.0])}, zipfile.ZIP_LZMA)
    with pytest.raises(CheckpointError, match="stored or deflated"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("w.npy", npy([1.0]))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("w.npy", npy([2.0]))
    with pytest.raises(CheckpointError, match="one array 'w', got two"):
        read_checkpoint(path)
    archive(path, {"w.npy": npy([1.0])})
    locked = bytearray(path.read_bytes())
    locked[locked.index(b"PK\x01\x02") + 8] |= 1  # the flag of an encrypted entry
    path.write_bytes(locked)
    with pytest.raises(CheckpointError, match="encrypted"):
        read_checkpoint(path)


def test_content_decides_not_the_suffix(tmp_path):
    path = tmp_path / "x.npz"
    write_checkpoint(path, {"w": Raw("int8", (1,), b"a")})
    path = path.rename(tmp_path / "x.pt")
    assert list(read_checkpoint(path).records) == ["w"]
