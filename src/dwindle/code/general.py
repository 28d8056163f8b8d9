"""What general compressors make of tensors as they are in memory, to compare with."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Mapping

from dwindle.records import Raw, Record, Shared, nbytes, to_storage

PART = 1 << 18
"""Bytes of a tensor that are tried: more hardly come out otherwise, and xz takes a second a megabyte."""


def _zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(3).compress(data)


COMPRESSORS: Mapping[str, Callable[[bytes], bytes]] = {
    "zip": lambda data: zlib.compress(data, 6),
    "zstd": _zstd,
    "xz": lambda data: lzma.compress(data, lzma.FORMAT_XZ, preset=6),
}
"""At their usual levels: 6 (deflate), 3 and 6."""


def estimate(records: Mapping[str, Record]) -> dict[str, dict[str, int]]:
    """About how many bytes each of `COMPRESSORS` would take for tensors, by their first `PART` bytes.

    Args:
        records: by name; ties are left out, and tensors without elements.

    Returns:
        Bytes by compressor, by the name of the tensor; "original" uncompressed.
    """
    found = {}
    for name, record in records.items():
        if isinstance(record, Raw | Shared) and nbytes(record):
            part = bytes(to_storage(record).reshape(-1).view("u1")[:PART].data)
            scale = nbytes(record) / len(part)
            sizes = {kind: round(len(run(part)) * scale) for kind, run in COMPRESSORS.items()}
            found[name] = {"original": nbytes(record)} | sizes
    return found
