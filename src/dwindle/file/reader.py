"""A `.dwz` file as a mapping of tensors; nothing in it is trusted."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from dwindle import dtypes, records
from dwindle.code import values
from dwindle.errors import (
    BaseError,
    CorruptError,
    FileError,
    shown,
)
from dwindle.file import layout
from dwindle.file.archive_records import ArchiveRecords
from dwindle.file.decode import Decoding, block_length, codebook, exact_tasks, shared_tasks, submitted
from dwindle.file.front import Extent, extents, mapped, read_front
from dwindle.records import Raw, Record, Shared, Tied

if TYPE_CHECKING:
    from dwindle.file.ledger import Ledger

GENEROUS = 1 << 28
EXPANSION = 4096
"""Unless told otherwise, a file may decode to 256 MiB or to 4,096 times its own size, whichever is more."""
QUICK = 1 << 16
"""Elements from which on a worker decodes a tensor ahead."""
AHEAD = 1 << 26
"""Bytes of tensors that `walk` decodes before the one it gives, unless told otherwise."""


def default_threads() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Archive(Mapping[str, NDArray[Any]]):
    """A `.dwz` file, opened and its header checked; tensors are decoded when they are asked for.

    As a mapping it gives NumPy arrays, in storage of the tensor's dtype (see `dwindle.dtypes`).

    Args:
        path: the file.
        threads: workers that decode blocks, all processors by default.
        max_bytes: most bytes that all tensors together may decode to. "auto" allows 256 MiB or 4,096 times
            the file, whichever is more; None allows anything: only for files from a trusted hand.
        base: the tensors that some of the file's are differences from, if there are such.

    Raises:
        FileError: NotDwzError, VersionError, TruncatedError, ChecksumError or CorruptError.
        ValueError: if `max_bytes` is other text.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        threads: int | None = None,
        max_bytes: int | str | None = "auto",
        base: Mapping[str, Record] | None = None,
    ) -> None:
        if isinstance(max_bytes, str) and max_bytes != "auto":
            raise ValueError(f"expected a number, None or 'auto' as max_bytes, got {max_bytes!r}")
        self.path = Path(path)
        self.threads = threads or default_threads()
        self.base = base
        self._pool: ThreadPoolExecutor | None = None
        self._data, self._map = mapped(self.path)
        self.size = len(self._data)
        try:
            with _naming(self.path):
                self.front = read_front(self._data)
                self.header = self.front.header
                self.extents = extents(self.header, self.front.end, self.size)
                self._names = list(self.header.entries)
                self._max_bytes = max_bytes
                self.check_expansion()
        except BaseException:
            self.close()
            raise

    def check_expansion(self, *, ties: bool = False) -> None:
        """Refuse a file that decodes to more than `max_bytes`.

        Args:
            ties: count a tied tensor under each of its names, as it takes space in formats without ties.

        Raises:
            CorruptError: if it does.
        """
        if self._max_bytes is None:
            return
        most = max(GENEROUS, EXPANSION * self.size) if isinstance(self._max_bytes, str) else self._max_bytes
        books = sum(
            entry.plan.entries * dtypes.itemsize(entry.dtype)
            for entry in self.header.entries.values()
            if isinstance(entry, layout.SharedEntry)
        )
        tied = sum(
            layout.nbytes(self.owner(name)[1])
            for name, entry in self.header.entries.items()
            if ties and isinstance(entry, layout.AliasEntry) and entry.tied
        )
        size = self.decoded_size + books + tied
        if size > most:
            got = f"{size}; --trust (max_bytes=None) lifts this"
            raise CorruptError(f"expected tensors and codebooks of at most {most} bytes, got {got}")

    @property
    def metadata(self) -> dict[str, str]:
        """Free text kept with the tensors."""
        return dict(self.header.metadata)

    @property
    def extras(self) -> dict[str, bytes]:
        """What the file keeps beside tensors to write the checkpoint it came from, by name.

        Raises:
            FileError: if it is damaged.
        """
        names = [name for name in self.header.entries if name.startswith(layout.EXTRA)]
        found = {name: self.resolved(name) for name in names}
        return {name[1:]: bytes(record.data) for name, record in found.items() if isinstance(record, Raw)}

    @property
    def data(self) -> memoryview:
        """The bytes of the file, mapped."""
        return self._data

    @property
    def decoded_size(self) -> int:
        """Bytes of all tensors, each tied one once."""
        return sum(
            layout.nbytes(self.owner(name)[1])
            for name, entry in self.header.entries.items()
            if not isinstance(entry, layout.AliasEntry) or not entry.tied
        )

    @cached_property
    def small(self) -> dict[str, memoryview]:
        """Small tensors and codebooks, by tensor, decoded all together when the first is needed.

        Raises:
            FileError: if their bytes are damaged.
        """
        found = layout.values_of(self.header)
        size = self.header.values_size
        section = Extent(self.front.end, size).checked(self._data) if size else memoryview(b"")
        decoded = values.decode(section, [(dtype, count, leaf) for _, dtype, count, leaf in found])
        return {name: memoryview(data) for (name, *_), data in zip(found, decoded, strict=True)}

    def record(self, name: str) -> Record:
        """Decode one record, without touching the bytes of the others.

        Raises:
            KeyError: if there is no tensor of that name.
            FileError: if its bytes are damaged.
        """
        return self._finish(name, self._begin(name))

    def resolved(self, name: str) -> Raw | Shared:
        """Decode the record of a tensor, a tie followed to its owner."""
        record = self.record(name)
        if isinstance(record, Tied):
            record = self.record(record.to)
        assert not isinstance(record, Tied)  # noqa: S101 (the header was refused if a tie led to a tie)
        return record

    def walk(self, names: Iterable[str] | None = None, *, most: int = AHEAD) -> Iterator[tuple[str, Record]]:
        """Records in order, those that follow decoded meanwhile by all threads.

        Args:
            names: which, in which order; without it all, in that of the file.
            most: bytes of tensors to decode ahead.

        Raises:
            KeyError: if there is no tensor of one of the names.
            FileError: at the first defect.
        """
        waiting: deque[tuple[str, Decoding | None]] = deque()
        ahead = 0
        for name in self if names is None else names:
            decoding = self._begin(name, ahead=True)
            waiting.append((name, decoding))
            ahead += 0 if decoding is None else decoding.out.nbytes
            while ahead > most:
                first, begun = waiting.popleft()
                yield first, self._finish(first, begun)
                ahead -= 0 if begun is None else begun.out.nbytes
                self.forget()
        for name, decoding in waiting:
            yield name, self._finish(name, decoding)

    def _begin(self, name: str, *, ahead: bool = False) -> Decoding | None:
        entry = self.header.entries[name]
        if isinstance(entry, layout.AliasEntry) and entry.tied:
            return None
        return self.decode(self.owner(name)[0], ahead=ahead)

    def _finish(self, name: str, decoding: Decoding | None) -> Record:
        if decoding is None:
            return Tied(self.owner(name)[0])
        with self.naming(name):
            decoding.finish()
            return decoding.record()

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` up to `stop` of a tensor, in storage of its dtype, without decoding other blocks.

        Raises:
            KeyError: if there is no tensor of that name.
            IndexError: if the tensor has no such rows, or is a scalar.
            FileError: if the bytes are damaged.
        """
        owner, entry = self.owner(name)
        if not entry.shape or not 0 <= start <= stop <= entry.shape[0]:
            raise IndexError(
                f"{shown(name)}: expected rows within {list(entry.shape)}, got {start} to {stop}"
            )
        row, size = math.prod(entry.shape[1:]), block_length(entry)
        first, last = start * row, stop * row
        chosen = range(first // size, -(-last // size)) if last > first else range(0)
        decoding = self.decode(owner, chosen)
        with self.naming(name):
            decoding.finish()
        flat = decoding.storage()[first - chosen.start * size :][: last - first]
        return flat.reshape(stop - start, *entry.shape[1:])

    def check(self) -> None:
        """Decode every record, and everything else in the file.

        Raises:
            FileError: at the first defect.
        """
        for _ in self.walk():
            pass
        with self.naming():
            _ = self.small
        _ = self.extras

    @property
    def records(self) -> ArchiveRecords:
        """The records by name, each decoded when it is asked for."""
        return ArchiveRecords(self)

    @property
    def ledger(self) -> Ledger:
        """Where every byte of the file goes. Decodes all of it.

        Raises:
            FileError: if the file is damaged.
        """
        from dwindle.file.ledger import ledger

        return ledger(self)

    def decode(self, name: str, chosen: range | None = None, *, ahead: bool = False) -> Decoding:
        """Begin to decode a tensor that is no alias.

        Args:
            name: the tensor.
            chosen: which blocks; all without it.
            ahead: hand even a single block to a worker.

        Raises:
            FileError: if its codebook or bytes are damaged; more often that shows when it is finished.
        """
        entry = self.header.entries[name]
        assert not isinstance(entry, layout.AliasEntry)  # noqa: S101 (callers resolve aliases)
        sizes = self.extents[name]
        which = range(len(sizes)) if chosen is None else chosen

        def block(number: int) -> memoryview:
            return sizes[number].checked(self._data)

        with self.naming(name):
            if isinstance(entry, layout.SharedEntry):
                book = codebook(entry, self.small[name])
                out, tasks = shared_tasks(entry, book, which, block)
            elif entry.form == "small":
                return Decoding(entry, None, np.frombuffer(self.small[name], np.uint8), [])
            else:
                base = self._base(name, entry) if entry.form == "based" else None
                book, (out, tasks) = None, exact_tasks(entry, which, block, base)
        handed = self.threads > 1 and (len(tasks) > 1 or (ahead and not _quick(entry)))
        submit = self._workers().submit if handed else None
        return Decoding(entry, book, out, submitted(tasks, submit))

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The tensor in storage of its dtype, with its shape."""
        return records.to_storage(self.resolved(name))

    def __contains__(self, name: object) -> bool:
        """Whether there is a tensor of that name; nothing is decoded."""
        return name in self.header.entries and not str(name).startswith(layout.EXTRA)

    def __iter__(self) -> Iterator[str]:
        """Names in the order they were written."""
        return (name for name in self.header.entries if not name.startswith(layout.EXTRA))

    def __len__(self) -> int:
        """Number of names."""
        return sum(1 for _ in self)

    def close(self) -> None:
        """Let go of the file."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
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

    def naming(self, name: str | None = None) -> _naming:
        """Puts the file, and the tensor, in front of the text of a `FileError` raised within."""
        return _naming(self.path, name)

    def owner(self, name: str) -> tuple[str, layout.ExactEntry | layout.SharedEntry]:
        """The tensor itself, where `name` is a tie or equal to another; else `name`."""
        entry = self.header.entries[name]
        if isinstance(entry, layout.AliasEntry):
            name = self._names[entry.owner]
            entry = self.header.entries[name]
        assert not isinstance(entry, layout.AliasEntry)  # noqa: S101 (refused when the header was read)
        return name, entry

    def _workers(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads)
        return self._pool

    def _base(self, name: str, entry: layout.ExactEntry) -> memoryview:
        """The bytes of the same tensor in the base."""
        if self.base is None:
            raise BaseError("expected the base it was stored against, got none: --base (base=) names it")
        other = records.resolve(self.base, name) if name in self.base else None
        if not isinstance(other, Raw) or (other.dtype, other.shape) != (entry.dtype, entry.shape):
            got = "none" if other is None else f"{other.dtype}{list(other.shape)}"
            raise BaseError(f"expected {entry.dtype}{list(entry.shape)} in the base, got {got}")
        return memoryview(other.data)

    def forget(self) -> None:
        """Let the pages of the file that were touched leave this process's memory."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def _quick(entry: layout.ExactEntry | layout.SharedEntry) -> bool:
    """Whether a tensor is decoded in less time than it takes to hand it to a worker and back."""
    adaptive = isinstance(entry, layout.SharedEntry) and entry.plan.arrangement in ("context", "trellis")
    return not adaptive and math.prod(entry.shape) < QUICK


class _naming:
    """Put the file, and the tensor, in front of a `FileError`'s text."""

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path, self.name = path, name

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, FileError):
            tensor = "" if self.name is None else f"{shown(self.name)}: "
            raise type(error)(f"{self.path}: {tensor}{error}") from error
