"""Whole numbers of a fixed width, side by side without gaps, and single fields of any width.

Bit order everywhere: bit 0 of a value comes first and goes to the lowest free bit of the current byte
(LSB first, little-endian). What is left of the last byte is zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dwindle.errors import CorruptError
from dwindle.kernels import bits as kernels

MAX_WIDTH = 32
"""Widest value `pack` takes, in bits."""


def packed_size(count: int, width: int) -> int:
    """Bytes that `count` values of `width` bits take."""
    return (count * width + 7) // 8


def pack(values: NDArray[np.unsignedinteger[Any]], width: int) -> bytes:
    """Pack the low `width` bits of every value.

    Args:
        values: unsigned, shape (n,), all under 2**width.
        width: bits of one value, 0 to 32; with 0 nothing is stored.

    Returns:
        `packed_size(n, width)` bytes.

    Raises:
        ValueError: if the width is out of range or a value does not fit.
    """
    _check_width(width)
    if values.ndim != 1 or values.dtype.kind != "u":
        raise ValueError(f"expected a 1-D unsigned array, got {values.ndim}-D {values.dtype}")
    if len(values) and int(values.max()) >> width:
        raise ValueError(f"expected values under 2**{width}, got {int(values.max())}")
    size = packed_size(len(values), width)
    if size == 0:
        return b""
    out = np.empty(size + kernels.SLACK, np.uint8)
    kernels.pack(np.ascontiguousarray(values), np.uint64(width), out)
    return out[:size].tobytes()


def unpack(data: bytes | memoryview, count: int, width: int, dtype: DTypeLike) -> NDArray[Any]:
    """Read what `pack` wrote.

    Args:
        data: exactly `packed_size(count, width)` bytes.
        count: number of values.
        width: bits of one value, 0 to 32.
        dtype: unsigned dtype of the result, at least `width` bits.

    Returns:
        Values, shape (count,).

    Raises:
        CorruptError: if the number of bytes is not the expected one or a padding bit is set.
        ValueError: if the width is out of range or the dtype too narrow.
    """
    _check_width(width)
    target = np.dtype(dtype)
    if target.kind != "u" or target.itemsize * 8 < width:
        raise ValueError(f"expected an unsigned dtype of {width} bits or more, got {target}")
    size = packed_size(count, width)
    if len(data) != size:
        raise CorruptError(f"expected {size} bytes for {count} values of {width} bits, got {len(data)}")
    if size == 0:
        return np.zeros(count, target)
    padding = size * 8 - count * width
    if data[-1] >> (8 - padding):
        raise CorruptError(f"expected {padding} zero bits after the last value, got {data[-1]:#010b}")
    out = np.empty(count, target)
    kernels.unpack(np.frombuffer(data, np.uint8), np.uint64(width), out)
    return out


def _check_width(width: int) -> None:
    if not 0 <= width <= MAX_WIDTH:
        raise ValueError(f"expected a width of 0 to {MAX_WIDTH} bits, got {width}")
