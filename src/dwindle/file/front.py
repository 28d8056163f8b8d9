"""The front of a `.dwz` file: its header, and where the blocks are that it announces. Nothing is trusted."""

from __future__ import annotations

import mmap
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from dwindle.code import text
from dwindle.code.cursor import Cursor
from dwindle.errors import (
    ChecksumError,
    CorruptError,
    FileError,
    NotDwzError,
    TruncatedError,
    VersionError,
    shown,
)
from dwindle.file import layout

CHECKSUM = 4
HEADER_FREE = 1 << 20
HEADER_EXPANSION = 64
"""A header may have 1 MiB and 64 bytes for each byte it is coded in."""


@dataclass(frozen=True)
class Extent:
    """Where a block's bytes are in the file, its checksum not counted."""

    start: int
    size: int

    def checked(self, data: memoryview) -> memoryview:
        """These bytes of the file `data`.

        Raises:
            ChecksumError: if they do not match the checksum behind them.
        """
        end = self.start + self.size
        found = data[self.start : end]
        if zlib.crc32(found) != int.from_bytes(data[end : end + CHECKSUM], "little"):
            raise ChecksumError(f"expected bytes {self.start} on to match their CRC-32, got others")
        return found


def mapped(path: Path) -> tuple[memoryview, mmap.mmap | None]:
    """The bytes of a file, and its map, which must be closed; none of an empty file.

    Raises:
        FileError: if it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size == 0:  # an empty file cannot be mapped
                return memoryview(b""), None
            found = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            return memoryview(found), found
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True, eq=False)
class Front:
    """What comes before the section of values and the blocks.

    Attributes:
        header: the header.
        raw: its bytes before the text model.
        start: where its coded bytes begin.
        end: where all of it ends, its checksum included.
    """

    header: layout.Header
    raw: bytes
    start: int
    end: int


def read_front(data: memoryview) -> Front:
    """The checked header.

    Args:
        data: the bytes of the file.

    Raises:
        FileError: NotDwzError, VersionError, TruncatedError, ChecksumError or CorruptError.
    """
    magic = len(layout.MAGIC)
    if bytes(data[:magic]) != layout.MAGIC[: len(data)] or not len(data):
        raise NotDwzError("expected a .dwz file, got something else")
    cursor = Cursor(data, magic)
    try:
        version = cursor.byte()
        if version not in (layout.VERSION, layout.VERSION_WITH_TRELLIS):
            expected = f"{layout.VERSION} or {layout.VERSION_WITH_TRELLIS}"
            raise VersionError(f"expected version {expected}, got {version}")
        size = cursor.varint(what="a header size")
        coded = cursor.varint(what="a header size")
    except CorruptError as error:
        if cursor.offset < len(data):
            raise
        raise TruncatedError(f"expected a whole header, got a file of {len(data)} bytes") from error
    start = cursor.offset
    if coded + CHECKSUM > len(data) - start:
        raise TruncatedError(
            f"expected a header that ends at byte {start + coded + CHECKSUM}, got a file of {len(data)}"
        )
    header, stored = cursor.take(coded), cursor.take(CHECKSUM)
    if zlib.crc32(data[: start + coded]) != int.from_bytes(stored, "little"):
        raise ChecksumError("expected a header that matches its CRC-32, got another")
    if size > HEADER_FREE + HEADER_EXPANSION * coded:
        raise CorruptError(f"expected a header in proportion to {coded} bytes, got one of {size}")
    raw = text.decode(header, size)
    read = layout.read_header(memoryview(raw))
    needed = layout.version_of(read)
    if version != needed:
        raise CorruptError(f"expected version {needed}, by what the file holds, got {version}")
    return Front(read, raw, start, cursor.offset)


def extents(header: layout.Header, start: int, size: int) -> dict[str, list[Extent]]:
    """Where each tensor's blocks are; they must fill the file to its last byte.

    Args:
        header: what the file holds.
        start: where the header ends.
        size: of the file.

    Raises:
        TruncatedError: if they end elsewhere.
    """
    if header.values_size:
        start += header.values_size + CHECKSUM
    found: dict[str, list[Extent]] = {}
    for name, entry in header.entries.items():
        found[name] = []
        if isinstance(entry, layout.AliasEntry):
            continue
        stored = isinstance(entry, layout.ExactEntry) and entry.form == "stored"
        if stored and start + layout.nbytes(entry) > size:
            expected = start + layout.nbytes(entry)
            raise TruncatedError(f"{shown(name)}: expected a file of {expected} bytes or more, got {size}")
        for block in entry.block_sizes:
            found[name].append(Extent(start, block))
            start += block + CHECKSUM
    if start != size:
        raise TruncatedError(f"expected a file of {start} bytes, got {size}")
    return found
