"""The header of a `.dwz` file: what it says, to bytes and back. `docs/format.md` is its specification.

It is written by columns (all names, all kinds, all dtypes, all shapes, ...), since like follows like there,
which is what the text model it is coded by makes small.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeGuard, TypeVar

from dwindle import dtypes
from dwindle.code import text
from dwindle.code.blocks import block_count
from dwindle.code.cursor import Cursor, prefixed, varint
from dwindle.code.plan import ADAPTIVE, ARRANGEMENTS, Plan
from dwindle.code.streams import KINDS, Code
from dwindle.errors import CorruptError, shown
from dwindle.records import BLOCK, MAX_ENTRIES

MAGIC = b"\x89DWZ"
VERSION, VERSION_WITH_TRELLIS = 1, 2
"""A file is of the lowest version that has all it needs."""

MAX_ELEMENTS = 1 << 48
MAX_DIMENSIONS = 64
MAX_SHARED_CODES = 255
SMALL = 4096
"""Most elements of an exact tensor in the section of values."""

EXTRA = "\0"
"""First character of the name of what is no tensor of the network: bytes kept to write its checkpoint
again."""

# The place of a dtype in this tuple is its number in a file: new ones go to the end.
DTYPES = (
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2",
    "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
    "bool", "complex64", "complex128",
)  # fmt: skip

T = TypeVar("T")
Form = Literal["stored", "coded", "based", "small"]
STORED, CODED, BASED, SMALL_KIND, SHARED, TIED, REPEATED = range(7)
FORMS: tuple[Form, ...] = ("stored", "coded", "based", "small")
"""How an exact tensor is kept, each in the place of its number in a file."""

FIXED_CODE, FIRST_SHARED_CODE = 0, 1 + len(KINDS)


@dataclass(frozen=True, eq=False)
class ExactEntry:
    """A tensor kept to the bit.

    Attributes:
        dtype: its element type.
        shape: its shape.
        form: blocks as they are (`stored`), coded blocks, blocks coded against the same tensor of a base, or
            all of it in the section of values (`small`).
        coded_sizes: bytes of each coded block, without its checksum.
    """

    dtype: str
    shape: tuple[int, ...]
    form: Form
    coded_sizes: list[int] = field(default_factory=list)

    @property
    def block_sizes(self) -> list[int]:
        """Bytes of each block, without its checksum; small tensors have none."""
        if self.form != "stored":
            return self.coded_sizes
        n, width = math.prod(self.shape), dtypes.itemsize(self.dtype)
        return [min(BLOCK, n - start) * width for start in range(0, n, BLOCK)]


@dataclass(frozen=True, eq=False)
class SharedEntry:
    """A tensor stored as a codebook (in the section of values) and blocks of indices."""

    dtype: str
    shape: tuple[int, ...]
    plan: Plan
    block_sizes: list[int]


@dataclass(frozen=True)
class AliasEntry:
    """A tensor that is another one.

    Attributes:
        owner: number of that one's entry, which is none of these.
        tied: whether it is the same tensor under a second name, rather than one with equal bytes.
    """

    owner: int
    tied: bool


Entry = ExactEntry | SharedEntry | AliasEntry


@dataclass(frozen=True, eq=False)
class Header:
    """Everything in front of the section of values and the blocks.

    Attributes:
        metadata: free text by key.
        codes: code tables that several tensors use.
        entries: the tensors by name.
        values_size: bytes of the section of values, without its checksum; 0 where there is none.
    """

    metadata: Mapping[str, str]
    codes: tuple[Code, ...]
    entries: dict[str, Entry]
    values_size: int = 0


def version_of(header: Header) -> int:
    """The version of a file with this header."""
    plans = [entry.plan for entry in header.entries.values() if isinstance(entry, SharedEntry)]
    return VERSION_WITH_TRELLIS if any(plan.arrangement == "trellis" for plan in plans) else VERSION


def nbytes(entry: ExactEntry | SharedEntry) -> int:
    """Bytes of the tensor uncompressed."""
    return math.prod(entry.shape) * dtypes.itemsize(entry.dtype)


def values_of(header: Header) -> list[tuple[str, str, int, str]]:
    """What the section of values holds, in order: tensor, dtype, number of elements, and its class.

    A codebook has the class "codebook", a small tensor the last part of its name.
    """
    found = []
    for name, entry in header.entries.items():
        if isinstance(entry, SharedEntry):
            found.append((name, entry.dtype, entry.plan.entries, "codebook"))
        elif isinstance(entry, ExactEntry) and entry.form == "small":
            found.append((name, entry.dtype, math.prod(entry.shape), name.rpartition(".")[2]))
    return found


@dataclass
class _Out:
    """Bytes with who they belong to."""

    data: bytearray = field(default_factory=bytearray)
    owners: list[tuple[str | None, str, int]] = field(default_factory=list)

    def add(self, name: str | None, part: str, data: bytes) -> None:
        self.data += data
        self.owners.append((name, part, len(data)))


def write_header(header: Header) -> tuple[bytes, list[tuple[str | None, str, int]]]:
    """The header's bytes before the text model, and who they belong to.

    Returns:
        The bytes, and (tensor or None, part, size) for each run of them, in order.
    """
    out, entries = _Out(), header.entries.items()
    out.add(None, "header", varint(header.values_size))
    items = b"".join(prefixed(k.encode()) + prefixed(v.encode()) for k, v in sorted(header.metadata.items()))
    out.add(None, "metadata", varint(len(header.metadata)) + items)
    out.add(None, "header", varint(len(header.codes)))
    for code in header.codes:
        out.add(
            None, "code table", bytes([KINDS.index(code.kind)]) + varint(code.alphabet) + prefixed(code.table)
        )
    out.add(None, "header", varint(len(entries)))
    for name, _ in entries:
        out.add(name, "header", prefixed(name.encode()))
    for name, entry in entries:
        out.add(name, "header", bytes([_kind(entry)]))
    for name, entry in entries:
        if isinstance(entry, AliasEntry):
            out.add(name, "header", varint(entry.owner))
        else:
            out.add(name, "header", bytes([DTYPES.index(entry.dtype)]))
    for name, entry in entries:
        if not isinstance(entry, AliasEntry):
            out.add(name, "header", bytes([len(entry.shape)]) + b"".join(map(varint, entry.shape)))
    for name, entry in entries:
        if isinstance(entry, SharedEntry):
            _write_plan(out, name, entry.plan)
    for name, entry in entries:
        if _has_sizes(entry):
            out.add(name, "header", b"".join(map(varint, entry.block_sizes)))
    return bytes(out.data), out.owners


def read_header(data: memoryview) -> Header:
    """Undo `write_header`. Code tables are checked when they are first used.

    Raises:
        CorruptError: if the bytes break a rule of the format.
    """
    cursor = Cursor(data)
    values_size = cursor.varint(what="a size")
    metadata: dict[str, str] = {}
    for _ in range(cursor.varint(len(data), "a number of metadata items")):
        key = _text(cursor.prefixed())
        if metadata and key <= next(reversed(metadata)):
            raise CorruptError("expected metadata keys in rising order")
        metadata[key] = _text(cursor.prefixed())
    codes: list[Code] = []
    for number in range(cursor.varint(MAX_SHARED_CODES, "a number of code tables")):
        kind = _one_of(KINDS, cursor.byte(), "a kind of code")
        codes.append(Code(kind, cursor.varint(MAX_ENTRIES, "an alphabet"), bytes(cursor.prefixed()), number))
    names = [_text(cursor.prefixed()) for _ in range(cursor.varint(len(data), "a number of tensors"))]
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise CorruptError(f"expected each tensor once, got {shown(twice)} twice")
    reader = _Entries(cursor, codes)
    entries = reader.read(names)
    cursor.end()
    header = Header(metadata, tuple(codes), entries, values_size)
    if values_size and not values_of(header):
        raise CorruptError(f"expected no section of values for no items, got one of {values_size} bytes")
    return header


def code_header(data: bytes) -> bytes:
    """The header as a file has it: its size, the size it is coded in, and those bytes."""
    coded = text.encode(data)
    return varint(len(data)) + prefixed(coded)


@dataclass
class _Entries:
    """The columns of a header, read one after the other."""

    cursor: Cursor
    codes: list[Code]

    def read(self, names: list[str]) -> dict[str, Entry]:
        """All entries."""
        kinds = bytes(self.cursor.take(len(names)))
        if kinds and max(kinds) > REPEATED:
            raise CorruptError(f"expected an entry kind of 0 to {REPEATED}, got {max(kinds)}")
        heads = [self._head(name, kind, kinds, names) for name, kind in zip(names, kinds, strict=True)]
        shapes = [() if kind >= TIED else self._shape(name) for name, kind in zip(names, kinds, strict=True)]
        plans = [
            self._plan(name) if kind == SHARED else None for name, kind in zip(names, kinds, strict=True)
        ]
        entries: dict[str, Entry] = {}
        for name, kind, head, shape, plan in zip(names, kinds, heads, shapes, plans, strict=True):
            if isinstance(head, int):
                entries[name] = AliasEntry(head, kind == TIED)
            elif plan is not None:
                if head not in dtypes.SHAREABLE:
                    expected = ", ".join(dtypes.SHAREABLE)
                    raise CorruptError(f"{shown(name)}: expected a shared tensor of {expected}, got {head}")
                if math.prod(shape) and not plan.entries:
                    raise CorruptError(f"{shown(name)}: expected a codebook entry, got none")
                blocks = block_count(plan, math.prod(shape))
                entries[name] = SharedEntry(head, shape, plan, self._sizes(name, blocks))
            else:
                entries[name] = self._exact(name, head, shape, FORMS[kind])
            if name.startswith(EXTRA) and not _is_extra(entries[name]):
                raise CorruptError(f"{shown(name)}: expected the bytes of an extra, got something else")
        return entries

    def _head(self, name: str, kind: int, kinds: bytes, names: list[str]) -> str | int:
        """The dtype of a tensor, or the owner of an alias."""
        if kind < TIED:
            return _one_of(DTYPES, self.cursor.byte(), f"{shown(name)}: a dtype number")
        owner = self.cursor.varint()
        if owner >= len(kinds) or kinds[owner] >= TIED or names[owner].startswith(EXTRA):
            raise CorruptError(f"{shown(name)}: expected a tensor of its own to be equal to, got {owner}")
        return owner

    def _shape(self, name: str) -> tuple[int, ...]:
        dimensions = self.cursor.byte()
        if dimensions > MAX_DIMENSIONS:
            raise CorruptError(
                f"{shown(name)}: expected at most {MAX_DIMENSIONS} dimensions, got {dimensions}"
            )
        shape = tuple(self.cursor.varint(MAX_ELEMENTS, "a dimension") for _ in range(dimensions))
        # Empty dimensions are left out of the product, so that no tensor hides a huge one behind a zero.
        if math.prod(d for d in shape if d) > MAX_ELEMENTS:
            raise CorruptError(f"{shown(name)}: expected at most {MAX_ELEMENTS} elements, got {list(shape)}")
        return shape

    def _plan(self, name: str) -> Plan:
        arrangement = _one_of(ARRANGEMENTS, self.cursor.byte(), f"{shown(name)}: an arrangement")
        entries = self.cursor.varint(MAX_ENTRIES, "a codebook size")
        if arrangement in ADAPTIVE:
            return Plan(arrangement, entries)
        index_code = self._code(entries)
        if arrangement in ("csr", "csc") and index_code is not None:
            raise CorruptError(f"{shown(name)}: expected indices of a fixed width with {arrangement}")
        if arrangement != "gaps":
            return Plan(arrangement, entries, 0, index_code)
        gap_bits = self.cursor.byte()
        if not 1 <= gap_bits <= 16:
            raise CorruptError(f"{shown(name)}: expected gaps of 1 to 16 bits, got {gap_bits}")
        return Plan(arrangement, entries, gap_bits, index_code, self._code(1 << gap_bits))

    def _code(self, alphabet: int) -> Code | None:
        """A stream's code: none, one of its own, or a shared one."""
        choice = self.cursor.varint(FIRST_SHARED_CODE + len(self.codes) - 1, "a code table number")
        if choice == FIXED_CODE:
            return None
        if choice >= FIRST_SHARED_CODE:
            return self.codes[choice - FIRST_SHARED_CODE]
        return Code(KINDS[choice - 1], alphabet, bytes(self.cursor.prefixed()))

    def _exact(self, name: str, dtype: str, shape: tuple[int, ...], form: Form) -> ExactEntry:
        if form == "small" and math.prod(shape) > SMALL:
            raise CorruptError(f"{shown(name)}: expected at most {SMALL} elements, got {list(shape)}")
        if form in ("small", "stored"):
            return ExactEntry(dtype, shape, form)
        return ExactEntry(dtype, shape, form, self._sizes(name, -(-math.prod(shape) // BLOCK)))

    def _sizes(self, name: str, blocks: int) -> list[int]:
        if blocks > len(self.cursor.data) - self.cursor.offset:
            raise CorruptError(f"{shown(name)}: expected a size for each of {blocks} blocks")
        return [self.cursor.varint(what="a block size") for _ in range(blocks)]


def _kind(entry: Entry) -> int:
    if isinstance(entry, AliasEntry):
        return TIED if entry.tied else REPEATED
    return SHARED if isinstance(entry, SharedEntry) else FORMS.index(entry.form)


def _is_extra(entry: Entry) -> bool:
    return isinstance(entry, ExactEntry) and entry.dtype == "uint8" and len(entry.shape) == 1


def _has_sizes(entry: Entry) -> TypeGuard[ExactEntry | SharedEntry]:
    return isinstance(entry, SharedEntry) or (
        isinstance(entry, ExactEntry) and entry.form in ("coded", "based")
    )


def _write_plan(out: _Out, name: str, plan: Plan) -> None:
    out.add(name, "header", bytes([ARRANGEMENTS.index(plan.arrangement)]) + varint(plan.entries))
    if plan.arrangement in ADAPTIVE:
        return
    _write_code(out, name, plan.index_code)
    if plan.arrangement == "gaps":
        out.add(name, "header", bytes([plan.gap_bits]))
        _write_code(out, name, plan.gap_code)


def _write_code(out: _Out, name: str, code: Code | None) -> None:
    if code is None:
        out.add(name, "header", varint(FIXED_CODE))
    elif code.shared is not None:
        out.add(name, "header", varint(FIRST_SHARED_CODE + code.shared))
    else:
        out.add(name, "header", varint(1 + KINDS.index(code.kind)))
        out.add(name, "code table", prefixed(code.table))


def _one_of(choices: tuple[T, ...], number: int, what: str) -> T:
    if number >= len(choices):
        raise CorruptError(f"expected {what} under {len(choices)}, got {number}")
    return choices[number]


def _text(data: memoryview) -> str:
    try:
        return bytes(data).decode()
    except UnicodeDecodeError as error:
        raise CorruptError("expected text in UTF-8") from error
