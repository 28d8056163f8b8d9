"""The section of values: all codebooks and small exact tensors of a file, in one code.

The model (`kernels.values`) goes through the items in order and keeps what it learnt from one to the next.
Items of the same dtype and class share contexts: classes are numbered as they first appear, the sixteenth
stands for all that follow. A complex number is two floats, a bool is a byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from dwindle import dtypes
from dwindle.errors import CorruptError
from dwindle.kernels import values as kernels

Outline = tuple[str, int, str]
"""Dtype, number of elements, and class of an item."""

Item = tuple[str, int, str, bytes]
"""The same with the bytes of its elements."""

PARTS = {"complex64": "float32", "complex128": "float64"}
LINES = {"float32": kernels.FLOAT32, "bfloat16": kernels.BFLOAT16}
FLOATS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


def encode(items: Sequence[Item]) -> bytes:
    """Code items.

    Raises:
        ValueError: if an item's bytes are not as many as its elements have.
    """
    for dtype, count, _, data in items:
        if len(data) != count * dtypes.itemsize(dtype):
            raise ValueError(f"expected {count} elements of {dtype}, got {len(data)} bytes")
    elements = np.frombuffer(bytearray().join(data for *_, data in items), np.uint8)
    table = _table([(dtype, count, group) for dtype, count, group, _ in items])
    out = np.empty(16 + len(elements) * 9 // 8, np.uint8)
    used = np.empty(len(items), np.uint32)
    size = int(kernels.run(elements, table, out, False, used))
    if size > len(out):
        out = np.empty(size, np.uint8)
        size = int(kernels.run(elements, table, out, False, used))
    return out[:size].tobytes()


def decode(data: memoryview, outlines: Sequence[Outline]) -> list[bytes]:
    """Read what `encode` made of items with these outlines: the bytes of each.

    Raises:
        CorruptError: if it made no such bytes.
    """
    elements, _ = _decode(data, outlines)
    ends = list(accumulate(count * dtypes.itemsize(dtype) for dtype, count, _ in outlines))
    # In memory of their own, where each is aligned.
    return [elements[start:end].tobytes() for start, end in zip([0, *ends], ends, strict=False)]


def spans(data: memoryview, outlines: Sequence[Outline]) -> list[int]:
    """How many coded bytes each item takes, rounded so that they add up to all of them."""
    _, used = _decode(data, outlines)
    ends = [int(end) for end in used]
    if ends:
        ends[-1] = len(data)
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _decode(data: memoryview, outlines: Sequence[Outline]) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    table = _table(outlines)
    elements = np.empty(sum(count * dtypes.itemsize(dtype) for dtype, count, _ in outlines), np.uint8)
    used = np.empty(len(outlines), np.uint32)
    stream = np.array(data, np.uint8)
    seen = int(kernels.run(elements, table, stream, True, used))
    if len(stream) > seen or (len(stream) and stream[-1] == 0):
        raise CorruptError(
            f"expected values in at most {seen} bytes, no zero at their end, got {len(stream)}"
        )
    return elements, used


def _table(outlines: Sequence[Outline]) -> NDArray[np.uint64]:
    """What the kernel is told of each item, shape (m, 5)."""
    groups: dict[tuple[str, str], int] = {}
    rows = []
    for dtype, count, group in outlines:
        number = groups.setdefault((dtype, group), min(len(groups), kernels.CLASSES - 1))
        part = PARTS.get(dtype, dtype)
        parts = dtypes.itemsize(dtype) * 8 // _width(dtype)
        rows.append((parts * count, _width(dtype), number, LINES.get(part, kernels.PLAIN), part in FLOATS))
    return np.array(rows, np.uint64).reshape(-1, 5)


def _width(dtype: str) -> int:
    """Bits of what is coded at once."""
    return 8 * dtypes.itemsize(PARTS.get(dtype, dtype))
