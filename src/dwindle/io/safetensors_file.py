"""Safetensors files, memory-mapped, without torch: a length, a JSON header, the bytes of the tensors.

A reader of our own, so that a tensor of any dtype is a view of the mapped file, whatever NumPy knows of it.
"""

from __future__ import annotations

import json
import math
import mmap
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from dwindle import dtypes
from dwindle.atomic import writing
from dwindle.errors import CheckpointError
from dwindle.io.contents import Checkpoint
from dwindle.io.mapped import mapped
from dwindle.records import Raw, Record, followed, outline, to_storage

CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
    "complex64": "C64",
}
"""The format's name of each dtype; complex128 has none."""

MAX_HEADER = 100_000_000
"""Bytes a header may have, the limit of the safetensors package too."""

MAX_RANK = 64
"""Dimensions a tensor may have: NumPy holds no more."""

METADATA = "__metadata__"
"""The one header key that is not a tensor."""

_DTYPES = {code: name for name, code in CODES.items()}


class _Extent(NamedTuple):
    """Where a tensor lies: offsets count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def looks_like(head: bytes) -> bool:
    """Whether the first 9 bytes of a file are those of a safetensors file."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER


def read(path: Path) -> Checkpoint:
    """Check a safetensors file; its tensors are mapped one by one, when they are asked for.

    A record is a view of the part of the file it lies in, and lets go of it when it is dropped, so memory
    does not grow with the file. Nothing is copied but a tensor whose bytes are not aligned to its elements.

    Raises:
        CheckpointError: if the header breaks any rule of the format, a tensor's extent does not fit its shape
            and dtype, the extents overlap or leave holes, or the file is not exactly as long as they say.
        OSError: if the file cannot be opened.
    """
    data = _map(path)
    header, start = _read_header(path, data)
    metadata = _check_metadata(path, header.pop(METADATA, {}))
    extents = {name: _extent(path, name, entry) for name, entry in header.items()}
    _check_layout(path, extents, len(data) - start)
    return Checkpoint(_Tensors(path, start, extents), metadata, ())


class _Tensors(Mapping[str, Raw]):
    """The tensors of a file, each read when it is asked for."""

    def __init__(self, path: Path, start: int, extents: Mapping[str, _Extent]) -> None:
        self._path, self._start, self._extents = path, start, extents

    def __getitem__(self, name: str) -> Raw:
        """Map a tensor.

        Raises:
            KeyError: if there is none of that name.
            CheckpointError: if the file is gone, or shorter than it was.
        """
        dtype, shape, begin, end = self._extents[name]
        place = self._start + begin, self._start + end
        return Raw(dtype, shape, mapped(self._path, *place, dtypes.itemsize(dtype), f"tensor {name!r}"))

    def __iter__(self) -> Iterator[str]:
        """Names in the order of the header."""
        return iter(self._extents)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self._extents)

    def outline(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Dtype and shape of a tensor, without mapping it."""
        return self._extents[name].dtype, self._extents[name].shape


def write(path: Path, records: Mapping[str, Record], metadata: Mapping[str, str], *, force: bool) -> None:
    """Write a safetensors file; the format has no ties, so a tied tensor is written under each of its names.

    The header keeps the order of `records`; wider elements lie first, so that every tensor is aligned.

    Raises:
        CheckpointError: if a tensor's dtype or name has no form in the format.
        OutputError: if the file cannot be written.
    """
    content = Content(path, records, metadata)
    with writing(path, force=force) as stream:
        content.write(stream)


class Content:
    """What a safetensors file will hold: its header is made, and checked, before any tensor is asked for.

    Args:
        path: where the file will be, for errors.
        records: the tensors, as for `write`.
        metadata: text pairs.

    Raises:
        CheckpointError: if a tensor's dtype or name has no form in the format.
    """

    def __init__(self, path: Path, records: Mapping[str, Record], metadata: Mapping[str, str]) -> None:
        self._records = records
        outlines = {name: outline(records, name) for name in records}
        _check_forms(path, outlines)
        self._order = sorted(outlines, key=lambda name: -dtypes.itemsize(outlines[name][0]))
        offsets, position = {}, 0
        for name in self._order:
            dtype, shape = outlines[name]
            size = math.prod(shape) * dtypes.itemsize(dtype)
            offsets[name] = [position, position + size]
            position += size
        header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
        for name, (dtype, shape) in outlines.items():
            header[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": offsets[name]}
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        self._header = text + b" " * (-len(text) % 8)
        if len(self._header) > MAX_HEADER:
            got = len(self._header)
            raise CheckpointError(f"{path}: expected a header of at most {MAX_HEADER} bytes, got {got}")

    def write(self, stream: IO[bytes]) -> None:
        """Write the whole file, tensor by tensor: a mapping that makes them needs no memory for all."""
        stream.write(len(self._header).to_bytes(8, "little") + self._header)
        for _, record in followed(self._records, self._order):
            tensor = to_storage(record)
            stream.write(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)


def _check_forms(path: Path, outlines: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    for name, (dtype, _) in outlines.items():
        if name == METADATA:
            raise CheckpointError(
                f"{path}: expected another name than {METADATA!r}, which safetensors reserves"
            )
        if dtype not in CODES:
            raise CheckpointError(f"{path}: tensor {name!r}: expected a dtype safetensors has, got {dtype}")


def _map(path: Path) -> memoryview:
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        if size < 8:  # an empty file cannot be mapped
            raise CheckpointError(
                f"{path}: expected the 8-byte length of a safetensors header, got {size} bytes"
            )
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def _read_header(path: Path, data: memoryview) -> tuple[dict[str, Any], int]:
    """The parsed header and where the tensors begin."""
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER:
        raise CheckpointError(f"{path}: expected a header of at most {MAX_HEADER} bytes, got {length}")
    if length > len(data) - 8:
        raise CheckpointError(f"{path}: expected a header of {length} bytes, got a file of {len(data)}")
    text = bytes(data[8 : 8 + length])
    if text[:1] != b"{":
        raise CheckpointError(
            f"{path}: expected a safetensors header, which starts with '{{', got {text[:1]!r}"
        )
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected a header that is JSON, got {error}") from error
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        repeated = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {repeated!r} twice")
    return entries


def _check_metadata(path: Path, metadata: Any) -> dict[str, str]:
    if not is_metadata(metadata):
        raise CheckpointError(f"{path}: expected {METADATA} that maps text to text, got something else")
    found: dict[str, str] = metadata
    return found


def is_metadata(pairs: Any) -> bool:
    """Whether `pairs`, as JSON has them, map text to text; half a surrogate is none, having no UTF-8."""
    if not isinstance(pairs, dict) or not all(isinstance(value, str) for value in pairs.values()):
        return False
    try:
        "".join([*pairs, *pairs.values()]).encode()
    except UnicodeEncodeError:
        return False
    return True


def _extent(path: Path, name: str, entry: Any) -> _Extent:
    where = f"{path}: tensor {name!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where}: expected dtype, shape and data_offsets, got something else")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise CheckpointError(
            f"{where}: expected a dtype out of {', '.join(_DTYPES)}, got {str(code)[:40]!r}"
        )
    if not _sizes(shape) or len(shape) > MAX_RANK:
        raise CheckpointError(
            f"{where}: expected a shape of at most {MAX_RANK} whole numbers, got something else"
        )
    if not _sizes(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{where}: expected two whole numbers as data_offsets, got something else")
    dtype, (begin, end) = _DTYPES[code], offsets
    expected = math.prod(shape) * dtypes.itemsize(dtype)
    if end - begin != expected:
        raise CheckpointError(f"{where}: expected {expected} bytes for {dtype}{shape}, got {end - begin}")
    return _Extent(dtype, tuple(shape), begin, end)


def _sizes(value: Any) -> bool:
    """Whether `value` is a list of whole numbers of at most 63 bits (True and 1.0 are none)."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _check_layout(path: Path, extents: Mapping[str, _Extent], size: int) -> None:
    """Check that the extents, laid end to end, fill the `size` bytes behind the header exactly."""
    position = 0
    for name, extent in sorted(extents.items(), key=lambda item: (item[1].begin, item[1].end)):
        if extent.begin != position:
            what = "overlaps the tensor before it" if extent.begin < position else "leaves a hole before it"
            raise CheckpointError(
                f"{path}: tensor {name!r}: expected to begin at {position}, got {extent.begin}: {what}"
            )
        position = extent.end
        if position > size:
            raise CheckpointError(
                f"{path}: tensor {name!r}: expected to end within {size} bytes of data, got {position}"
            )
    if position != size:
        raise CheckpointError(f"{path}: expected {position} bytes of data, got {size}")
