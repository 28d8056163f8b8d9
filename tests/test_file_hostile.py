"""Whatever the bytes: opening and decoding them gives tensors or one line of `FileError`, cheaply."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

import strategies as make
from dwindle.code.cursor import Cursor, prefixed, varint
from dwindle.code.plan import Coding
from dwindle.errors import ChecksumError, CorruptError, FileError, NotDwzError, TruncatedError, VersionError
from dwindle.file import Archive, layout, ledger, reader, write
from dwindle.records import Raw, Record, Tied, same

MOST = 1 << 20  # bytes a file may decode to here, far over any of the honest ones

RECORDS: dict[str, Record] = {
    "fc1.weight": make.pruned((9, 16), 8, 0.3),
    "fc1.bias": Raw("float32", (3,), np.float32([1, 2, 3]).tobytes()),
    "fc2.weight": make.shared([0, 1, 1, 2] * 10, [1.0, 2.0, 3.0], (4, 10)),
    "tied": Tied("fc1.weight"),
    "steps": Raw("int64", (), (7).to_bytes(8, "little")),
}
CODINGS = {
    "huffman": Coding(),
    "gaps": Coding(gap_bits=3),
    "network": Coding(dictionary="network"),
    "fixed": Coding("fixed"),
    "csr": Coding("csr"),
    "csc": Coding("csc"),
}


def file(folder: Path, coding: Coding, records: dict[str, Record] = RECORDS) -> bytes:
    path = folder / "honest.dwz"
    write(path, records, coding=coding, metadata={"a": "b"}, force=True, threads=1)
    return path.read_bytes()


def header_of(data: bytes) -> tuple[int, int]:
    """Where the header begins and ends."""
    cursor = Cursor(memoryview(data), 5)
    size = cursor.varint()
    return cursor.offset, cursor.offset + size


def seal(header: bytes, rest: bytes = b"") -> bytes:
    """A file with this header and a right checksum; `rest` is everything after it."""
    front = layout.MAGIC + bytes([layout.VERSION]) + varint(len(header)) + header
    return front + zlib.crc32(front).to_bytes(4, "little") + rest


def block(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(4, "little")


def reseal(header: bytes, rest: bytes) -> bytes:
    """Like `seal`, with every block's checksum put right where the header says that it is."""
    data = bytearray(seal(header, rest))
    try:
        parsed = layout.read_header(memoryview(header))
        extents = reader._extents(parsed, len(data) - len(rest), len(data))
    except FileError:
        return bytes(data)
    for extent in (extent for of_tensor in extents.values() for extent in of_tensor):
        end = extent.start + extent.size
        data[end : end + 4] = zlib.crc32(data[extent.start : end]).to_bytes(4, "little")
    return bytes(data)


def attempt(path: Path, data: bytes) -> dict[str, Record] | FileError:
    """Open and decode everything; a FileError is checked to be one line that names the file."""
    path.write_bytes(data)
    try:
        with Archive(path, threads=1, max_bytes=MOST) as archive:
            records = {name: archive.record(name) for name in archive}
            lines = ledger(archive).lines
            assert sum(line.size for line in lines) == len(data)
            return records
    except FileError as error:
        text = str(error)
        assert text.startswith(f"{path}: ")
        assert text.isprintable()
        return error


@pytest.mark.parametrize("coding", CODINGS.values(), ids=CODINGS)
def test_truncated_at_every_byte(tmp_path, coding):
    data = file(tmp_path, coding)
    for size in range(len(data)):
        result = attempt(tmp_path / "cut.dwz", data[:size])
        assert isinstance(result, TruncatedError if size else NotDwzError), size


@pytest.mark.parametrize("coding", [Coding(), Coding("csr")], ids=["huffman", "csr"])
def test_every_single_bit_flipped(tmp_path, coding):
    data = file(tmp_path, coding)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        result = attempt(tmp_path / "flipped.dwz", bytes(flipped))
        assert isinstance(result, FileError), bit
        if bit < 32:
            assert isinstance(result, NotDwzError)
        elif bit < 40:
            assert isinstance(result, VersionError)
        elif bit >= 8 * header_of(data)[0]:
            assert isinstance(result, ChecksumError)


@pytest.mark.parametrize("data", [b"", b"\x00", b"PK\x03\x04 a zip", b"\x89PNG\r\n", b"\x89DWz\x00\x01"])
def test_not_a_dwz(tmp_path, data):
    assert isinstance(attempt(tmp_path / "a.dwz", data), NotDwzError)


def test_wrong_version(tmp_path):
    data = bytearray(file(tmp_path, Coding()))
    data[4] = 77
    result = attempt(tmp_path / "a.dwz", bytes(data))
    assert isinstance(result, VersionError)
    assert str(result).endswith("expected version 0, got 77")


def test_trailing_bytes(tmp_path):
    data = file(tmp_path, Coding())
    assert isinstance(attempt(tmp_path / "a.dwz", data + b"\x00"), TruncatedError)


def test_a_folder_and_a_missing_file_are_one_line(tmp_path):
    for path in (tmp_path, tmp_path / "none.dwz"):
        with pytest.raises(FileError, match="cannot be read"):
            Archive(path)


def test_a_damaged_block_names_the_tensor_on_one_line(tmp_path):
    path = tmp_path / "a.dwz"
    write(path, {"two\nlines": Raw("int8", (3,), b"abc")})
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with Archive(path) as archive, pytest.raises(ChecksumError) as caught:
        archive.check()
    assert str(caught.value).startswith(f"{path}: 'two\\nlines': expected bytes")
    assert "\n" not in str(caught.value)


def mutate(header: bytes, rest: bytes, dice: random.Random) -> tuple[bytes, bytes]:
    """One to three random changes to the header or to what follows it."""
    parts = [bytearray(header), bytearray(rest)]
    for _ in range(dice.randint(1, 3)):
        part = parts[dice.random() < 0.3]
        at = dice.randrange(len(part) + 1)
        value = dice.choice([0, 1, 2, 0x7F, 0x80, 0xFF, dice.randrange(256)])
        change = dice.randrange(5)
        if change == 0:
            part.insert(at, value)
        elif at == len(part):
            continue
        elif change == 1:
            del part[at : at + dice.randint(1, 4)]
        elif change == 2:
            part[at] ^= 1 << dice.randrange(8)
        elif change == 3:
            part[at] = value
        else:
            part[at:at] = part[at : at + dice.randint(1, 12)]
    return bytes(parts[0]), bytes(parts[1])


@pytest.mark.parametrize("coding", CODINGS.values(), ids=CODINGS)
def test_random_changes_under_right_checksums(tmp_path, coding):
    data = file(tmp_path, coding)
    start, end = header_of(data)
    dice = random.Random(coding.coder + coding.dictionary)
    decoded = 0
    for _ in range(500):
        header, rest = mutate(data[start:end], data[end + 4 :], dice)
        result = attempt(tmp_path / "mutant.dwz", reseal(header, rest))
        decoded += not isinstance(result, FileError)
    assert 0 < decoded < 500


def test_memory_stays_small_under_random_changes(tmp_path):
    data = file(tmp_path, Coding(gap_bits=3))
    start, end = header_of(data)
    dice = random.Random(5)
    attempt(tmp_path / "mutant.dwz", data)  # compiled before the measurement
    tracemalloc.start()
    try:
        for _ in range(300):
            header, rest = mutate(data[start:end], data[end + 4 :], dice)
            attempt(tmp_path / "mutant.dwz", reseal(header, rest))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * MOST


def entry(name: bytes, kind: int, *fields: int, common: int = 0, then: bytes = b"") -> bytes:
    return varint(common) + prefixed(name) + bytes([kind, *fields]) + then


def numbers(*values: int) -> bytes:
    return b"".join(map(varint, values))


def header(*entries: bytes, tables: bytes = varint(0), metadata: bytes = varint(0)) -> bytes:
    return metadata + tables + varint(len(entries)) + b"".join(entries)


FLOATS = np.array([0.0, 1.0], "<f4").tobytes()
ONES = np.array([2.0, 1.0], "<f4").tobytes()
HUGE = 1 << 48
EMPTY_TABLE = numbers(1 << 16) + b"\xf0\xff\x0f\x00\x00"  # no symbol of 65,536 occurs
A = entry(b"a", 0, 13, 1, then=numbers(0))


def shared_entry(
    arrangement: int, shape: tuple[int, ...], tail: bytes, codebook: bytes = FLOATS, name: bytes = b"w"
) -> bytes:
    """A float32 tensor with a codebook of two entries unless told otherwise."""
    front = bytes([len(shape)]) + numbers(*shape) + bytes([arrangement]) + varint(len(codebook) // 4)
    return entry(name, 2, 1, then=front + codebook + tail)


HEADERS = {
    "more elements than the file has": (header(entry(b"a", 0, 13, 1, then=numbers(HUGE))), "a file of"),
    "too many elements": (header(entry(b"a", 0, 13, 2, then=numbers(HUGE, HUGE))), "elements"),
    "too many behind a zero": (header(entry(b"a", 0, 13, 3, then=numbers(0, HUGE, HUGE))), "elements"),
    "too large a dimension": (header(entry(b"a", 0, 13, 1, then=numbers(HUGE + 1))), "a dimension of"),
    "too many dimensions": (header(entry(b"a", 0, 13, 65, then=bytes(65))), "dimensions"),
    "more blocks than the header has sizes": (header(shared_entry(0, (HUGE,), numbers(0))), "size for each"),
    "a huge matrix without survivors": (header(shared_entry(2, (1 << 30, 4), numbers(0, 1))), "a file of"),
    "the same name twice": (header(A, entry(b"", 0, 13, 1, common=1, then=numbers(0))), "each tensor once"),
    "a prefix cut short": (header(A, entry(b"ab", 0, 13, 1, then=numbers(0))), "longest common prefix"),
    "a prefix longer than the name": (header(A, entry(b"", 0, 13, 1, common=2)), "common prefix"),
    "a name that is not text": (header(entry(b"\xff", 0, 13, 1, then=numbers(0))), "UTF-8"),
    "metadata out of order": (header(metadata=varint(2) + b"\1b\1x\1a\1y"), "rising order"),
    "metadata twice": (header(metadata=varint(2) + b"\1a\1x\1a\1y"), "rising order"),
    "an unknown kind": (header(entry(b"a", 3)), "a: expected an entry kind"),
    "an unknown dtype": (header(entry(b"a", 0, 17, 0)), "a: expected a dtype number"),
    "a tie to itself": (header(entry(b"a", 1, 0)), "a: expected a tie"),
    "a tie to a tie": (header(A, entry(b"b", 1, 2), entry(b"c", 1, 1)), "b: expected a tie"),
    "a tie to nothing": (header(A, entry(b"b", 1, 2)), "b: expected a tie"),
    "shared integers": (header(entry(b"a", 2, 7, 0, then=bytes(9))), "shared tensor to be one of"),
    "an unknown arrangement": (header(shared_entry(4, (4,), bytes(9))), "w: expected an arrangement"),
    "gaps without a zero": (header(shared_entry(1, (4,), bytes(9), ONES)), "entry of 0.0"),
    "gaps of no bits": (header(shared_entry(1, (4,), numbers(0, 0, 0, 1))), "gaps of 1 to 16 bits"),
    "gaps of 17 bits": (header(shared_entry(1, (4,), numbers(0, 17, 0, 1))), "gaps of 1 to 16 bits"),
    "an empty codebook": (header(shared_entry(0, (4,), bytes(9), b"")), "a codebook entry"),
    "too large a codebook": (header(shared_entry(0, (4,), b"", bytes(4 * 65537))), "codebook size"),
    "a table that is not there": (header(shared_entry(0, (4,), numbers(2, 1))), "code table number"),
    "a matrix in a Huffman code": (
        header(shared_entry(2, (2, 2), b"\1\4\1"), tables=varint(0)),
        "fixed width",
    ),
    "too many codes in a table": (header(shared_entry(0, (4,), b"\1\xff\xff\xff\1")), "w: expected"),
    "a table longer than needed": (header(shared_entry(0, (4,), b"\1\x05\1")), "w: expected"),
    "too large an alphabet": (header(tables=varint(1) + numbers((1 << 16) + 1) + bytes(9)), "an alphabet"),
    "too many shared tables": (header(tables=varint(256) + bytes(600)), "number of code tables"),
    "more tables than bytes": (header(tables=varint(9)), "more bits"),
    "a varint too long": (header(tables=b"\x80\x00"), "shortest form"),
    "a varint without end": (header(tables=b"\xff" * 20), "63 bits"),
    "bytes after the last entry": (header(A) + b"\x00", "no more bytes"),
    "more tensors than bytes": (varint(0) * 2 + varint(HUGE), "number of tensors"),
    "nothing at all": (b"", "more bytes"),
}


@pytest.mark.parametrize(("data", "text"), HEADERS.values(), ids=HEADERS)
def test_headers_that_break_a_rule(tmp_path, data, text):
    result = attempt(tmp_path / "a.dwz", seal(data))
    assert isinstance(result, FileError)
    assert text in str(result)


def one_block(tail: bytes, payload: bytes, *, arrangement: int = 1, shape: tuple[int, ...] = (40,)) -> bytes:
    return seal(header(shared_entry(arrangement, shape, tail + varint(len(payload)))), block(payload))


GAPS = numbers(0, 4, 0)  # fixed indices, 4-bit gaps, fixed
BLOCKS = {
    "gaps past the end": (one_block(GAPS, b"\3\xff\x0f\x07"), "gaps within 40 elements"),
    "more survivors than elements": (one_block(GAPS, b"\x29" + bytes(40)), "survivors and fillers"),
    "gaps longer than the block": (one_block(GAPS, b"\x08\x00\x00"), "4 more bytes"),
    "bytes after the indices": (one_block(GAPS, b"\x01\x00\x01\x00"), "expected 1 bytes"),
    "padding that is not zero": (one_block(GAPS, b"\x01\xf0\x01"), "zero bits"),
    "an empty block": (one_block(GAPS, b""), "more bytes"),
    "falling pointers": (one_block(b"\0", b"\2\x2c\x20\0\3", arrangement=2, shape=(2, 20)), "row pointers"),
    "places outside the row": (
        one_block(b"\0", b"\1\x06\x1f\1", arrangement=2, shape=(2, 20)),
        "rising places",
    ),
    "more survivors than cells": (one_block(b"\0", b"\x29", arrangement=2, shape=(2, 20)), "survivors of at"),
}


@pytest.mark.parametrize(("data", "text"), BLOCKS.values(), ids=BLOCKS)
def test_blocks_that_break_a_rule(tmp_path, data, text):
    result = attempt(tmp_path / "a.dwz", data)
    assert isinstance(result, CorruptError)
    assert text in str(result)
    assert ": w: expected" in str(result)


def test_indices_past_the_codebook(tmp_path):
    three = np.array([0.0, 1.0, 2.0], "<f4").tobytes()
    data = seal(header(shared_entry(0, (2,), numbers(0, 1), three)), block(b"\x0c"))
    assert "indices under 3, got 3" in str(attempt(tmp_path / "a.dwz", data))


def test_a_foreign_writer_may_use_gaps_where_every_weight_survives(tmp_path):
    data = one_block(GAPS, b"\x02\x00\x03", shape=(2,))
    records = attempt(tmp_path / "a.dwz", data)
    assert isinstance(records, dict)
    assert same(records["w"], make.shared([1, 1], [0.0, 1.0]))


@pytest.mark.parametrize("arrangement", [0, 2])
def test_a_file_that_decodes_to_too_much(tmp_path, arrangement):
    constant = np.array([0.0], "<f4").tobytes()
    blocks = 1 if arrangement else 1 << 10
    payload = b"\0" if arrangement else b""
    front = header(
        shared_entry(arrangement, (1 << 10, 1 << 20), b"\0" + varint(len(payload)) * blocks, constant)
    )
    path = tmp_path / "a.dwz"
    path.write_bytes(seal(front, block(payload) * blocks))
    with pytest.raises(CorruptError, match=r"--trust \(max_bytes=None\) lifts this"):
        Archive(path)
    with Archive(path, max_bytes=None) as archive:
        assert archive.decoded_size == 4 << 30


def bomb_of_alphabets() -> bytes:
    own = b"\0\x10\1" + EMPTY_TABLE[3:]  # an alphabet of 16-bit gaps
    entries = [shared_entry(1, (0,), own, name=bytes([letter])) for letter in b"abcd"]
    return header(*entries, tables=varint(255) + EMPTY_TABLE * 255)


def bomb_of_names() -> bytes:
    entries = [entry(b"x", 0, 13, 1, common=n, then=numbers(0)) for n in range(20000)]
    return header(*entries)


@pytest.mark.parametrize(
    ("data", "text"),
    [(bomb_of_names(), "names in proportion"), (bomb_of_alphabets(), "larger alphabets")],
    ids=["names", "alphabets"],
)
def test_small_headers_cost_little_memory(tmp_path, data, text):
    tracemalloc.start()
    try:
        result = attempt(tmp_path / "a.dwz", seal(data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert text in str(result)
    assert peak < 40 << 20
