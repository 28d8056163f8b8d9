"""NumPy's `.npz` archives, read without pickle and with sizes checked before anything is unpacked."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from dwindle import dtypes
from dwindle.atomic import writing
from dwindle.errors import CheckpointError, UnsafeCheckpointError
from dwindle.io.contents import Checkpoint
from dwindle.records import Raw, Record, Tied, followed, to_storage

MAX_EXPANSION = 100
"""How many times its own size an archive may unpack to, beyond `FREE_BYTES`."""

FREE_BYTES = 1 << 30
"""Bytes any archive may unpack to: zeros shrink a thousandfold, and small archives do no harm."""

MAX_RANK = 64
"""Dimensions a tensor may have: NumPy holds no more."""

_NAMES = {storage: name for name, storage in dtypes.STORAGE.items() if storage.name == name}
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_NOT_TENSORS = "SUMm"
"""Kinds of NumPy dtypes that are text or dates."""


def read(path: Path) -> Checkpoint:
    """Read an `.npz` archive. Text, dates and files that are no arrays are listed as skipped.

    Raises:
        CheckpointError: if the archive is damaged, unpacks out of proportion or holds a dtype no tensor has.
        UnsafeCheckpointError: if an array holds Python objects.
        OSError: if the file cannot be opened.
    """
    records: dict[str, Raw | Tied] = {}
    skipped: dict[str, None] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_sizes(path, entries)
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                if name in records or name in skipped:
                    raise CheckpointError(f"{path}: expected one array {name!r}, got two")
                record = _read_array(path, archive, entry) if name != entry.filename else None
                if record is None:
                    skipped[name] = None
                else:
                    records[name] = record
    # RuntimeError is how zipfile refuses what it cannot unpack, such as an encrypted entry.
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: expected an .npz archive, got a damaged one: {error}") from error
    return Checkpoint(records, {}, tuple(skipped))


def write(path: Path, records: Mapping[str, Record], *, force: bool) -> None:
    """Write an uncompressed `.npz` archive; a tied tensor is written under each of its names.

    Raises:
        CheckpointError: if a tensor's dtype is none of NumPy's, or its name has no form in a zip archive.
        OutputError: if the file cannot be written.
    """
    tensors = dict(followed(records, records))
    for name, record in tensors.items():
        if record.dtype not in _NAMES.values():
            raise CheckpointError(f"{path}: tensor {name!r}: expected a dtype NumPy has, got {record.dtype}")
        if "\0" in name or len(name.encode()) > 0xFFF0:
            raise CheckpointError(
                f"{path}: tensor {name[:40]!r}: expected a short name without NUL for an .npz"
            )
    with writing(path, force=force) as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, record in tensors.items():
            # A fixed date: the same records give the same bytes.
            entry = zipfile.ZipInfo(name + ".npy", _ZIP_EPOCH)
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, to_storage(record), allow_pickle=False)


def _check_sizes(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    size = path.stat().st_size
    packed = sum(entry.compress_size for entry in entries)
    if packed > size:
        raise CheckpointError(f"{path}: expected entries that do not overlap, got {packed} bytes in {size}")
    for entry in entries:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CheckpointError(
                f"{path}: {entry.filename!r}: expected it stored or deflated, got another method"
            )
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > FREE_BYTES and unpacked > MAX_EXPANSION * size:
        raise CheckpointError(
            f"{path}: expected at most {MAX_EXPANSION} times its size, got {unpacked} bytes in {size}"
        )


def _read_array(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Raw | None:
    """The array of one entry, or None where it is no tensor."""
    where = f"{path}: tensor {entry.filename.removesuffix('.npy')!r}"
    with archive.open(entry) as file:
        shape, fortran, dtype = _read_array_header(where, file)
        if dtype.hasobject:
            raise UnsafeCheckpointError(f"{where}: expected numbers, got Python objects, which need a pickle")
        if dtype.kind in _NOT_TENSORS:
            return None
        name = _NAMES.get(dtype.newbyteorder("<"))
        if name is None:
            raise CheckpointError(
                f"{where}: expected a dtype out of {', '.join(_NAMES.values())}, got {dtype}"
            )
        if len(shape) > MAX_RANK or any(size < 0 for size in shape):
            raise CheckpointError(f"{where}: expected a shape of at most {MAX_RANK} sizes, none negative")
        expected = math.prod(shape) * dtype.itemsize
        if expected != entry.file_size - file.tell():
            got = entry.file_size - file.tell()
            raise CheckpointError(f"{where}: expected {expected} bytes for {name}{list(shape)}, got {got}")
        data = file.read()
    if len(data) != expected:
        raise CheckpointError(f"{where}: expected {expected} bytes for {name}{list(shape)}, got {len(data)}")
    if fortran or dtype != dtypes.STORAGE[name]:
        array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
        data = array.astype(dtypes.STORAGE[name]).tobytes()
    return Raw(name, tuple(shape), data)


def _read_array_header(where: str, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(file)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(file)
    # NumPy evaluates the header as a Python literal: a damaged one fails in tokenizer, parser or later.
    except Exception as error:
        raise CheckpointError(f"{where}: expected an .npy header, got a damaged one") from error
    raise CheckpointError(f"{where}: expected .npy version 1.0 or 2.0, got {version[0]}.{version[1]}")
