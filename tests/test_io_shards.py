"""Folders of shards written again: the same files, whole or not at all; a hostile file is not believed."""

import contextlib
import filecmp
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

import strategies as make
from dwindle.errors import CheckpointError, CorruptError, DwindleError, OutputError
from dwindle.file import Archive, write
from dwindle.io import extra, folder, read_checkpoint, shard_layout, write_checkpoint
from dwindle.io.shard_layout import Layout, Shard
from dwindle.records import Raw, Tied, same

INDEX = "model.safetensors.index.json"


def raw(*values: float) -> Raw:
    return Raw("float32", (len(values),), np.array(values, "<f4").tobytes())


def usual_folder(path: Path) -> dict[str, torch.Tensor]:
    """A folder as the library of transformers writes it: tensors in two shards, an index, a configuration."""
    path.mkdir()
    generator = torch.Generator().manual_seed(3)
    tensors = {
        "model.layers.0.mlp.up_proj.weight": torch.randn(96, 64, generator=generator).bfloat16(),
        "model.embed_tokens.weight": torch.randn(100, 64, generator=generator),
        "model.norm.weight": torch.tensor([float("nan"), -0.0, float("inf")]),
        "steps": torch.tensor(7),
        "empty": torch.zeros(0, 4),
        "lm_head.weight": torch.randn(1, generator=generator).half(),
    }
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    parts = [dict(list(tensors.items())[:3]), dict(list(tensors.items())[3:])]
    for name, part in zip(names, parts, strict=True):
        save_file(part, path / name, {"format": "pt"})
    weight_map = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
    total = sum(tensor.nbytes for tensor in tensors.values())
    about = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (path / INDEX).write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")
    (path / "config.json").write_text("{}")
    return tensors


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir()) if file.is_file()}


def test_a_folder_goes_there_and_back_byte_for_byte(tmp_path, run):
    tensors = usual_folder(tmp_path / "in")
    assert run("compress", tmp_path / "in", "-o", tmp_path / "x.dwz", "--lossless")[0] == 0
    status, _, err = run("decompress", tmp_path / "x.dwz", "-o", tmp_path / "out")
    assert (status, err.count("\n")) == (0, 1)
    assert f"{len(tensors)} tensors in 3 files" in err
    expected = files(tmp_path / "in")
    del expected["config.json"]
    assert files(tmp_path / "out") == expected
    assert run("verify", tmp_path / "x.dwz", "--against", tmp_path / "out")[0] == 0
    assert run("diff", tmp_path / "in", tmp_path / "out")[0] == 0


def test_the_layout_costs_next_to_nothing_and_is_no_tensor(tmp_path, run):
    usual_folder(tmp_path / "in")
    status, out, _ = run("compress", tmp_path / "in", "-o", tmp_path / "x.dwz", "--json")
    assert status == 0
    found = json.loads(out)
    assert sum(line["size"] for line in found["lines"] if line["part"] == "extras") < 80
    assert len(found["tensors"]) == 6
    assert "extras" in run("inspect", tmp_path / "x.dwz")[1]


def test_lossy_files_have_the_same_layout(tmp_path, run):
    usual_folder(tmp_path / "in")
    options = ("--bits", "3", "--prune", "0.5")
    assert run("compress", tmp_path / "in", "-o", tmp_path / "x.dwz", *options)[0] == 0
    assert run("decompress", tmp_path / "x.dwz", "-o", tmp_path / "out")[0] == 0
    left, right = read_checkpoint(tmp_path / "in"), read_checkpoint(tmp_path / "out")
    assert list(left.records) == list(right.records)
    assert left.extras == right.extras
    assert (tmp_path / "in" / INDEX).read_bytes() == (tmp_path / "out" / INDEX).read_bytes()
    assert not same(left.records["model.embed_tokens.weight"], right.records["model.embed_tokens.weight"])
    assert same(left.records["model.norm.weight"], right.records["model.norm.weight"])


UNUSUAL = {
    "no index": Layout((Shard("b.safetensors", 2, {"a": "1"}), Shard("c.safetensors", 1, {})), None, {}),
    "one file": Layout((Shard("model.safetensors", 3, {}),), None, {}),
    "an index of another name": Layout(
        (Shard("é.safetensors", 0, {"k": "ü\n"}), Shard("重み.safetensors", 3, {"k": ""})),
        "x.safetensors.index.json",
        {"metadata": {"total_size": 3, "more": [None, 1.5, {"": "é"}]}, "other": "text"},
    ),
    "metadata that differ": Layout(
        tuple(Shard(shard_layout.usual_name(n, 3), 1, {"part": str(n), "same": ""}) for n in (1, 2, 3)),
        INDEX,
        {},
    ),
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_unusual_folders(tmp_path, run, case):
    records = {"w": raw(1, 2, 3), "größe": Raw("int8", (), b"x"), "": Raw("bfloat16", (2, 0), b"")}
    write_checkpoint(
        tmp_path / "in",
        records,
        extras={"shards": shard_layout.to_bytes(UNUSUAL[case], {})},
    )
    checkpoint = read_checkpoint(tmp_path / "in")
    assert list(checkpoint.records) == list(records)
    assert run("compress", tmp_path / "in", "-o", tmp_path / "x.dwz", "--lossless")[0] == 0
    assert run("decompress", tmp_path / "x.dwz", "-o", tmp_path / "out/")[0] == 0
    assert files(tmp_path / "in") == files(tmp_path / "out")
    assert run("decompress", tmp_path / "x.dwz", "-o", tmp_path / "out.safetensors")[0] == 0
    with safe_open(tmp_path / "out.safetensors", "np") as file:
        assert (file.metadata() or {}) == checkpoint.metadata


plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\\0"), min_size=1, max_size=9)
pairs = st.dictionaries(plain, plain, max_size=2)


@st.composite
def layouts(draw):
    own = draw(st.lists(plain.map(lambda name: f"a{name}.safetensors"), min_size=1, max_size=5, unique=True))
    usual = [shard_layout.usual_name(n, len(own)) for n in range(1, len(own) + 1)]
    chosen = draw(st.sampled_from([own, usual]))
    shards = tuple(Shard(name, draw(st.integers(0, 4)), draw(pairs)) for name in chosen)
    index = draw(st.sampled_from([None, INDEX, "é.safetensors.index.json"]))
    about = (
        {} if index is None else draw(st.dictionaries(plain, st.none() | st.integers() | pairs, max_size=2))
    )
    return Layout(shards, index, {k: v for k, v in about.items() if k != "weight_map"})


@given(layouts(), pairs)
@settings(max_examples=100)
def test_any_layout_is_read_as_it_was_written(layout, metadata):
    data = shard_layout.to_bytes(layout, metadata)
    assert shard_layout.from_bytes(data, metadata, sum(shard.count for shard in layout.shards)) == layout


@given(st.dictionaries(make.names, make.raws(), max_size=6), st.integers(1, 3000))
@settings(max_examples=40)
def test_any_size_gives_shards_of_that_size(tmp_path_factory, records, size):
    records = {n: r for n, r in records.items() if n != "__metadata__" and r.dtype != "complex128"}
    path = tmp_path_factory.mktemp("any") / "out"
    written = write_checkpoint(path, records, {"k": "v"}, shard_size=size)
    assert sorted(written) == sorted(path.iterdir())
    checkpoint = read_checkpoint(path)
    assert checkpoint.metadata == {"k": "v"}
    assert list(checkpoint.records) == list(records)
    assert all(same(checkpoint.records[name], record) for name, record in records.items())
    count = len(written) - 1
    assert [file.name for file in written] == [
        *(f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)),
        INDEX,
    ]
    index = json.loads((path / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(len(record.data) for record in records.values())
    found = {name: file.name for file in written[:-1] for name in read_checkpoint(file).records}
    assert index["weight_map"] == found
    for file in written[:-1]:
        sizes = [len(record.data) for record in read_checkpoint(file).records.values()]
        assert sum(sizes) <= size or len([s for s in sizes if s]) == 1


def test_shards_of_a_size_whatever_the_source(tmp_path, run):
    tensors = usual_folder(tmp_path / "in")
    torch.save(tensors, tmp_path / "in.pt")
    for source in (tmp_path / "in", tmp_path / "in.pt"):
        packed = tmp_path / f"{source.name}.dwz"
        assert run("compress", source, "-o", packed, "--lossless")[0] == 0
        for size, count in (("12.3kB", 3), ("1", 5), ("30 KiB", 2), ("2GB", 1)):
            out = tmp_path / f"{source.name}-{count}"
            status, printed, _ = run("decompress", packed, "-o", out, "--shard-size", size, "--json")
            assert status == 0
            found = json.loads(printed)
            assert len(found["files"]) == count + 1
            assert found["bytes"] == sum(file.stat().st_size for file in out.iterdir())
            assert run("verify", packed, "--against", out)[0] == 0


def test_ties_are_written_under_both_names(tmp_path):
    records = {"late": Tied("w"), "w": raw(1, 2), "again": Tied("w")}
    write_checkpoint(tmp_path / "out", records, shard_size=8)
    found = read_checkpoint(tmp_path / "out").records
    assert list(found) == list(records)
    assert all(same(record, records["w"]) for record in found.values())
    assert len(list((tmp_path / "out").iterdir())) == 4


@pytest.mark.parametrize("size", ["0", "-1", "2XB", "GB", "", "1e9", "2iB", "99999999999TB", "0.1"])
def test_sizes_that_are_none(tmp_path, run, size, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    write(tmp_path / "x.dwz", {"w": raw(1)})
    status, out, err = run("decompress", tmp_path / "x.dwz", "-o", tmp_path / "out", f"--shard-size={size}")
    assert (status, out) == (2, "")
    assert "expected a size such as 2GB" in err
    assert not (tmp_path / "out").exists()


def test_what_is_taken_for_a_folder(tmp_path, run, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("x.dwz", {"w": raw(1)})
    Path("there.v1").mkdir()
    Path("here").mkdir()
    one = {"model-00001-of-00001.safetensors", INDEX}
    for name, path in (("plain", "plain"), ("slash.v1/", "slash.v1"), ("there.v1", "there.v1")):
        assert run("decompress", "x.dwz", "-o", name)[0] == 0
        assert names(Path(path)) == one
    assert run("decompress", "x.dwz", "-o", "sized.v1", "--shard-size", "1MB")[0] == 0
    assert names(Path("sized.v1")) == one
    monkeypatch.chdir("here")
    assert run("decompress", "../x.dwz", "-o", ".")[0] == 0
    assert names(Path()) == one
    monkeypatch.chdir(tmp_path)
    assert "/ for a folder of shards" in refused("decompress", "x.dwz", "-o", "name.v1")
    for name in ("x.safetensors", "x.npz", "x.pt"):
        assert "a folder for shards" in refused("decompress", "x.dwz", "-o", name, "--shard-size", "1MB")
        assert not Path(name).exists()


def packed(content: object) -> bytes:
    return extra.pack(content if isinstance(content, bytes) else json.dumps(content).encode())


ONE = {"counts": [2]}
HOSTILE = {
    "a path": (ONE | {"names": ["a/b.safetensors"]}, "plain name"),
    "a parent": (ONE | {"names": ["../b.safetensors"]}, "plain name"),
    "an absolute path": (ONE | {"names": ["/b.safetensors"]}, "plain name"),
    "a path on another system": (ONE | {"names": ["..\\b.safetensors"]}, "plain name"),
    "a NUL": (ONE | {"names": ["b\0.safetensors"]}, "plain name"),
    "a lone surrogate": (ONE | {"names": ["\ud800.safetensors"]}, "name that files can have"),
    "a suffix alone": (ONE | {"names": [".safetensors"]}, "plain name"),
    "another suffix": (ONE | {"names": [".bashrc"]}, "plain name"),
    "no text": (ONE | {"names": [1]}, "plain name"),
    "too few names": ({"counts": [1, 1], "names": ["a.safetensors"]}, "2 names"),
    "a name twice": ({"counts": [1, 1], "names": ["a.safetensors"] * 2}, "'a.safetensors' twice"),
    "an index elsewhere": (ONE | {"index": {}, "index_name": "../x.safetensors.index.json"}, "plain name"),
    "an index of another kind": (ONE | {"index": {}, "index_name": "config.json"}, "plain name"),
    "a name of no index": (ONE | {"index_name": "x.safetensors.index.json"}, "no name of an index"),
    "an index that is none": (ONE | {"index": []}, "expected an index"),
    "an index with its map": (ONE | {"index": {"weight_map": {}}}, "expected an index"),
    "too many tensors": ({"counts": [1, 2]}, "shards of 2 tensors, got 3 in 2"),
    "too few tensors": ({"counts": [1]}, "shards of 2 tensors, got 1 in 1"),
    "no shards": ({"counts": []}, "shards of 2 tensors, got 0 in 0"),
    "a negative count": ({"counts": [3, -1]}, "counts of tensors"),
    "half a tensor": ({"counts": [1.5, 0.5]}, "counts of tensors"),
    "a truth for a count": ({"counts": [True, True]}, "counts of tensors"),
    "no counts": ({}, "counts of tensors"),
    "many empty shards": ({"counts": [0] * 90 + [2] + [0] * 11}, "at most 100 shards without a tensor"),
    "very many shards": ({"counts": [0] * 100_000}, "at most 102 shards"),
    "a key too many": (ONE | {"key": 1}, "keys among"),
    "metadata of numbers": (ONE | {"metadata": [{"a": 1}]}, "metadata that map"),
    "metadata that are no text": (ONE | {"metadata": [{"a": "\udfff"}]}, "metadata that map"),
    "metadata of more": (ONE | {"metadata": [{}, {}]}, "metadata that map"),
    "a list": ([], "expected an object"),
    "no JSON": (b"{", "Expecting property name"),
    "no UTF-8": (b"\xff\xfe\xff", "decode"),
    "nested without end": (b"[" * 100_000, "recursion"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_layout_is_one_line_and_no_folder(tmp_path, refused, run, case):
    content, said = HOSTILE[case]
    write(tmp_path / "x.dwz", {"a": raw(1), "b": raw(2)}, extras={"shards": packed(content)})
    line = refused("decompress", tmp_path / "x.dwz", "-o", tmp_path / "deep" / ".." / "out")
    assert line.startswith(f"{tmp_path / 'x.dwz'}: shards: ")
    assert said in line
    assert [file.name for file in tmp_path.iterdir()] == ["x.dwz"]
    # The layout is of no use elsewhere, so nothing else is refused.
    assert run("decompress", tmp_path / "x.dwz", "-o", tmp_path / "out", "--shard-size", "1GB")[0] == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x05",
        b"\x05\x00abc",
        b"\x05\x02abcde",
        b"\x80",
        b"\xff" * 8 + b"\x7f\x01",
        b"\x05\x01" + b"a" * 99,
    ],
)
def test_an_extra_that_is_no_text(tmp_path, refused, data):
    write(tmp_path / "x.dwz", {"a": raw(1)}, extras={"shards": data})
    assert refused("decompress", tmp_path / "x.dwz", "-o", tmp_path / "out").startswith(f"{tmp_path}")


@given(st.binary(max_size=40))
def test_any_bytes_are_a_layout_or_refused(data):
    with contextlib.suppress(CorruptError):
        shard_layout.from_bytes(data, {}, 1)


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=3).map(lambda b: b * 100_000)))
@settings(max_examples=30)
def test_any_text_is_packed_and_unpacked(data):
    assert extra.unpack(extra.pack(data)) == data


def test_a_text_out_of_proportion_is_kept_plain_and_refused_where_it_is_not(monkeypatch):
    data = bytes(2 << 20)
    assert len(extra.pack(data)) > len(data)
    assert extra.unpack(extra.pack(data)) == data
    monkeypatch.setattr(extra, "EXPANSION", 1 << 30)
    small = extra.pack(data)
    assert len(small) < 1 << 15
    monkeypatch.undo()
    with pytest.raises(CorruptError, match="in proportion"):
        extra.unpack(small)
    monkeypatch.setattr(extra, "LONGEST", 10)
    assert extra.unpack(extra.pack(b"a" * 11)) == b"a" * 11


def test_a_folder_that_has_no_layout_is_refused_when_it_is_read(tmp_path):
    for name, said in (("a\\b.safetensors", "plain name"), ("one.safetensors", "at most 0 shards without")):
        path = tmp_path / name.partition(".")[0]
        path.mkdir()
        write_checkpoint(path / name, {})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shard_layout, "MAX_EMPTY", 0)
            with pytest.raises(CheckpointError, match=said) as error:
                read_checkpoint(path)
        assert str(error.value).startswith(f"{path}: expected ")


def test_shards_that_are_there_take_force_and_other_files_stay(tmp_path, run, refused):
    usual_folder(tmp_path / "out")
    before = files(tmp_path / "out")
    (tmp_path / "out" / "link").symlink_to("config.json")
    write(tmp_path / "x.dwz", {"w": raw(1, 2)})
    line = refused("decompress", tmp_path / "x.dwz", "-o", tmp_path / "out")
    assert line.startswith(f"{tmp_path / 'out'}: expected a folder without model-00001-of-00002")
    assert "--force" in line
    assert {k: v for k, v in files(tmp_path / "out").items() if k != "link"} == before
    (tmp_path / "out").chmod(0o750)
    assert run("decompress", tmp_path / "x.dwz", "-o", tmp_path / "out", "--force")[0] == 0
    left = {"config.json", "link", INDEX, "model-00001-of-00001.safetensors"}
    assert names(tmp_path / "out") == left
    assert (tmp_path / "out" / "link").read_text() == "{}"
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750
    assert names(tmp_path) == {"out", "x.dwz"}


def test_a_folder_with_other_files_is_added_to(tmp_path, run):
    (tmp_path / "out" / ".git").mkdir(parents=True)
    (tmp_path / "out" / "config.json").write_text("{}")
    write(tmp_path / "x.dwz", {"w": raw(1, 2)})
    assert run("decompress", tmp_path / "x.dwz", "-o", tmp_path / "out")[0] == 0
    assert names(tmp_path / "out") == {
        ".git",
        "config.json",
        INDEX,
        "model-00001-of-00001.safetensors",
    }


def test_folders_that_are_not_written_to(tmp_path, refused, monkeypatch):
    write(tmp_path / "x.dwz", {"w": raw(1)})
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "full" / "inner").mkdir(parents=True)
    (tmp_path / "full" / INDEX).write_text("old")
    (tmp_path / "current").mkdir()
    (tmp_path / "current" / INDEX).write_text("old")
    monkeypatch.chdir(tmp_path / "current")
    for path, said in (
        ("file", "got a file"),
        ("file/", "got a file"),
        ("file/out", "expected an existing folder"),
        ("dangling", "got a file"),
        ("none/out", "expected an existing folder"),
        ("x" * 300, "File name too long"),
        ("full", "no folder beside files to replace, got inner"),
        ("current", "another folder than the current one"),
    ):
        line = refused("decompress", tmp_path / "x.dwz", "-o", f"{tmp_path}/{path}", "--force")
        assert line.startswith(f"{tmp_path}/{path}".rstrip("/"))
        assert said in line
    assert (tmp_path / "full" / INDEX).read_text() == "old"
    assert (tmp_path / "current" / INDEX).read_text() == "old"


def test_a_linked_folder_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for size in (4, 100):
        write_checkpoint(tmp_path / "link", {"w": raw(1), "v": raw(2)}, shard_size=size, force=True)
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == {INDEX, "model-00001-of-00001.safetensors"}
    assert names(tmp_path) == {"real", "link"}


def test_a_tensor_without_a_form_leaves_no_folder(tmp_path, refused):
    write(tmp_path / "x.dwz", {"w": raw(1), "c": Raw("complex128", (1,), bytes(16))})
    line = refused("decompress", tmp_path / "x.dwz", "-o", tmp_path / "out", "--shard-size", "4")
    assert line.startswith(
        f"{tmp_path / 'out'}/model-00002-of-00002.safetensors: tensor 'c': expected a dtype"
    )
    assert names(tmp_path) == {"x.dwz"}


@pytest.mark.parametrize("place", ["new", "empty", "old"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_error_in_the_middle_keeps_what_was_there(tmp_path, place, error):
    class Broken(dict[str, Raw]):
        def __getitem__(self, name: str) -> Raw:
            if name == "v":
                raise error(28, "No space left on device")
            return super().__getitem__(name)

        def outline(self, name: str) -> tuple[str, tuple[int, ...]]:
            return "float32", (1,)

    if place != "new":
        (tmp_path / "out").mkdir()
    if place == "old":
        write_checkpoint(tmp_path / "out", {"old": raw(1)})
    before = files(tmp_path / "out") if place != "new" else None
    with pytest.raises(OutputError if error is OSError else error) as caught:
        write_checkpoint(tmp_path / "out", Broken(w=raw(1), v=raw(2)), shard_size=4, force=True)
    if error is OSError:
        assert str(caught.value) == f"{tmp_path / 'out'}: cannot be written: No space left on device"
    assert (files(tmp_path / "out") if place != "new" else None) == before
    assert names(tmp_path) == (set() if place == "new" else {"out"})


def test_shards_that_appear_meanwhile_are_kept(tmp_path):
    name = "model-00001-of-00001.safetensors"

    class Late(dict[str, Raw]):
        def __getitem__(self, key: str) -> Raw:
            (tmp_path / "out").mkdir(exist_ok=True)
            (tmp_path / "out" / name).write_bytes(b"theirs")
            return super().__getitem__(key)

        def outline(self, key: str) -> tuple[str, tuple[int, ...]]:
            return "float32", (1,)

    for _ in range(2):  # a folder that appears, and one that was there and empty
        with pytest.raises(OutputError):
            write_checkpoint(tmp_path / "out", Late(w=raw(1)))
        assert files(tmp_path / "out") == {name: b"theirs"}
        assert names(tmp_path) == {"out"}
        (tmp_path / "out" / name).unlink()


def test_a_system_without_links_and_without_exchange(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    usual_folder(tmp_path / "old")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(folder, "_exchange", lambda *_: False)
    for name in ("new", "empty", "old"):
        write_checkpoint(tmp_path / name, {"w": raw(1)}, shard_size=4, force=True)
        assert list(read_checkpoint(tmp_path / name).records) == ["w"]
    assert (tmp_path / "old" / "config.json").read_text() == "{}"
    assert names(tmp_path) == {"new", "empty", "old"}
    failing = iter([False, True, False])
    rename = Path.rename

    def fail_once(self, target):
        if next(failing):
            refuse()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(OutputError, match="not permitted"):
        write_checkpoint(tmp_path / "old", {"v": raw(1)}, shard_size=4, force=True)
    assert list(read_checkpoint(tmp_path / "old").records) == ["w"]
    assert names(tmp_path) == {"new", "empty", "old"}


KILLS = """
import os, shutil, signal, sys
from pathlib import Path
from dwindle.atomic import is_temporary
from dwindle.errors import DwindleError
from dwindle.io import read_checkpoint, shard_layout, write_checkpoint
from dwindle.records import Raw

root, place, index = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "index"
records = lambda value: {name: Raw("uint8", (3,), value * 3) for name in "abcde"}
shards = tuple(shard_layout.Shard(f"{n}.safetensors", 1, {}) for n in "12345")
layout = shard_layout.Layout(shards, shard_layout.INDEX if index else None, {})
extras = {"shards": shard_layout.to_bytes(layout, {})}
steps, made = 0, False
limit = None

def step(event, arguments):
    global steps
    changes = ("rename", "link", "mkdir", "remove", "rmdir", "chmod")
    if limit is not None and (event in ("open", "ctypes.dlsym") or event in {f"os.{c}" for c in changes}):
        steps += 1
        if steps == limit:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(step)
seen = set()
number = 0
while True:
    number += 1
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    path = root / "out"
    if place != "new":
        path.mkdir()
        (path / "config.json").write_text("{}")
    if place == "old":
        write_checkpoint(path, records(b"o"), extras=extras)
    child = os.fork()
    if not child:
        limit = number
        write_checkpoint(path, records(b"n"), extras=extras, force=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    try:
        found = read_checkpoint(path).records
        values = {bytes(record.data) for record in found.values()}
        assert list(found) == list("abcde") and len(values) == 1, (number, list(found), values)
        state = values.pop().decode()
    except DwindleError as error:
        state = "refused"
    if place != "new":
        assert (path / "config.json").read_text() == "{}", number
    seen.add(state)
    write_checkpoint(path, records(b"a"), extras=extras, force=True)
    assert {bytes(record.data) for record in read_checkpoint(path).records.values()} == {b"aaa"}
    left = {*(f"{n}.safetensors" for n in "12345"), *([shard_layout.INDEX] if index else [])}
    left |= set() if place == "new" else {"config.json"}
    # Nothing of a killed writer is in the way of the next, and where all is replaced nothing is left.
    found = {entry.name for entry in path.iterdir() if place == "old" or not is_temporary(entry.name)}
    assert found == left, number
    if os.waitstatus_to_exitcode(status) == 0:
        assert state == "nnn"
        break
print(number, *sorted(seen))
"""


@pytest.mark.parametrize("index", ["index", "none"])
@pytest.mark.parametrize("place", ["new", "other", "old"])
def test_a_kill_at_any_step_leaves_the_old_or_the_new_or_what_nobody_takes_for_whole(tmp_path, place, index):
    code = [sys.executable, "-c", KILLS, str(tmp_path / "root"), place, index]
    done = subprocess.run(code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    number, *seen = done.stdout.split()
    assert int(number) > 15
    assert seen == ["nnn", "ooo"] if place == "old" else ["nnn", "refused"]


def test_a_full_disk(tmp_path):
    write_checkpoint(tmp_path / "out", {"old": raw(1)})
    code = (
        "import resource, sys\n"
        "from dwindle.errors import OutputError; from dwindle.io import write_checkpoint\n"
        "from dwindle.records import Raw\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "records = {'v': Raw('uint8', (9,), bytes(9)), 'w': Raw('uint8', (200_000,), bytes(200_000))}\n"
        "try: write_checkpoint(sys.argv[1], records, shard_size=10, force=True)\n"
        "except OutputError as error: print(error); sys.exit(7)\n"
    )
    for path in (tmp_path / "out", tmp_path / "new"):
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
        assert done.returncode == 7, done.stderr
        assert done.stdout == f"{path}: cannot be written: File too large\n"
    assert list(read_checkpoint(tmp_path / "out").records) == ["old"]
    assert names(tmp_path) == {"out"}


def test_memory_does_not_grow_with_the_shards(tmp_path):
    """44 tensors of 8 MiB to a file and back, with not half of the bytes more that they have over 10."""
    code = f"""
import resource
import numpy as np
from dwindle import compress_checkpoint
from dwindle.file import Archive
from dwindle.io import write_checkpoint
from dwindle.records import Raw
class Tensors(dict):
    def __getitem__(self, name):
        data = np.random.default_rng(int(name)).normal(size=1 << 21).astype("<f4").tobytes()
        return Raw("float32", (1 << 21,), data)
    def outline(self, name):
        return "float32", (1 << 21,)
def peak(path):
    compress_checkpoint(path, path + ".dwz", lossless=True, force=True)
    with Archive(path + ".dwz", max_bytes=None) as archive:
        write_checkpoint(path + "2", archive.records, archive.metadata, extras=archive.extras, force=True)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for count, name in ((10, "a"), (44, "b")):
    tensors = Tensors.fromkeys(map(str, range(count)))
    write_checkpoint({str(tmp_path)!r} + "/" + name, tensors, shard_size=1 << 26, force=True)
small = peak({str(tmp_path / "a")!r})
large = peak({str(tmp_path / "b")!r})
print(large - small)
"""
    # The first may compile, which takes more memory than all of this and would hide it.
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    shards = sorted(names(tmp_path / "b"))
    assert shards == sorted(names(tmp_path / "b2"))
    assert len(shards) == 7
    assert filecmp.cmpfiles(tmp_path / "b", tmp_path / "b2", shards, shallow=False) == (shards, [], [])
    assert int(done.stdout) < 96 << 10


def test_a_file_made_from_shards_is_a_file_like_any_other(tmp_path, run):
    usual_folder(tmp_path / "in")
    assert run("compress", tmp_path / "in", "-o", tmp_path / "x.dwz", "--lossless")[0] == 0
    for suffix in (".safetensors", ".pt"):
        assert run("decompress", tmp_path / "x.dwz", "-o", tmp_path / f"x{suffix}")[0] == 0
        assert run("diff", tmp_path / "in", tmp_path / f"x{suffix}")[0] == 0
    with Archive(tmp_path / "x.dwz") as archive:
        archive.check()
        with pytest.raises(DwindleError, match=r"^extras: shards: expected shards of 1 tensors"):
            write_checkpoint(tmp_path / "out", {"w": raw(1)}, extras=archive.extras)
