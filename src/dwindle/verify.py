"""Proof that a `.dwz` file is sound, and how far it is from the checkpoint it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle import dtypes, records
from dwindle.errors import VerificationError
from dwindle.file import Archive
from dwindle.records import Raw, Record, Shared


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


def distances(archive: Archive, original: Mapping[str, Record], source: Path) -> list[Distance]:
    """Compare an archive with the checkpoint it should hold, tensor by tensor.

    Tensors the archive keeps exactly must be equal bit for bit, NaN and infinite values of shared ones too;
    their other values may differ, by what is returned.

    Raises:
        VerificationError: on a name, shape, dtype or exact tensor that does not match.
        FileError: if the archive is damaged.
    """
    missing, extra = sorted(set(original) - set(archive)), sorted(set(archive) - set(original))
    if missing or extra:
        what = f"{missing[0]}, which is missing" if missing else f"no {extra[0]}"
        count = len(missing) + len(extra)
        raise VerificationError(f"{archive.path}: expected {what}; {count} names differ from {source}")
    return [_distance(archive, original, name) for name in archive]


def _distance(archive: Archive, original: Mapping[str, Record], name: str) -> Distance:
    stored = archive.resolved(name)
    before = records.resolve(original, name)
    for what in ("dtype", "shape"):
        expected, got = getattr(before, what), getattr(stored, what)
        if expected != got:
            raise VerificationError(f"{archive.path}: {name}: expected {what} {expected}, got {got}")
    left, right = _bits(before), _bits(stored)
    changed = int(np.count_nonzero((left != right).any(axis=1)))
    n = records.elements(before)
    if not changed:
        return Distance(name, True, 0, n, 0.0, 0.0, None)
    if isinstance(stored, Raw):
        raise VerificationError(f"{archive.path}: {name}: expected every bit, got {changed} of {n} changed")
    was, now = _values(before), _values(stored)
    broken = int(np.count_nonzero((left != right).any(axis=1) & ~(np.isfinite(was) & np.isfinite(now))))
    if broken:
        raise VerificationError(
            f"{archive.path}: {name}: expected NaN and infinite values exactly, got {broken} changed"
        )
    return _measure(name, changed, was, now)


def _measure(name: str, changed: int, left: NDArray[Any], right: NDArray[Any]) -> Distance:
    """Differences in double precision, in slices so that no double copy of a large tensor is made."""
    signal = noise = largest = 0.0
    for start in range(0, left.size, 1 << 20):
        was = left[start : start + (1 << 20)].astype(np.float64)
        now = right[start : start + (1 << 20)].astype(np.float64)
        now[~np.isfinite(was)] = was[~np.isfinite(was)] = 0.0  # equal, as was checked
        off = np.abs(now - was)
        signal += float(was @ was)
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
    return dtypes.to_float(np.ascontiguousarray(records.to_storage(record)).reshape(-1), record.dtype)
