"""Records to a `.dwz` file: planned, coded, written beside the target, read back and compared, renamed."""

from __future__ import annotations

import shutil
import tempfile
import zlib
from collections import ChainMap
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from dwindle import atomic
from dwindle.code import values
from dwindle.code.plan import Coding
from dwindle.errors import VerificationError, shown
from dwindle.file import layout
from dwindle.file.encode import Encoder, Item
from dwindle.file.reader import Archive, default_threads
from dwindle.records import Raw, Record, same

MEMORY = 1 << 26
"""Bytes of coded blocks that wait in memory; more of them wait on disk."""

COPY = 1 << 22


@dataclass(frozen=True)
class Written:
    """A file as it lies on disk, read back and found equal to what went in.

    Attributes:
        path: where it is.
        size: its bytes, all of them.
    """

    path: Path
    size: int


def write(
    path: Path | str,
    records: Mapping[str, Record],
    *,
    coding: Coding | None = None,
    metadata: Mapping[str, str] | None = None,
    base: Mapping[str, Record] | None = None,
    extras: Mapping[str, bytes] | None = None,
    force: bool = False,
    threads: int | None = None,
) -> Written:
    """Write records to `path`; the file appears there only after it was decoded again and compared.

    The same records, metadata and coding give the same bytes, whatever the number of threads.

    Args:
        path: where to write.
        records: what to write, in this order; a `Tied` names another record of the mapping. Each record is
            asked for when it is needed and let go of, so a mapping that makes them needs no memory for all.
        coding: how shared tensors are coded.
        metadata: free text to keep with the tensors.
        base: tensors that exact ones of the same name, dtype and shape are stored as differences from; who
            reads the file needs them too.
        extras: bytes to keep beside the tensors, by name.
        force: replace an existing file.
        threads: workers, all processors by default.

    Raises:
        OutputError: if `path` exists without `force` or cannot be written.
        TensorError: if a tensor has more dimensions or elements than the format has.
        VerificationError: if what was written does not decode to `records`.
        TypeError: if metadata is anything but text.
        ValueError: if a tie leads nowhere, or a name begins with a NUL character.
    """
    path = Path(path)
    atomic.check_output(path, force=force)
    check_metadata(metadata or {})
    with (
        ThreadPoolExecutor(threads or default_threads()) as pool,
        atomic.writing(path, force=force) as stream,
    ):
        encoder = Encoder(_with_extras(records, extras or {}), coding or Coding(), base or {}, pool)
        # The header comes first and says how long each block is, so blocks wait in a file without a name.
        with tempfile.SpooledTemporaryFile(max_size=MEMORY, mode="w+b", dir=str(path.parent)) as spool:
            entries, items = _fill(cast("IO[bytes]", spool), encoder)
            section = values.encode(items) if items else b""
            stream.write(_front(layout.Header(metadata or {}, encoder.codes, entries, len(section)), section))
            spool.seek(0)
            shutil.copyfileobj(cast("IO[bytes]", spool), stream, COPY)
        stream.flush()
        size = stream.tell()
        _verify(Path(stream.name), path, records, base, extras or {}, threads)
    return Written(path, size)


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Refuse metadata that is not text.

    Raises:
        TypeError: at the first item that is something else.
    """
    for key, text in metadata.items():
        if not (isinstance(key, str) and isinstance(text, str)):
            raise TypeError(f"metadata: expected text for text, got {text!r} for {key!r}")


def _with_extras(records: Mapping[str, Record], extras: Mapping[str, bytes]) -> Mapping[str, Record]:
    """The records, and after them the extras as tensors of bytes."""
    if any(name.startswith(layout.EXTRA) for name in records):
        raise ValueError("expected names that do not begin with a NUL character, got one that does")
    added: dict[str, Record] = {
        layout.EXTRA + name: Raw("uint8", (len(data),), data) for name, data in extras.items()
    }
    return ChainMap(added, records) if added else records  # type: ignore[arg-type]  # it is only read


def _fill(spool: IO[bytes], encoder: Encoder) -> tuple[dict[str, layout.Entry], list[Item]]:
    """Write the blocks of all tensors; their entries, and what goes into the section of values."""
    entries, items = {}, []
    for name, entry, payloads, item in encoder.entries():
        entries[name] = entry
        items += [item] if item else []
        for payload in payloads:
            spool.write(payload)
            spool.write(_checksum(payload))
    return entries, items


def _front(header: layout.Header, section: bytes) -> bytes:
    """Everything before the blocks."""
    coded = layout.code_header(layout.write_header(header)[0])
    front = layout.MAGIC + bytes([layout.version_of(header)]) + coded
    return front + _checksum(front) + (section + _checksum(section) if section else b"")


def _checksum(data: bytes | memoryview) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")


def _verify(
    written: Path,
    path: Path,
    records: Mapping[str, Record],
    base: Mapping[str, Record] | None,
    extras: Mapping[str, bytes],
    threads: int | None,
) -> None:
    with Archive(written, threads=threads, max_bytes=None, base=base) as archive:
        if list(archive) != list(records) or archive.extras != extras:
            raise VerificationError(f"{path}: expected the names and extras that were written, got others")
        for name, record in archive.walk():
            if not same(record, records[name]):
                raise VerificationError(
                    f"{path}: {shown(name)}: expected the record that was written, got another"
                )
