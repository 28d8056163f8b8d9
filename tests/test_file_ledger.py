"""Every byte of a file has one owner, and no stream is under its entropy bound."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import strategies as make
from dwindle.code.plan import CODERS, Coding
from dwindle.errors import ChecksumError
from dwindle.file import Archive, Ledger, ledger, write
from dwindle.records import Raw, Record, Tied, original_bytes


def account(path: Path, records: dict[str, Record], coding: Coding) -> Ledger:
    write(path, records, coding=coding, force=True, threads=1)
    with Archive(path) as archive:
        return ledger(archive)


@given(make.archives(), make.codings)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_lines_add_up_and_bounds_hold(records, coding):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dwz"
        result = account(path, records, coding)
        assert result.file_size == path.stat().st_size == sum(line.size for line in result.lines)
    assert result.original == original_bytes(records)
    assert [tensor.name for tensor in result.tensors] == list(records)
    keys = [(line.tensor, line.part) for line in result.lines]
    assert len(set(keys)) == len(keys)
    for line in result.lines:
        # Only a coder that looks at neighbours may go under the bound.
        under = coding.coder in ("auto", "context")
        assert line.bound is None or under or line.bound <= line.size + 1e-9
        assert (line.bound is not None) == (line.part in ("indices", "gaps"))
    of_file = sum(line.size for line in result.lines if line.tensor is None)
    assert sum(tensor.size for tensor in result.tensors) + of_file == result.file_size
    json.dumps(result.to_json())


LENET = {"fc1": (300, 784, 0.08), "fc2": (100, 300, 0.09), "fc3": (10, 100, 0.26)}


@pytest.mark.parametrize(
    "coding",
    [Coding("huffman"), Coding("huffman", gap_bits=5), Coding("huffman", dictionary="network"), Coding()],
)
def test_the_overhead_of_lenet_300_100(tmp_path, coding):
    records: dict[str, Record] = {}
    for seed, (name, (rows, columns, density)) in enumerate(LENET.items()):
        records[f"{name}.weight"] = make.pruned((rows, columns), 64, density, seed=seed)
        records[f"{name}.bias"] = Raw("float32", (rows,), bytes(4 * rows))
    result = account(tmp_path / "a.dwz", records, coding)
    assert result.overhead <= 300
    assert result.original == 4 * 266_610
    assert result.rate == result.original / result.file_size
    codes = sum(result.size(part=part) for part in ("indices", "gaps", "codebook", "values"))
    assert codes + result.overhead == result.file_size
    assert result.size(part="values") < 20  # all of them zero
    assert result.size(part="codebook") < 3 * 4 * 64


@pytest.mark.parametrize("coder", CODERS)
def test_what_it_says_of_a_tensor(tmp_path, coder):
    record = make.pruned((100, 90), 16, 0.1)
    records = {"w": record, "again": Tied("w"), "b": Raw("int64", (3,), bytes(24))}
    result = account(tmp_path / "a.dwz", records, Coding(coder))
    weight, again, exact = result.tensors
    assert (weight.dtype, weight.shape, weight.entries, weight.original) == ("float32", (100, 90), 16, 36000)
    assert weight.survivors == np.count_nonzero(record.indices)
    assert (again.coding, again.original, again.survivors) == ("tied to w", 0, None)
    assert (exact.coding, exact.original, exact.entries) == ("small", 24, None)
    assert again.size == result.size("again", "header") > 0
    assert weight.size == result.size("w") == sum(line.size for line in result.lines if line.tensor == "w")
    if coder in ("csr", "csc"):
        lines = {"csr": 100, "csc": 90}[coder]
        survivors = weight.survivors
        assert result.size("w", "pointers") == (survivors.bit_length() * (lines + 1) + 7) // 8
        assert result.size("w", "places") == (survivors * 7 + 7) // 8
        assert result.size("w", "indices") == (survivors * 4 + 7) // 8


def test_damage_is_named(tmp_path):
    path = tmp_path / "a.dwz"
    write(path, {"w": make.pruned((30, 40))})
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with Archive(path) as archive, pytest.raises(ChecksumError, match=r"a\.dwz: w: expected bytes"):
        ledger(archive)


def test_extras_are_one_part_and_no_tensor(tmp_path):
    data = np.arange(9000, dtype=np.uint16).astype(np.uint8).tobytes()
    records: dict[str, Record] = {"w": Raw("uint8", (9000,), data), "again": Tied("w")}
    write(tmp_path / "plain.dwz", records)
    # One of the extras is equal to a tensor, and must have bytes of its own all the same.
    write(tmp_path / "a.dwz", records, extras={"equal": data, "small": b"few bytes", "empty": b""})
    with Archive(tmp_path / "a.dwz") as archive:
        assert archive.extras == {"equal": data, "small": b"few bytes", "empty": b""}
        result = ledger(archive)
    assert result.file_size == sum(line.size for line in result.lines)
    assert [tensor.name for tensor in result.tensors] == ["w", "again"]
    assert result.original == 9000
    assert result.overhead >= result.size(part="extras") > 9
    assert result.file_size - (tmp_path / "plain.dwz").stat().st_size == pytest.approx(
        result.size(part="extras"), abs=12
    )
    assert len([line for line in result.lines if line.part == "extras"]) == 1
