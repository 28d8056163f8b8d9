"""What is true of one tensor, as frozen NumPy data: the only thing that passes from torch to bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle import dtypes

MAX_ENTRIES = 1 << 16
"""Most entries a codebook may have: an index is at most 16 bits."""

BLOCK = 1 << 20
"""Elements of one block: a long tensor is cut into blocks that decode alone."""

FEW, REPEATS = 256, 8
"""How many values a tensor has at most, and how often each occurs, where it is taken for shared."""

_CHUNK = 1 << 18
"""Indices looked up at once: NumPy widens them to 8 bytes first. Bytes compared at once."""


@dataclass(frozen=True, eq=False)
class Raw:
    """A tensor kept exactly.

    Attributes:
        dtype: name of the element type, one of `dtypes.STORAGE`.
        shape: () for a scalar.
        data: the elements in C order, little-endian.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    def __post_init__(self) -> None:
        expected = math.prod(self.shape) * dtypes.itemsize(self.dtype)
        if len(self.data) != expected:
            raise ValueError(
                f"expected {expected} bytes for {self.dtype}{list(self.shape)}, got {len(self.data)}"
            )


@dataclass(frozen=True, eq=False)
class Shared:
    """A tensor whose elements share the values of a codebook.

    Attributes:
        dtype: name of the element type, one of `dtypes.SHAREABLE`.
        shape: () for a scalar.
        codebook: the values in storage of `dtype`, shape (k,), k at most 65,536; any order, repeats allowed.
        indices: which entry each element takes, C order, shape (n,), uint8 where k <= 256, else uint16.
    """

    dtype: str
    shape: tuple[int, ...]
    codebook: NDArray[Any]
    indices: NDArray[np.unsignedinteger[Any]]

    def __post_init__(self) -> None:
        entries, n = len(self.codebook), math.prod(self.shape)
        if self.dtype not in dtypes.SHAREABLE:
            raise ValueError(f"expected one of {', '.join(dtypes.SHAREABLE)}, got {self.dtype}")
        if self.codebook.dtype != dtypes.STORAGE[self.dtype] or self.codebook.ndim != 1:
            raise ValueError(f"expected a 1-D codebook in storage of {self.dtype}, got {self.codebook.dtype}")
        if entries > MAX_ENTRIES:
            raise ValueError(f"expected at most {MAX_ENTRIES} codebook entries, got {entries}")
        if self.indices.dtype != index_dtype(entries) or self.indices.shape != (n,):
            got = f"{self.indices.shape} as {self.indices.dtype}"
            raise ValueError(f"expected {n} indices as {index_dtype(entries)}, got {got}")
        if n and int(self.indices.max()) >= entries:
            raise ValueError(f"expected indices under {entries}, got {int(self.indices.max())}")


@dataclass(frozen=True)
class Tied:
    """A tensor that is another one of the same archive under a second name."""

    to: str


Record = Raw | Shared | Tied


def index_dtype(entries: int) -> np.dtype[Any]:
    """The unsigned dtype that indices into a codebook of `entries` have."""
    return np.dtype(np.uint8 if entries <= 256 else np.uint16)


def zero_entry(record: Shared) -> int | None:
    """The first codebook entry that is exactly +0.0 (all bits zero), or None."""
    bits = record.codebook.view(f"<u{record.codebook.itemsize}")
    hits = np.flatnonzero(bits == 0)
    return int(hits[0]) if len(hits) else None


def elements(record: Raw | Shared) -> int:
    """Number of elements."""
    return math.prod(record.shape)


def nbytes(record: Raw | Shared) -> int:
    """Bytes of the tensor uncompressed, at the dtype it is stored in."""
    return elements(record) * dtypes.itemsize(record.dtype)


def same(left: Record, right: Record) -> bool:
    """Whether two records are equal bit for bit."""
    if isinstance(left, Tied) or isinstance(right, Tied):
        return left == right
    if (left.dtype, left.shape) != (right.dtype, right.shape):
        return False
    if isinstance(left, Raw) and isinstance(right, Raw):
        return same_bytes(left.data, right.data)
    if isinstance(left, Shared) and isinstance(right, Shared):
        return left.codebook.tobytes() == right.codebook.tobytes() and np.array_equal(
            left.indices, right.indices
        )
    return False


def same_bytes(left: bytes | memoryview, right: bytes | memoryview) -> bool:
    """Whether two runs of bytes are equal."""
    # Python compares views byte by byte, six times slower.
    one, other = np.frombuffer(left, np.uint8), np.frombuffer(right, np.uint8)
    starts = range(0, len(one), _CHUNK)
    return len(one) == len(other) and all(
        np.array_equal(one[start : start + _CHUNK], other[start : start + _CHUNK]) for start in starts
    )


def to_storage(record: Raw | Shared) -> NDArray[Any]:
    """The elements in storage of the record's dtype, with its shape (read-only for `Raw`)."""
    if isinstance(record, Raw):
        return np.frombuffer(record.data, dtypes.STORAGE[record.dtype]).reshape(record.shape)
    values = np.empty(len(record.indices), record.codebook.dtype)
    for start in range(0, len(values), _CHUNK):
        part = slice(start, start + _CHUNK)
        # Indices are known to fit; any other mode would take values through a buffer.
        np.take(record.codebook, record.indices[part], out=values[part], mode="clip")
    return values.reshape(record.shape)


def resolve(records: Mapping[str, Record], name: str) -> Raw | Shared:
    """The record of `name`, a tie followed to its owner."""
    record = records[name]
    if isinstance(record, Tied):
        record = records[record.to]
        if isinstance(record, Tied):
            raise ValueError(f"{name} is tied to {record.to}, itself a tie")
    return record


def each(records: Mapping[str, Record], names: Iterable[str]) -> Iterator[tuple[str, Record]]:
    """The records of `names` in their order, read ahead where the mapping has a `walk` of its own."""
    walk = getattr(records, "walk", None)
    return ((name, records[name]) for name in names) if walk is None else walk(names)


def followed(records: Mapping[str, Record], names: Iterable[str]) -> Iterator[tuple[str, Raw | Shared]]:
    """Likewise, ties followed to their owners."""
    for name, record in each(records, names):
        yield name, resolve(records, name) if isinstance(record, Tied) else record


def outline(records: Mapping[str, Record], name: str) -> tuple[str, tuple[int, ...]]:
    """Dtype and shape of a tensor, without reading it where the mapping has an `outline` of its own."""
    known = getattr(records, "outline", None)
    if known is not None:
        found: tuple[str, tuple[int, ...]] = known(name)
        return found
    record = resolve(records, name)
    return record.dtype, record.shape


def distinct(record: Raw) -> Shared | None:
    """The same tensor, to the bit, as a codebook of all the values it has; zeros then cost next to nothing.

    Args:
        record: a float tensor.

    Returns:
        None if it has more elements that are not zero than a codebook has entries.
    """
    storage = dtypes.STORAGE[record.dtype]
    bits = np.frombuffer(record.data, f"<u{storage.itemsize}")
    # Cheaper than sorting, and sparse tensors are what this is for.
    if np.count_nonzero(bits) >= MAX_ENTRIES:
        return None
    values, places = np.unique(bits, return_inverse=True)
    indices: NDArray[Any] = places.reshape(-1).astype(index_dtype(len(values)))
    return Shared(record.dtype, record.shape, values.view(storage), indices)


def few_values(record: Raw) -> Shared | None:
    """A float tensor that somebody has shared already, to the bit; None if it does not look so.

    That is one of at most `FEW` values, each of them `REPEATS` times or more on average, or of a single one.
    """
    bits = np.frombuffer(record.data, f"<u{dtypes.itemsize(record.dtype)}")
    # Most tensors show by their first elements that they have more values.
    if len(np.unique(bits[: 4 * FEW])) > FEW:
        return None
    values = np.unique(bits)
    if len(values) != 1 and not len(values) <= min(FEW, len(bits) / REPEATS):
        return None
    indices = np.searchsorted(values, bits).astype(index_dtype(len(values)))
    return Shared(record.dtype, record.shape, values.view(dtypes.STORAGE[record.dtype]), indices)


def original_bytes(records: Mapping[str, Record]) -> int:
    """Bytes of all tensors uncompressed, each tied tensor once: what a rate is taken against."""
    return sum(nbytes(r) for r in records.values() if not isinstance(r, Tied))
