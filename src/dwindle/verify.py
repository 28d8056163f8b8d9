"""Proof that a `.dwz` file is sound, and how far it, or any checkpoint, is from another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dwindle import dtypes, records, rounding
from dwindle.errors import VerificationError, shown
from dwindle.file import Archive
from dwindle.records import Raw, Record, Shared

Kind = Literal["same", "differs", "only left", "only right", "dtype", "shape"]


@dataclass(frozen=True)
class Distance:
    """How far a stored tensor is from its original.

    Attributes:
        name: the tensor.
        exact: equal bit for bit.
        changed: elements whose bits differ.
        elements: all elements.
        largest: largest absolute difference.
        rms: root of the mean squared difference.
        snr_db: signal to noise ratio in decibels, 10 log10 of the original's sum of squares over that of the
            differences; None where either is 0.
    """

    name: str
    exact: bool
    changed: int
    elements: int
    largest: float
    rms: float
    snr_db: float | None


@dataclass(frozen=True)
class Difference:
    """What two checkpoints have under one name.

    Attributes:
        name: the tensor.
        kind: `same` to the bit; `differs` in values; in one of the two only; or of another `dtype` or
        `shape`.
        left: dtype and shape in the first, "" where it is not in it.
        right: dtype and shape in the second.
        distance: how far the second is from the first, where dtype and shape are the same and values differ;
            its figures are of the finite values.
    """

    name: str
    kind: Kind
    left: str
    right: str
    distance: Distance | None = None


def distances(archive: Archive, original: Mapping[str, Record], source: Path) -> Iterator[Distance]:
    """Compare an archive with the checkpoint it should hold, tensor by tensor.

    Tensors the archive keeps exactly must be equal bit for bit, NaN and infinite values of shared ones too;
    their other values may differ, by what is returned. Biases and norms may be rounded to fewer significant
    bits, all values of one to the same.

    Raises:
        VerificationError: on a name, shape, dtype or exact tensor that does not match.
        FileError: if the archive is damaged.
    """
    missing, extra = sorted(set(original) - set(archive)), sorted(set(archive) - set(original))
    if missing or extra:
        what = f"{missing[0]}, which is missing" if missing else f"no {extra[0]}"
        count = len(missing) + len(extra)
        raise VerificationError(f"{archive.path}: expected {what}; {count} names differ from {source}")
    for name in archive:
        yield _distance(archive, original, name)


def differences(left: Mapping[str, Record], right: Mapping[str, Record]) -> Iterator[Difference]:
    """Compare two checkpoints, tensor by tensor, in the order of the first, then what only the second has.

    Only one tensor of each is held at a time, where the mappings make them on demand.
    """
    for name in left:
        first = records.resolve(left, name)
        if name not in right:
            yield Difference(name, "only left", _outline(first), "")
            continue
        second = records.resolve(right, name)
        outlines = _outline(first), _outline(second)
        if first.dtype != second.dtype:
            yield Difference(name, "dtype", *outlines)
        elif first.shape != second.shape:
            yield Difference(name, "shape", *outlines)
        else:
            before, after = _bits(first), _bits(second)
            changed = int(np.count_nonzero((before != after).any(axis=1)))
            if not changed:
                yield Difference(name, "same", *outlines)
                continue
            yield Difference(name, "differs", *outlines, _measure(name, changed, first, second))
    for name in right:
        if name not in left:
            yield Difference(name, "only right", "", _outline(records.resolve(right, name)))


def _outline(record: Raw | Shared) -> str:
    return f"{record.dtype}{list(record.shape)}"


def _distance(archive: Archive, original: Mapping[str, Record], name: str) -> Distance:
    stored = archive.resolved(name)
    before = records.resolve(original, name)
    where = f"{archive.path}: {shown(name)}"
    for what in ("dtype", "shape"):
        expected, got = getattr(before, what), getattr(stored, what)
        if expected != got:
            raise VerificationError(f"{where}: expected {what} {expected}, got {got}")
    differ = (_bits(before) != _bits(stored)).any(axis=1)
    changed, n = int(np.count_nonzero(differ)), records.elements(before)
    if not changed:
        return Distance(name, True, 0, n, 0.0, 0.0, None)
    if (
        isinstance(stored, Raw)
        and not _is_rounded(name, before, stored)
        and not _is_of_norm(archive, original, name)
    ):
        raise VerificationError(f"{where}: expected every bit, got {changed} of {n} changed")
    finite = np.isfinite(_values(before)) & np.isfinite(_values(stored))
    broken = int(np.count_nonzero(differ & ~finite))
    if broken:
        raise VerificationError(f"{where}: expected NaN and infinite values exactly, got {broken} changed")
    return _measure(name, changed, before, stored)


def _is_rounded(name: str, before: Raw | Shared, stored: Raw) -> bool:
    """Whether a tensor is a vector with fewer significant bits than it had."""
    vector = rounding.is_vector(name, len(stored.shape), stored.dtype)
    return vector and rounding.bits_of_rounding(_values(before), _values(stored)) is not None


def _is_of_norm(archive: Archive, original: Mapping[str, Record], name: str) -> bool:
    """Whether a tensor is one of a batch norm's that computes what it did, with coarse statistics."""
    path, _, part = name.rpartition(".")
    names = [f"{path}.{other}" if path else other for other in rounding.NORM]
    if part not in rounding.NORM or not all(other in archive and other in original for other in names):
        return False
    before = [_values(records.resolve(original, other)) for other in names]
    after = [_values(archive.resolved(other)) for other in names]
    vectors = [values for values in (*before, *after) if values.dtype.kind == "f"]
    return (
        len({len(values) for values in vectors}) == 1
        and len(vectors) == 8
        and rounding.is_taken_over(before, after)
    )


def _measure(name: str, changed: int, before: Raw | Shared, after: Raw | Shared) -> Distance:
    """Differences of finite values in double precision, in slices so that no double copy is made."""
    left, right = _values(before), _values(after)
    signal = noise = largest = 0.0
    for start in range(0, left.size, 1 << 20):
        was = left[start : start + (1 << 20)].astype(np.complex128 if left.dtype.kind == "c" else np.float64)
        now = right[start : start + (1 << 20)].astype(was.dtype)
        broken = ~(np.isfinite(was) & np.isfinite(now))
        now[broken] = was[broken] = 0.0
        off = np.abs(now - was)
        signal += float(np.vdot(was, was).real)
        noise += float(off @ off)
        largest = max(largest, float(off.max()))
    # -0.0 stored as 0.0 changes a bit but no value.
    snr = float(10 * np.log10(signal / noise)) if noise and signal else None
    return Distance(name, False, changed, left.size, largest, float(np.sqrt(noise / left.size)), snr)


def _bits(record: Raw | Shared) -> NDArray[Any]:
    """The bits of each element as unsigned words, shape (n, words)."""
    flat = np.ascontiguousarray(records.to_storage(record)).reshape(-1, 1)
    return flat.view(f"u{min(flat.itemsize, 8)}")


def _values(record: Raw | Shared) -> NDArray[Any]:
    """The elements as numbers, shape (n,)."""
    storage = np.ascontiguousarray(records.to_storage(record)).reshape(-1)
    floats = record.dtype in dtypes.SHAREABLE or record.dtype in dtypes.FLOAT8
    return dtypes.to_float(storage, record.dtype) if floats else storage
