"""The header of a `.dwz` file: what it says, to bytes and back. `docs/format.md` is its specification."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle import dtypes
from dwindle.code import lengths
from dwindle.code.blocks import block_count
from dwindle.code.cursor import Cursor, prefixed, varint
from dwindle.code.plan import ARRANGEMENTS, BLOCK, Code, Plan
from dwindle.errors import CorruptError, shown
from dwindle.records import MAX_ENTRIES

MAGIC = b"\x89DWZ"
VERSION = 0
MAX_ELEMENTS = 1 << 48
MAX_DIMENSIONS = 64
MAX_ALPHABETS = 1 << 24
MAX_NAMES = 1 << 20
PER_HEADER_BYTE = 64
"""All code tables together have at most `MAX_ALPHABETS` symbols, all names together `MAX_NAMES` bytes, and
both 64 more for every byte of the header: a few bytes can describe a large, empty alphabet, or a long name
like the one before, and a file full of those must not cost memory out of proportion."""
MAX_SHARED_CODES = 255

# The place of a dtype in this tuple is its number in a file: new ones go to the end.
DTYPES = (
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2",
    "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
    "bool", "complex64", "complex128",
)  # fmt: skip
RAW, TIED, SHARED = range(3)
FIXED_CODE, OWN_CODE, FIRST_SHARED_CODE = range(3)


@dataclass(frozen=True, eq=False)
class RawEntry:
    """A tensor stored as it is."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def block_sizes(self) -> list[int]:
        """Bytes of each block, without its checksum."""
        n, width = math.prod(self.shape), dtypes.itemsize(self.dtype)
        return [min(BLOCK, n - start) * width for start in range(0, n, BLOCK)]


@dataclass(frozen=True)
class TiedEntry:
    """A second name of another tensor, by the number of that one's entry."""

    owner: int


@dataclass(frozen=True, eq=False)
class SharedEntry:
    """A tensor stored as a codebook (in storage of the dtype) and blocks of indices."""

    dtype: str
    shape: tuple[int, ...]
    codebook: NDArray[Any]
    plan: Plan
    block_sizes: list[int]


Entry = RawEntry | TiedEntry | SharedEntry


def nbytes(entry: RawEntry | SharedEntry) -> int:
    """Bytes of the tensor uncompressed."""
    return math.prod(entry.shape) * dtypes.itemsize(entry.dtype)


@dataclass(frozen=True, eq=False)
class Header:
    """Everything in front of the blocks."""

    metadata: Mapping[str, str]
    codes: tuple[Code, ...]
    entries: dict[str, Entry]


def write_header(header: Header) -> tuple[bytes, list[tuple[str, str, int]]]:
    """The header's bytes (without magic, version, length and checksum) and who they belong to.

    Returns:
        The bytes, and (tensor or "", part, size) for each run of them, in order.
    """
    out, owners = bytearray(), []

    def add(name: str, part: str, data: bytes) -> None:
        out.extend(data)
        owners.append((name, part, len(data)))

    metadata = b"".join(
        prefixed(k.encode()) + prefixed(v.encode()) for k, v in sorted(header.metadata.items())
    )
    add("", "metadata", varint(len(header.metadata)) + metadata)
    add("", "header", varint(len(header.codes)))
    for code in header.codes:
        add("", "code table", varint(len(code.lengths)) + lengths.write_lengths(code.lengths))
    add("", "header", varint(len(header.entries)))
    previous = b""
    for name, entry in header.entries.items():
        encoded = name.encode()
        common = _common_prefix(previous, encoded)
        add(name, "header", varint(common) + prefixed(encoded[common:]))
        previous = encoded
        if isinstance(entry, TiedEntry):
            add(name, "header", bytes([TIED]) + varint(entry.owner))
            continue
        kind = RAW if isinstance(entry, RawEntry) else SHARED
        shape = bytes([len(entry.shape)]) + b"".join(map(varint, entry.shape))
        add(name, "header", bytes([kind, DTYPES.index(entry.dtype)]) + shape)
        if isinstance(entry, SharedEntry):
            for part, data in _shared_parts(entry):
                add(name, part, data)
    return bytes(out), owners


def read_header(data: memoryview) -> Header:
    """Undo `write_header`.

    Raises:
        CorruptError: if the bytes break a rule of the format.
    """
    cursor = Cursor(data)
    metadata: dict[str, str] = {}
    for _ in range(cursor.varint(len(data), "a number of metadata items")):
        key = _text(cursor.prefixed())
        if metadata and key <= next(reversed(metadata)):
            raise CorruptError("expected metadata keys in rising order")
        metadata[key] = _text(cursor.prefixed())
    tables = _Tables([], MAX_ALPHABETS + PER_HEADER_BYTE * len(data))
    for number in range(cursor.varint(MAX_SHARED_CODES, "a number of code tables")):
        tables.shared.append(tables.read(cursor, cursor.varint(MAX_ENTRIES, "an alphabet"), number))
    entries: dict[str, Entry] = {}
    previous, budget = b"", MAX_NAMES + PER_HEADER_BYTE * len(data)
    for _ in range(cursor.varint(len(data), "a number of tensors")):
        previous = _read_name(cursor, previous)
        budget -= len(previous)
        if budget < 0:
            raise CorruptError("expected names in proportion to the header, got longer ones")
        name = _text(memoryview(previous))
        if name in entries:
            raise CorruptError(f"expected each tensor once, got {shown(name)} twice")
        try:
            entries[name] = _read_entry(cursor, tables)
        except CorruptError as error:
            raise CorruptError(f"{shown(name)}: {error}") from error
    cursor.end()
    _check_ties(entries)
    return Header(metadata, tuple(tables.shared), entries)


def _read_name(cursor: Cursor, previous: bytes) -> bytes:
    common = cursor.varint(len(previous), "a common prefix")
    suffix = bytes(cursor.prefixed())
    if suffix[:1] and suffix[:1] == previous[common : common + 1]:
        raise CorruptError("expected the longest common prefix")
    return previous[:common] + suffix


def _shared_parts(entry: SharedEntry) -> list[tuple[str, bytes]]:
    plan = entry.plan
    parts = [("header", bytes([ARRANGEMENTS.index(plan.arrangement)]) + varint(plan.entries))]
    parts.append(("codebook", entry.codebook.tobytes()))
    parts += _code_parts(plan.index_code)
    if plan.arrangement == "gaps":
        parts.append(("header", bytes([plan.gap_bits])))
        parts += _code_parts(plan.gap_code)
    parts.append(("header", b"".join(map(varint, entry.block_sizes))))
    return parts


def _code_parts(code: Code | None) -> list[tuple[str, bytes]]:
    if code is None:
        return [("header", varint(FIXED_CODE))]
    if code.shared is not None:
        return [("header", varint(FIRST_SHARED_CODE + code.shared))]
    return [("header", varint(OWN_CODE)), ("code table", lengths.write_lengths(code.lengths))]


def _read_entry(cursor: Cursor, tables: _Tables) -> Entry:
    kind = cursor.byte()
    if kind == TIED:
        return TiedEntry(cursor.varint(len(cursor.data), "a tensor number"))
    if kind not in (RAW, SHARED):
        raise CorruptError(f"expected an entry kind of 0 to 2, got {kind}")
    number = cursor.byte()
    if number >= len(DTYPES):
        raise CorruptError(f"expected a dtype number under {len(DTYPES)}, got {number}")
    dtype = DTYPES[number]
    dimensions = cursor.byte()
    if dimensions > MAX_DIMENSIONS:
        raise CorruptError(f"expected at most {MAX_DIMENSIONS} dimensions, got {dimensions}")
    shape = tuple(cursor.varint(MAX_ELEMENTS, "a dimension") for _ in range(dimensions))
    # Empty dimensions are left out of the product, so that no tensor hides a huge one behind a zero.
    if math.prod(d for d in shape if d) > MAX_ELEMENTS:
        raise CorruptError(f"expected at most {MAX_ELEMENTS} elements, got {list(shape)}")
    return RawEntry(dtype, shape) if kind == RAW else _read_shared(cursor, dtype, shape, tables)


def _read_shared(cursor: Cursor, dtype: str, shape: tuple[int, ...], tables: _Tables) -> SharedEntry:
    if dtype not in dtypes.SHAREABLE:
        raise CorruptError(
            f"expected a shared tensor to be one of {', '.join(dtypes.SHAREABLE)}, got {dtype}"
        )
    number = cursor.byte()
    if number >= len(ARRANGEMENTS):
        raise CorruptError(f"expected an arrangement under {len(ARRANGEMENTS)}, got {number}")
    arrangement = ARRANGEMENTS[number]
    entries = cursor.varint(MAX_ENTRIES, "a codebook size")
    storage = dtypes.STORAGE[dtype]
    codebook = np.frombuffer(bytes(cursor.take(entries * storage.itemsize)), storage)
    elements = math.prod(shape)
    if elements and not entries:
        raise CorruptError("expected a codebook entry, got none")
    zero = None
    if arrangement != "dense":
        zeros = np.flatnonzero(codebook.view(f"<u{storage.itemsize}") == 0)
        if not len(zeros):
            raise CorruptError(f"expected an entry of 0.0 where survivors are stored by {arrangement}")
        zero = int(zeros[0])
    index_code = tables.choose(cursor, entries)
    gap_bits, gap_code = 0, None
    if arrangement == "gaps":
        gap_bits = cursor.byte()
        if not 1 <= gap_bits <= 16:
            raise CorruptError(f"expected gaps of 1 to 16 bits, got {gap_bits}")
        gap_code = tables.choose(cursor, 1 << gap_bits)
    elif arrangement != "dense" and index_code is not None:
        raise CorruptError(f"expected indices of a fixed width with {arrangement}")
    plan = Plan(arrangement, entries, zero, gap_bits, index_code, gap_code)
    if block_count(plan, elements) > len(cursor.data) - cursor.offset:
        raise CorruptError(f"expected a size for each block of {elements} elements")
    sizes = [cursor.varint(what="a block size") for _ in range(block_count(plan, elements))]
    return SharedEntry(dtype, shape, codebook, plan, sizes)


@dataclass
class _Tables:
    """The code tables of a header as it is read: the shared ones, and how many symbols may yet come."""

    shared: list[Code]
    budget: int

    def choose(self, cursor: Cursor, alphabet: int) -> Code | None:
        """A stream's code: none, one of its own, or a shared one."""
        choice = cursor.varint(FIRST_SHARED_CODE + len(self.shared) - 1, "a code table number")
        if choice == FIXED_CODE:
            return None
        return (
            self.read(cursor, alphabet, None)
            if choice == OWN_CODE
            else self.shared[choice - FIRST_SHARED_CODE]
        )

    def read(self, cursor: Cursor, alphabet: int, shared: int | None) -> Code:
        """The code table that comes next."""
        self.budget -= alphabet
        if self.budget < 0:
            raise CorruptError("expected code tables in proportion to the header, got larger alphabets")
        code_lengths, cursor.offset = lengths.read_lengths(cursor.data, cursor.offset, alphabet)
        return Code(code_lengths, shared)


def _check_ties(entries: dict[str, Entry]) -> None:
    numbered = list(entries.items())
    for name, entry in numbered:
        if isinstance(entry, TiedEntry) and (
            entry.owner >= len(numbered) or isinstance(numbered[entry.owner][1], TiedEntry)
        ):
            raise CorruptError(
                f"{shown(name)}: expected a tie to a tensor of its own, got number {entry.owner}"
            )


def _common_prefix(left: bytes, right: bytes) -> int:
    common = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        common += 1
    return common


def _text(data: memoryview) -> str:
    try:
        return bytes(data).decode()
    except UnicodeDecodeError as error:
        raise CorruptError("expected text in UTF-8") from error
