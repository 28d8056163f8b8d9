"""Safetensors: hostile headers, damaged files and untrue shards are refused, by name, before allocation."""

import json
import tracemalloc

import numpy as np
import pytest

from dwindle.errors import CheckpointError
from dwindle.io import read_checkpoint, write_checkpoint
from dwindle.records import Raw


def pack(header, data=b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4), **more) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


W = entry()
HOSTILE = {
    "empty file": (b"", "8-byte length"),
    "half a length": (b"\0" * 7, "8-byte length"),
    "length only": ((10).to_bytes(8, "little"), "header of 10 bytes"),
    "header over the cap": ((100_000_001).to_bytes(8, "little") + b"{}", "at most 100000000"),
    "header of 2**63 bytes": ((2**63).to_bytes(8, "little") + b"{}", "at most 100000000"),
    "no header": (pack(b""), "starts with"),
    "space before the header": (pack(b" {}"), "starts with"),
    "a list": (pack(b"[]"), "starts with"),
    "not JSON": (pack(b"{'a'}"), "JSON"),
    "two objects": (pack(b"{}{}"), "JSON"),
    "not UTF-8": (pack(b'{"\xff": 1}'), "JSON"),
    "deeply nested": (pack(b'{"a":' + b"[" * 100_000), "JSON"),
    "a number of many digits": (pack(b'{"a":' + b"1" * 10_000 + b"}"), "JSON"),
    "a name twice": (pack(b'{"w": {}, "w": {}}'), "'w' twice"),
    "a key twice": (pack(b'{"w": {"dtype": "F32", "dtype": "F32"}}'), "'dtype' twice"),
    "half a surrogate as name": (pack(rb'{"\ud800": %s}' % json.dumps(W).encode(), b"abcd"), "valid Unicode"),
    "metadata of numbers": (pack({"__metadata__": {"a": 1}}), "__metadata__"),
    "half a surrogate as metadata": (pack({"__metadata__": {"a": "\ud800"}}), "__metadata__"),
    "metadata that is text": (pack({"__metadata__": "a"}), "__metadata__"),
    "tensor without dtype": (pack({"w": {"shape": [1], "data_offsets": [0, 4]}}, b"abcd"), "'w'"),
    "tensor that is a list": (pack({"w": [1]}), "'w'"),
    "one key too many": (pack({"w": entry(more=1)}, b"abcd"), "'w'"),
    "unknown dtype": (pack({"w": entry("F4")}, b"abcd"), "'w'.*dtype.*'F4'"),
    "dtype that is a list": (pack({"w": entry(["F32"])}, b"abcd"), "'w'.*dtype"),
    "negative size": (pack({"w": entry(shape=[-1, -1])}, b"abcd"), "'w'.*shape"),
    "fractional size": (pack({"w": entry(shape=[1.0])}, b"abcd"), "'w'.*shape"),
    "size that is true": (pack({"w": entry(shape=[True])}, b"abcd"), "'w'.*shape"),
    "shape that is no list": (pack({"w": {**W, "shape": 1}}, b"abcd"), "'w'.*shape"),
    "65 dimensions": (pack({"w": entry(shape=[1] * 65)}, b"abcd"), "'w'.*64"),
    "many dimensions": (pack({"w": entry(shape=[2**62] * 100_000)}, b"abcd"), "'w'.*64"),
    "overflowing size": (pack({"w": entry(shape=[2**62, 4])}, b"abcd"), "'w'.*expected"),
    "size of 64 bits": (pack({"w": entry(shape=[2**63, 0])}, b"abcd"), "'w'.*shape"),
    "size too large": (pack({"w": entry(shape=[2])}, b"abcd"), "'w'.*expected 8 bytes.*got 4"),
    "terabytes": (pack({"w": entry(shape=[2**40], offsets=[0, 2**42])}, b"abcd"), "'w'.*within 4 bytes"),
    "one offset": (pack({"w": entry(offsets=[0])}, b"abcd"), "'w'.*data_offsets"),
    "three offsets": (pack({"w": entry(offsets=[0, 4, 4])}, b"abcd"), "'w'.*data_offsets"),
    "offsets reversed": (pack({"w": entry(offsets=[4, 0])}, b"abcd"), "'w'.*expected 4 bytes"),
    "negative offset": (pack({"w": entry(offsets=[-4, 0])}, b"abcd"), "'w'.*data_offsets"),
    "offset into nowhere": (pack({"w": entry(offsets=[4, 8])}, b"abcd"), "'w'.*hole"),
    "hole": (pack({"v": W, "w": entry(offsets=[5, 9])}, b"abcdefghi"), "'w'.*hole"),
    "overlap": (pack({"v": W, "w": entry(offsets=[3, 7])}, b"abcdefg"), "'w'.*overlaps"),
    "same bytes twice": (pack({"v": W, "w": W}, b"abcd"), "overlaps"),
    "bytes missing": (pack({"w": W}, b"abc"), "'w'.*within 3 bytes"),
    "bytes left over": (pack({"w": W}, b"abcde"), "expected 4 bytes of data, got 5"),
    "bytes without tensors": (pack({}, b"a"), "expected 0 bytes of data, got 1"),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_files_are_refused_in_one_line(tmp_path, attack):
    content, match = HOSTILE[attack]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=match) as error:
            read_checkpoint(path)
        # JSON as Python objects takes a multiple of its text, and nothing takes what the header promises.
        assert tracemalloc.get_traced_memory()[1] < 20 * len(content) + 1_000_000
    finally:
        tracemalloc.stop()
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 300


def test_truncation_at_every_byte(tmp_path):
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, {"a": Raw("float32", (3,), b"abcdefghijkl"), "b": Raw("int8", (2,), b"ab")})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
    path.write_bytes(whole)
    assert len(read_checkpoint(path).records) == 2


def test_header_may_be_padded_and_its_order_is_kept(tmp_path):
    path = tmp_path / "x.safetensors"
    header = json.dumps({"b": entry(offsets=[4, 8]), "a": W}).encode() + b"  \n"
    path.write_bytes(pack(header, b"abcdefgh"))
    records = read_checkpoint(path).records
    assert [(name, bytes(r.data)) for name, r in records.items()] == [("b", b"efgh"), ("a", b"abcd")]


@pytest.mark.parametrize("padding", range(8))
def test_tensors_are_aligned_wherever_the_header_ends(tmp_path, padding):
    path = tmp_path / "x.safetensors"
    header = json.dumps({"w": entry("F64", (2,), (0, 16))}).encode() + b" " * padding
    path.write_bytes(pack(header, np.array([1.0, 2.0]).tobytes()))
    array = np.frombuffer(read_checkpoint(path).records["w"].data, "<f8")
    assert array.flags.aligned
    assert array.tolist() == [1.0, 2.0]


def test_tensors_are_views_of_the_file(tmp_path):
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, {"w": Raw("uint8", (10_000_000,), bytes(10_000_000))})
    tracemalloc.start()
    try:
        record = read_checkpoint(path).records["w"]
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert len(record.data) == 10_000_000
    assert record.data.readonly


def test_content_decides_not_the_suffix(tmp_path):
    path = tmp_path / "x.safetensors"
    write_checkpoint(path, {"w": Raw("int8", (1,), b"a")})
    for name in ("x.pt", "x.npz", "x", "x.dwz"):
        path.rename(tmp_path / name)
        path = tmp_path / name
        assert list(read_checkpoint(path).records) == ["w"]


@pytest.mark.parametrize("name", ["x.dwz", "x.safetensors", "x.pt", "x.npz", "x"])
def test_a_dwz_is_refused_whatever_its_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x89DWZ\0rest of the file")
    with pytest.raises(CheckpointError, match=r"compressed already"):
        read_checkpoint(tmp_path / name)


def test_what_is_no_checkpoint_at_all(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pt.*No such file"):
        read_checkpoint(tmp_path / "none.pt")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match="unknown format"):
        read_checkpoint(tmp_path / "notes.txt")
    with pytest.raises(CheckpointError, match=r"notes\.txt"):
        read_checkpoint(tmp_path / "notes.txt" / "x.pt")
    write_checkpoint(tmp_path / "x.safetensors", {})
    with pytest.raises(CheckpointError, match="expected no key"):
        read_checkpoint(tmp_path / "x.safetensors", key="model")


def shards(folder, **parts):
    for stem, names in parts.items():
        tensors = {name: Raw("uint8", (1,), name.encode()[:1]) for name in names}
        write_checkpoint(folder / f"{stem}.safetensors", tensors, {"format": "pt", "part": stem})


def index(folder, weight_map, name="model.safetensors.index.json"):
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 3}, "weight_map": weight_map}))


GOOD = {"a": "s1.safetensors", "b": "s1.safetensors", "c": "s2.safetensors"}


@pytest.mark.parametrize("indexed", [False, True])
def test_a_folder_of_shards(tmp_path, indexed):
    shards(tmp_path, s2="c", s1="ab")
    (tmp_path / "config.json").write_text("{}")
    if indexed:
        index(tmp_path, GOOD)
    checkpoint = read_checkpoint(tmp_path)
    assert {name: bytes(r.data) for name, r in checkpoint.records.items()} == {
        "a": b"a",
        "b": b"b",
        "c": b"c",
    }
    assert checkpoint.metadata == {"format": "pt", "part": "s1"}
    assert checkpoint.skipped == ("config.json",)


BAD_INDEXES = {
    "a shard is not there": (GOOD | {"d": "s3.safetensors"}, "s3.safetensors"),
    "a shard is not listed": ({"a": "s1.safetensors", "b": "s1.safetensors"}, "s2.safetensors"),
    "a tensor is not there": (GOOD | {"d": "s1.safetensors"}, "'d'.*no shard"),
    "a tensor is not listed": ({"a": "s1.safetensors", "c": "s2.safetensors"}, "'b'"),
    "a tensor is elsewhere": (GOOD | {"a": "s2.safetensors"}, "'a'.*s2.*s1"),
    "a shard is outside": (GOOD | {"d": "../s1.safetensors"}, "../s1.safetensors"),
    "no map": ([], "weight_map"),
    "a map of numbers": ({"a": 1}, "weight_map"),
}


@pytest.mark.parametrize("case", BAD_INDEXES)
def test_an_index_that_is_not_true(tmp_path, case):
    weight_map, match = BAD_INDEXES[case]
    shards(tmp_path, s1="ab", s2="c")
    index(tmp_path, weight_map)
    with pytest.raises(CheckpointError, match=match) as error:
        read_checkpoint(tmp_path)
    assert "index.json" in str(error.value)


def test_folders_that_are_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"expected a folder of \.safetensors"):
        read_checkpoint(tmp_path)
    shards(tmp_path, s1="ab", s2="bc")
    with pytest.raises(CheckpointError, match=r"s2\.safetensors: tensor 'b'.*s1\.safetensors too"):
        read_checkpoint(tmp_path)
    (tmp_path / "s2.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"s2\.safetensors"):
        read_checkpoint(tmp_path)
    (tmp_path / "s2.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_bytes(b"{")
    with pytest.raises(CheckpointError, match=r"index\.json: expected JSON"):
        read_checkpoint(tmp_path)
    index(tmp_path, {}, "other.safetensors.index.json")
    with pytest.raises(CheckpointError, match="one index"):
        read_checkpoint(tmp_path)
