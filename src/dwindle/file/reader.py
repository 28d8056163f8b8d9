"""A `.dwz` file as a mapping of tensors; nothing in it is trusted."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from dwindle import records
from dwindle.code import blocks, sparse
from dwindle.code.cursor import Cursor
from dwindle.code.parts import Part
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
from dwindle.records import Raw, Record, Shared, Tied

if TYPE_CHECKING:
    from dwindle.file.ledger import Ledger

CHECKSUM = 4
GENEROUS = 1 << 28
EXPANSION = 4096
"""Unless told otherwise, a file may decode to 256 MiB or to 4,096 times its own size, whichever is more."""


def default_threads() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Extent:
    """Where a block's bytes are in the file, its checksum not counted."""

    start: int
    size: int


class Archive(Mapping[str, NDArray[Any]]):
    """A `.dwz` file, opened and its header checked; tensors are decoded when they are asked for.

    As a mapping it gives NumPy arrays, in storage of the tensor's dtype (see `dwindle.dtypes`).

    Args:
        path: the file.
        threads: workers that decode the blocks of a tensor, all processors by default.
        max_bytes: most bytes that all tensors together may decode to. "auto" allows 256 MiB or 4,096 times
            the file, whichever is more; None allows anything: only for files from a trusted hand.

    Raises:
        FileError: NotDwzError, VersionError, TruncatedError, ChecksumError or CorruptError.
    """

    def __init__(
        self, path: Path | str, *, threads: int | None = None, max_bytes: int | str | None = "auto"
    ) -> None:
        self.path = Path(path)
        self.threads = threads or default_threads()
        self._pool: ThreadPoolExecutor | None = None
        self._data, self._map = _open(self.path)
        self.size = len(self._data)
        try:
            with _naming(self.path):
                self.header, self.header_size = _read_front(self._data)
                self.extents = _extents(self.header, self.header_size, self.size)
                self._names = list(self.header.entries)
                self._check_expansion(max_bytes)
        except BaseException:
            self.close()
            raise

    def _check_expansion(self, max_bytes: int | str | None) -> None:
        if max_bytes is None:
            return
        most = max(GENEROUS, EXPANSION * self.size) if isinstance(max_bytes, str) else max_bytes
        if self.decoded_size > most:
            got = f"{self.decoded_size}; --trust (max_bytes=None) lifts this"
            raise CorruptError(f"expected tensors of at most {most} bytes, got {got}")

    @property
    def metadata(self) -> dict[str, str]:
        """Free text kept with the tensors."""
        return dict(self.header.metadata)

    @property
    def decoded_size(self) -> int:
        """Bytes of all tensors, each tied one once."""
        entries = self.header.entries.values()
        return sum(layout.nbytes(entry) for entry in entries if not isinstance(entry, layout.TiedEntry))

    def record(self, name: str) -> Record:
        """Decode one record, without touching the bytes of the others.

        Raises:
            KeyError: if there is no tensor of that name.
            FileError: if its bytes are damaged.
        """
        entry = self.header.entries[name]
        if isinstance(entry, layout.TiedEntry):
            return Tied(self._names[entry.owner])
        if isinstance(entry, layout.SharedEntry):
            return self.decode_shared(name, entry)[0]
        with _naming(self.path, name):
            return Raw(entry.dtype, entry.shape, self._raw(name))

    def resolved(self, name: str) -> Raw | Shared:
        """Decode the record of a tensor, a tie followed to its owner."""
        record = self.record(name)
        if isinstance(record, Tied):
            record = self.record(record.to)
        assert not isinstance(record, Tied)  # noqa: S101 (the header was refused if a tie led to a tie)
        return record

    def decode_shared(self, name: str, entry: layout.SharedEntry) -> tuple[Shared, list[Part]]:
        """A shared record, and what the bytes of its blocks were.

        Raises:
            FileError: if its bytes are damaged.
        """
        n = math.prod(entry.shape)
        indices = np.empty(n, records.index_dtype(entry.plan.entries))
        shape = sparse.matrix_shape(entry.shape)

        def decode(number: int) -> list[Part]:
            out = indices[blocks.block_range(entry.plan, n, number)]
            return blocks.decode(self._block(self.extents[name][number]), entry.plan, shape, out)

        numbers = range(len(entry.block_sizes))
        with _naming(self.path, name):
            decoded = map(decode, numbers) if len(numbers) < 2 else self._workers().map(decode, numbers)
            parts = [part for block in decoded for part in block]
        return Shared(entry.dtype, entry.shape, entry.codebook, indices), parts

    def check(self) -> None:
        """Decode every record.

        Raises:
            FileError: at the first defect.
        """
        for name in self:
            self.record(name)

    @property
    def ledger(self) -> Ledger:
        """Where every byte of the file goes. Decodes all of it.

        Raises:
            FileError: if the file is damaged.
        """
        from dwindle.file.ledger import ledger

        return ledger(self)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The tensor in storage of its dtype, with its shape."""
        return records.to_storage(self.resolved(name))

    def __iter__(self) -> Iterator[str]:
        """Names in the order they were written."""
        return iter(self.header.entries)

    def __len__(self) -> int:
        """Number of names."""
        return len(self.header.entries)

    def close(self) -> None:
        """Let go of the file."""
        if self._pool:
            self._pool.shutdown()
        # Where an error is on its way up, its frames still hold views of the map; it then goes with them.
        with contextlib.suppress(BufferError):
            self._data.release()
            if self._map is not None:
                self._map.close()

    def __enter__(self) -> Self:
        """Open already; leaving closes."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _workers(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads)
        return self._pool

    def _block(self, extent: Extent) -> memoryview:
        """The checked bytes of a block."""
        data = self._data[extent.start : extent.start + extent.size]
        stored = self._data[extent.start + extent.size : extent.start + extent.size + CHECKSUM]
        if zlib.crc32(data) != int.from_bytes(stored, "little"):
            raise ChecksumError(f"expected bytes {extent.start} on to match their CRC-32, got others")
        return data

    def _raw(self, name: str) -> bytes:
        return b"".join(self._block(extent) for extent in self.extents[name])


class _naming:
    """Put the file, and the tensor, in front of a `FileError`'s text."""

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.prefix = f"{path}: " if name is None else f"{path}: {shown(name)}: "

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, FileError):
            raise type(error)(f"{self.prefix}{error}") from error


def _open(path: Path) -> tuple[memoryview, mmap.mmap | None]:
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size == 0:  # an empty file cannot be mapped
                return memoryview(b""), None
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            return memoryview(mapped), mapped
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error


def _read_front(data: memoryview) -> tuple[layout.Header, int]:
    """The header, and where it ends, its checksum included."""
    magic = len(layout.MAGIC)
    if bytes(data[:magic]) != layout.MAGIC[: len(data)] or not len(data):
        raise NotDwzError("expected a .dwz file, got something else")
    cursor = Cursor(data, magic)
    try:
        version = cursor.byte()
        if version != layout.VERSION:
            raise VersionError(f"expected version {layout.VERSION}, got {version}")
        size = cursor.varint(what="a header size")
    except CorruptError as error:
        if cursor.offset < len(data):
            raise
        raise TruncatedError(f"expected a whole header, got a file of {len(data)} bytes") from error
    if size + CHECKSUM > len(data) - cursor.offset:
        end = cursor.offset + size + CHECKSUM
        raise TruncatedError(f"expected a header that ends at byte {end}, got a file of {len(data)}")
    front = data[: cursor.offset + size]
    header, stored = cursor.take(size), cursor.take(CHECKSUM)
    if zlib.crc32(front) != int.from_bytes(stored, "little"):
        raise ChecksumError("expected a header that matches its CRC-32, got another")
    return layout.read_header(header), cursor.offset


def _extents(header: layout.Header, start: int, size: int) -> dict[str, list[Extent]]:
    """Where each tensor's blocks are; they must fill the file to its last byte."""
    extents: dict[str, list[Extent]] = {}
    for name, entry in header.entries.items():
        extents[name] = []
        if isinstance(entry, layout.TiedEntry):
            continue
        if isinstance(entry, layout.RawEntry) and start + layout.nbytes(entry) > size:
            expected = start + layout.nbytes(entry)
            raise TruncatedError(f"{shown(name)}: expected a file of {expected} bytes or more, got {size}")
        for block in entry.block_sizes:
            extents[name].append(Extent(start, block))
            start += block + CHECKSUM
    if start != size:
        raise TruncatedError(f"expected a file of {start} bytes, got {size}")
    return extents
