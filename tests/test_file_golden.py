"""The bytes of a small file, here and in `docs/format.md`. Version 0 may change them, on purpose only."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

import strategies as make
from dwindle.code.plan import Coding
from dwindle.file import Archive, layout, write
from dwindle.records import Raw, Shared, Tied, same

PAGE = Path(__file__).parent.parent / "docs" / "format.md"

SURVIVORS = {1: 1, 4: 2, 15: 1, 18: 1, 19: 1, 20: 1, 22: 1, 23: 1, 24: 1, 25: 1, 33: 2, 36: 1, 37: 1}
INDICES = np.zeros(64, np.uint8)
INDICES[list(SURVIVORS)] = list(SURVIVORS.values())
RECORDS = {
    "fc.weight": Shared("float32", (4, 16), np.array([0, 0.5, -1], "<f4"), INDICES),
    "fc.bias": Raw("bfloat16", (2,), bytes.fromhex("803f 00c0")),
    "head": Tied("fc.weight"),
}

GOLDEN = bytes.fromhex(
    "8944575a003f0102627903796f750003000966632e7765696768740201020410"
    "0103000000000000003f000080bf011403000a03046269617300030102000468"
    "65616401008e551bb30ed12520002e000e6000d98f8691803f00c03a094e78"
)


def test_a_file_byte_for_byte(tmp_path):
    path = tmp_path / "a.dwz"
    write(path, RECORDS, coding=Coding(gap_bits=3), metadata={"by": "you"})
    assert path.read_bytes().hex(" ") == GOLDEN.hex(" ")


def test_the_golden_bytes_decode(tmp_path):
    path = tmp_path / "a.dwz"
    path.write_bytes(GOLDEN)
    with Archive(path) as archive:
        assert archive.metadata == {"by": "you"}
        for name, record in RECORDS.items():
            assert same(archive.record(name), record)


def test_an_empty_file(tmp_path):
    path = tmp_path / "a.dwz"
    write(path, {})
    assert path.read_bytes().hex(" ") == "89 44 57 5a 00 03 00 00 00 eb 3d fa d8"


def test_the_page_shows_these_bytes():
    example = PAGE.read_text(encoding="utf-8").split("## 9.")[1]
    rows = re.findall(r"^\| (\d+) \| `([0-9a-f ]+)` \|", example, re.MULTILINE)
    shown = b""
    for at, data in rows:
        assert int(at) == len(shown)
        shown += bytes.fromhex(data)
    assert shown == GOLDEN


def test_the_page_lists_every_dtype():
    text = PAGE.read_text(encoding="utf-8")
    numbered = {int(n): name for n, name in re.findall(r"\| (\d+) \| (\w+) \| \d+ ", text)}
    assert tuple(numbered[i] for i in range(len(numbered))) == layout.DTYPES


def test_one_block_of_each_coder(tmp_path):
    """Their bytes, so that no change goes unseen."""
    blocks = {}
    for coder in ("fixed", "csr", "csc", "huffman"):
        path = tmp_path / coder
        write(path, {"w": make.shared(INDICES, [0.0, 0.5, -1.0], (4, 16))}, coding=Coding(coder))
        with Archive(path) as archive:
            extent = archive.extents["w"][0]
            blocks[coder] = path.read_bytes()[extent.start : extent.start + extent.size].hex(" ")
    assert blocks == {
        "fixed": "10 f9 0a 01 2f 09 55 55 58",
        "csr": "0d 30 da 0d 41 2f 43 76 98 41 05 59 55 65 01",
        "csc": "0d 00 32 74 98 ba cc cc cc 0d 58 a4 55 00 59 56 55 01",
        "huffman": "0d 21 2a 00 01 00 27 00 59 55 65 01",
    }
