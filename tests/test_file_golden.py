"""Files of versions 1 and 2, kept for ever: whatever changes, they must decode to these records.

python tests/test_file_golden.py    # writes those that are missing
"""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import strategies as make
from dwindle import dtypes
from dwindle.code import huffman
from dwindle.code.plan import ARRANGEMENTS, CODERS, Coding
from dwindle.file import Archive, layout, write
from dwindle.records import Raw, Record, Shared, Tied, same, to_storage

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
PAGE = HERE.parent / "docs" / "format.md"
DECODER = HERE.parent / "docs" / "reference_decoder.py"

SURVIVORS = {1: 1, 4: 2, 15: 1, 18: 1, 19: 1, 20: 1, 22: 1, 23: 1, 24: 1, 25: 1, 33: 2, 36: 1, 37: 1}
INDICES = np.zeros(64, np.uint8)
INDICES[list(SURVIVORS)] = list(SURVIVORS.values())
EXAMPLE: dict[str, Record] = {
    "fc.weight": Shared("float32", (4, 16), np.array([0, 0.5, -1], "<f4"), INDICES),
    "fc.bias": Raw("bfloat16", (2,), bytes.fromhex("803f 00c0")),
    "head": Tied("fc.weight"),
}


def numbers(count: int, seed: int) -> np.ndarray[Any, Any]:
    """Numbers that no release of NumPy changes: Lehmer's congruential generator, modulo 2**31 - 1."""
    found, state = np.empty(count, np.int64), seed + 1
    for i in range(count):
        state = state * 48271 % 0x7FFFFFFF
        found[i] = state
    return found


def shared(shape: tuple[int, ...], entries: int, kept: int, seed: int, *, zero: bool = True) -> Shared:
    """Levels that are rarer the larger they are; `kept` in 100 survive where there is a zero."""
    n = int(np.prod(shape))
    first, second, third = numbers(n, seed), numbers(n, seed + 9), numbers(n, seed + 99)
    levels = (first % entries + second % entries) // 2
    indices = np.where(third % 100 < kept, levels, 0) if zero else levels
    codebook = (np.arange(entries) - (0 if zero else entries // 2)) * np.float32(0.125)
    return make.shared(indices, codebook.astype("<f4"), shape)


def normal(count: int, seed: int) -> bytes:
    """Sums of four even numbers, as float32."""
    parts = [numbers(count, seed + i) / 0x7FFFFFFF for i in range(4)]
    return (sum(parts) - 2).astype("<f4").tobytes()


BASE: dict[str, Record] = {"tuned": Raw("float32", (70, 80), normal(5600, 5))}
TUNED = np.frombuffer(normal(5600, 5), "<f4") * np.float32(1.0001)
PRUNED = np.where(numbers(5000, 3) % 10 < 2, np.frombuffer(normal(5000, 6), "<f4"), 0).astype("<f4")
POWERS = (0x3E00 + 0x80 * (numbers(70_000, 7) % 4 * (numbers(70_000, 4) % 2))).astype("<u2")
EXACT: dict[str, Record] = {
    **{name: Raw(name, (3,), bytes(range(3 * dtypes.itemsize(name)))) for name in dtypes.STORAGE},
    "bool": Raw("bool", (3,), b"\1\0\1"),
    "scalar": Raw("int64", (), (7).to_bytes(8, "little")),
    "empty": Raw("float32", (0, 4), b""),
    "planes": Raw("float32", (70, 100), normal(7000, 1)),
    "halves": Raw("bfloat16", (70, 100), np.frombuffer(normal(7000, 2), "<u2")[1::2].tobytes()),
    "stored": Raw("uint8", (5000,), (numbers(5000, 8) >> 7).astype(np.uint8).tobytes()),
    "constant": Raw("float32", (80, 70), bytes.fromhex("0000803f") * 5600),
    "steps": Raw("int64", (5000,), np.arange(5000, dtype="<i8").tobytes()),
    "sparse": Raw("float32", (50, 100), PRUNED.tobytes()),
    "text": Raw("uint8", (8000,), b"a sentence, over and over again; " * 242 + bytes(14)),
    "pieces": Raw("bfloat16", (70_000,), POWERS.tobytes()),
    "tie": Tied("planes"),
    "equal": Raw("float32", (70, 100), normal(7000, 1)),
}
SHARED: dict[str, Record] = {
    "conv.weight": shared((8, 6, 3, 3), 16, 40, 1),
    "fc.weight": shared((60, 70), 32, 8, 2),
    "levels": shared((40, 50), 200, 100, 3, zero=False),
    "many": shared((130, 140), 9, 90, 4),
    "wide": shared((130, 140), 300, 100, 6, zero=False),
    "vector": shared((300,), 5, 50, 5),
}


def trellis(rows: int, columns: int, seed: int) -> Shared:
    """Numbers from -25 to 25, smaller to the left."""
    spread = numbers(rows * columns, seed).reshape(rows, columns) % 51 - 25
    levels = make.along_trellis(np.trunc(spread * np.arange(columns) / columns)).reshape(-1)
    return make.shared(levels - levels.min(), np.arange(levels.min(), levels.max() + 1) / 8, (rows, columns))


TRELLIS: dict[str, Record] = {
    "short": trellis(30, 50, 1),
    "long": trellis(150, 120, 2),
    "conv.weight": SHARED["conv.weight"],
}
FILES: dict[str, tuple[dict[str, Record], dict[str, Any]]] = {
    "example": (EXAMPLE, {"coding": Coding("huffman", gap_bits=3), "metadata": {"by": "you"}}),
    "exact": (EXACT, {"extras": {"note": b"kept beside"}}),
    "based": ({"tuned": Raw("float32", (70, 80), TUNED.tobytes())}, {"base": BASE}),
    "nothing": ({}, {}),
    "network": (SHARED, {"coding": Coding("huffman", dictionary="network")}),
    "lanes": ({"long codes": shared((130, 130), 200, 100, 6)}, {"coding": Coding("huffman")}),
    "trellis": (TRELLIS, {}),
    **{coder: (SHARED, {"coding": Coding(coder)}) for coder in CODERS},
}
each = pytest.mark.parametrize("name", FILES)


@each
def test_golden_files_decode(name):
    records, options = FILES[name]
    with Archive(GOLDEN / f"{name}.dwz", base=options.get("base")) as archive:
        assert list(archive) == list(records)
        assert archive.metadata == options.get("metadata", {})
        assert archive.extras == options.get("extras", {})
        for tensor, record in records.items():
            assert same(archive.record(tensor), record), tensor


@each
def test_they_are_written_as_they_were(tmp_path, name):
    """A better writer may change bytes, on purpose only; what it wrote before must go on decoding."""
    records, options = FILES[name]
    write(tmp_path / "a.dwz", records, **options)
    assert (tmp_path / "a.dwz").read_bytes() == (GOLDEN / f"{name}.dwz").read_bytes()


@each
def test_the_reference_decoder_reads_them(name):
    spec = importlib.util.spec_from_file_location("reference_decoder", DECODER)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    records, options = FILES[name]
    base = {n: to_storage(r) for n, r in options.get("base", {}).items()}
    tensors, metadata = reference.read((GOLDEN / f"{name}.dwz").read_bytes(), base)
    assert metadata == options.get("metadata", {})
    for tensor, record in records.items():
        owner = records[record.to] if isinstance(record, Tied) else record
        assert tensors[tensor].tobytes() == to_storage(owner).tobytes(), tensor


def test_every_feature_is_in_them():
    plans, forms, modes, lanes = set(), set(), set(), set()
    for name, (_, options) in FILES.items():
        with Archive(GOLDEN / f"{name}.dwz", base=options.get("base")) as archive:
            for tensor, entry in archive.header.entries.items():
                if isinstance(entry, layout.AliasEntry):
                    forms.add("tied" if entry.tied else "repeated")
                    continue
                first = [archive.data[extent.start] for extent in archive.extents[tensor]]
                if isinstance(entry, layout.SharedEntry):
                    plan = entry.plan
                    codes = [code.kind for code in (plan.index_code, plan.gap_code) if code]
                    plans.add((plan.arrangement, *codes))
                    if codes and math.prod(entry.shape) >= huffman.SPLIT:
                        lanes.add((plan.index_code.kind, getattr(plan.index_code.decoder, "lanes", 0)))
                    modes |= {("context", byte) for byte in first if plan.arrangement == "context"}
                else:
                    forms.add(entry.form)
                    start = 4 if entry.form == "based" else 0
                    if entry.form != "stored":
                        modes |= {archive.data[e.start + start] for e in archive.extents[tensor]}
    assert {"stored", "coded", "based", "small", "tied", "repeated"} == forms
    assert {plan[0] for plan in plans} == set(ARRANGEMENTS)
    assert {"huffman", "rans"} <= {kind for plan in plans for kind in plan[1:]}
    assert {1, 2, 3, 4, 5, 6, ("context", 0), ("context", 1)} <= modes
    assert {("huffman", 6), ("huffman", 8), ("rans", 0)} <= lanes


def test_the_page_shows_the_header_of_the_example():
    example = PAGE.read_text(encoding="utf-8").split("## 12.")[1]
    rows = re.findall(r"^\| (\d+) \| `([0-9a-f ]+)` \|", example, re.MULTILINE)
    shown = b""
    for at, data in rows:
        assert int(at) == len(shown)
        shown += bytes.fromhex(data)
    with Archive(GOLDEN / "example.dwz") as archive:
        assert shown == archive.front.raw


def test_the_page_lists_every_dtype():
    text = PAGE.read_text(encoding="utf-8")
    numbered = {int(n): name for n, name in re.findall(r"\| (\d+) \| (\w+) \| \d+ ", text)}
    assert tuple(numbered[i] for i in range(len(numbered))) == layout.DTYPES


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, (records, options) in FILES.items():
        if not (GOLDEN / f"{name}.dwz").exists():
            write(GOLDEN / f"{name}.dwz", records, **options)
