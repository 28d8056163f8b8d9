"""Whatever the bytes: opening and decoding them gives tensors or one line of `FileError`, cheaply."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import strategies as make
from dwindle.code import text, values
from dwindle.code.cursor import Cursor, prefixed, varint
from dwindle.code.plan import Coding
from dwindle.errors import ChecksumError, CorruptError, FileError, NotDwzError, TruncatedError, VersionError
from dwindle.file import Archive, front, layout, ledger, write
from dwindle.records import Raw, Record, Tied, same

MOST = 1 << 20  # bytes a file may decode to here, far over any of the honest ones

RECORDS: dict[str, Record] = {
    "fc1.weight": make.pruned((9, 16), 8, 0.3),
    "fc1.bias": Raw("float32", (3,), np.float32([1, 2, 3]).tobytes()),
    "large": Raw("float32", (70, 60), np.random.default_rng(0).normal(size=4200).astype("<f4").tobytes()),
    "fc2.weight": make.shared([0, 1, 1, 2] * 10, [1.0, 2.0, 3.0], (4, 10)),
    "tied": Tied("fc1.weight"),
    "path": make.on_trellis((24, 6), 3),
    "steps": Raw("int64", (), (7).to_bytes(8, "little")),
}
FEW = {name: record for name, record in RECORDS.items() if name != "large"}
CODINGS = {
    "auto": Coding(),
    "context": Coding("context"),
    "rans": Coding("rans"),
    "huffman": Coding("huffman"),
    "gaps": Coding("huffman", gap_bits=3),
    "network": Coding("huffman", dictionary="network"),
    "fixed": Coding("fixed"),
    "csr": Coding("csr"),
    "csc": Coding("csc"),
}


def file(folder: Path, coding: Coding, records: dict[str, Record] = RECORDS) -> bytes:
    path = folder / "honest.dwz"
    write(path, records, coding=coding, metadata={"a": "b"}, force=True, threads=1)
    return path.read_bytes()


def parts_of(data: bytes) -> tuple[bytes, bytes]:
    """The header, decoded, and everything after its checksum."""
    cursor = Cursor(memoryview(data), 5)
    size = cursor.varint()
    header = text.decode(cursor.prefixed(), size)
    return header, data[cursor.offset + 4 :]


def seal(header: bytes, rest: bytes = b"", version: int = layout.VERSION) -> bytes:
    """A file with this header, stored plain, and a right checksum; `rest` is everything after it."""
    front = layout.MAGIC + bytes([version]) + varint(len(header)) + prefixed(b"\0" + header)
    return front + zlib.crc32(front).to_bytes(4, "little") + rest


def block(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(4, "little")


def reseal(header: bytes, rest: bytes) -> bytes:
    """Like `seal`, with every checksum put right where the header says that it is."""
    data = bytearray(seal(header, rest))
    start = len(data) - len(rest)
    try:
        parsed = layout.read_header(memoryview(header))
        data[:start] = seal(header, version=layout.version_of(parsed))
        extents = front.extents(parsed, start, len(data))
    except FileError:
        return bytes(data)
    found = [extent for of_tensor in extents.values() for extent in of_tensor]
    if parsed.values_size:
        found.append(front.Extent(start, parsed.values_size))
    for extent in found:
        end = extent.start + extent.size
        data[end : end + 4] = zlib.crc32(data[extent.start : end]).to_bytes(4, "little")
    return bytes(data)


def attempt(path: Path, data: bytes, *, book: bool = True) -> dict[str, Record] | FileError:
    """Open and decode everything; a FileError is checked to be one line that names the file."""
    path.write_bytes(data)
    try:
        with Archive(path, threads=1, max_bytes=MOST) as archive:
            records = {name: archive.record(name) for name in archive}
            if book:
                assert sum(line.size for line in ledger(archive).lines) == len(data)
            return records
    except FileError as error:
        text = str(error)
        assert text.startswith(f"{path}: ")
        assert text.isprintable()
        return error


@pytest.mark.parametrize("coding", CODINGS.values(), ids=CODINGS)
def test_truncated_at_every_byte(tmp_path, coding):
    data = file(tmp_path, coding, FEW)
    for size in range(len(data)):
        result = attempt(tmp_path / "cut.dwz", data[:size])
        assert isinstance(result, TruncatedError if size else NotDwzError), size


@pytest.mark.parametrize("coding", [Coding(), Coding("csr")], ids=["auto", "csr"])
def test_every_single_bit_flipped(tmp_path, coding):
    data = file(tmp_path, coding, FEW)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        result = attempt(tmp_path / "flipped.dwz", bytes(flipped), book=False)
        assert isinstance(result, FileError), bit
        if bit < 32:
            assert isinstance(result, NotDwzError)
        elif bit < 40:
            assert isinstance(result, VersionError)
        elif bit >= 72:
            assert isinstance(result, ChecksumError)


@pytest.mark.parametrize("data", [b"", b"\x00", b"PK\x03\x04 a zip", b"\x89PNG\r\n", b"\x89DWz\x00\x01"])
def test_not_a_dwz(tmp_path, data):
    assert isinstance(attempt(tmp_path / "a.dwz", data), NotDwzError)


def test_wrong_version(tmp_path):
    data = bytearray(file(tmp_path, Coding()))
    data[4] = 77
    result = attempt(tmp_path / "a.dwz", bytes(data))
    assert isinstance(result, VersionError)
    assert str(result).endswith("expected version 1 or 2, got 77")


@pytest.mark.parametrize("name", ["fc1.weight", "path"])
def test_a_version_for_more_or_less_than_the_file_holds(tmp_path, name):
    data = file(tmp_path, Coding(), {name: RECORDS[name]})
    head, rest = parts_of(data)
    assert isinstance(attempt(tmp_path / "a.dwz", seal(head, rest, version=data[4])), dict)
    result = attempt(tmp_path / "b.dwz", seal(head, rest, version=3 - data[4]))
    assert isinstance(result, CorruptError)
    assert f"expected version {data[4]}, by what the file holds" in str(result)


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
    front, blocks = parts_of(file(tmp_path, coding))
    dice = random.Random(coding.coder + coding.dictionary)
    decoded = 0
    for _ in range(500):
        header, rest = mutate(front, blocks, dice)
        result = attempt(tmp_path / "mutant.dwz", reseal(header, rest))
        decoded += not isinstance(result, FileError)
    assert 0 < decoded < 500


def test_memory_stays_small_under_random_changes(tmp_path):
    data = file(tmp_path, Coding("huffman", gap_bits=3))
    front, blocks = parts_of(data)
    dice = random.Random(5)
    attempt(tmp_path / "mutant.dwz", data)  # compiled before the measurement
    tracemalloc.start()
    try:
        for _ in range(300):
            header, rest = mutate(front, blocks, dice)
            attempt(tmp_path / "mutant.dwz", reseal(header, rest))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * MOST


def numbers(*values: int) -> bytes:
    return b"".join(map(varint, values))


@dataclass
class Entry:
    """One tensor's part of each column: kind, dtype or owner, shape, plan and sizes."""

    name: bytes
    kind: int
    head: bytes = b"\x0d"  # uint8
    shape: bytes = b"\1\0"
    plan: bytes = b""
    sizes: bytes = b""


def header(
    *entries: Entry, values: int = 0, tables: bytes = b"\0", metadata: bytes = b"\0", count: int | None = None
) -> bytes:
    columns = [varint(values), metadata, tables, varint(len(entries) if count is None else count)]
    columns += [prefixed(e.name) for e in entries]
    columns += [bytes([e.kind]) for e in entries]
    columns += [e.head for e in entries] + [e.shape for e in entries]
    columns += [e.plan for e in entries] + [e.sizes for e in entries]
    return b"".join(columns)


def shared_entry(
    arrangement: int, shape: tuple[int, ...], plan: bytes, sizes: bytes, entries: int = 2, name: bytes = b"w"
) -> Entry:
    """A float32 tensor with a codebook of so many entries."""
    dims = bytes([len(shape)]) + numbers(*shape)
    return Entry(name, 4, b"\1", dims, bytes([arrangement]) + varint(entries) + plan, sizes)


STORED, CODED, BASED, SMALL, SHARED, TIED, REPEATED = range(7)
HUGE = 1 << 48
A = Entry(b"a", STORED)

HEADERS = {
    "more elements than the file has": (header(Entry(b"a", 0, shape=b"\1" + numbers(HUGE))), "a file of"),
    "too many elements": (header(Entry(b"a", 0, shape=b"\2" + numbers(HUGE, HUGE))), "elements"),
    "too many behind a zero": (header(Entry(b"a", 0, shape=b"\3" + numbers(0, HUGE, HUGE))), "elements"),
    "too large a dimension": (header(Entry(b"a", 0, shape=b"\1" + numbers(HUGE + 1))), "a dimension of"),
    "too many dimensions": (header(Entry(b"a", 0, shape=bytes([65]) + bytes(65))), "dimensions"),
    "more blocks than sizes": (header(shared_entry(0, (HUGE,), b"\0", b"\0")), "size for each"),
    "a coded tensor without sizes": (
        header(Entry(b"a", CODED, shape=b"\1" + numbers(HUGE))),
        "size for each",
    ),
    "too large to be small": (header(Entry(b"a", SMALL, shape=b"\1" + numbers(4097))), "at most 4096"),
    "a huge matrix": (header(shared_entry(2, (1 << 30, 4), b"\0", b"\1")), "a file of"),
    "the same name twice": (header(A, A), "each tensor once"),
    "a name that is not text": (header(Entry(b"\xff", STORED)), "UTF-8"),
    "metadata out of order": (header(metadata=varint(2) + b"\1b\1x\1a\1y"), "rising order"),
    "metadata twice": (header(metadata=varint(2) + b"\1a\1x\1a\1y"), "rising order"),
    "an unknown kind": (header(Entry(b"a", 7)), "an entry kind"),
    "an unknown dtype": (header(Entry(b"a", STORED, b"\x11")), "a: a dtype number"),
    "a tie to itself": (header(Entry(b"a", TIED, b"\0", b"")), "a: expected a tensor of its own"),
    "a tie to a tie": (header(A, Entry(b"b", TIED, b"\2", b""), Entry(b"c", REPEATED, b"\1", b"")), "b: "),
    "a tie to an extra": (
        header(Entry(b"\0x", STORED), Entry(b"b", TIED, b"\0", b"")),
        "b: expected a tensor",
    ),
    "a tie to nothing": (header(A, Entry(b"b", TIED, b"\2", b"")), "b: expected a tensor of its own"),
    "shared integers": (header(Entry(b"a", SHARED, b"\7", b"\0", b"\0\2\0", b"\0")), "a: expected a shared"),
    "an unknown arrangement": (header(shared_entry(6, (4,), b"\0", b"\0")), "w: an arrangement"),
    "gaps of no bits": (header(shared_entry(1, (4,), b"\0\0\0", b"\1")), "gaps of 1 to 16 bits"),
    "gaps of 17 bits": (header(shared_entry(1, (4,), b"\0\x11\0", b"\1")), "gaps of 1 to 16 bits"),
    "an empty codebook": (header(shared_entry(0, (4,), b"\0", b"\0", 0)), "a codebook entry"),
    "too large a codebook": (header(shared_entry(0, (4,), b"\0", b"\0", 65537)), "codebook size"),
    "a table that is not there": (header(shared_entry(0, (4,), b"\3", b"\1")), "code table number"),
    "a matrix in a code": (header(shared_entry(2, (2, 2), b"\1\1\4", b"\1")), "fixed width"),
    "too large an alphabet": (header(tables=b"\1\0" + varint(65537) + b"\1\0"), "an alphabet"),
    "an unknown code": (header(tables=b"\1\2\1\1\0"), "a kind of code"),
    "too many shared tables": (header(tables=varint(256) + bytes(600)), "number of code tables"),
    "more tables than bytes": (header(tables=varint(9)), "more bytes"),
    "a varint too long": (header(tables=b"\x80\x00"), "shortest form"),
    "a varint without end": (header(tables=b"\xff" * 20), "63 bits"),
    "bytes after the last column": (header(A) + b"\x00", "no more bytes"),
    "more tensors than bytes": (header(count=HUGE), "number of tensors"),
    "an extra that is no bytes": (header(Entry(b"\0x", STORED, b"\1")), "bytes of an extra"),
    "values that are for nothing": (header(values=9), "no section of values"),
    "nothing at all": (b"", "more bytes"),
}


@pytest.mark.parametrize(("data", "said"), HEADERS.values(), ids=HEADERS)
def test_headers_that_break_a_rule(tmp_path, data, said):
    result = attempt(tmp_path / "a.dwz", seal(data))
    assert isinstance(result, FileError)
    assert said in str(result)


FLOATS = values.encode([("float32", 2, "codebook", np.array([0.0, 1.0], "<f4").tobytes())])
ONES = values.encode([("float32", 2, "codebook", np.array([2.0, 1.0], "<f4").tobytes())])


def one_block(
    plan: bytes, payload: bytes, *, arrangement: int = 1, shape: tuple[int, ...] = (40,), book: bytes = FLOATS
) -> bytes:
    entry = shared_entry(arrangement, shape, plan, varint(len(payload)))
    return seal(header(entry, values=len(book)), block(book) + block(payload))


GAPS = numbers(0, 4, 0)  # fixed indices, 4-bit gaps, fixed
BLOCKS = {
    "gaps past the end": (one_block(GAPS, b"\3\xff\x0f\x07"), "gaps within 40 elements"),
    "gaps without a zero": (one_block(GAPS, b"\0", book=ONES), "entry of 0.0"),
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
    "too many codes in a table": (one_block(b"\1\3\xff\xff\xff", b"\1", arrangement=0), "w: expected"),
    "a broken rANS table": (one_block(b"\2\3\xff\xff\xff", b"\1", arrangement=0), "w: expected a table"),
    "an unknown way of context": (one_block(b"", b"\2\1", arrangement=4), "a tree or as levels"),
    "a context code that goes on": (one_block(b"", b"\0" + b"\1" * 200, arrangement=4), "a code of at most"),
}


@pytest.mark.parametrize(("data", "text"), BLOCKS.values(), ids=BLOCKS)
def test_blocks_that_break_a_rule(tmp_path, data, text):
    result = attempt(tmp_path / "a.dwz", data)
    assert isinstance(result, CorruptError)
    assert text in str(result)
    assert ": w: expected" in str(result)


def test_a_foreign_writer_may_use_gaps_where_every_weight_survives(tmp_path):
    data = one_block(GAPS, b"\x02\x00\x03", shape=(2,))
    records = attempt(tmp_path / "a.dwz", data)
    assert isinstance(records, dict)
    assert same(records["w"], make.shared([1, 1], [0.0, 1.0]))


@pytest.mark.parametrize("arrangement", [0, 2])
def test_a_file_that_decodes_to_too_much(tmp_path, arrangement):
    book = values.encode([("float32", 1, "codebook", bytes(4))])
    blocks = 1 if arrangement else 1 << 10
    payload = b"\0" if arrangement else b""
    shape = (1 << 10, 1 << 20)
    entry = shared_entry(arrangement, shape, b"\0", varint(len(payload)) * blocks, 1)
    path = tmp_path / "a.dwz"
    checked = block(book) if book else b""
    path.write_bytes(seal(header(entry, values=len(book)), checked + block(payload) * blocks))
    with pytest.raises(CorruptError, match=r"--trust \(max_bytes=None\) lifts this"):
        Archive(path)
    with Archive(path, max_bytes=None) as archive:
        assert archive.decoded_size == 4 << 30


def test_a_header_out_of_proportion_is_refused(tmp_path):
    plain = header(*(Entry(b"%d" % n, STORED) for n in range(200_000)))
    coded = text.encode(plain[:1000])
    front = layout.MAGIC + bytes([layout.VERSION]) + varint(len(plain)) + prefixed(coded)
    data = front + zlib.crc32(front).to_bytes(4, "little")
    result = attempt(tmp_path / "a.dwz", data)
    assert "in proportion" in str(result)


def test_codebooks_count_towards_what_a_file_may_decode_to(tmp_path):
    entries = [shared_entry(0, (0,), b"\0", b"", 65536, b"%d" % n) for n in range(100)]
    result = attempt(tmp_path / "a.dwz", seal(header(*entries)))
    assert "tensors and codebooks of at most" in str(result)


def test_ties_count_where_each_is_written(tmp_path, refused, run):
    records = {"a": Raw("uint8", (1 << 22,), bytes(1 << 22))} | {f"t{i}": Tied("a") for i in range(99)}
    write(tmp_path / "x.dwz", records)
    said = refused("decompress", tmp_path / "x.dwz", "-o", tmp_path / "x.safetensors")
    assert "--trust (max_bytes=None) lifts this" in said
    assert not (tmp_path / "x.safetensors").exists()
    assert run("decompress", tmp_path / "x.dwz", "-o", tmp_path / "x.pt")[0] == 0
    with pytest.raises(ValueError, match="max_bytes"):
        Archive(tmp_path / "x.dwz", max_bytes="none")


def test_asking_for_a_name_decodes_nothing(tmp_path):
    path = tmp_path / "x.dwz"
    write(path, {"a": Raw("uint8", (5000,), random.Random(0).randbytes(5000))}, extras={"e": b"1"})
    data = bytearray(path.read_bytes())
    data[-2000] ^= 1
    path.write_bytes(data)
    with Archive(path) as archive:
        for names in (archive, archive.records):
            assert "a" in names
            assert "b" not in names
            assert "\0e" not in names
        with pytest.raises(ChecksumError):
            archive["a"]
